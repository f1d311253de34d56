"""An evaluated split in VisualDL, read with VisualDL's own reader."""

from __future__ import annotations

import io

import numpy as np
import paddle
import pytest
from PIL import Image
from tiny_run import COLOURS, SIZE, make_run
from visualdl import LogReader

from paddle_resnet.evaluation import evaluate, run_plots, show_validation_mistakes
from paddle_resnet.images.decode import decode_image

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("measured"))
    evaluate(run)
    return run


def read(folder) -> LogReader:
    return LogReader(file_path=str(max(folder.iterdir())))


@pytest.mark.once
def test_plots_are_images(run):
    reader = read(run.vdl_path / "test")
    tags = {"samples", "confusion matrix", "confused pairs", "mistakes", "precision recall", "calibration"}
    assert set(reader.get_tags()["image"]) == tags
    for tag in tags:
        (record,) = reader.get_data("image", tag)
        shown = np.asarray(Image.open(io.BytesIO(record.image.encoded_image_string)))
        drawn = np.asarray(Image.open(run.figures_path / f"{tag.replace(' ', '_')}_test.png").convert("RGB"))
        np.testing.assert_array_equal(shown, drawn)


def by_hand(run):
    """Features of the test pictures from the network without its last layer; true and predicted classes."""
    paths = sorted((run.config.data.root / "test").glob("*/*.png"))
    pixels = np.stack([decode_image(path, run.splits().resize, SIZE) for path in paths])
    inputs, network = run.normalize()(paddle.to_tensor(pixels)), run.load_network("best")
    with paddle.no_grad():
        predictions = network(inputs).numpy().argmax(axis=1)
        network.remove_classifier()
        features = network.forward_head(network.forward_features(inputs)).numpy()
    names = list(COLOURS)
    return features, [path.parent.name for path in paths], [names[prediction] for prediction in predictions]


def test_embeddings_are_features_with_class_and_prediction(run):
    (record,) = read(run.vdl_path / "test").get_data("embeddings", "features")
    assert list(record.embeddings.label_meta) == ["class", "predicted"]
    features, truths, predictions = by_hand(run)
    # The first image of each class, then the second, ...
    order = [label * 4 + turn for turn in range(4) for label in range(3)]
    points = record.embeddings.embeddings
    assert [list(point.label) for point in points] == [[truths[index], predictions[index]] for index in order]
    np.testing.assert_allclose([list(point.vectors) for point in points], features[order], atol=1e-5)


def with_embeddings(run, number):
    config = run.config
    evaluation = config.evaluation.model_copy(update={"embeddings": number})
    run.config = config.model_copy(update={"evaluation": evaluation})
    return run


def test_another_evaluation_replaces_the_last_one(run, monkeypatch):
    draw = run_plots.draw_split_plots
    monkeypatch.setattr(run_plots, "draw_split_plots", lambda *arguments: draw(*arguments[:-1], ["mistakes"]))
    for number in (5, 0):
        evaluate(with_embeddings(run, number))
        reader = read(run.vdl_path / "test")
        (_,) = reader.get_data("image", "mistakes")
        found = [len(record.embeddings.embeddings) for record in reader.get_data("embeddings", "features")]
        assert found == ([5] if number else [])


def test_validation_mistakes_are_shown_without_metrics(run):
    before = run.metrics()
    show_validation_mistakes(run)
    reader = read(run.vdl_path / "evaluation_validation")
    assert set(reader.get_tags()) == {"meta_data", "image"}
    assert list(reader.get_tags()["image"]) == ["mistakes"]
    assert run.metrics() == before
    assert (run.figures_path / "mistakes_validation.png").is_file()
    assert not (run.path / "evaluation_validation.json").exists()
