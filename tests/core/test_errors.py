"""Text of a file in an error: bounded, and nothing in it acts on a terminal."""

import pytest

from paddle_resnet.errors import shown


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
