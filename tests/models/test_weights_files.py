"""Weights files are read as data: Paddle's own, and those that are damaged or claim too much."""

import collections
import json
import os
import pickle
import struct

import numpy as np
import paddle
import pytest
from network_facts import arrays, assert_same

from paddle_resnet.errors import UsageError
from paddle_resnet.models import read_state_dict


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_file_of_paddle_save_is_read_whole(tmp_path, network, protocol):
    path = tmp_path / "resnet8.pdparams"
    paddle.save(network.state_dict(), str(path), protocol=protocol)
    assert_same(read_state_dict(path), arrays(network))


def test_tensors_saved_with_their_parameter_names_are_read(tmp_path, network):
    path = tmp_path / "pairs.pdparams"
    expected = arrays(network)
    path.write_bytes(pickle.dumps({key: ("linear_0.w_0", array) for key, array in expected.items()}))
    assert_same(read_state_dict(path), expected)


def test_an_ordered_dict_is_read(tmp_path, network):
    path = tmp_path / "ordered.pdparams"
    path.write_bytes(pickle.dumps(collections.OrderedDict(arrays(network))))
    assert_same(read_state_dict(path), arrays(network))


def test_a_file_written_under_python_2_is_read(tmp_path):
    # {"fc.bias": array} as Python 2 wrote it at protocol 2: byte strings (U, T), which Python 3 has to decode.
    values = np.array([1.5, -2.75], dtype="<f4")
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R"
        b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08" + values.tobytes() + b"tb"
    )
    path = tmp_path / "python2.pdparams"
    path.write_bytes(b"\x80\x02}U\x07fc.bias" + array + b"s.")
    assert_same(read_state_dict(path), {"fc.bias": values})


def test_split_tensors_are_joined(tmp_path):
    # What paddle.save makes of a tensor above 1 GB at pickle protocol 2.
    whole = np.arange(6, dtype="float32").reshape(2, 3)
    table = {"fc.weight": {"OriginShape": (2, 3), "slices": ["fc.weight@@.0", "fc.weight@@.1"]}}
    pieces = {"fc.weight@@.0": whole.ravel()[:4], "fc.weight@@.1": whole.ravel()[4:]}
    path = tmp_path / "large.pdparams"
    path.write_bytes(pickle.dumps({**pieces, "UnpackBigParamInfor@@": table}, protocol=2))
    assert_same(read_state_dict(path), {"fc.weight": whole})

    path.write_bytes(pickle.dumps({"UnpackBigParamInfor@@": table}, protocol=2))
    with pytest.raises(UsageError, match=r"large\.pdparams: its table of split tensors is damaged"):
        read_state_dict(path)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("created-by-pickle",)


def test_pickle_with_code_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.pdparams").write_bytes(pickle.dumps({"fc.weight": Evil()}))
    with pytest.raises(UsageError, match=r"evil\.pdparams.*mkdir"):
        read_state_dict("evil.pdparams")
    assert not (tmp_path / "created-by-pickle").exists()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is empty"),
        (b"these are no weights\n", "is no weights file, it begins with these are no wei"),
        (pickle.dumps([1, 2]), "expected a state dict .* found a list"),
        (pickle.dumps({}), "expected a state dict .* found an empty dict"),
        (pickle.dumps({"model": {"epoch": 3}}), "'model' holds a dict"),
        (pickle.dumps({"LR_Scheduler": {"last_lr": 0.1}}), "'LR_Scheduler' holds a dict, .*optimizer"),
        (pickle.dumps({3: np.zeros(3)}), "'3' holds a ndarray"),
    ],
)
def test_file_without_weights_is_refused_in_one_line(tmp_path, content, complaint):
    path = tmp_path / "wrong.pdparams"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=rf"wrong\.pdparams.*{complaint}") as caught:
        read_state_dict(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path, network, share):
    path = tmp_path / "cut.pdparams"
    paddle.save(network.state_dict(), str(path))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UsageError, match=r"cut\.pdparams"):
        read_state_dict(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    (tmp_path / "best.pdparams").touch()
    with pytest.raises(UsageError, match=r'best: no such file \(did you mean ".*best\.pdparams"\?\); expected'):
        read_state_dict(tmp_path / "best")
    with pytest.raises(UsageError, match="aaa: no such file; expected"):
        read_state_dict(tmp_path / ("a" * 250))
    with pytest.raises(UsageError, match=r"none\.pdparams: no such file; expected a weights file"):
        read_state_dict(tmp_path / "none.pdparams")
    with pytest.raises(UsageError, match=r"is a folder; expected a weights file"):
        read_state_dict(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_paths_that_cannot_be_read_are_named(tmp_path):
    os.mkfifo(tmp_path / "pipe.pth")
    (tmp_path / "loop.pth").symlink_to("loop.pth")
    for name, what in (
        ("pipe.pth", "is a pipe or device; expected"),
        ("loop.pth", "symbolic link"),
        ("x" * 5000, "long"),
    ):
        with pytest.raises(UsageError, match=what) as refusal:
            read_state_dict(tmp_path / name)
        assert len(str(refusal.value)) < 400


def test_safetensors_long_names_are_shortened(tmp_path):
    head = json.dumps({"x" * 50_000: {"dtype": "F32", "shape": [1], "data_offsets": [4, 2]}}).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(head)) + head)
    with pytest.raises(UsageError, match="cannot be read as safetensors") as caught:
        read_state_dict(tmp_path / "a.safetensors")
    assert len(str(caught.value)) < 1000


PIECE = np.zeros(1000, np.uint16)
MANY = [f"p{number}" for number in range(500)]


@pytest.mark.parametrize(
    "content",
    [
        {"p": PIECE, "UnpackBigParamInfor@@": {"w": {"OriginShape": (2000,), "slices": ["p", "p"]}}},
        {**dict.fromkeys(MANY, PIECE), "UnpackBigParamInfor@@": {"w": {"OriginShape": (500_000,), "slices": MANY}}},
        {"p": PIECE, "q": PIECE.astype("f8"), "UnpackBigParamInfor@@": {"w": {"OriginShape": [2000], "slices": "pq"}}},
        {"p": [PIECE, [1]], "UnpackBigParamInfor@@": {"w": {"OriginShape": (2,), "slices": ["p"]}}},
        {"p": PIECE, "UnpackBigParamInfor@@": {"w": {"OriginShape": (1 << 62, 1 << 62), "slices": ["p"]}}},
        {"p": PIECE, "UnpackBigParamInfor@@": {"w": {"OriginShape": (10**30,), "slices": ["p"]}}},
        {"p": PIECE, "UnpackBigParamInfor@@": {"w": {"OriginShape": (0,), "slices": []}}},
        {"p": PIECE, "UnpackBigParamInfor@@": {"w": None}},
        {"p": PIECE, "UnpackBigParamInfor@@": [1]},
    ],
)
def test_split_tensor_table_cannot_claim_more_than_the_file(tmp_path, content):
    path = tmp_path / "cut.pdparams"
    path.write_bytes(pickle.dumps(content, 2))
    with pytest.raises(UsageError, match=r"cut\.pdparams: its table of split tensors is damaged"):
        read_state_dict(path)


def test_array_under_many_names_is_refused(tmp_path):
    path = tmp_path / "shared.pdparams"
    path.write_bytes(pickle.dumps(dict.fromkeys(MANY, PIECE), 2))
    with pytest.raises(UsageError, match=r"its tensors need 1,000,000 bytes, but the file has"):
        read_state_dict(path)
    path.write_bytes(pickle.dumps(dict.fromkeys(MANY[:3], PIECE), 2))
    assert list(read_state_dict(path)) == MANY[:3]


TENSOR = '{"dtype": "F32", "shape": %s, "data_offsets": [0, %d]}'


@pytest.mark.parametrize(
    ("head", "complaint"),
    [
        (f'{{"a": {TENSOR % ([1], 4)}, "a": {TENSOR % ([1, 1], 4)}}}', 'the key "a" appears twice'),
        (f'{{"a": {TENSOR % ([1] * 100, 4)}}}', "a has the shape .* which no array can have"),
        (f'{{"a": {TENSOR % ([0, 1 << 63], 0)}}}', "a has the shape .* which no array can have"),
        (f'{{"a": {TENSOR % ([1], 4)}}}' + " " * (5 << 20), "a header of 5,242,9.. bytes, expected at most 4,194,304"),
        ('{"a":' * 20_000, "cannot be read as safetensors"),
    ],
)
def test_a_header_of_safetensors_is_bounded(tmp_path, head, complaint):
    path = tmp_path / "a.safetensors"
    numbers = b"" if str(1 << 63) in head else b"1234"
    path.write_bytes(struct.pack("<Q", len(head)) + head.encode() + numbers)
    with pytest.raises(UsageError, match=rf"^{path}: .*{complaint}") as caught:
        read_state_dict(path)
    assert len(str(caught.value)) < 500
