"""The predictor and `predict`: any picture, many threads, bad files, and the written predictions."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from tiny_run import COLOURS, SIZE, random_pixels

from paddle_resnet.errors import UsageError
from paddle_resnet.inference import Prediction, Predictor
from paddle_resnet.inference.find_pictures import Unreadable, find_pictures

pytestmark = pytest.mark.slow

ON_CPU = ("--device", "cpu")


@pytest.fixture(scope="module")
def run(exported_run):
    return exported_run


@pytest.fixture(scope="module")
def predictor(run):
    with Predictor(run.path, device="cpu", threads=1, batch_size=4) as predictor:
        yield predictor


@pytest.fixture
def pictures(run, tmp_path):
    """A folder of pictures and other files."""
    folder = tmp_path / "pictures"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    test = run.config.data.root / "test"
    for target, source in {
        "b.png": "blue/0.png",
        "a.PNG": "red/1.png",
        "deep/er/c.png": "green/2.png",
        "deep/d.png": "green/3.png",
        ".thumbnail.png": "red/0.png",
        ".hidden/e.png": "red/0.png",
        "notes.txt": "red/0.png",
    }.items():
        (folder / target).write_bytes((test / source).read_bytes())
    return folder


def test_the_batch_size_does_not_change_scores(predictor):
    batch = random_pixels(11)
    together = predictor.scores(batch)
    assert together.shape == (11, len(COLOURS))
    one_by_one = np.concatenate([predictor.scores(batch[i : i + 1]) for i in range(11)])
    np.testing.assert_allclose(together, one_by_one, atol=1e-5)
    np.testing.assert_allclose(together.sum(1), 1, atol=1e-5)
    assert predictor.scores(batch[:0]).shape == (0, len(COLOURS))


def test_arrays_need_not_be_contiguous(predictor):
    batch = random_pixels(6)
    np.testing.assert_allclose(predictor.scores(batch[::-2]), predictor.scores(batch[::-2].copy()), atol=1e-6)


@pytest.mark.parametrize(
    ("batch", "complaint"),
    [
        (np.zeros((2, SIZE, SIZE, 3), np.float32), "float32"),
        (np.zeros((2, SIZE, SIZE, 3), np.int64), "int64"),
        (np.zeros((2, 3, SIZE, SIZE), np.uint8), "3, 16, 16"),
        (np.zeros((SIZE, SIZE, 3), np.uint8), "16, 16, 3"),
        (np.zeros((2, SIZE + 1, SIZE, 3), np.uint8), "17"),
        ([[0]], "list"),
    ],
)
def test_wrong_arrays_are_usage_errors(predictor, batch, complaint):
    with pytest.raises(UsageError, match=complaint):
        predictor.scores(batch)


def test_threads_can_share_a_predictor(predictor):
    batches = [random_pixels(1 + seed % 5, seed) for seed in range(24)]
    expected = [predictor.scores(batch) for batch in batches]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(predictor.scores, batches))
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-6)


FORKED = """
import os, sys
import numpy as np
from paddle_resnet import Predictor, errors
predictor = Predictor(sys.argv[1], device="cpu", threads=1, backend="paddle")
pixels = np.zeros((1, predictor.config.input.image_size, predictor.config.input.image_size, 3), np.uint8)
predictor.scores(pixels)
if child := os.fork():
    sys.exit(os.waitpid(child, 0)[1])
try:
    predictor.scores(pixels)
except errors.UsageError as error:
    print(error)
with Predictor(sys.argv[1], device="cpu", threads=1, backend="paddle") as own:
    print(own.scores(pixels).shape, flush=True)
os._exit(0)
"""


@pytest.mark.posix
def test_a_forked_process_needs_its_own_predictor(run, project):
    """Paddle waits there for threads that the fork did not copy."""
    command = [sys.executable, "-c", FORKED, run.path]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=120, check=True)
    refused, scored = done.stdout.splitlines()[-2:]
    assert "before the process was forked" in refused and scored == "(1, 3)"


def test_a_closed_predictor_is_a_usage_error(run):
    with Predictor(run.inference_path, device="cpu", threads=1) as predictor:
        pass
    with pytest.raises(UsageError, match="closed"):
        predictor.scores(random_pixels(1))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"threads": "2"}, "threads: expected a whole number from 1 to 256, got '2'"),
        ({"threads": 257}, "threads: expected a whole number from 1 to 256, got 257"),
        ({"batch_size": 0}, "batch_size: expected a whole number of at least 1, got 0"),
        ({"threshold": 60}, "threshold: expected a probability, got 60"),
        ({"threshold": "0.5"}, "threshold: expected a probability, got '0.5'"),
        ({"threshold": float("nan")}, "threshold: expected a probability, got nan"),
        ({"device": 0}, "device 0: expected auto, cpu, gpu"),
    ],
)
def test_wrong_options_are_usage_errors(run, arguments, complaint):
    with pytest.raises(UsageError, match=complaint):
        Predictor(run.inference_path, **arguments)


def test_a_missing_gpu_is_a_usage_error(run):
    with pytest.raises(UsageError, match="gpu:99"):
        Predictor(run.inference_path, device="gpu:99")


def test_paths_bytes_images_and_arrays_give_equal_predictions(run, predictor):
    path = run.config.data.root / "test" / "red" / "0.png"
    with Image.open(path) as image:
        forms = [path, str(path), path.read_bytes(), image.copy(), np.asarray(image)]
    predictions = predictor.predict(iter(forms), top_k=2)
    assert [each.name for each in predictions] == [str(path), str(path), "image 2", "image 3", "image 4"]
    for prediction in predictions[1:]:
        assert [each.label for each in prediction.top] == [each.label for each in predictions[0].top]
        assert prediction.top[0].probability == pytest.approx(predictions[0].top[0].probability, abs=1e-6)


def test_a_single_picture_gives_a_list_of_one(run, predictor):
    path = run.config.data.root / "test" / "red" / "0.png"
    with Image.open(path) as image:
        alone = [path, str(path), path.read_bytes(), bytearray(path.read_bytes()), image.copy(), np.asarray(image)]
    best = predictor.predict([path])[0].top[0]
    for picture in alone:
        predictions = predictor.predict(picture)
        assert len(predictions) == 1
        assert predictions[0].top[0].label == best.label
    assert predictor.predict(str(path))[0].name == str(path)
    assert len(predictor.predict(np.stack([alone[-1]] * 3))) == 3
    assert len(predictor.predict(np.array([str(path)] * 2))) == 2
    assert len(predictor.predict(np.zeros((20, 30), np.uint8))) == 1
    assert predictor.predict(iter([])) == predictor.predict([]) == []


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.zeros((5, 20, 30), np.uint8), r"\[5, 20, 30\]"),
        (np.zeros((1, 1, 20, 30, 3), np.uint8), r"\[1, 1, 20, 30, 3\]"),
        (np.zeros((20, 30, 3), np.float32), "float32"),
        (np.zeros(7, np.uint8), r"\[7\]"),
        (3, "got 3"),
        (None, "got None"),
        (io.BytesIO(b"GIF89a"), r"expected a picture or several \(path, bytes, .*got <_io\.BytesIO"),
    ],
)
def test_a_wrong_picture_is_named_with_its_shape(predictor, images, words):
    with pytest.raises(UsageError, match=words):
        predictor.predict(images)


def test_classes_are_ranked_by_probability(predictor):
    scores = np.array([[0.2, 0.5, 0.3], [0.4, 0.2, 0.4]], np.float32)
    first, second = predictor.rank(scores, top_k=9)
    assert [each.label for each in first] == ["green", "red", "blue"]
    assert [each.probability for each in first] == pytest.approx([0.5, 0.3, 0.2])
    assert [each.label for each in second] == ["blue", "red", "green"]
    with pytest.raises(UsageError, match="top_k"):
        predictor.rank(scores, top_k=0)


def test_folders_are_walked_in_order_without_hidden_files(pictures):
    found = [path.relative_to(pictures).as_posix() for path in find_pictures([pictures])]
    assert found == ["a.PNG", "b.png", "deep/d.png", "deep/er/c.png"]


def test_unreadable_files_keep_their_place(predictor, pictures):
    (pictures / "aa.jpg").write_text("not a picture")
    (pictures / "empty").mkdir()
    files = list(find_pictures([pictures, pictures / "nothere.png", pictures / "empty"]))
    results = predictor.predict_files(files, top_k=1)
    assert [type(each) for each in results] == [Prediction, Unreadable, *[Prediction] * 3, Unreadable, Unreadable]
    reasons = [each.reason for each in results if isinstance(each, Unreadable)]
    assert "aa.jpg" in reasons[0]
    assert "nothere.png: no such file" in reasons[1]
    assert "no pictures in this folder" in reasons[2]
    direct = predictor.predict([pictures / "deep" / "er" / "c.png"], top_k=1)[0]
    assert results[4] == direct


def test_table_csv_and_json_hold_the_same_predictions(run, predictor, tool, pictures, tmp_path):
    table, listing = tmp_path / "a.csv", tmp_path / "a.json"
    options = ("--top-k", 2, "--csv", table, "--json", listing, "--batch-size", 3, *ON_CPU)
    done = tool("predict", run.path, pictures, *options)
    assert done.exit_code == 0
    expected = predictor.predict([path for path in find_pictures([pictures]) if not isinstance(path, Unreadable)], 2)
    rows = list(csv.reader(io.StringIO(table.read_text())))
    assert rows[0] == ["file", "class", "probability", "class_2", "probability_2"]
    objects = json.loads(listing.read_text())
    lines = done.stdout.splitlines()
    assert len(rows) - 1 == len(objects) == len(lines) - 1 == len(expected) == 4
    for row, entry, line, prediction in zip(rows[1:], objects, lines[1:], expected, strict=True):
        best, second = prediction.top
        assert row[0] == entry["file"] == prediction.name
        assert row[1::2] == [each["class"] for each in entry["top"]] == [best.label, second.label]
        assert float(row[2]) == pytest.approx(best.probability, abs=1e-5)
        assert entry["top"][1]["probability"] == pytest.approx(second.probability, abs=1e-5)
        assert line.startswith(best.label)
        assert line.endswith(prediction.name)


def test_some_unreadable_files_exit_1(run, tool, pictures):
    (pictures / "bad.jpg").write_text("not a picture")
    done = tool("predict", run.inference_path, pictures, *ON_CPU)
    assert done.exit_code == 1
    assert len(done.stdout.splitlines()) == 5
    assert "bad.jpg" in done.stderr
    assert "1 of 5" in done.stderr


def test_no_readable_file_exits_2_and_writes_nothing(run, tool, tmp_path):
    (tmp_path / "bad.jpg").write_text("not a picture")
    (tmp_path / "predictions.csv").write_text("earlier")
    done = tool("predict", run.inference_path, tmp_path / "bad.jpg", "--csv", tmp_path / "predictions.csv", *ON_CPU)
    assert done.exit_code == 2
    assert (tmp_path / "predictions.csv").read_text() == "earlier"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.jpg", "predictions.csv"]
    assert "bad.jpg" in done.stderr


def test_an_unwritable_output_fails_before_the_work(run, tool, pictures):
    done = tool("predict", run.inference_path, pictures, "--json", pictures, *ON_CPU)
    assert done.exit_code == 1
    assert "cannot be written" in done.stderr
    assert done.stdout == ""


def test_csv_on_standard_output_replaces_the_table(run, tool, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = tool("predict", run.path, pictures, "--csv", "-", *ON_CPU)
    assert done.exit_code == 0
    rows = list(csv.reader(io.StringIO(done.stdout)))
    assert rows[0][0] == "file"
    assert len(rows) == 5
    assert not (tmp_path / "-").exists()


def test_outputs_must_differ_from_each_other_and_pictures(run, tool, pictures, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "a")
    pairs = [("-", "-"), (tmp_path / "a", tmp_path / "a"), (tmp_path / "a", link), (link, tmp_path / "a.part")]
    for first, second in pairs:
        done = tool("predict", run.path, pictures, "--csv", first, "--json", second, *ON_CPU)
        assert done.exit_code == 2
        assert "two outputs" in done.stderr
    before = (pictures / "b.png").read_bytes()
    done = tool("predict", run.path, pictures, "--csv", pictures / "b.png", *ON_CPU)
    assert done.exit_code == 2
    assert "both a picture and an output" in done.stderr
    assert (pictures / "b.png").read_bytes() == before


@pytest.mark.skipif(sys.platform != "linux", reason="names that are not UTF-8 exist on Linux only")
def test_names_of_any_bytes_are_printed_safely(run, tool, pictures, tmp_path):
    name = os.fsdecode(b"odd\xff\x1b[31m.png")
    (pictures / name).write_bytes((pictures / "b.png").read_bytes())
    done = tool("predict", run.inference_path, pictures / name, "--csv", tmp_path / "a.csv", *ON_CPU)
    assert done.exit_code == 0
    assert "\x1b" not in done.stdout
    assert os.fsencode(name) in (tmp_path / "a.csv").read_bytes()
