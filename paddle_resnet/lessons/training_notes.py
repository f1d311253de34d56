"""What a page must say of the trainings it rests on: which images, and what differs from the paper's."""

from __future__ import annotations

from paddle_resnet.config import Config
from paddle_resnet.lessons.page import Page, Text


def images_of(config: Config) -> Text:
    """Name the training images."""
    size = config.data.image_size
    if config.data.source == "digits":
        return Text(
            f"scikit-learn's digits ({size}x{size} pixels)", f"scikit-learn 自带的手写数字（{size}x{size} 像素）"
        )
    return Text("CIFAR-10 (augmented by random crops and mirroring)", "CIFAR-10（用随机裁剪与水平翻转做数据增强）")


def say_what_differs(page: Page, config: Config) -> None:
    """Say how networks and numbers differ from those of He et al. 2015, where they do."""
    if config.model.stem == "cifar_pool":
        page.say(
            """The networks differ from the paper's in one thing: max-pooling after the first convolution halves the
            images, which quarters the work of all later layers. `-o model.stem=cifar` trains the paper's networks.""",
            """网络结构有一处与论文不同：第一个卷积之后用最大池化把图像边长减半，其后各层的计算量降为四分之一。
            `-o model.stem=cifar` 可训练与论文相同的网络。""",
        )
    if config.train.cpu_precision == "auto":
        page.say(
            """While a CPU trains, what flows between the layers is in bfloat16 where the processor has it
            (`train.cpu_precision=auto`); the errors are measured in float32.""",
            """在 CPU 上训练时，若处理器支持，层与层之间的数据用 bfloat16（`train.cpu_precision=auto`）；
            误差用 float32 测量。""",
        )
    if config.data.source != "digits" and not config.data.verify:
        page.say(
            """The archive's MD5 was not compared with the official one (`data.verify=false`): the pixels may differ
            from the published ones.""",
            """本次运行没有核对数据包的官方 MD5（`data.verify=false`），像素可能与官方发布的数据不同。""",
        )
