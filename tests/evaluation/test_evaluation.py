"""Evaluation of whole splits: against scikit-learn, closed forms and a network run by hand."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from sklearn import metrics
from tiny_run import COLOURS, SIZE, make_run

from paddle_resnet.errors import RunFailure, UsageError
from paddle_resnet.evaluation import NetworkScorer, evaluate, measure, measure_split, warn_of_few_images
from paddle_resnet.evaluation.metrics import evaluation_of


class TableScorer:
    """Returns row i of a table for image i, whose first pixel's value is i."""

    def __init__(self, table):
        self.table = np.asarray(table, np.float32)
        self.batches = []

    def scores(self, batch):
        self.batches.append(len(batch))
        return self.table[batch[:, 0, 0, 0]]


def numbered_batches(labels, size):
    labels = np.asarray(labels, np.int64)
    images = np.zeros((len(labels), 1, 1, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(len(labels))
    return [(images[i : i + size], labels[i : i + size]) for i in range(0, len(labels), size)]


def random_case(images=200, classes=7, seed=0):
    generator = np.random.default_rng(seed)
    table = generator.dirichlet(np.full(classes, 0.3), images).astype(np.float32)
    labels = generator.integers(0, classes, images)
    return table, labels, [f"class {i}" for i in range(classes)]


def test_metrics_equal_scikit_learns():
    table, labels, classes = random_case()
    found = measure(TableScorer(table), numbered_batches(labels, 32), classes)
    every = np.arange(len(classes))
    assert found.images == 200
    assert found.top1 == pytest.approx(metrics.accuracy_score(labels, table.argmax(1)))
    assert found.top5 == pytest.approx(metrics.top_k_accuracy_score(labels, table, k=5, labels=every))
    # The probabilities are float32, so a table's rows sum to 1 only nearly.
    assert found.loss == pytest.approx(-np.log(table[np.arange(200), labels].astype(float)).mean(), rel=1e-6)
    np.testing.assert_array_equal(found.confusion, metrics.confusion_matrix(labels, table.argmax(1), labels=every))
    report = metrics.classification_report(
        labels, table.argmax(1), labels=every, target_names=classes, output_dict=True, zero_division=0
    )
    for result in found.per_class:
        expected = report[result.name]
        assert (result.precision, result.recall, result.f1, result.support) == pytest.approx(
            (expected["precision"], expected["recall"], expected["f1-score"], expected["support"])
        )


def test_a_smaller_last_batch_counts_by_its_images():
    # Two images right in the first batch of two, one wrong in the last batch of one: 2/3, not (1 + 0) / 2.
    table = [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]
    found = measure(TableScorer(table), numbered_batches([0, 1, 1], 2), ["a", "b"])
    assert found.top1 == pytest.approx(2 / 3)
    assert found.loss == pytest.approx(-(np.log(0.9) + np.log(0.8) + np.log(0.4)) / 3)


def test_equal_scores_rank_the_first_class_first():
    table = np.full((3, 8), 1 / 8)
    found = measure(TableScorer(table), numbered_batches([0, 4, 5], 2), list("abcdefgh"))
    assert found.top1 == pytest.approx(1 / 3)  # only the image of class a
    assert found.top5 == pytest.approx(2 / 3)  # a and e are among the first five, f is not
    assert found.loss == pytest.approx(np.log(8))


@pytest.mark.parametrize("classes", [1, 2])
def test_few_classes_give_finite_metrics_without_warnings(classes):
    table = np.zeros((4, classes))
    table[:, 0] = 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = measure(TableScorer(table), numbered_batches([0, 0, 0, classes - 1], 3), list("ab")[:classes])
    assert found.top5 == 1
    assert found.top1 == (1 if classes == 1 else 0.75)
    assert found.per_class[-1].recall == (1 if classes == 1 else 0)
    assert np.isfinite(found.loss)


def test_progress_counts_images():
    table, labels, classes = random_case(images=10)
    seen = []
    measure(TableScorer(table), numbered_batches(labels, 4), classes, seen.append)
    assert seen == [4, 8, 10]


def test_no_images_is_a_usage_error():
    with pytest.raises(UsageError, match="no images"):
        measure(TableScorer([[1.0]]), [], ["a"])


def test_scores_that_are_not_finite_are_refused():
    table = np.full((5, 2), 0.5)
    table[3, 1] = np.nan
    with pytest.raises(RunFailure, match="image 3"):
        measure(TableScorer(table), numbered_batches([0] * 5, 2), ["a", "b"])


def test_scores_of_another_shape_are_refused():
    with pytest.raises(RunFailure, match="expected"):
        measure(TableScorer(np.full((2, 3), 1 / 3)), numbered_batches([0, 1], 2), ["a", "b"])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("evaluation"))


def by_hand(run, split):
    """Compute the probabilities from the picture files, with normalisation and softmax in numpy."""
    import paddle

    from paddle_resnet.images.decode import decode_image

    paths = sorted((run.config.data.root / split).glob("*/*.png"))
    pixels = np.stack([decode_image(path, run.splits().resize, SIZE) for path in paths])
    normal = (pixels / 255 - np.array(run.splits().mean)) / np.array(run.splits().std)
    with paddle.no_grad():
        logits = run.load_network("best")(paddle.to_tensor(normal.transpose(0, 3, 1, 2).astype(np.float32))).numpy()
    powers = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    labels = np.array([list(COLOURS).index(path.parent.name) for path in paths])
    return powers / powers.sum(1, keepdims=True), labels


def test_network_scorer_evaluates_and_restores_training_mode(run):
    network = run.load_network("best")
    network.train()
    statistics = {name: value.numpy().copy() for name, value in network.state_dict().items() if "_mean" in name}
    batch = run.splits().test.batch(np.arange(5))[:, :SIZE, :SIZE]
    scores = NetworkScorer(network, run.normalize()).scores(batch)
    assert network.training
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores.sum(1), 1, atol=1e-5)
    for name, value in network.state_dict().items():
        if name in statistics:
            np.testing.assert_array_equal(value.numpy(), statistics[name])


@pytest.mark.slow
def test_evaluate_measures_the_whole_test_split(run):
    run.update_metrics("train", {"epochs": 3})
    seen = []
    found = evaluate(run, progress=lambda done, images: seen.append((done, images)))
    probabilities, labels = by_hand(run, "test")
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_allclose(found.scores, probabilities, atol=1e-4)
    assert found.top1 == pytest.approx(np.mean(probabilities.argmax(1) == labels))
    assert seen[-1] == (12, 12)

    written = json.loads(run.metrics_path.read_text())
    assert written["train"] == {"epochs": 3}
    assert written["test"]["top1"] == found.top1
    assert written["test"]["images"] == 12
    assert written["test"]["loss"] == found.loss
    assert written["test"]["checkpoint"] == "best"
    details = json.loads((run.path / "evaluation_test.json").read_text())
    assert details["classes"] == list(COLOURS)
    assert np.trace(details["confusion"]) / np.sum(details["confusion"]) == pytest.approx(found.top1)
    assert [each["support"] for each in details["per_class"]] == [4, 4, 4]
    assert {path.name for path in run.figures_path.iterdir()} == {
        "samples_test.png",
        "confusion_matrix_test.png",
        "mistakes_test.png",
        "precision_recall_test.png",
    }


@pytest.mark.slow
def test_validation_metrics_have_a_section_of_their_own(run):
    run.update_metrics("validation", {"epoch": 2})
    found = evaluate(run, split="validation")
    assert found.images == len(run.splits().validation) == 6
    assert run.metrics()["validation"] == {"epoch": 2}
    assert run.metrics()["evaluation_validation"]["images"] == 6


def test_unknown_split_is_a_usage_error(run):
    with pytest.raises(UsageError, match='did you mean "test"'):
        measure_split(run, TableScorer([[1.0]]), "tset")


def test_a_run_without_that_checkpoint_is_a_usage_error(run):
    with pytest.raises(UsageError, match="last"):
        evaluate(run, checkpoint="last")


@pytest.mark.slow
def test_the_command_prints_every_class(run, tool):
    done = tool("eval", run.path, "--device", "cpu")
    assert done.exit_code == 0
    assert all(name in done.stdout for name in COLOURS)
    assert f"top-1 {run.metrics()['test']['top1']:.2%}" in done.stdout


def test_the_command_refuses_another_folder(tool, tmp_path):
    done = tool("eval", tmp_path)
    assert done.exit_code == 2
    assert "config.yaml" in done.stderr


@pytest.mark.parametrize(
    ("right", "images", "words"),
    [  # Wilson's interval, by R's prop.test(correct = FALSE)
        (1, 1, "1 image: top-1 100.00%, 95% interval 21% to 100%"),
        (0, 1, "1 image: top-1 0.00%, 95% interval 0% to 79%"),
        (13, 20, "20 images: top-1 65.00%, 95% interval 43% to 82%"),
        (49, 49, "49 images: top-1 100.00%, 95% interval 93% to 100%"),
        (50, 50, None),
    ],
)
def test_a_small_split_gives_a_warning(caplog, right, images, words):
    labels = np.array([0] * right + [1] * (images - right))
    scores = np.tile(np.array([[0.75, 0.25]], np.float32), (images, 1))
    warn_of_few_images("test", evaluation_of(scores, labels, ("a", "b"), 1.0))
    found = [each.getMessage() for each in caplog.records]
    assert found == ([f"warning: the test split has {words}"] if words else [])
