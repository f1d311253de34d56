"""The words of messages: text of a file is bounded and does not act on a terminal, and commands can be copied."""

import os
import subprocess
import sys

import pytest

from paddle_resnet.errors import command, shown


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("layer1.0.conv1.weight", "layer1.0.conv1.weight"),
        ("猫 и ñ", "猫 и ñ"),
        ("\x1b[2Jcat\r\n", "\\x1b[2Jcat\\r\\n"),
        ("a\u202eb\udc80", "a\\u202eb\\udc80"),
        (b"caf\xc3\xa9\xff", "café\\udcff"),
        (3, "3"),
        (None, "None"),
        ([1, "x"], "[1, 'x']"),
    ],
)
def test_control_characters_are_escaped(value, expected):
    assert shown(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        "a" * 10**6,
        "\x1b" * 10**6,
        b"\xff" * 10**6,
        10**10**5,
        [["a" * 10**6] * 10**4] * 10**4,
        {"k" * 10**6: "v" * 10**6},
    ],
    ids=["long", "escapes", "bytes", "integer", "lists", "dict"],
)
@pytest.mark.parametrize("limit", [20, 80], ids=str)
def test_no_value_is_longer_than_its_limit(value, limit):
    text = shown(value, limit)
    assert 10 <= len(text) <= limit
    assert text.isprintable()


def test_long_text_keeps_its_beginning_and_end():
    assert shown("first" + "-" * 500 + "last", 20) == "first------...--last"


@pytest.mark.parametrize("path", ["output/photos", "my photos/a'b", "图片", "$HOME", 'a"b;c'])
def test_a_shell_gives_a_printed_command_its_arguments(path, monkeypatch):
    program = f'{sys.executable} -c "import sys; print(ascii(sys.argv[1:]))"'
    monkeypatch.setattr("paddle_resnet.errors._command_form", [lambda name: f"{program} {name}"])
    printed = command("export", path, "-o", "name=x")
    done = subprocess.run(printed, shell=True, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ascii(["export", path, "-o", "name=x"])


def test_windows_gets_double_quotes(monkeypatch):
    monkeypatch.setattr(os, "name", "nt")
    assert command("export", r"C:\my photos\run") == r'paddle-resnet export "C:\my photos\run"'
