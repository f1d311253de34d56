"""A slice of the fuzzer's cases, and that it sees what it is for."""

import subprocess
import sys
from pathlib import Path

import fuzz_readers
import fuzz_targets
import pytest

from paddle_resnet.errors import UsageError

pytestmark = pytest.mark.slow

FAST = ("cifar", "idx", "shard", "inference.yml", "jpeg", "png", "gif", "tiff")
"""Readers that need no paddle, whose children start at once; the others' own tests have their cases."""


@pytest.mark.parametrize("name", FAST)
def test_damaged_files_end_in_one_line(name):
    if name not in fuzz_targets.names():
        pytest.skip("Pillow has no such format here")
    row = fuzz_readers.run_reader(name, 60)
    assert sum(row.ends.values()) == 60
    assert row.failures == []
    assert row.ends["refused"] >= 10


def raising(error):
    def read(data):
        raise error

    return read


def refused_for_memory(data):
    try:
        raise MemoryError
    except MemoryError:
        raise UsageError("x: cannot be read") from None


@pytest.mark.parametrize(
    ("read", "kind"),
    [
        (len, "accepted"),
        (raising(UsageError("x: is damaged")), "refused"),
        (raising(UsageError("x" * 3000)), "foreign"),
        (raising(UsageError("x\ny")), "foreign"),
        (raising(KeyError("x")), "foreign"),
        (raising(SystemExit(2)), "foreign"),
        (raising(MemoryError()), "memory"),
        (refused_for_memory, "memory"),
    ],
)
def test_an_end_is_named(read, kind):
    assert fuzz_readers._end_of(read, b"").partition(":")[0] == kind


@pytest.mark.parametrize(
    ("program", "kind", "following"),
    [
        ("import os; print('begin 3', flush=True); os.abort()", "crash", 4),
        ("print('begin 3', flush=True)\nwhile True: pass", "hang", 4),
        ("print('begin 3\\nend 3 9 accepted\\ndone', flush=True)", "accepted", 4),
    ],
)
def test_a_child_that_dies_or_hangs_is_seen(monkeypatch, program, kind, following):
    monkeypatch.setattr(fuzz_readers, "PROCESSOR_SECONDS", 0.1)
    row = fuzz_readers.Row()
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert fuzz_readers._follow(process, row, 3) == following
    assert dict(row.ends) == {kind: 1}


def test_a_case_is_the_same_file_each_time(tmp_path):
    targets = [fuzz_targets.make("idx", Path(tmp_path)) for _ in range(2)]
    files = [[fuzz_readers.case_data(target, "idx", 0, case) for case in range(20)] for target in targets]
    assert files[0] == files[1]
    assert len(set(files[0])) > 15
