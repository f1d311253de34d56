"""Inside a trained network: filters, feature maps, embeddings of the test set, Grad-CAM, confident mistakes."""

from __future__ import annotations

from typing import Any

import numpy as np

from paddle_resnet.evaluation import NetworkScorer, measure_split
from paddle_resnet.lessons.common.runs import train_run, update_settings
from paddle_resnet.lessons.framework.effort import Effort
from paddle_resnet.lessons.framework.page import Page, Text
from paddle_resnet.lessons.what_it_sees import grad_cam
from paddle_resnet.lessons.what_it_sees.trained_network import (
    MAX_POINTS,
    NEIGHBOURS,
    LessonContext,
    TrainedNetwork,
    flatten_pixels,
    knn_accuracy,
    project_2d,
    read_split,
)
from paddle_resnet.plots.feature_maps import draw_filters, draw_maps, draw_points
from paddle_resnet.plots.style import percent

MAPS = 8  # per stage
MAX_NEIGHBOURS = 5000  # training images for the nearest neighbours, at most


RECIPE = {"epochs": 10, "weight_decay": 5e-4, "schedule": "one_cycle", "warmup": 0.2}
# The digits are enlarged, so that the last stage has 8x8 positions.
QUICK: dict[str, Any] = {
    "data": {"source": "digits", "image_size": 32},
    "augment": {"pad": 3},
    "model": {"name": "resnet8"},
    "train": {**RECIPE, "batch_size": 64, "learning_rate": 0.1},
}
FULL: dict[str, Any] = {
    "data": {"source": "cifar10", "image_size": 32},
    "augment": {"pad": 4, "flip": True},
    "model": {"name": "resnet20"},
    "train": {**RECIPE, "batch_size": 128, "learning_rate": 0.2},
}


def teach(page: Page, effort: Effort) -> None:
    """Train a small network, then show its filters, feature maps, embeddings, Grad-CAM maps and mistakes."""
    run = train_run(page, effort, "network", update_settings(FULL if effort.full else QUICK, effort))
    trained = TrainedNetwork(run.load_network("best"), run.normalize())
    evaluation = measure_split(run, NetworkScorer(trained.network, trained.normalize), "test")
    context = LessonContext(page, run, trained, read_split(run, run.splits().test), evaluation, effort.full)
    _network(context)
    _filters(context)
    _maps(context)
    _points(context)
    grad_cam.show_cam_equivalence(context)
    grad_cam.show_heatmaps(context)
    grad_cam.show_occlusion(context)
    grad_cam.show_mistakes(context)


def _network(context: LessonContext) -> None:
    page, config, evaluation = context.page, context.run.config, context.evaluation
    page.heading("The network", "所用的网络")
    page.say(
        f"""A {config.model.name}, trained from scratch for {config.train.epochs} epochs on {config.data.source} at
        32x32, classifies {percent(evaluation.top1)} of {evaluation.images:,} test images correctly. This number says
        how often it is right, not why. This lesson looks inside, from the first filters to the most confident
        mistakes.""",
        f"""一个 {config.model.name}，在 32x32 的 {config.data.source} 上从头训练 {config.train.epochs} 轮，
        {evaluation.images:,} 张测试图像的准确率为 {percent(evaluation.top1)}。这个数字说明它答对多少，却不说明为什么。
        本课看它的内部，从第一个卷积核一直看到最后一个错误。""",
    )
    if not context.full:
        page.say(
            """Digits have a limitation. Each image is only its object on black, so there is no background that could
            mislead the network. Half of what Grad-CAM is used for cannot be shown here. `--full` trains on CIFAR-10's
            photographs.""",
            """先说明手写数字能展示什么：每张图除了黑底上的数字什么也没有，没有背景可以误导网络，所以 Grad-CAM 的一半用
            处在这里看不到。`--full` 在 CIFAR-10 的照片上训练。""",
        )
    page.record(
        top1=evaluation.top1,
        test_images=evaluation.images,
        mistakes=int((evaluation.predicted != evaluation.labels).sum()),
    )


def _filters(context: LessonContext) -> None:
    page, trained = context.page, context.trained
    page.heading("The first filters", "第一层卷积核")
    convolution = trained.network.conv1
    weight = convolution.weight.numpy()  # [out, 3, k, k]
    chosen = context.one_of_each_class()[min(3, len(context.classes) - 1)]
    inputs = trained.tensor(context.test.pixels[chosen : chosen + 1])
    responses = convolution(inputs).numpy()[0]
    is_grey = bool((context.test.pixels == context.test.pixels[..., :1]).all())
    size = f"{len(weight)} filters of 3x{weight.shape[2]}x{weight.shape[3]}"
    if is_grey:
        drawn = weight.sum(axis=1)
        by_sums = _convolve(inputs.numpy()[0, 0], drawn)
        page.say(
            f"""The first layer has {size}. Only these filters can be interpreted directly, because their input is the
            image. These images are grey, so the three input channels are equal, and the response of a filter depends
            only on the sum of its three kernels. The figure shows this sum. (Computed from the sums alone, the
            responses differ by at most {np.abs(by_sums - responses).max():.0e}, where the largest is
            {np.abs(responses).max():.1f}.)""",
            f"""第一层有 {size.replace(" filters of ", " 个 ")} 的卷积核，只有它们能直接看，因为它们的输入就是图像。这里
            的图像是灰度的，输入的三个通道相同，卷积核的响应只取决于它在三个通道上的权重之和，图中画的就是这个和。（只用
            这个和来计算，响应最多相差 {np.abs(by_sums - responses).max():.0e}，而最大的响应
            是 {np.abs(responses).max():.1f}。）""",
        )
        page.record(
            sum_difference=float(np.abs(by_sums - responses).max()), largest_answer=float(np.abs(responses).max())
        )
    else:
        spread = weight - weight.min(axis=(1, 2, 3), keepdims=True)
        drawn = (spread / spread.max(axis=(1, 2, 3), keepdims=True)).transpose(0, 2, 3, 1)
        page.say(
            f"""The first layer has {size}. Only these filters can be interpreted directly, because their input is the
            image. Each is drawn as a colour image, its smallest weight as 0 and its largest as 1.""",
            f"""第一层有 {size.replace(" filters of ", " 个 ")} 的卷积核，只有它们能直接看，因为它们的输入就是图像。每个
            卷积核画成一张彩色小图，最小的权重为 0，最大的为 1。""",
        )
    page.figure(
        "filters",
        lambda: draw_filters(
            drawn, responses, f"First layer: filters, and their responses to a {context.true_name(chosen)}"
        ),
        """Below each filter, its response to one image: red where positive, blue where negative, before BatchNorm and
        ReLU. A filter with red on one side and blue on the other responds to edges of that direction; one of a single
        colour responds to brightness.""",
        """每个卷积核下面是它对同一张图像的响应（批归一化和 ReLU 之前），红为正，蓝为负。一侧红一侧蓝的卷积核对该方向的
        边缘有响应；只有一种颜色的对亮度有响应。""",
    )


def _convolve(image: np.ndarray, kernels: np.ndarray) -> np.ndarray:
    """Cross-correlate a zero-padded image ``[H, W]`` with kernels ``[n, 3, 3]``; return ``[n, H, W]``."""
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(image, 1), kernels.shape[1:])
    return np.einsum("hwij,nij->nhw", windows, kernels)


def _maps(context: LessonContext) -> None:
    page, trained = context.page, context.trained
    page.heading("Maps, stage by stage", "逐阶段的特征图")
    chosen = context.one_of_each_class()[min(3, len(context.classes) - 1)]
    maps = trained.maps(context.test.pixels[chosen : chosen + 1])
    page.say(
        """After the first layer a filter's input is other feature maps, and its weights are hard to interpret. Its
        output is still an image. From stage to stage the maps get coarser and more numerous: they show less of where,
        more of what.""",
        """第一层之后，卷积核的输入是别的特征图，权重本身很难看出什么，但输出仍是一幅图。逐个阶段看下去，图越来越粗，数
        量越来越多：“在哪里”越来越少，“是什么”越来越多。""",
    )
    page.figure(
        "maps",
        lambda: draw_maps(
            context.test.pixels[chosen],
            {name: output[0] for name, output in maps.items()},
            MAPS,
            f"The strongest {MAPS} maps of each stage for one {context.true_name(chosen)}",
        ),
        """Rows: after the stem and after each stage, with channels x height x width; black is 0, each map has its own
        scale.""",
        "各行：stem 之后和各阶段之后，标有 通道 x 高 x 宽；黑色为 0，每幅图各有自己的色标。",
    )
    train = read_split(context.run, context.run.splits().train).sample(MAX_NEIGHBOURS)
    test = context.test.sample(MAX_POINTS)
    train_means, means = trained.means(train.pixels), trained.means(test.pixels)
    right = {name: knn_accuracy(train_means[name], train.labels, means[name], test.labels) for name in train_means}
    pixels = knn_accuracy(flatten_pixels(train), train.labels, flatten_pixels(test), test.labels)
    page.say(
        f"""Can "more of what" be measured? Ignore the positions: keep only the mean of each map, and find the class of
        most of an image's {NEIGHBOURS} nearest training images by these means. The classifier only knows distances, so
        it is right where a stage has brought images of a class together. For comparison, the same with all pixels of
        the image, positions included.""",
        f"""“是什么越来越多”能测量吗？忘掉位置，每幅图只保留均值，再看按这些均值算，离一张图像最近的 {NEIGHBOURS} 张训练
        图像多数属于哪一类。这个分类器只知道距离，所以哪个阶段把同类图像聚到了一起，它在那里就答得对。作为比较，也用图像
        的全部像素（含位置）做一次。""",
    )
    page.table(
        "distances between | numbers per image | test accuracy",
        "距离取自 | 每张图像的数 | 测试准确率",
        [
            (Text("pixels", "像素"), f"{flatten_pixels(test).shape[1]:,}", percent(pixels)),
            *(
                (Text(f"means after {name}", f"{name} 之后的均值"), means[name].shape[1], percent(share))
                for name, share in right.items()
            ),
        ],
    )
    page.record(neighbours_pixels=pixels, neighbours_stages=list(right.values()), stages=list(right))


def _points(context: LessonContext) -> None:
    page = context.page
    page.heading("The test set in two dimensions", "把测试集画成点图")
    images = context.test.sample(MAX_POINTS)
    features = context.trained.means(images.pixels)[context.trained.network.stage_names[-1]]
    pixels_2d, features_2d = project_2d(flatten_pixels(images), images.labels), project_2d(features, images.labels)
    page.say(
        f"""The last stage's means are the {features.shape[1]} numbers that the head gets, one point per image. There
        are two ways to project such points. PCA keeps the plane in which they vary most, and loses everything outside
        it. t-SNE (van der Maaten and Hinton 2008) keeps neighbours together and gives up distances: neither the size of
        a cluster nor the gap between two clusters means anything. Above the raw pixels, below the features.""",
        f"""最后一个阶段的均值就是分类头看到的 {features.shape[1]} 个数，每张图像一个点。把这样的点画到纸上有两种办法：
        PCA 取它们变化最大的平面，平面之外的全部丢掉；t-SNE（van der Maaten 与 Hinton 2008）让邻居待在一起，而放弃距离：
        在它的图里，一簇点的大小、两簇之间的间隔都没有意义。上排是原始像素，下排是特征。""",
    )
    page.figure(
        "points",
        lambda: draw_points(
            {
                f"pixels, PCA ({pixels_2d.explained:.0%} of the variance)": pixels_2d.pca,
                "pixels, t-SNE": pixels_2d.tsne,
                f"features, PCA ({features_2d.explained:.0%} of the variance)": features_2d.pca,
                "features, t-SNE": features_2d.tsne,
            },
            images.labels,
            context.classes,
            f"{len(images):,} test images, as pixels and as the network's features",
        ),
        "Each point is a test image in the colour of its true class, whose name is at the median.",
        "每个点是一张测试图像，颜色为其真实类别，类别名写在中位数处。",
    )
    page.say(
        f"""The silhouette does not depend on a projection (Rousseeuw 1987). It compares, for each point and in all
        dimensions, the mean distance to its own class with that to the next class. It is 1 for classes far apart, 0
        where they touch, negative where they are mixed. Pixels: {pixels_2d.silhouette:.2f}; features:
        {features_2d.silhouette:.2f}.""",
        f"""有一个数不会被投影美化：轮廓系数（silhouette，Rousseeuw 1987）在全部维度里比较每个点到本类的平均距离和到最近
        的另一类的平均距离，类别相距很远时为 1，相接时为 0，混在一起时为负。像素：{pixels_2d.silhouette:.2f}；特征：
        {features_2d.silhouette:.2f}。""",
    )
    page.record(
        silhouette_pixels=pixels_2d.silhouette,
        silhouette_features=features_2d.silhouette,
        explained_pixels=pixels_2d.explained,
        explained_features=features_2d.explained,
    )
