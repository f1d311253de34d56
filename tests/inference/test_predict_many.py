"""Many pictures: how they are found, predicted in order by processes, and written."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tiny_run import COLOURS, make_run
from worker_tasks import as_long, exit_at, refuse, slow_square

from paddle_resnet import console as console_module
from paddle_resnet.errors import RunFailure, UsageError
from paddle_resnet.export import export_run
from paddle_resnet.inference import Prediction, Predictor
from paddle_resnet.inference.find_pictures import Unreadable, find_pictures, listed_pictures
from paddle_resnet.inference.predict_many import batched, decoding_workers, predict_here, prediction_workers
from paddle_resnet.inference.prediction_files import (
    open_csv,
    open_json_lines,
    parse_columns,
    partial_path,
    ranked_columns,
)
from paddle_resnet.inference.predictor import ClassProbability
from paddle_resnet.worker_pool import WorkerPool

ON_CPU = ("--device", "cpu")
DOG = Prediction("test/7.jpg", tuple(map(ClassProbability, ("dog", "cat", "eel"), (0.75, 0.2, 0.05))))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("many"))
    export_run(run)
    return run


@pytest.fixture
def tree(tmp_path):
    for name in ("b.png", "a.jpg", "notes.txt", "deep/c.PNG", "deep/er/d.jpg", "deep/.hidden.jpg", ".secret/e.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["a.jpg"]),
        ("**/*.jpg", ["a.jpg", "deep/er/d.jpg"]),
        ("**/*", ["a.jpg", "b.png", "deep/c.PNG", "deep/er/d.jpg"]),
        ("[ab].*", ["a.jpg", "b.png"]),
        ("*", ["a.jpg", "b.png", "deep/c.PNG", "deep/er/d.jpg"]),
        ("de?p", ["deep/c.PNG", "deep/er/d.jpg"]),
        ("*.txt", ["notes.txt"]),
    ],
)
def test_patterns_match_pictures(tree, pattern, expected):
    assert [Path(found).relative_to(tree).as_posix() for found in find_pictures([tree / pattern])] == expected


def test_a_pattern_without_a_match_is_unreadable(tree):
    (found,) = find_pictures([tree / "*.gif"])
    assert isinstance(found, Unreadable)
    assert "*.gif: no picture matches" in found.reason


def test_a_file_whose_name_is_a_pattern_is_that_file(tree):
    odd = tree / "a[1].jpg"
    odd.touch()
    assert list(find_pictures([odd])) == [odd]


@pytest.mark.parametrize(
    ("content", "separator"), [(b"x.jpg\n\r\n%s\r\nlast [1].png", b"\n"), (b"x.jpg\0%s\0last [1].png\0", b"\0")]
)
def test_a_list_names_files_and_folders(tree, content, separator):
    listing = io.BytesIO(content % os.fsencode(tree / "deep"))
    expected = [Path("x.jpg"), tree / "deep/c.PNG", tree / "deep/er/d.jpg", Path("last [1].png")]
    assert list(listed_pictures(listing, separator)) == expected


def test_an_impossible_name_does_not_end_a_list():
    """Python's own Path.is_dir raises for one: the picture is reported as unreadable, and the list goes on."""
    long = "x" * 5000
    assert list(listed_pictures(io.BytesIO(f"{long}\na.jpg\n".encode()))) == [Path(long), Path("a.jpg")]
    assert list(find_pictures([long])) == [Path(long)]


def test_zero_separated_lists_hold_names_with_line_ends():
    assert list(listed_pictures(io.BytesIO(b"odd\nname.jpg\0"), b"\0")) == [Path("odd\nname.jpg")]


def test_pool_results_are_in_order_and_bounded():
    taken = []

    def tasks():
        for number in range(12):
            taken.append(number)
            yield number

    with WorkerPool(2, slow_square, 1) as pool:
        pool.wait_until_ready()
        results = pool.results(tasks())
        first = next(results)
        assert len(taken) <= 5
        together = [first, *results]
    assert [value for _, value in together] == [number * number + 1 for number in range(12)]
    assert len({process for process, _ in together}) == 2


def test_pool_tasks_may_exceed_a_pipes_buffer():
    """Whoever sends a task waits for it to be taken, and so does who sends a result: each would wait for the other."""
    found = []

    def work():
        with WorkerPool(1, as_long, 4 << 20) as pool:
            pool.wait_until_ready()
            found.extend(len(result) for result in pool.results([bytes(4 << 20)] * 4))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(120)
    assert found == [4 << 20] * 4


def test_a_failing_pool_process_is_named():
    with WorkerPool(1, exit_at, 2) as pool, pytest.raises(RunFailure, match="code 7"):
        pool.wait_until_ready()
        list(pool.results(range(5)))
    with WorkerPool(1, refuse) as pool, pytest.raises(UsageError, match="not this model"):
        pool.wait_until_ready()


def test_pool_processes_end_with_a_killed_parent(project):
    program = (
        "import os, signal, sys; sys.path[:0] = ['.', 'tests/helpers']\n"
        "from functools import partial\nfrom paddle_resnet.worker_pool import WorkerPool\n"
        "if __name__ == '__main__':\n"
        "    pool = WorkerPool(1, partial, os.getpid)\n    pool.wait_until_ready()\n"
        "    print(pool._workers[0].process.pid, flush=True)\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=project, capture_output=True, text=True, timeout=60)
    child = int(done.stdout)
    for _ in range(100):
        state = Path(f"/proc/{child}/stat")
        if not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("the worker process outlived its parent")


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


def test_columns_for_a_competition():
    columns = parse_columns('id=stem,label=probability:dog,"a,b=name",best=class,p=probability,f=path', ["cat", "dog"])
    assert [column.title for column in columns] == ["id", "label", "a,b", "best", "p", "f"]
    assert [column.cell(DOG) for column in columns] == ["7", "0.750000", "7.jpg", "dog", "0.750000", "test/7.jpg"]
    (cat,) = parse_columns("p=probability:cat", ["cat", "dog"])
    assert cat.cell(DOG) == "0.200000"
    assert [column.needs_every_class for column in columns] == [False, True, False, False, False, False]


def test_columns_by_rank():
    columns = ranked_columns(2)
    assert [column.title for column in columns] == ["file", "class", "probability", "class_2", "probability_2"]
    assert [column.cell(DOG) for column in columns] == ["test/7.jpg", "dog", "0.750000", "cat", "0.200000"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id", ['"id" is no column', "id=stem"]),
        ("id=stam", ['"stam"', 'did you mean "stem"', "probability:CLASS"]),
        ("p=probability:dgo", ['"dgo"', 'did you mean "dog"']),
        ("", ["expected title=content"]),
    ],
)
def test_wrong_columns_are_usage_errors(text, words):
    with pytest.raises(UsageError) as caught:
        parse_columns(text, ["cat", "dog"])
    for word in words:
        assert word in str(caught.value)


def test_ctrl_c_keeps_the_predictions_and_an_error_none(tmp_path):
    path = tmp_path / "predictions.jsonl"
    path.write_text("earlier")
    with pytest.raises(KeyboardInterrupt), open_json_lines(path, 1) as write:
        write([DOG])
        raise KeyboardInterrupt
    assert path.read_text() == "earlier"
    expected = {"file": "test/7.jpg", "top": [{"class": "dog", "probability": 0.75}]}
    assert json.loads(partial_path(path).read_text()) == expected
    with pytest.raises(OSError), open_csv(path, ranked_columns(1)) as write:
        write([DOG])
        raise OSError(28, "No space left on device")
    assert sorted(tmp_path.iterdir()) == [path]


def test_a_pipe_gets_rows_at_once_and_stays(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with open_csv(path, ranked_columns(1)) as write:
        write([DOG])
        assert os.read(reader, 1000) == b"file,class,probability\ntest/7.jpg,dog,0.750000\n"
    os.close(reader)
    assert path.is_fifo()
    assert list(tmp_path.iterdir()) == [path]


def test_a_lost_reader_is_named(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(RunFailure, match="fifo: its reader has gone"), open_json_lines(path, 1) as write:
        os.close(reader)
        write([DOG])


def test_descriptors_and_devices_are_written_directly():
    reader, writer = os.pipe()
    with open_json_lines(Path(f"/dev/fd/{writer}"), 1) as write:
        write([DOG])
    os.close(writer)
    assert json.loads(os.read(reader, 1000))["file"] == "test/7.jpg"
    os.close(reader)
    if Path("/dev/full").exists():
        with pytest.raises(RunFailure, match="/dev/full"), open_json_lines(Path("/dev/full"), 1) as write:
            write([DOG])


@pytest.mark.parametrize("target", ["store/there.csv", "store/new.csv"])
def test_a_links_target_is_written(tmp_path, target):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "there.csv").write_text("old")
    link = tmp_path / "link.csv"
    link.symlink_to(target)
    with open_csv(link, ranked_columns(1)) as write:
        write([DOG])
    assert link.is_symlink()
    assert (tmp_path / target).read_text() == "file,class,probability\ntest/7.jpg,dog,0.750000\n"
    assert {path.name for path in (tmp_path / "store").iterdir()} == {"there.csv", Path(target).name}


def test_a_link_to_itself_is_an_error(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(RunFailure, match="leads to itself"), open_csv(tmp_path / "loop", ranked_columns(1)):
        pass
    assert (tmp_path / "loop").is_symlink()


@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_a_link_or_pipe_named_part_stays(tmp_path, kind):
    (tmp_path / "precious").write_text("mine")
    part = tmp_path / "a.csv.part"
    if kind == "link":
        part.symlink_to("precious")
    else:
        os.mkfifo(part)
    with pytest.raises(RunFailure, match="cannot be written"), open_csv(tmp_path / "a.csv", ranked_columns(1)):
        pass
    assert (tmp_path / "precious").read_text() == "mine"
    assert part.is_symlink() or part.is_fifo()


def test_counting_on_a_terminal_and_in_a_log(monkeypatch):
    from rich.console import Console

    for terminal in (True, False):
        text = io.StringIO()
        monkeypatch.setattr(
            console_module, "error_console", Console(file=text, force_terminal=terminal, width=100, highlight=False)
        )
        monkeypatch.setattr(console_module, "SECONDS_BETWEEN_LINES", -1.0)
        with console_module.count_progress("pictures", 4000) as advance:
            advance(1000)
            advance(3000)
        if terminal:
            assert "4000/4000" in text.getvalue()
            continue
        first, last = text.getvalue().splitlines()
        assert first.startswith("1,000 of 4,000 pictures, ")
        assert last.startswith("4,000 of 4,000 pictures, ")
        assert last.endswith("0 s left")
        with console_module.count_progress("pictures", None, hidden=True) as advance:
            advance(1)
        assert len(text.getvalue().splitlines()) == 2


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


def test_files_are_completed_without_a_table_reader(run, project, pictures, tmp_path):
    written = tmp_path / "predictions.csv"
    command = shlex.join(
        [sys.executable, str(project / "tools" / "predict.py"), str(run.path), *map(str, pictures[:2]), *ON_CPU]
    )
    line = f"{command} --csv {shlex.quote(str(written))} | true"
    subprocess.run(["bash", "-o", "pipefail", "-c", line], check=True, capture_output=True)
    assert len(written.read_text().splitlines()) == 3


def test_columns_without_a_csv_are_usage_errors(run, tool):
    done = tool("predict", run.path, "x.png", "--columns", "id=stem", *ON_CPU)
    assert done.exit_code == 2
    assert "--csv FILE" in done.stderr


@pytest.mark.parametrize("name", [b"caf\xe9.png", "caf\u00e9.png".encode()])
def test_json_holds_names_of_any_bytes(tmp_path, name):
    with open_json_lines(tmp_path / "a.jsonl", 1) as write:
        write([Prediction(os.fsdecode(name), (ClassProbability("cat", 1.0),))])
    (line,) = (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()
    assert os.fsencode(json.loads(line)["file"]) == name
