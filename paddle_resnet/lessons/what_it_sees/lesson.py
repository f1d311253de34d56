"""What a trained network sees: filters, maps, the test set as points, Grad-CAM, and its most confident mistakes."""

from __future__ import annotations

from typing import Any

import numpy as np

from paddle_resnet.evaluation import NetworkScorer, measure_split
from paddle_resnet.lessons.common.runs import train_within
from paddle_resnet.lessons.framework.catalogue import Effort
from paddle_resnet.lessons.framework.page import Page, Text
from paddle_resnet.lessons.what_it_sees import grad_cam
from paddle_resnet.lessons.what_it_sees.measures import (
    NEIGHBOURS,
    POINTS,
    Trained,
    as_points,
    flatten,
    nearest_neighbours,
    read_pictures,
)
from paddle_resnet.lessons.what_it_sees.plots import draw_filters, draw_maps, draw_points
from paddle_resnet.lessons.what_it_sees.subject import Subject
from paddle_resnet.plots.style import percent

MAPS = 8  # drawn of each stage
KNOWN = 5000  # training images at most that neighbours are sought among


def teach(page: Page, effort: Effort) -> None:
    """Train a small network, and look into it."""
    run = train_within(page, effort, "seen", _settings(effort))
    trained = Trained(run.load_network("best"), run.normalize())
    evaluation = measure_split(run, NetworkScorer(trained.network, trained.normalize), "test")
    subject = Subject(page, run, trained, read_pictures(run, run.splits().test), evaluation, effort.full)
    _network(subject)
    _filters(subject)
    _maps(subject)
    _points(subject)
    grad_cam.equals_cam(subject)
    grad_cam.heat(subject)
    grad_cam.hiding(subject)
    grad_cam.mistakes(subject)


def _settings(effort: Effort) -> dict[str, Any]:
    """The training: digits enlarged to 32x32, so that the last stage has 8x8 places; or CIFAR-10."""
    train = {"weight_decay": 5e-4, "schedule": "one_cycle", "warmup": 0.2}
    if effort.full:
        return {
            "data": {"source": "cifar10", "image_size": 32},
            "augment": {"pad": 4, "flip": True},
            "model": {"name": "resnet20"},
            "train": {**train, "epochs": effort.epochs(10), "batch_size": 128, "learning_rate": 0.2},
        }
    return {
        "data": {"source": "digits", "image_size": 32},
        "augment": {"pad": 3},
        "model": {"name": "resnet8"},
        "train": {**train, "epochs": effort.epochs(10), "batch_size": 64, "learning_rate": 0.1},
    }


def _network(subject: Subject) -> None:
    """Which network, and how good it is."""
    page, config, evaluation = subject.page, subject.run.config, subject.evaluation
    page.heading("The network under the microscope", "显微镜下的网络")
    page.say(
        f"""A {config.model.name}, trained from scratch for {config.train.epochs} epochs on {config.data.source} at
        32x32, gets {percent(evaluation.top1)} of {evaluation.images:,} test images right. That number says how
        often it is right, not why. This lesson looks inside, from the first filter to the last mistake.""",
        f"""一个 {config.model.name}，在 32x32 的 {config.data.source} 上从头训
        练 {config.train.epochs} 轮，{evaluation.images:,} 张测试图像的准确率为 {percent(evaluation.top1)}。这个数字说
        明它答对多少，却不说明为什么。本课看它的内部，从第一个卷积核一直看到最后一个错误。""",
    )
    if not subject.full:
        page.say(
            """A word on what digits can show. Each image is nothing but its object, on black: there is no
            background for the network to be misled by, and so half of what Grad-CAM is for cannot be seen here.
            `--full` trains on CIFAR-10's photographs.""",
            """先说明手写数字能展示什么：每张图除了黑底上的数字什么也没有，没有背景可以误导网络，所以 Grad-CAM 的一
            半用处在这里看不到。`--full` 在 CIFAR-10 的照片上训练。""",
        )
    page.record(
        top1=evaluation.top1,
        test_images=evaluation.images,
        mistakes=int((evaluation.predicted != evaluation.labels).sum()),
    )


def _filters(subject: Subject) -> None:
    """The first convolution."""
    page, trained = subject.page, subject.trained
    page.heading("The first filters", "第一层卷积核")
    convolution = trained.network.conv1
    weight = convolution.weight.numpy()  # [out, 3, k, k]
    chosen = subject.one_of_each_class()[min(3, len(subject.classes) - 1)]
    images = trained.tensor(subject.test.pixels[chosen : chosen + 1])
    answers = convolution(images).numpy()[0]
    is_grey = bool((subject.test.pixels == subject.test.pixels[..., :1]).all())
    size = f"{len(weight)} filters of 3x{weight.shape[2]}x{weight.shape[3]}"
    if is_grey:
        drawn = weight.sum(axis=1)
        alone = _convolve(images.numpy()[0, 0], drawn)
        page.say(
            f"""The first layer has {size}, and they are the only ones that can be looked at directly, as their
            input is the image. These images are grey, so the three channels of the input are the same, and what a
            filter answers depends only on the sum of its three kernels: drawn here. (Computed from the sums alone,
            the answers differ by at most {np.abs(alone - answers).max():.0e}, where the largest is
            {np.abs(answers).max():.1f}.)""",
            f"""第一层有 {size.replace(" filters of ", " 个 ")} 的卷积核，只有它们能直接看，因为它们的输入就是图像。这
            里的图像是灰度的，输入的三个通道相同，卷积核的响应只取决于它在三个通道上的权重之和，图中画的就是这个和。
            （只用这个和来计算，响应最多相差 {np.abs(alone - answers).max():.0e}，而最大的响应
            是 {np.abs(answers).max():.1f}。）""",
        )
        page.record(sum_difference=float(np.abs(alone - answers).max()), largest_answer=float(np.abs(answers).max()))
    else:
        spread = weight - weight.min(axis=(1, 2, 3), keepdims=True)
        drawn = (spread / spread.max(axis=(1, 2, 3), keepdims=True)).transpose(0, 2, 3, 1)
        page.say(
            f"""The first layer has {size}, and they are the only ones that can be looked at directly, as their
            input is the image. Each is drawn as a colour picture, its smallest weight as 0 and its largest as 1.""",
            f"""第一层有 {size.replace(" filters of ", " 个 ")} 的卷积核，只有它们能直接看，因为它们的输入就是图像。每
            个卷积核画成一张彩色小图，最小的权重为 0，最大的为 1。""",
        )
    page.figure(
        "filters",
        lambda: draw_filters(
            drawn, answers, f"First layer: filters, and their responses to a {subject.true_name(chosen)}"
        ),
        """Below each filter, its response to one image: red where positive, blue where negative, before BatchNorm
        and ReLU. A filter with red on one side and blue on the other answers to edges of that direction; one of a
        single colour answers to brightness.""",
        """每个卷积核下面是它对同一张图像的响应（批归一化和 ReLU 之前），红为正，蓝为负。一侧红一侧蓝的卷积核对该方向
        的边缘有响应；只有一种颜色的对亮度有响应。""",
    )


def _convolve(image: np.ndarray, kernels: np.ndarray) -> np.ndarray:
    """Cross-correlate ``[H, W]`` with ``[n, 3, 3]``, zero-padded: ``[n, H, W]``."""
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(image, 1), kernels.shape[1:])
    return np.einsum("hwij,nij->nhw", windows, kernels)


def _maps(subject: Subject) -> None:
    """What the stages make of one image."""
    page, trained = subject.page, subject.trained
    page.heading("Maps, stage by stage", "逐阶段的特征图")
    chosen = subject.one_of_each_class()[min(3, len(subject.classes) - 1)]
    maps = trained.maps(subject.test.pixels[chosen : chosen + 1])
    page.say(
        """After the first layer a filter's input is other maps, and its weights say little to the eye. Its output
        still is a picture. Stage by stage the pictures get coarser and there are more of them: less of where, more
        of what.""",
        """第一层之后，卷积核的输入是别的特征图，权重本身很难看出什么，但输出仍是一幅图。逐个阶段看下去，图越来越粗，
        数量越来越多：“在哪里”越来越少，“是什么”越来越多。""",
    )
    page.figure(
        "maps",
        lambda: draw_maps(
            subject.test.pixels[chosen],
            {name: output[0] for name, output in maps.items()},
            MAPS,
            f"The strongest {MAPS} maps of each stage for one {subject.true_name(chosen)}",
        ),
        """Rows: after the stem and after each stage, with channels x height x width; black is 0, each map has its
        own scale.""",
        "各行：stem 之后和各阶段之后，标有 通道 x 高 x 宽；黑色为 0，每幅图各有自己的色标。",
    )
    known = read_pictures(subject.run, subject.run.splits().train).some(KNOWN)
    asked = subject.test.some(POINTS)
    known_means, means = trained.means(known.pixels), trained.means(asked.pixels)
    right = {
        name: nearest_neighbours(known_means[name], known.labels, means[name], asked.labels) for name in known_means
    }
    pixels = nearest_neighbours(as_points(known), known.labels, as_points(asked), asked.labels)
    page.say(
        f"""Can "more of what" be measured? Forget the places: keep of each map its mean only, and ask of which
        class most of an image's {NEIGHBOURS} nearest training images are, by these means. The classifier knows
        nothing but distances, so it is right where the stage has brought images of a class together. For
        comparison, the same with all pixels of the image, places included.""",
        f"""“是什么越来越多”能测量吗？忘掉位置，每幅图只保留均值，再看按这些均值算，离一张图像最近的 {NEIGHBOURS} 张
        训练图像多数属于哪一类。这个分类器只知道距离，所以哪个阶段把同类图像聚到了一起，它在那里就答得对。作为比较，
        也用图像的全部像素（含位置）做一次。""",
    )
    page.table(
        [("distances between", "距离取自"), ("numbers an image", "每张图像的数"), ("test images right", "测试准确率")],
        [
            (Text("pixels", "像素"), f"{as_points(asked).shape[1]:,}", percent(pixels)),
            *(
                (Text(f"means after {name}", f"{name} 之后的均值"), means[name].shape[1], percent(share))
                for name, share in right.items()
            ),
        ],
    )
    page.record(neighbours_pixels=pixels, neighbours_stages=list(right.values()), stages=list(right))


def _points(subject: Subject) -> None:
    """The test set on the page."""
    page = subject.page
    page.heading("The test set as a map", "把测试集画成点图")
    pictures = subject.test.some(POINTS)
    features = subject.trained.means(pictures.pixels)[subject.trained.network.stage_names[-1]]
    pixels, seen = flatten(as_points(pictures), pictures.labels), flatten(features, pictures.labels)
    page.say(
        f"""The last stage's means are the {features.shape[1]} numbers that the head sees, a point for each image.
        Two ways to lay such points on paper: PCA takes the plane in which they vary most, and everything outside it
        is lost; t-SNE (van der Maaten and Hinton 2008) keeps neighbours together, and gives up distances: in its
        pictures neither the size of a heap nor the gap between two heaps means anything. Above the raw pixels,
        below the features.""",
        f"""最后一个阶段的均值就是分类头看到的 {features.shape[1]} 个数，每张图像一个点。把这样的点画到纸上有两种办
        法：PCA 取它们变化最大的平面，平面之外的全部丢掉；t-SNE（van der Maaten 与 Hinton 2008）让邻居待在一起，而放弃
        距离：在它的图里，一簇点的大小、两簇之间的间隔都没有意义。上排是原始像素，下排是特征。""",
    )
    page.figure(
        "points",
        lambda: draw_points(
            {
                f"pixels, PCA ({pixels.explained:.0%} of the variance)": pixels.principal,
                "pixels, t-SNE": pixels.neighbours,
                f"features, PCA ({seen.explained:.0%} of the variance)": seen.principal,
                "features, t-SNE": seen.neighbours,
            },
            pictures.labels,
            subject.classes,
            f"{len(pictures):,} test images, as pixels and as the network's features",
        ),
        "Each point is a test image in the colour of its true class, whose name stands at the median.",
        "每个点是一张测试图像，颜色为其真实类别，类别名写在中位数处。",
    )
    page.say(
        f"""A number that no projection can flatter: the silhouette compares, for each point and in all dimensions,
        the mean distance to its own class with that to the next class (Rousseeuw 1987): 1 for classes far apart, 0
        where they touch, negative where they are mixed. Pixels: {pixels.silhouette:.2f}; features:
        {seen.silhouette:.2f}.""",
        f"""有一个数不会被投影美化：轮廓系数（silhouette，Rousseeuw 1987）在全部维度里比较每个点到本类的平均距离和到最
        近的另一类的平均距离，类别相距很远时为 1，相接时为 0，混在一起时为负。像素：{pixels.silhouette:.2f}；特
        征：{seen.silhouette:.2f}。""",
    )
    page.record(
        silhouette_pixels=pixels.silhouette,
        silhouette_features=seen.silhouette,
        explained_pixels=pixels.explained,
        explained_features=seen.explained,
    )
