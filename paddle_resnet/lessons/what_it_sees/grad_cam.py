"""Grad-CAM: its closed form, its heatmaps, occlusion tests, and the most confident mistakes."""

from __future__ import annotations

import numpy as np

from paddle_resnet import runtime
from paddle_resnet.evaluation.grad_cam import grad_cam
from paddle_resnet.evaluation.run_plots import choose_mistakes
from paddle_resnet.lessons.what_it_sees.trained_network import (
    MAX_POINTS,
    LessonContext,
    TrainedNetwork,
    mask_pixels,
    mean_correlation,
)
from paddle_resnet.models import ImageClassifier, create_configured_model
from paddle_resnet.plots.feature_maps import draw_heatmaps
from paddle_resnet.plots.style import percent
from paddle_resnet.training.run_folder import RunFolder

COLUMNS = 7  # images drawn with their heat
HIDDEN = (0.1, 0.25, 0.5)  # shares of the pixels


def show_cam_equivalence(context: LessonContext) -> None:
    """Show that Grad-CAM at the last stage equals CAM."""
    page, trained = context.page, context.trained
    page.heading("Grad-CAM: where it looked", "Grad-CAM：它看了哪里")
    images = context.test.take(context.one_of_each_class())
    predicted = trained.scores(images.pixels).argmax(axis=1)
    inputs = trained.tensor(images.pixels)
    maps = grad_cam(trained.network, inputs, predicted)
    features = trained.network.forward_features(inputs).numpy()
    weights = trained.network.fc.weight.numpy()[:, predicted].T  # [N, K]
    cam = np.maximum(np.einsum("nk,nkhw->nhw", weights, features), 0)
    places = maps.shape[1] * maps.shape[2]
    difference = float(np.abs(maps * places - cam).max())
    page.say(
        """Grad-CAM (Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391) computes how much each position of a
        stage's maps supports a class. A channel's weight is the mean gradient of the class's score by that channel. The
        map is the weighted sum of the channels without its negative part, which opposes the class (equations 1 and
        2):""",
        """Grad-CAM（Selvaraju 等 2017，https://arxiv.org/abs/1610.02391 ）问的是：某个阶段的特征图上，每个位置在多大程
        度上支持某一类。通道的权重是该类得分对这个通道的平均梯度；图是各通道的加权和，反对该类的部分被截掉（式 1 和
        式 2）：""",
    )
    page.values(
        "w_k = mean over H, W of  d score / d A_k",
        "map = ReLU(sum over k of w_k A_k)",
        "",
        'maps = grad_cam(network, images, classes)             # the last stage; or layer="layer2"',
        f"maps.shape                                            {list(maps.shape)}",
    )
    page.say(
        f"""At the last stage of a ResNet there is a closed form. The head is a mean over
        {maps.shape[1]}x{maps.shape[2]} positions and a linear layer, so the gradient at each position is the class's
        weight divided by {places}. So Grad-CAM is CAM (Zhou et al. 2016, https://arxiv.org/abs/1512.04150), ReLU(sum_k
        fc_k A_k), divided by {places}. Computed both ways and multiplied by {places}, they differ by at most
        {difference:.0e}, where the largest value is {cam.max():.2f}. The earlier stages have no such form and need the
        gradient.""",
        f"""在 ResNet 的最后一个阶段它有闭式解。分类头是对 {maps.shape[1]}x{maps.shape[2]} 个位置取平均再接线性层，所以
        每个位置的梯度就是该类的权重除以 {places}，Grad-CAM 就是 CAM（Zhou 等 2016，
        https://arxiv.org/abs/1512.04150 ），即 ReLU(sum_k fc_k A_k)，除以 {places}。两者都算了：乘以 {places} 之后，最
        多相差 {difference:.0e}，而最大的值是 {cam.max():.2f}。更早的阶段没有这样的公式，只能靠梯度。""",
    )
    page.record(cam_difference=difference, cam_largest=float(cam.max()), places=places)


def show_heatmaps(context: LessonContext) -> None:
    """Draw Grad-CAM maps over images."""
    page, trained = context.page, context.trained
    images = context.test.take(context.one_of_each_class()[:COLUMNS])
    scores = trained.scores(images.pixels)
    ranked = np.argsort(-scores, axis=1, kind="stable")
    stages = trained.network.stage_names
    first, second = (context.format_predictions(ranked[:, rank], scores) for rank in (0, 1))
    rows = {
        f"predicted,\n{stages[-1]}": (trained.grad_cam(images.pixels, ranked[:, 0]), first),
        f"predicted,\n{stages[-2]}": (trained.grad_cam(images.pixels, ranked[:, 0], stages[-2]), first),
        f"second,\n{stages[-1]}": (trained.grad_cam(images.pixels, ranked[:, 1]), second),
    }
    page.figure(
        "grad_cam",
        lambda: draw_heatmaps(
            images.pixels,
            [f"is {context.class_name(label)}" for label in images.labels],
            rows,
            "Grad-CAM for the predicted class, and for the second",
        ),
        """Test images, and heat where they support a class: the network's prediction, at the last stage and the one
        before it, and the second most probable class. Each map has its own scale.""",
        """测试图像，以及支持某一类的热力图：网络的答案（最后一个阶段和前一个阶段），以及它认为第二可能的类别。每幅图各
        有自己的色标。""",
    )


def show_occlusion(context: LessonContext) -> None:
    """Test the maps by occlusion and against random weights."""
    page, trained = context.page, context.trained
    page.heading("Is the map true?", "这张图可信吗？")
    images = context.test.sample(MAX_POINTS)
    predicted = trained.scores(images.pixels).argmax(axis=1)
    maps = trained.grad_cam(images.pixels, predicted)
    colour = np.rint(255 * np.array(context.run.normalize().mean)).astype(np.uint8)
    orders = {"highest": maps, "random": np.zeros_like(maps), "lowest": -maps}

    def accuracy(pixels: np.ndarray) -> float:
        return float((trained.scores(pixels).argmax(axis=1) == images.labels).mean())

    right = {
        name: [accuracy(mask_pixels(images.pixels, order, share, colour)) for share in HIDDEN]
        for name, order in orders.items()
    }
    before = accuracy(images.pixels)
    page.say(
        f"""Heat on an image convinces too easily, so test it. Paint the pixels of the highest values in the mean
        colour, and count how many images are still classified correctly. Then do the same to as many pixels at random,
        and to those of the lowest values. If the maps are right, the first must hurt most. Nothing hidden:
        {percent(before)} of {len(images):,} images right.""",
        f"""热力图太容易让人信服。做一个检验：把值最高处的像素涂成平均颜色，看还有多少图像答对；再随机涂掉同样多的像素，
        以及涂掉值最低处的像素。如果图可信，第一种的损害应当最大。什么都不遮时，{len(images):,} 张图像的准确率
        为 {percent(before)}。""",
    )
    page.table(
        "hidden | highest values | at random | lowest values",
        "遮住 | 值最高处 | 随机 | 值最低处",
        [
            (f"{share:.0%}", *(percent(right[name][index]) for name in ("highest", "random", "lowest")))
            for index, share in enumerate(HIDDEN)
        ],
    )
    holds = sum(top < chance for top, chance in zip(right["highest"], right["random"], strict=True))
    untrained = TrainedNetwork(_untrained(context.run), trained.normalize)
    likeness = mean_correlation(maps, untrained.grad_cam(images.pixels, predicted))
    page.say(
        f"""Hiding what the maps mark did more harm than hiding at random in {holds} of {len(HIDDEN)} rows. (A painted
        image is unlike the training images, so the paint itself causes part of each loss.) A second test, after Adebayo
        et al. 2018 (https://arxiv.org/abs/1810.03292), computes the same maps with a network of random weights. A map
        that depended on the image alone, like an edge detector's, would not change; the mean correlation with it is
        {likeness:.2f}.""",
        f"""{len(HIDDEN)} 行中有 {holds} 行，遮住图上标出的地方比随机遮住损害更大。（涂过的图像与训练集里的都不像，所以
        每种损失里都有一部分是涂色造成的。）第二个检验来自 Adebayo 等 2018（https://arxiv.org/abs/1810.03292 ）：用权重
        随机的网络画同样的图。若图只来自图像本身（像边缘检测那样），它就不会变，相关系数为 1；实测二者的平均相关系数
        为 {likeness:.2f}。""",
    )
    page.record(
        right_before=before,
        right_highest=right["highest"],
        right_random=right["random"],
        right_lowest=right["lowest"],
        likeness_untrained=likeness,
    )


def show_mistakes(context: LessonContext) -> None:
    """Show the most confident mistakes with their maps."""
    page, trained, evaluation = context.page, context.trained, context.evaluation
    page.heading("The most confident mistakes", "置信度最高的错误")
    chosen = choose_mistakes(evaluation, COLUMNS)
    if len(chosen) == 0:
        page.say("There are none: every test image was classified correctly.", "没有：每张测试图像都答对了。")
        return
    surest = float(evaluation.scores[chosen[0]].max())
    page.say(
        f"""A mistake with high probability is more informative than one in doubt: the network, the image or its label
        is wrong. Of {evaluation.images:,} test images {len(choose_mistakes(evaluation, evaluation.images)):,} were
        misclassified, the most confident at {percent(surest)}. Grad-CAM shows what supported the wrong class, and what
        the right one.""",
        f"""高概率下犯的错比犹豫时犯的错更有信息：问题出在网络、图像或标签上。{evaluation.images:,} 张测试图像中答
        错 {len(choose_mistakes(evaluation, evaluation.images)):,} 张，其中置信度最高的为 {percent(surest)}。Grad-CAM 画
        出什么支持错误的答案，什么支持正确的答案。""",
    )
    images = context.test.take(chosen)
    predicted = evaluation.predicted[chosen]
    rows = {
        f"for the\n{name}": (
            trained.grad_cam(images.pixels, labels),
            context.format_predictions(labels, evaluation.scores[chosen]),
        )
        for name, labels in (("prediction", predicted), ("truth", images.labels))
    }
    captions = [f"is {context.class_name(label)}" for label in images.labels]
    page.figure(
        "mistakes",
        lambda: draw_heatmaps(images.pixels, captions, rows, "The most confident mistakes"),
        """Mistakes on the test set, most confident first, with the probabilities of the predicted and of the true
        class.""",
        "测试集上的错误答案，按置信度从高到低，并标出所给答案和正确答案的概率。",
    )
    page.record(surest_mistake=surest)


def _untrained(run: RunFolder) -> ImageClassifier:
    """Return the same network with random weights."""
    runtime.seed_everything(run.config.train.seed + 1)
    network = create_configured_model(run.config.model, len(run.classes()))
    network.eval()
    return network
