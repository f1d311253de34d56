"""Inside a trained network: filters, feature maps, embeddings of the test set, Grad-CAM, confident mistakes."""

from __future__ import annotations

import numpy as np

from paddle_resnet import runtime
from paddle_resnet.evaluation import NetworkScorer, measure_split
from paddle_resnet.evaluation.grad_cam import grad_cam
from paddle_resnet.evaluation.run_plots import choose_mistakes
from paddle_resnet.lessons.common.network_costs import format_shape
from paddle_resnet.lessons.common.runs import flatten_pixels, image_settings, read_images, train_run
from paddle_resnet.lessons.framework.catalogue import Effort
from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.lessons.what_it_sees.trained_network import (
    MAX_POINTS,
    NEIGHBOURS,
    HeatRows,
    ImageSet,
    LessonContext,
    TrainedNetwork,
    knn_accuracy,
    mask_pixels,
    mean_correlation,
    project_2d,
)
from paddle_resnet.models import create_configured_model
from paddle_resnet.plots.feature_maps import draw_filters, draw_heatmaps, draw_maps, draw_points
from paddle_resnet.plots.style import percent

COLUMNS = 7  # images drawn with their heat
HIDDEN = (0.1, 0.25, 0.5)  # shares of the pixels
MAPS = 8  # per stage
MAX_NEIGHBOURS = 5000  # training images for the nearest neighbours, at most
RECIPE = {"epochs": 10, "weight_decay": 5e-4, "schedule": "one_cycle", "warmup": 0.2}
QUICK = {**RECIPE, "batch_size": 64, "learning_rate": 0.1}
FULL = {**RECIPE, "batch_size": 128, "learning_rate": 0.2}


def teach(page: Page, effort: Effort) -> None:
    """Train a small network, then show its filters, feature maps, embeddings, Grad-CAM maps and mistakes."""
    # The digits are enlarged, so that the last stage has 8x8 positions.
    settings = {**image_settings(effort, size=32, pad=3), "train": FULL if effort.full else QUICK}
    run = train_run(page, effort, "network", settings, "resnet20" if effort.full else "resnet8")
    trained = TrainedNetwork(run.load_network("best"), run.normalize())
    evaluation = measure_split(run, NetworkScorer(trained.network, trained.normalize), "test")
    context = LessonContext(page, run, trained, ImageSet(*read_images(run, run.splits().test)), evaluation)
    _network(context)
    _filters(context)
    _maps(context)
    _points(context)
    _cam_equivalence(context)
    _heatmaps(context)
    _occlusion(context)
    _mistakes(context)


def _network(context: LessonContext) -> None:
    page, evaluation = context.page, context.evaluation
    page.heading("network_heading")
    page.say("network", config=context.run.config, top1=percent(evaluation.top1), images=evaluation.images)
    if context.run.config.data.source == "digits":
        page.say("digits")
    mistakes = int((evaluation.predicted != evaluation.labels).sum())
    page.record(top1=evaluation.top1, test_images=evaluation.images, mistakes=mistakes)


def _filters(context: LessonContext) -> None:
    page, trained, chosen = context.page, context.trained, context.shown_image
    page.heading("filters_heading")
    weight = trained.network.conv1.weight.numpy()  # [out, 3, k, k]
    inputs = trained.tensor(context.test.pixels[[chosen]])
    responses = trained.network.conv1(inputs).numpy()[0]
    number, *shape = weight.shape
    size = {"number": number, "shape": format_shape(shape, "x")}
    if (context.test.pixels == context.test.pixels[..., :1]).all():  # the images are grey
        drawn = weight.sum(axis=1)
        difference = float(np.abs(_convolve(inputs.numpy()[0, 0], drawn) - responses).max())
        largest = float(np.abs(responses).max())
        page.say("grey_filters", size=size, difference=difference, largest=largest)
        page.record(sum_difference=difference, largest_answer=largest)
    else:
        spread = weight - weight.min(axis=(1, 2, 3), keepdims=True)
        drawn = (spread / spread.max(axis=(1, 2, 3), keepdims=True)).transpose(0, 2, 3, 1)
        page.say("colour_filters", size=size)
    title = f"First layer: filters, and their responses to a {context.true_name(chosen)}"
    page.figure("filters", lambda: draw_filters(drawn, responses, title))


def _convolve(image: np.ndarray, kernels: np.ndarray) -> np.ndarray:
    """Cross-correlate a zero-padded image ``[H, W]`` with kernels ``[n, 3, 3]``; return ``[n, H, W]``."""
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(image, 1), kernels.shape[1:])
    return np.einsum("hwij,nij->nhw", windows, kernels)


def _maps(context: LessonContext) -> None:
    page, trained, chosen = context.page, context.trained, context.shown_image
    page.heading("maps_heading")
    maps = {name: output[0] for name, output in trained.maps(context.test.pixels[[chosen]]).items()}
    page.say("coarser")
    title = f"The strongest {MAPS} maps of each stage for one {context.true_name(chosen)}"
    page.figure("maps", lambda: draw_maps(context.test.pixels[chosen], maps, MAPS, title))
    train = ImageSet(*read_images(context.run, context.run.splits().train)).sample(MAX_NEIGHBOURS)
    test = context.test.sample(MAX_POINTS)
    page.say("neighbours_question", neighbours=NEIGHBOURS)
    known, asked = ({"pixels": flatten_pixels(each.pixels), **trained.means(each.pixels)} for each in (train, test))
    right = {name: knn_accuracy(known[name], train.labels, asked[name], test.labels) for name in known}
    labels = [page.text("pixels"), *(page.text("means_after", name=name) for name in maps)]
    page.table(
        "neighbours",
        [
            (label, f"{asked[name].shape[1]:,}", percent(share))
            for label, (name, share) in zip(labels, right.items(), strict=True)
        ],
    )
    pixels, *stages = right.values()
    page.record(neighbours_pixels=pixels, neighbours_stages=stages, stages=list(maps))


def _points(context: LessonContext) -> None:
    page = context.page
    page.heading("points_heading")
    images = context.test.sample(MAX_POINTS)
    features = context.trained.means(images.pixels)[context.trained.network.stage_names[-1]]
    pixels_2d, features_2d = (project_2d(points, images.labels) for points in (flatten_pixels(images.pixels), features))
    page.say("projections", features=features)
    panels = {}
    for name, projections in (("pixels", pixels_2d), ("features", features_2d)):
        panels[f"{name}, PCA ({projections.explained:.0%} of the variance)"] = projections.pca
        panels[f"{name}, t-SNE"] = projections.tsne
    title = f"{len(images):,} test images, as pixels and as the network's features"
    page.figure("points", lambda: draw_points(panels, images.labels, context.classes, title))
    page.say("silhouette", pixels_2d=pixels_2d, features_2d=features_2d)
    page.record(silhouette_pixels=pixels_2d.silhouette, silhouette_features=features_2d.silhouette)
    page.record(explained_pixels=pixels_2d.explained, explained_features=features_2d.explained)


def _cam_equivalence(context: LessonContext) -> None:
    """Show that Grad-CAM at the last stage equals CAM."""
    page, trained = context.page, context.trained
    page.heading("cam_heading")
    chosen = context.one_of_each_class()
    predicted = context.evaluation.predicted[chosen]
    inputs = trained.tensor(context.test.pixels[chosen])
    maps = grad_cam(trained.network, inputs, predicted)
    features = trained.network.forward_features(inputs).numpy()
    weights = trained.network.fc.weight.numpy()[:, predicted].T  # [N, K]
    cam = np.maximum(np.einsum("nk,nkhw->nhw", weights, features), 0)
    places = maps.shape[1] * maps.shape[2]
    difference = float(np.abs(maps * places - cam).max())
    page.say("cam")
    page.values(
        "w_k = mean over H, W of  d score / d A_k",
        "map = ReLU(sum over k of w_k A_k)",
        "",
        'maps = grad_cam(network, images, classes)             # the last stage; or layer="layer2"',
        f"maps.shape                                            {list(maps.shape)}",
    )
    page.say("closed_form", maps=maps, places=places, difference=difference, largest=cam.max())
    page.record(cam_difference=difference, cam_largest=float(cam.max()), places=places)


def _heatmaps(context: LessonContext) -> None:
    """Draw Grad-CAM maps over images."""
    chosen = context.one_of_each_class()[:COLUMNS]
    first, second, *_ = np.argsort(-context.evaluation.scores[chosen], axis=1, kind="stable").T
    *_, earlier, last = context.trained.network.stage_names
    rows = {
        f"predicted,\n{last}": context.heat(chosen, first),
        f"predicted,\n{earlier}": context.heat(chosen, first, earlier),
        f"second,\n{last}": context.heat(chosen, second),
    }
    _draw_heat(context, "grad_cam", chosen, rows, "Grad-CAM for the predicted class, and for the second")


def _draw_heat(context: LessonContext, name: str, chosen: np.ndarray, rows: HeatRows, title: str) -> None:
    captions = [f"is {context.class_name(label)}" for label in context.test.labels[chosen]]
    context.page.figure(name, lambda: draw_heatmaps(context.test.pixels[chosen], captions, rows, title))


def _occlusion(context: LessonContext) -> None:
    """Test the maps by occlusion and against random weights."""
    page, trained = context.page, context.trained
    page.heading("occlusion_heading")
    images = context.test.sample(MAX_POINTS)
    predicted = trained.predict(images.pixels)
    maps = trained.grad_cam(images.pixels, predicted)
    colour = np.rint(255 * np.array(context.run.normalize().mean)).astype(np.uint8)
    orders = {"highest": maps, "random": np.zeros_like(maps), "lowest": -maps}

    def accuracy(pixels: np.ndarray) -> float:
        return float((trained.predict(pixels) == images.labels).mean())

    right = {
        name: [accuracy(mask_pixels(images.pixels, order, share, colour)) for share in HIDDEN]
        for name, order in orders.items()
    }
    before = accuracy(images.pixels)
    page.say("occlusion", before=percent(before), images=len(images))
    rows = zip(HIDDEN, *right.values(), strict=True)
    page.table("occluded", [(f"{share:.0%}", *map(percent, accuracies)) for share, *accuracies in rows])
    holds = sum(top < chance for top, chance in zip(right["highest"], right["random"], strict=True))
    runtime.seed_everything(context.run.config.train.seed + 1)
    untrained = create_configured_model(context.run.config.model, len(context.classes))
    untrained.eval()
    random_maps = TrainedNetwork(untrained, trained.normalize).grad_cam(images.pixels, predicted)
    likeness = mean_correlation(maps, random_maps)
    page.say("occlusion_outcome", holds=holds, rows=len(HIDDEN), likeness=likeness)
    page.record(right_before=before, **{f"right_{name}": accuracies for name, accuracies in right.items()})
    page.record(likeness_untrained=likeness)


def _mistakes(context: LessonContext) -> None:
    """Show the most confident mistakes with their maps."""
    page, evaluation = context.page, context.evaluation
    page.heading("mistakes_heading")
    wrong = choose_mistakes(evaluation, evaluation.images)
    if len(wrong) == 0:
        page.say("no_mistakes")
        return
    chosen = wrong[:COLUMNS]
    surest = float(evaluation.scores[chosen[0]].max())
    page.say("confident_mistakes", images=evaluation.images, wrong=len(wrong), surest=percent(surest))
    rows = {
        "for the\nprediction": context.heat(chosen, evaluation.predicted[chosen]),
        "for the\ntruth": context.heat(chosen, evaluation.labels[chosen]),
    }
    _draw_heat(context, "mistakes", chosen, rows, "The most confident mistakes")
    page.record(surest_mistake=surest)
