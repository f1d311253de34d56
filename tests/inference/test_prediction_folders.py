"""Pictures sorted by class, drawn upon, and as features."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from PIL import Image
from tiny_run import COLOURS, SIZE, make_run

from paddle_resnet.errors import RunFailure, UsageError
from paddle_resnet.exporting import export
from paddle_resnet.images.decode import decode_image
from paddle_resnet.inference import ClassProbability, Prediction, Predictor
from paddle_resnet.inference.prediction_folders import draw_pictures, folder_names, open_embeddings, sort_pictures
from paddle_resnet.plots.annotation import annotate, heated


def prediction(path, label, probability=0.75, threshold=0.0):
    return Prediction(str(path), (ClassProbability(label, probability),), threshold)


def checksum(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]


@pytest.fixture
def pictures(tmp_path):
    """Two files of one name, and a third one."""
    files = [tmp_path / "in" / name for name in ("a/1.jpg", "b/1.jpg", "b/2.jpg")]
    for index, file in enumerate(files):
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 20), (80 * index, 0, 0)).save(file)
    return files


def test_pictures_are_copied_by_class_and_kept(pictures, tmp_path):
    out = tmp_path / "out"
    before = [file.read_bytes() for file in pictures]
    predictions = [prediction(file, "cat") for file in pictures[:2]] + [prediction(pictures[2], "dog", 0.5, 0.6)]
    for order in (predictions, predictions, predictions[1:]):  # the second and third time all of them are there
        sort_pictures(out, ("cat", "dog"))(order)
    found = {str(file.relative_to(out)): file.read_bytes() for file in out.rglob("*") if file.is_file()}
    assert found == dict(zip(("cat/1.jpg", f"cat/1_{checksum(pictures[1])}.jpg", "unknown/2.jpg"), before, strict=True))
    assert [file.read_bytes() for file in pictures] == before


def test_no_file_is_overwritten(pictures, tmp_path):
    mine = tmp_path / "out" / "cat" / "1.jpg"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    sort_pictures(tmp_path / "out", ("cat",))([prediction(pictures[0], "cat")])
    assert mine.read_text() == "mine"
    assert (mine.parent / f"1_{checksum(pictures[0])}.jpg").read_bytes() == pictures[0].read_bytes()


@pytest.mark.posix
def test_pictures_of_one_long_name_are_kept_apart(tmp_path):
    files = [tmp_path / folder / ("\u732b" * 83 + ".jpeg") for folder in ("a", "b")]
    for index, file in enumerate(files):
        file.parent.mkdir()
        file.write_bytes(bytes([index]))
    sort_pictures(tmp_path / "out", ("cat",))([prediction(file, "cat") for file in files])
    found = {file.name: file.read_bytes() for file in (tmp_path / "out" / "cat").iterdir()}
    assert found == {"\u732b" * 83 + ".jpeg": b"\0", "\u732b" * 79 + f"_{checksum(files[1])}.jpeg": b"\1"}


def test_class_names_become_safe_and_distinct_folders():
    classes = (
        "../etc",
        "a/b",
        "a:b",
        "A_B",
        "con",
        "con.txt",
        "..",
        "end. ",
        "",
        "白鹭",
        "x" * 300,
        "\N{HAMSTER FACE}" * 300,
    )
    names = folder_names(classes)
    assert names["../etc"] == "__etc"
    assert [names[label] for label in classes[1:4]] == ["a_b", "a_b_", "A_B__"]
    assert (names["con"], names["con.txt"]) == ("con_", "con_.txt")
    assert (names["白鹭"], names["unknown"]) == ("白鹭", "unknown")
    folded = [name.casefold() for name in names.values()]
    assert len(set(folded)) == len(classes) + 1
    assert all(name.strip(". ") and "/" not in name and len(name.encode()) < 255 for name in folded)


def test_a_lost_picture_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match=r"gone\.jpg: cannot be read again"):
        sort_pictures(tmp_path / "out", ("cat",))([prediction(tmp_path / "gone.jpg", "cat")])


@pytest.mark.parametrize("name", ["afile/x.npz", "emb.npz"])
def test_features_that_cannot_be_written_are_refused_before_the_first(tmp_path, name):
    (tmp_path / "afile").write_text("mine")
    (tmp_path / "emb.npz").mkdir()
    with pytest.raises(RunFailure, match=f"{name}: cannot be written"):
        open_embeddings(tmp_path / name, lambda batch: np.zeros((len(batch), 2), np.float32)).__enter__()


def test_a_drawing_keeps_the_picture_below_its_caption(tmp_path):
    pixels = np.full((480, 640, 3), 200, np.uint8)
    draw_pictures(tmp_path, lambda each: annotate(pixels, each.label))([prediction("x/1.png", "cat")])
    with Image.open(tmp_path / "1.jpg") as picture:
        drawn = np.asarray(picture)
    assert drawn.shape == pixels.shape
    assert drawn[:20, :20].min() < 60  # the strip
    np.testing.assert_allclose(drawn[100:].astype(int), 200, atol=2)


def test_heat_is_blended_by_its_strength():
    """Vermilion is (213, 94, 0), and the strongest heat covers 65%."""
    heat = np.zeros((4, 4), np.float32)
    heat[0] = 1
    found = heated(np.full((4, 4, 3), 100, np.uint8), heat)
    np.testing.assert_allclose(found[0].astype(int), [[173, 96, 35]] * 4, atol=1)
    assert (found[1:] == 100).all()


@pytest.mark.once
@pytest.mark.slow
def test_the_command_draws_sorts_and_embeds(tool, tmp_path):
    import paddle

    run = make_run(tmp_path / "run")
    export(run, images=0)
    source = run.config.data.root / "test"
    files = sorted(source.rglob("*.png"))
    out = {name: tmp_path / name for name in ("drawn", "sorted", "features.npz")}
    options = ("--draw", out["drawn"], "--why", "--sort", out["sorted"], "--embeddings", out["features.npz"])
    done = tool("predict", run.path, source, *options, "--threshold", "0.4", "--device", "cpu")
    assert done.exit_code == 0, done.stderr
    with Predictor(run.path, "cpu", threshold=0.4) as predictor:
        labels = [each.label for each in predictor.predict(files)]
    names = {name: len(list((out["sorted"] / name).glob("*"))) for name in set(labels)}
    assert names == {name: labels.count(name) for name in names}
    with Image.open(out["drawn"] / "0.jpg") as picture:
        assert picture.size == (576 + 8 + 480, 480)
    found = np.load(out["features.npz"])
    pixels = np.stack([decode_image(file, run.splits().resize, SIZE) for file in files])
    with paddle.no_grad():
        features = run.load_network("best").forward_features(run.normalize()(paddle.to_tensor(pixels)))
    np.testing.assert_allclose(found["features"], features.numpy().mean((2, 3)), atol=1e-4)
    assert found["names"].tolist() == [str(file) for file in files]
    assert found["classes"].tolist() == labels
    assert {*labels} <= {*COLOURS, "unknown"}

    inside = tool("predict", run.path, source, "--sort", source / "out", "--device", "cpu")
    assert inside.exit_code == 2 and "whose pictures are classified" in inside.stderr
    run.inference_path.rename(tmp_path / "alone")
    alone = tool("predict", tmp_path / "alone", files[0], "--draw", out["drawn"], "--why", "--device", "cpu")
    assert alone.exit_code == 2 and "folder of its run" in alone.stderr
