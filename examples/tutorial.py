# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   language_info: {name: python}
# ---

# %% [markdown] lang="none"
# The source of tutorial.ipynb and tutorial_zh.ipynb: `python examples/build_notebooks.py` runs it once and writes both.

# %% [markdown] lang="en"
# # ResNet in PaddlePaddle
#
# Batch normalisation, the residual block, ResNet-18 layer by layer, and a training with `paddle.Model`, from pictures to an exported model. The numbers
# are those of a run on scikit-learn's handwritten digits; set `DATA = "cifar10"` to run the same on CIFAR-10, which is downloaded once.
# [中文版](tutorial_zh.ipynb) · [Lessons on each subject](../docs/lessons/README.md)
#
# `pip install -e ".[cpu,notebook]"` installs what is needed.

# %% [markdown] lang="zh"
# # 用 PaddlePaddle 学 ResNet
#
# 批归一化、残差块、逐层看 ResNet-18，再用 `paddle.Model` 走完一次训练：从图片到导出的模型。文中的数字来自在 scikit-learn 手写数字上的一次运行；把 `DATA` 改成 `"cifar10"`，同样的代码就在 CIFAR-10 上运行（数据集会自动下载一次）。[English](tutorial.ipynb) · [各主题的课程](../docs/zh/lessons/README.md)
#
# 安装：`pip install -e ".[cpu,notebook]"`。

# %% compare=false
import os

DATA = os.environ.get("TUTORIAL_DATA", "digits")  # or "cifar10"
DATA_ROOT = os.environ.get("TUTORIAL_ROOT")  # the folder of cifar-10-python.tar.gz; None: Paddle's cache
SIZE = 32 if DATA == "cifar10" else 16  # pixels; the digits have 8
EPOCHS = 2

import paddle_resnet  # before paddle: it chooses the threads and the BLAS path

print(paddle_resnet.prepare())

import matplotlib.pyplot as plt
import numpy as np
import paddle
from paddle import nn

paddle.seed(0)
plt.rcParams["figure.dpi"] = 72

# %% [markdown] lang="en"
# ## 1. Batch normalisation
#
# `BatchNorm1D(5)` takes 3 samples of 5 features, (3, 5). In training mode it computes the mean and the variance of each **feature** over the batch,
# subtracts the one, and divides by the root of the other.

# %% [markdown] lang="zh"
# ## 1. 批归一化
#
# `BatchNorm1D(5)` 的输入是 3 个样本、每个 5 个特征，形状 (3, 5)。训练模式下，它对**每个特征**在整个批次上求均值和方差，减去均值，再除以标准差。

# %%
x = paddle.to_tensor([[1.0, 10, -3, 0.2, 50], [2, 14, -1, 0.8, 20], [6, 12, -8, 0.5, 80]])
layer = nn.BatchNorm1D(5)  # a new layer is in training mode
y = layer(x)
variance = ((x - x.mean(0)) ** 2).mean(0)  # divided by 3, not by 2
by_hand = (x - x.mean(0)) / (variance + 1e-5).sqrt()
print(np.round(y.numpy(), 4))
print("mean of each feature    ", np.round(y.mean(0).numpy(), 4) + 0.0)
print("variance of each feature", np.round(y.numpy().var(0), 4))
print("mean of each sample     ", np.round(y.mean(1).numpy(), 4))
print("same by hand            ", bool(paddle.allclose(y, by_hand, atol=1e-5)))

# %% [markdown] lang="en"
# A *feature* has mean 0 and variance 1; a *sample* does not (that would be layer normalisation). The variance of the fourth feature stays a little below 1,
# because 1e-5 is added to a small variance.
#
# The layer also keeps running statistics, which each batch moves by a tenth. The running variance starts at 1, not at 0. **In evaluation mode** the layer
# normalises by them, so that the output of a sample no longer depends on the other samples.

# %% [markdown] lang="zh"
# 均值为 0、方差为 1 的是每个*特征*，而不是每个*样本*（那是层归一化）。第四个特征的方差略小于 1，因为它本来就小，而分母里加了 1e-5。
#
# 这一层还保存滑动统计量，每个批次让它们向本批次的值移动十分之一。滑动方差的初值是 1，不是 0。**评估模式**下用的是滑动统计量，因此一个样本的输出与同批的其他样本无关。

# %%
print("running mean    ", np.round(layer._mean.numpy(), 4), " expected", np.round(0.1 * x.mean(0).numpy(), 4))
print("running variance", np.round(layer._variance.numpy(), 4))
layer.eval()
whole, single = layer(x), layer(x[:1])
print("in evaluation, first sample    ", np.round(whole[0].numpy(), 4))
print("the same sample, a batch of one", np.round(single[0].numpy(), 4))

# %% [markdown] lang="en"
# A batch of one in *training* has one value for each feature. Its mean is the value itself, so that the formula gives 0 whatever the input. Paddle returns the
# input unchanged instead, and leaves the running statistics alone; PyTorch raises an error ([errata](../docs/errata.md#batchnorm)).

# %% [markdown] lang="zh"
# *训练*模式下，批次里只有一个样本时，每个特征只有一个值，均值就是它自己，按公式输出恒为 0。Paddle 的做法是原样返回输入，也不更新滑动统计量；PyTorch 则报错（见[勘误](../docs/errata.md#batchnorm)，英文）。

# %%
layer.train()
before = layer._mean.numpy().copy()
print(
    "output equals input:",
    bool((layer(x[:1]) == x[:1]).all()),
    " running mean unchanged:",
    bool((layer._mean.numpy() == before).all()),
)

# %% [markdown] lang="en"
# For images, `BatchNorm2D` takes (N, C, H, W). A feature is a **channel**: its mean is taken over the batch and all pixels. Here (3, 3, 1, 2): 3 images,
# 3 channels, 1 x 2 pixels, so 6 values for each channel.

# %% [markdown] lang="zh"
# 图像用 `BatchNorm2D`，输入是 (N, C, H, W)。这里的一个特征就是一个**通道**，均值在批次和全部像素上一起求。下面是 (3, 3, 1, 2)：3 张图、3 个通道、1 × 2 个像素，每个通道 6 个值。

# %%
images = np.arange(18, dtype="float32").reshape(3, 3, 1, 2) ** 1.5
output = nn.BatchNorm2D(3)(paddle.to_tensor(images)).numpy()
for name, array in (("before", images), ("after ", output)):
    print(name, "mean", np.round(array.mean((0, 2, 3)), 3) + 0.0, "variance", np.round(array.var((0, 2, 3)), 3))

# %% [markdown] lang="en"
# ## 2. The residual block
#
# Two convolutions compute F(x), and the shortcut adds x: the block learns the *difference* to its input. Where the shape changes (stride 2, other channels),
# a 1x1 convolution gives x the new shape.

# %% [markdown] lang="zh"
# ## 2. 残差块
#
# 两层卷积计算 F(x)，捷径连接再加上 x：这个块学的是与输入的*差*。形状要变时（步幅为 2，或通道数不同），用一个 1x1 卷积把 x 变成新的形状。


# %%
class Residual(nn.Layer):
    """relu(F(x) + shortcut(x)), F = bn2(conv2(relu(bn1(conv1(x)))))."""

    def __init__(self, channels, width, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2D(channels, width, 3, stride, padding=1, bias_attr=False)
        self.bn1 = nn.BatchNorm2D(width)
        self.conv2 = nn.Conv2D(width, width, 3, padding=1, bias_attr=False)
        self.bn2 = nn.BatchNorm2D(width)
        same = stride == 1 and channels == width
        self.shortcut = None if same else nn.Conv2D(channels, width, 1, stride, bias_attr=False)

    def forward(self, x):
        residual = self.bn2(self.conv2(nn.functional.relu(self.bn1(self.conv1(x)))))
        return nn.functional.relu(residual + (x if self.shortcut is None else self.shortcut(x)))


x = paddle.rand([4, 3, 6, 6])
print("same shape:          ", tuple(x.shape), "->", tuple(Residual(3, 3)(x).shape))
print("half the side, 6 maps:", tuple(x.shape), "->", tuple(Residual(3, 6, stride=2)(x).shape))

identity = Residual(3, 3)
identity.bn2.weight.set_value(paddle.zeros([3]))  # the scale of the last BatchNorm is 0, so F(x) is 0
print("with F = 0 the block is the identity:", bool((identity(x) == x).all()))

# %% [markdown] lang="en"
# F(x) takes both signs, as its last layer is BatchNorm and ReLU comes after the addition: a block can also decrease its input.
#
# ## 3. ResNet-18 layer by layer
#
# A stem (7x7 convolution, max-pooling), four stages of two blocks, average pooling and one linear layer: 1 + 4 x 2 x 2 + 1 = 18 layers with weights, the
# shortcuts' own not counted.

# %% [markdown] lang="zh"
# F(x) 可正可负：它以 BatchNorm 结尾，ReLU 在相加之后，所以残差块也能让输入变小。
#
# ## 3. 逐层看 ResNet-18
#
# 开头是 7x7 卷积和最大池化，接着四个阶段，每个阶段两个残差块，最后是平均池化和一个全连接层：1 + 4 × 2 × 2 + 1 = 18 个带权重的层（捷径连接上的卷积不算）。

# %%
from paddle_resnet.models.summary import summarize

summary = summarize(paddle_resnet.create_model("resnet18", num_classes=10), (1, 3, 224, 224))
for row in summary.walk():
    print(f"{row.name:10} {row.kind:28} {row.output_shape!s:20} {row.parameters:>10,}")
print(f"depth {summary.depth}, {summary.parameters:,} parameters, {summary.macs / 1e9:.2f} billion multiply-adds")

# %% [markdown] lang="en"
# ## 4. A look at the pictures
#
# Look at the data before training. There are three splits: the network learns from `train`, the best epoch is chosen by `validation`, and `test` is measured
# once, at the end.

# %% [markdown] lang="zh"
# ## 4. 先看图片
#
# 训练之前先看数据。数据分成三部分：网络从 `train` 学习，用 `validation` 挑选最好的一轮，`test` 只在最后测一次。

# %%
from paddle_resnet.data import Loader, open_splits

values = {
    "name": "tutorial",
    "data": {"source": DATA, "root": DATA_ROOT, "image_size": SIZE},
    "model": {"name": "resnet20"},
}
config = paddle_resnet.Config.from_values(values)
splits = open_splits(config.data)
print({name: len(getattr(splits, name)) for name in ("train", "validation", "test")}, splits.classes)


def show(pictures, titles, columns=8):
    rows = -(-len(pictures) // columns)
    _, panels = plt.subplots(rows, columns, figsize=(1.3 * columns, 1.6 * rows))
    for panel, picture, title in zip(panels.flat, pictures, titles):
        panel.imshow(picture)
        panel.set_title(title, fontsize=9)
    for panel in panels.flat:
        panel.axis("off")
    plt.show()


first = np.arange(16)
show(splits.train.batch(first), [splits.classes[label] for label in splits.train.labels[first]])

# %% [markdown] lang="en"
# ## 5. A pretrained network with a new head
#
# The package contains weights of `resnet20` and `resnet56` for CIFAR-10. `reset_classifier` replaces the last layer by a new one for our classes. Where there
# is a network, `create_model("resnet18", pretrained="imagenet", num_classes=10)` downloads ImageNet's weights and does the same in one call.
#
# Pixels have to be normalised as the weights expect it. Whether pretraining pays depends on the task and on the number of pictures:
# [measured in a lesson](../docs/lessons/transfer.md).

# %% [markdown] lang="zh"
# ## 5. 预训练网络，换一个分类头
#
# 这个包自带 `resnet20` 和 `resnet56` 在 CIFAR-10 上的权重。`reset_classifier` 把最后一层换成新的，类别数与我们的数据一致。能联网时，
# `create_model("resnet18", pretrained="imagenet", num_classes=10)` 会下载 ImageNet 权重，并一步完成同样的事。
#
# 像素必须按权重训练时的方式归一化。预训练是否划算，取决于任务和图片数量：[课程里有实测](../docs/zh/lessons/transfer.md)。

# %%
from paddle_resnet.models import zoo_record

record = zoo_record("resnet20")
network = paddle_resnet.create_model("resnet20", pretrained="cifar10")
network.reset_classifier(len(splits.classes))
print("mean", record.mean, "std", record.std, "CIFAR-10 test top-1", record.test_top1)

# %% [markdown] lang="en"
# ## 6. `paddle.Model`: prepare, fit, evaluate, predict
#
# Two calls make plain `paddle.Model` as fast as `paddle-resnet train` on a CPU: `paddle_resnet.accelerate(network)` lets oneDNN compute the layers, and `Loader`
# augments and normalises whole batches ahead of the network ([each step measured](../docs/own_loop.md)).

# %% [markdown] lang="zh"
# ## 6. `paddle.Model`：prepare、fit、evaluate、predict
#
# 在 CPU 上，只要两个调用，普通的 `paddle.Model` 就和 `paddle-resnet train` 一样快：`paddle_resnet.accelerate(network)` 让 oneDNN 计算各层，
# `Loader` 提前把整批图片增强并归一化（[每一步的实测](../docs/zh/own_loop.md)）。

# %% compare=false
paddle_resnet.accelerate(network)


def loader(split, **options):
    pixels = split.batch(np.arange(len(split)))
    return Loader(pixels, split.labels, batch_size=64, image_size=SIZE, mean=record.mean, std=record.std, **options)


train = loader(splits.train, shuffle=True, augment={"pad": 4, "flip": DATA != "digits"})
validation, test = loader(splits.validation), loader(splits.test)

rate = paddle.optimizer.lr.CosineAnnealingDecay(0.05, T_max=EPOCHS * len(train))
optimizer = paddle.optimizer.Momentum(rate, parameters=network.parameters(), weight_decay=5e-4, use_nesterov=True)
model = paddle.Model(network)
model.prepare(optimizer, nn.CrossEntropyLoss(), paddle.metric.Accuracy())
model.fit(
    train,
    validation,
    epochs=EPOCHS,
    log_freq=len(train),
    verbose=2,
    callbacks=[paddle.callbacks.VisualDL("output/tutorial/vdl")],  # visualdl --logdir output/tutorial
)

# %% [markdown] lang="en"
# `evaluate` measures the whole test split: one batch of 64 pictures would be uncertain by several points. Its `loss` is that of the *last batch*, not the
# mean. `predict` returns the scores of all pictures, from which any measure can be computed. Below are the 16 pictures of which the network is least sure, with
# its guesses and their probabilities.

# %% [markdown] lang="zh"
# `evaluate` 要在整个测试集上做：只看一个 64 张图的批次，误差会有好几个百分点。它给出的 `loss` 是*最后一个批次*的损失，不是平均值。`predict` 返回全部图片的得分，任何指标都可以由它算出。下面是网络最没有把握的 16 张图，以及它的猜测和概率。

# %% compare=0.05
accuracy = model.evaluate(test, verbose=0)["acc"]
(scores,) = model.predict(test, stack_outputs=True, verbose=0)
probabilities = nn.functional.softmax(paddle.to_tensor(scores)).numpy()
mean_loss = -np.log(probabilities[np.arange(len(scores)), splits.test.labels]).mean()
print(f"top-1 {accuracy:.4f} of {len(scores)} pictures, mean loss {mean_loss:.4f} nats")

# %% compare=false
predicted = probabilities.argmax(1)
least_sure = np.argsort(probabilities.max(1))[:16]  # the pictures that the network is least sure of
labels = [
    f"{splits.classes[guess]} {share:.0%}"
    for guess, share in zip(predicted[least_sure], probabilities.max(1)[least_sure])
]
show(splits.test.batch(least_sure), labels)

# %% [markdown] lang="en"
# ## 7. Save, and train the same as a run
#
# The weights go into a file of Paddle's, and `load_weights` puts them into a network, whether or not its head has as many classes. Unlike `set_state_dict`
# it refuses what does not fit.

# %% [markdown] lang="zh"
# ## 7. 保存；用一份配置再训练一次
#
# 权重存成 Paddle 的文件；`load_weights` 把它们装进网络，类别数不同时保留新的分类头。与 `set_state_dict` 不同，对不上的权重它会拒绝，而不只是警告。

# %%
paddle.save(network.state_dict(), "output/tutorial/network.pdparams")
again = paddle_resnet.create_model("resnet20", num_classes=len(splits.classes))
print(paddle_resnet.load_weights(again, "output/tutorial/network.pdparams").summary())

# %% [markdown] lang="en"
# A *run* is the same training from a config: with checkpoints, resuming, curves and all metrics in one folder. In a notebook a run shows itself.

# %% [markdown] lang="zh"
# 由一份配置做的一次训练（run）：检查点、断点续训、曲线和全部指标都在一个训练目录里。在 notebook 里，`run` 会直接显示配置、指标和曲线。

# %% compare=false
values |= {
    "name": "tutorial-run",
    "augment": {"pad": 4, "flip": DATA != "digits"},
    "model": {"name": "resnet20", "pretrained": "cifar10"},
    "train": {"epochs": EPOCHS, "batch_size": 64, "learning_rate": 0.05},
}
run = paddle_resnet.train(paddle_resnet.Config.from_values(values))
evaluation = paddle_resnet.evaluate(run)
run

# %% [markdown] lang="en"
# ## 8. Export and predict
#
# The exported model takes raw pixels of any picture: resize, normalisation and BatchNorm are in it, and it is checked against the network on the test pictures.
# `Predictor` needs neither the network's code nor the training data.

# %% [markdown] lang="zh"
# ## 8. 导出与预测
#
# 导出的模型直接接收原始像素：归一化和 BatchNorm 已经并入模型，并且在测试图片上与原网络核对过。`Predictor` 既不需要网络的代码，也不需要训练数据。

# %% compare=false
report = paddle_resnet.export(run)
print("the largest difference of a probability is below 0.001:", report.max_difference < 1e-3)
with paddle_resnet.Predictor(run.path) as predictor:
    chosen = np.arange(1, 5)
    predictions = predictor.predict(splits.test.batch(chosen), top_k=1)
    for prediction, label in zip(predictions, splits.test.labels[chosen]):
        print(f"{splits.classes[label]}: {prediction.top[0].label} {prediction.top[0].probability:.2f}")

# %% [markdown] lang="en"
# `paddle-resnet serve output/tutorial-run` answers the same over HTTP.
#
# ## What was wrong in the tutorials
#
# | they say | true is |
# |---|---|
# | in evaluation BatchNorm's output equals its input | only of a new layer ([errata](../docs/errata.md#batchnorm)) |
# | each sample has mean 0 afterwards | each feature has, over the batch ([errata](../docs/errata.md#batchnorm)) |
# | running mean and variance are still 0 | the variance starts at 1, and both move at each batch ([errata](../docs/errata.md#batchnorm)) |
# | F(x) is never negative | it takes both signs ([errata](../docs/errata.md#networks)) |
# | depths 3, 4, 6, 3 of basic blocks are ResNet-50 | that is ResNet-34 ([errata](../docs/errata.md#networks)) |
# | accuracy on one batch of 64 is the accuracy | it is uncertain by 4 to 6 points ([errata](../docs/errata.md#measuring)) |
# | `evaluate` returns the mean loss | that of the last batch ([errata](../docs/errata.md#paddlemodel)) |
# | 50.75% on cats and dogs is a result | it is chance ([errata](../docs/errata.md#measuring)) |

# %% [markdown] lang="zh"
# `paddle-resnet serve output/tutorial-run` 通过 HTTP 提供同样的预测。
#
# ## 教程里的错误
#
# | 教程的说法 | 实际情况 |
# |---|---|
# | 评估模式下 BatchNorm 的输出等于输入 | 只有新建的层如此（[勘误](../docs/errata.md#batchnorm)） |
# | 归一化后每个样本的均值为 0 | 是每个特征在批次上的均值为 0（[勘误](../docs/errata.md#batchnorm)） |
# | 滑动均值和滑动方差仍为 0 | 方差的初值是 1，两者每个批次都更新（[勘误](../docs/errata.md#batchnorm)） |
# | F(x) 不会为负 | 可正可负（[勘误](../docs/errata.md#networks)） |
# | 3、4、6、3 个基本块组成 ResNet-50 | 那是 ResNet-34（[勘误](../docs/errata.md#networks)） |
# | 一个 64 张图的批次上的准确率就是准确率 | 误差有 4 到 6 个百分点（[勘误](../docs/errata.md#measuring)） |
# | `evaluate` 返回平均损失 | 返回的是最后一个批次的损失（[勘误](../docs/errata.md#paddlemodel)） |
# | 猫狗分类 50.75% 算是结果 | 那是瞎猜的水平（[勘误](../docs/errata.md#measuring)） |
