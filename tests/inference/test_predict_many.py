"""Many pictures: predicted in order by several processes, and by the command."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_run import COLOURS

from paddle_resnet.inference import Prediction, Predictor
from paddle_resnet.inference.find_pictures import Unreadable, find_pictures
from paddle_resnet.inference.predict_many import batched, decoding_workers, predict_here, prediction_workers

pytestmark = pytest.mark.slow

ON_CPU = ("--device", "cpu")


@pytest.fixture(scope="module")
def run(exported_run):
    return exported_run


@pytest.fixture
def pictures(run, tmp_path):
    """Seven pictures of three classes, one that is damaged, and a pattern without a match."""
    found = [file for name in COLOURS for file in sorted((run.config.data.root / "test" / name).iterdir())[:3]][:7]
    bad = tmp_path / "bad.jpg"
    bad.write_text("no picture")
    return [*found[:2], bad, *found[2:], tmp_path / "*.gif"]


def test_processes_predict_as_this_one_does(run, pictures):
    files = list(find_pictures(pictures))
    with Predictor(run.path, device="cpu", threads=1, batch_size=3) as predictor:
        expected = predictor.predict_files(files, top_k=2)
        with decoding_workers(predictor, 1, top_k=2) as predict:
            decoded_apart = [each for batch in predict(batched(files, 3)) for each in batch]
    with prediction_workers(run.path, 2, 2, 2, device="cpu", batch_size=3) as predict:
        batches = list(predict(batched(files, 3)))
    assert [len(batch) for batch in batches] == [3, 3, 3]
    predicted_apart = [each for batch in batches for each in batch]
    assert [type(each) for each in expected] == [*[Prediction] * 2, Unreadable, *[Prediction] * 5, Unreadable]
    for here, predicted, decoded in zip(expected, predicted_apart, decoded_apart, strict=True):
        if isinstance(here, Unreadable):
            assert here == predicted == decoded
            continue
        assert here.name == predicted.name == decoded.name
        for other in (predicted, decoded):
            assert [each.label for each in other.top] == [each.label for each in here.top]
            assert [each.probability for each in other.top] == pytest.approx(
                [each.probability for each in here.top], abs=1e-5
            )


def test_unreadable_files_keep_their_place_at_both_ends(run, pictures):
    first, last = Unreadable(Path("first"), "1"), Unreadable(Path("last"), "2")
    with Predictor(run.path, device="cpu", threads=1, batch_size=2) as predictor:
        predict = predict_here(predictor, 1)
        mixed = [each for batch in predict(batched([first, pictures[0], last, last], 2)) for each in batch]
        assert list(predict(batched([first, last], 2))) == [[first, last]]
        assert list(predict(batched([], 2))) == []
    assert [mixed[0], *mixed[2:]] == [first, last, last]
    assert mixed[1].name == str(pictures[0])


@pytest.mark.once
def test_many_pictures_keep_their_order(run, tool, tmp_path):
    pattern = str(run.config.data.root / "t*" / "**" / "*.png")
    written = tmp_path / "submission.csv"
    columns = "id=stem,label=class,red=probability:red,file=path"
    options = ("--batch-size", 2, "--workers", 2, "--quiet", "--csv", written, "--columns", columns, *ON_CPU)
    done = tool("predict", run.path, pattern, *options)
    assert done.exit_code == 0
    assert done.stdout == ""
    assert "36 pictures in " in done.stderr
    assert "images/s" in done.stderr
    rows = list(csv.DictReader(written.open(encoding="utf-8")))
    files = [str(file) for file in find_pictures([pattern])]
    assert [row["file"] for row in rows] == files
    assert len(files) == 36
    with Predictor(run.path, device="cpu", threads=1) as predictor:
        expected = predictor.predict(files, top_k=3)
    for row, prediction in zip(rows, expected, strict=True):
        assert row["id"] == Path(prediction.name).stem
        assert row["label"] == prediction.top[0].label
        assert float(row["red"]) == pytest.approx(dict(prediction.top)["red"], abs=1e-5)


def test_a_list_of_files_gives_json_lines(run, tool, pictures, tmp_path, monkeypatch):
    written = tmp_path / "predictions.jsonl"
    listing = b"\0".join(os.fsencode(file) for file in pictures[:3])
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(listing)))
    done = tool("predict", run.path, "-0", "-", "--top-k", 1, "--json-lines", written, *ON_CPU)
    assert done.exit_code == 1
    assert "bad.jpg: cannot be read" in done.stderr
    entries = [json.loads(line) for line in written.read_text().splitlines()]
    assert [entry["file"] for entry in entries] == [str(file) for file in pictures[:2]]
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == [entry["top"][0]["class"] for entry in entries]


def test_an_empty_list_is_a_usage_error(run, tool, monkeypatch):
    """As from `find -newer`, when nothing is new."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    done = tool("predict", run.path, "-", *ON_CPU)
    assert (done.exit_code, done.stderr) == (2, "error: the list on standard input names no pictures\n")


@pytest.mark.once
def test_files_are_completed_without_a_table_reader(run, project, pictures, tmp_path):
    written = tmp_path / "predictions.csv"
    command = shlex.join(
        [sys.executable, str(project / "tools" / "predict.py"), str(run.path), *map(str, pictures[:2]), *ON_CPU]
    )
    line = f"{command} --csv {shlex.quote(str(written))} | true"
    subprocess.run(["bash", "-o", "pipefail", "-c", line], check=True, capture_output=True)
    assert len(written.read_text().splitlines()) == 3


@pytest.mark.parametrize("batch_size", [32, 1])  # few, and many
def test_copies_and_drawings_are_not_classified_again(run, tool, tmp_path, batch_size):
    """Neither those of this run, whose folder of a class is read last, nor those of an earlier one."""
    folder = tmp_path / "ph"
    shutil.copytree(run.config.data.root / "test", folder / "a")
    (folder / "zsorted" / "2026").mkdir(parents=True)
    shutil.copy(folder / "a" / "red" / "0.png", folder / "zsorted" / "2026" / "mine.png")  # no folder of a class
    originals = sorted(map(str, folder.rglob("*.png")))
    (folder / "zsorted" / "red").mkdir()
    for already in (0, 13, 13):
        options = ("--sort", folder / "zsorted", "--csv", tmp_path / "all.csv", "--quiet", "--workers", 1, *ON_CPU)
        done = tool("predict", run.path, str(folder / "**" / "*.*"), "--batch-size", batch_size, *options)
        assert done.exit_code == 0, done.stderr
        rows = list(csv.DictReader((tmp_path / "all.csv").open(encoding="utf-8")))
        assert sorted(row["file"] for row in rows) == originals
        told = f"left out: {already} pictures in the folders of --sort {folder / 'zsorted'}"
        assert not already or told in done.stderr
    alone = tool("predict", run.path, str(folder / "zsorted" / "[b-r]*" / "*.png"), *options)
    assert alone.exit_code == 2 and "no other pictures are named" in alone.stderr
    done = tool("predict", run.path, str(folder / "a" / "red" / "*"), "--draw", folder / "a" / "red", *ON_CPU)
    assert done.exit_code == 2 and "left out: 4 pictures in the folders of --draw" in done.stderr


def test_columns_without_a_csv_are_usage_errors(run, tool):
    done = tool("predict", run.path, "x.png", "--columns", "id=stem", *ON_CPU)
    assert done.exit_code == 2
    assert "--csv FILE" in done.stderr
