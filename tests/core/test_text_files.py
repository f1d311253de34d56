"""Text files: JSON that is read back, CSV without formulas."""

import csv
import io
import json
import re

import pytest

from paddle_resnet.text_files import csv_line, write_json


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []
    write_json(tmp_path / "a.json", {"loss": 1.5})
    assert json.loads((tmp_path / "a.json").read_text()) == {"loss": 1.5}


@pytest.mark.parametrize(
    ("cells", "line"),
    [
        (["a.png", "dog", "0.5"], "a.png,dog,0.5\n"),
        (["=1+1", "+a", "-2+3", "@x"], "'=1+1,'+a,'-2+3,'@x\n"),
        (["-5", "+.5e3", "-1.5"], "-5,+.5e3,-1.5\n"),
        (["'=x", "'x"], "''=x,'x\n"),
        (["\uff1d1", -5, 0.25], "'\uff1d1,-5,0.25\n"),
        (["a\rb", "c"], '"a\rb","c"\n'),
        (["\t=1", "\n=1", "\r=1"], '"\'\t=1","\'\n=1","\'\r=1"\n'),
        (["a;=1+1"], '"a;=1+1"\n'),
    ],
)
def test_csv_cells_are_no_formulas_and_can_be_restored(cells, line):
    assert csv_line(cells) == line
    read = next(csv.reader(io.StringIO(line, newline="")))
    back = [re.sub(r"^'('*[=+\-@\t\r\n\uff1d])", r"\1", cell) for cell in read]
    assert back == [str(cell) for cell in cells]
