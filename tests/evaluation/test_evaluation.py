"""Evaluation of a run's splits, and of other pictures: what is measured, written and refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from tiny_run import COLOURS, SIZE, make_run

from paddle_resnet.errors import UsageError
from paddle_resnet.evaluation import NetworkScorer, evaluate, measure_split, run_plots, warn_of_few_images
from paddle_resnet.evaluation.metrics import evaluation_of
from paddle_resnet.evaluation.report import choose_threshold, other_pictures, split_of
from paddle_resnet.exporting import export
from paddle_resnet.images.decode import decode_image, decode_square
from paddle_resnet.inference import InferenceConfig
from paddle_resnet.inference.options import PRECISIONS
from paddle_resnet.results import Evaluation
from paddle_resnet.training.run_folder import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("evaluation"))


def by_hand(run, split):
    """Compute the probabilities from the picture files, with normalisation and softmax in numpy."""
    import paddle

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
    right = sum(images for true, predicted, images in details["confusion"] if true == predicted)
    assert right / sum(images for *_, images in details["confusion"]) == pytest.approx(found.top1)
    assert [each["support"] for each in details["per_class"]] == [4, 4, 4]
    assert {path.name for path in run.figures_path.iterdir()} == {
        "calibration_test.png",
        "confused_pairs_test.png",
        "samples_test.png",
        "confusion_matrix_test.png",
        "mistakes_test.png",
        "precision_recall_test.png",
    }


@pytest.mark.once
@pytest.mark.slow
def test_a_matrix_of_very_many_classes_is_not_drawn(run, monkeypatch, caplog):
    monkeypatch.setattr(run_plots, "LARGEST_MATRIX", 2)
    (run.figures_path / "confusion_matrix_validation.png").unlink(missing_ok=True)
    with caplog.at_level("INFO"):
        evaluate(run, "validation")
    assert "no confusion matrix is drawn: 3 classes, at most 2" in caplog.text
    assert not (run.figures_path / "confusion_matrix_validation.png").exists()
    assert (run.figures_path / "confused_pairs_validation.png").is_file()


def test_results_of_many_classes_grow_with_the_images_only():
    classes, images = 20_000, 50
    generator = np.random.default_rng(0)
    labels, predicted = generator.integers(0, classes, (2, images))
    scores = np.zeros((images, classes), np.float32)
    scores[np.arange(images), predicted] = 1
    found = Evaluation(tuple(map(str, range(classes))), 0, 0, 0, None, 0, (), None, labels, scores, 1.0)
    pairs = sorted(zip(labels, predicted, strict=True))
    assert found.confusion_counts().tolist() == [[*pair, 1] for pair in pairs]


def copies(run, folder, names):
    """Copy the test pictures of some classes, changed a little: those of the run itself are known to it."""
    for name in names:
        (folder / name).mkdir(parents=True)
        for path in sorted((run.config.data.root / "test" / name).iterdir()):
            with Image.open(path) as picture:
                picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / name / path.name)
    return folder


@pytest.mark.once
@pytest.mark.slow
def test_other_pictures_of_some_classes_are_measured(run, tmp_path, caplog):
    """In the order of the run's classes, with its preprocessing, and beside the metrics of the test split."""
    folder = copies(run, tmp_path / "phone", ["red", "green"])
    run.update_metrics("test", {"top1": 0.25})
    found = evaluate(run, data=str(folder))
    files = [folder / name / f"{index}.png" for name in ("green", "red") for index in range(4)]
    pixels = np.stack([decode_image(file, run.splits().resize, SIZE) for file in files])
    expected = NetworkScorer(run.load_network("best"), run.normalize()).scores(pixels)
    np.testing.assert_allclose(found.scores, expected, atol=1e-5)
    assert found.labels.tolist() == [1] * 4 + [2] * 4
    assert run.metrics()["test"] == {"top1": 0.25}
    assert run.metrics()["evaluation_data_phone"]["data"] == str(folder)
    assert run.metrics()["evaluation_data_phone"]["top1"] == found.top1
    assert (run.figures_path / "confused_pairs_data_phone.png").is_file()
    assert "trained on" not in caplog.text
    other = copies(run, tmp_path / "other" / "phone", ["blue"])
    assert other_pictures(run, other).name == "data_phone_2"
    assert other_pictures(run, folder).name == "data_phone"


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        *((f"{kind}_data_photos", "data_photos_2") for kind in ("evaluation", "last", "exported")),
        *((f"exported_data_photos_{precision}", "data_photos_2") for precision in PRECISIONS),
        *((f"{kind}_data_photos_2", "data_photos") for kind in ("evaluation", "last", "exported")),
        ("exported_data_photos_2_int8", "data_photos"),
        ("evaluation_data_photos_int8", "data_photos"),
    ],
)
def test_other_pictures_of_a_name_replace_no_numbers(run, tmp_path, section, expected):
    """Whatever they were measured by: the best or the last checkpoint, or an exported model of some precision."""
    folder = copies(run, tmp_path / "photos", ["blue"])
    run.update_metrics(section, {"top1": 0.5, "data": str(tmp_path / "other" / "photos")})
    assert other_pictures(run, folder).name == expected
    run.update_metrics(section, {"data": str(folder)})
    assert other_pictures(run, folder).name == "data_photos"
    run.update_metrics(section, {})


@pytest.mark.slow
def test_folders_of_one_name_have_sections_of_their_own(tool, tmp_path):
    run = make_run(tmp_path / "run")
    export(run, images=0)
    folders = [copies(run, tmp_path / parent / "photos", [name]) for parent, name in (("a", "red"), ("b", "blue"))]
    for folder in (*folders, folders[0]):
        done = tool("eval", run.path, "--exported", "--precision", "fp32", "--data", folder, "--device", "cpu")
        assert done.exit_code == 0, done.stderr
    sections = {name: section["data"] for name, section in run.metrics().items() if "data_photos" in name}
    names = ("exported_data_photos_fp32", "exported_data_photos_2_fp32")
    assert sections == dict(zip(names, map(str, folders), strict=True))
    done = tool("eval", run.path, "--exported", "--checkpoint", "last", "--device", "cpu")
    assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1) and "leave out --checkpoint last" in done.stderr


def test_a_list_names_other_pictures(run, tmp_path):
    copies(run, tmp_path, ["red", "green"])
    by_name, by_number = tmp_path / "list.txt", tmp_path / "numbers.csv"
    by_name.write_text(f"{tmp_path}/red/1.png red\n{tmp_path}/green/0.png green\n")
    by_number.write_text("path,label\nred/1.png,2\ngreen/0.png,1\n")
    for path in (by_name, by_number):
        images = other_pictures(run, path).images
        assert images.labels.tolist() == [2, 1]
        np.testing.assert_array_equal(images.batch([0])[0], decode_square(str(tmp_path / "red" / "1.png"), SIZE))


def test_pictures_of_the_training_are_told_of(run, caplog):
    other_pictures(Run.open(run.path), run.config.data.root / "train")
    assert "was trained on 24 of these 24 pictures" in caplog.text


def test_other_pictures_must_be_of_the_classes(run, tmp_path):
    (copies(run, tmp_path / "new", ["red"]) / "red").rename(tmp_path / "new" / "greeen")
    with pytest.raises(UsageError, match=r'"greeen" is none of the 3 classes of the run .did you mean "green"'):
        other_pictures(run, tmp_path / "new")
    with pytest.raises(UsageError, match=r"did you mean .*pictures/test"):
        other_pictures(run, run.config.data.root)
    with pytest.raises(UsageError, match="no such folder or list"):
        other_pictures(run, tmp_path / "nothing")


@pytest.mark.slow
@pytest.mark.usefixtures("without_plots")
def test_a_chosen_threshold_is_exported(run, tool):
    """The network knows nothing, and a probability of a third is always reached."""
    done = tool("eval", run.path, "--choose-threshold", "0.3", "--device", "cpu")
    assert done.exit_code == 0 and "of 6 validation images are kept" in done.stdout
    section = run.metrics()["threshold"]
    assert section["right"] / section["kept"] >= 0.3
    export(run, images=0)
    assert InferenceConfig.load(run.inference_path).threshold == section["threshold"]
    with pytest.raises(UsageError, match="no threshold"):
        wrong = evaluation_of(np.eye(3, dtype=np.float32), np.array([1, 2, 0]), list(COLOURS), 1.0)
        choose_threshold(run, wrong, 0.5)


@pytest.mark.slow
@pytest.mark.usefixtures("without_plots")
def test_validation_metrics_have_a_section_of_their_own(run):
    run.update_metrics("validation", {"epoch": 2})
    found = evaluate(run, split="validation")
    assert found.images == len(run.splits().validation) == 6
    assert run.metrics()["validation"] == {"epoch": 2}
    assert run.metrics()["evaluation_validation"]["images"] == 6


def test_unknown_split_is_a_usage_error(run):
    with pytest.raises(UsageError, match='did you mean "test"'):
        measure_split(run, NetworkScorer(run.load_network(), run.normalize()), "tset")


def test_a_run_without_that_checkpoint_is_a_usage_error(run):
    with pytest.raises(UsageError, match="last"):
        evaluate(run, checkpoint="last")


@pytest.mark.slow
@pytest.mark.usefixtures("without_plots")
def test_the_command_prints_every_class(run, tool):
    done = tool("eval", run.path, "--device", "cpu")
    assert done.exit_code == 0
    assert all(name in done.stdout for name in COLOURS)
    assert f"top-1 {run.metrics()['test']['top1']:.2%} (95% interval " in done.stdout
    assert "macro F1" in done.stdout and "top-5" not in done.stdout


def test_the_command_refuses_another_folder(tool, tmp_path):
    done = tool("eval", tmp_path)
    assert done.exit_code == 2
    assert "config.yaml" in done.stderr


@pytest.mark.parametrize(
    ("right", "images", "words"),
    [  # Wilson's interval, by R's prop.test(correct = FALSE)
        (1, 1, "1 image only: top-1 100.00% (95% interval 20.7% to 100.0%)"),
        (0, 1, "1 image only: top-1 0.00% (95% interval 0.0% to 79.3%)"),
        (13, 20, "20 images only: top-1 65.00% (95% interval 43.3% to 81.9%)"),
        (49, 49, "49 images only: top-1 100.00% (95% interval 92.7% to 100.0%)"),
        (50, 50, None),
    ],
)
def test_a_small_split_gives_a_warning(run, caplog, right, images, words):
    labels = np.array([0] * right + [1] * (images - right))
    scores = np.tile(np.array([[0.75, 0.25]], np.float32), (images, 1))
    warn_of_few_images(split_of(run, "test"), evaluation_of(scores, labels, ("a", "b"), 1.0))
    found = [each.getMessage() for each in caplog.records]
    assert found == ([f"warning: the test split: {words}"] if words else [])
