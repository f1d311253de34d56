"""Pickles are read as data: numpy arrays come back as they were, anything that could run is refused."""

import io
import os
import pathlib
import pickle
import struct
import tracemalloc
import types
from collections import Counter, OrderedDict, defaultdict

import numpy as np
import pytest

from paddle_resnet import safe_pickle
from paddle_resnet.errors import UsageError
from paddle_resnet.models.weights import torch_pickle


def load(content, **options):
    return safe_pickle.load(io.BytesIO(content), "some.file", **options)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_numpy_state_is_read_as_pickle_reads_it(protocol):
    state = OrderedDict(
        weight=np.arange(6, dtype=np.float32).reshape(2, 3),
        scalar=np.float64(0.5),
        named=("linear_0.w_0", np.arange(3)),
        half=np.ones(2, np.float16),
    )
    found = load(pickle.dumps(state, protocol))
    assert list(found) == list(state)
    np.testing.assert_array_equal(found["weight"], state["weight"])
    assert found["weight"].dtype == np.float32
    assert found["scalar"] == 0.5
    assert found["named"][0] == "linear_0.w_0"


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_arrays_of_either_numpy_are_read_under_either(module):
    content = pickle.dumps(np.arange(4), 2)
    for written in (b"numpy.core.multiarray", b"numpy._core.multiarray"):
        content = content.replace(written, module.encode())
    assert load(content).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("protocol", [2, 4])
def test_what_paddle_saves_is_read(tmp_path, protocol):
    import paddle

    network = paddle.nn.Sequential(paddle.nn.Linear(3, 4), paddle.nn.BatchNorm1D(4))
    schedule = paddle.optimizer.lr.CosineAnnealingDecay(0.1, 10)
    optimizer = paddle.optimizer.Momentum(schedule, parameters=network.parameters())
    network(paddle.ones([5, 3])).sum().backward()
    optimizer.step()
    for name, state in {"a.pdparams": network.state_dict(), "a.pdopt": optimizer.state_dict()}.items():
        paddle.save(state, str(tmp_path / name), protocol=protocol)
        with (tmp_path / name).open("rb") as file:
            found = safe_pickle.load(file, name)
        reference = paddle.load(str(tmp_path / name), return_numpy=True)
        for key, value in reference.items():
            if isinstance(value, np.ndarray):
                stored = found[key][1] if isinstance(found[key], tuple) else found[key]
                np.testing.assert_array_equal(stored, value)


def test_python_2_byte_strings_are_read_as_asked():
    content = b"\x80\x02}q\x00U\x04dataq\x01K\x01s."  # {'data': 1} as Python 2 pickled it
    assert load(content, encoding="bytes") == {b"data": 1}
    assert load(content) == {"data": 1}


class _RunsOnLoad:
    def __reduce__(self):
        return os.system, ("touch ran",)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_code_is_refused_and_not_run(tmp_path, monkeypatch, protocol):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=rf"some\.file.*{os.name}\.system"):
        load(pickle.dumps({"weight": _RunsOnLoad()}, protocol))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["eval", "getattr", "__import__"])
def test_builtins_are_refused(name):
    with pytest.raises(UsageError, match=f"builtins.{name}"):
        load(b"cbuiltins\n" + name.encode() + b"\n(S'1'\ntR.")


def test_unknown_objects_are_placeholders_where_asked():
    """Nothing is imported: the classes' names and the data they were made of are all that is left."""
    written = {
        "path": pathlib.PurePosixPath("a/b"),
        "counts": Counter(a=2),
        "table": defaultdict(list, x=[1]),
        "words": np.array(["cat", "dog"]),
        "objects": np.array([{}, None], object),
        "set": {1},
        "keys": {(1, 2): "a", 0.5: "b", 1 << 40: "c"},
        "exception": ValueError("x"),
        "random": np.random.RandomState(0),
        "code": _RunsOnLoad(),
        "weight": np.arange(3),
    }
    for protocol in range(2, 6):
        found, end = safe_pickle.load_at(pickle.dumps(written, protocol) + b"rest", 0, "some.file", opaque=True)
        assert end == len(pickle.dumps(written, protocol))
        assert found["table"] == {"x": [1]} and found["weight"].tolist() == [0, 1, 2]
        assert found["path"].kind == "pathlib.PurePosixPath" and found["code"].kind == f"{os.name}.system"
        assert {type(found[key]) for key in ("counts", "exception", "random", "words")} == {safe_pickle.Opaque}
        assert found["keys"] == {1 << 40: "c"}  # those of other kinds are left out
    assert not pathlib.Path("ran").exists()


def test_an_empty_list_of_allowed_globals_refuses_arrays():
    with pytest.raises(UsageError, match="_reconstruct"):
        load(pickle.dumps(np.zeros(2)), rules={})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a pickle at all",
        b"\x80\x63" + b"x" * 20,
        pickle.dumps({"a": np.arange(100)})[:-40],
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60),  # a string of 2**60 bytes
        b"(lp0\nR.",
        b"Pid\n.",
    ],
)
def test_garbage_is_one_line(content):
    with pytest.raises(UsageError, match=r"^some\.file: ") as caught:
        load(content)
    assert "\n" not in str(caught.value)


def test_memory_is_in_proportion_to_the_file():
    """C's unpickler makes a list up to the largest index that a file names: here 128 MB for 9 bytes."""
    content = b"\x80\x02]r" + (1 << 24).to_bytes(4, "little") + b"."
    tracemalloc.start()
    assert load(content) == []
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1e6


def test_calls_by_a_long_unknown_name_are_refused_before_it_is_copied():
    """Each call would copy the name, at the cost of seven bytes of the file."""
    content = text_of("a" * 100_000) + b"](" + b"h\x00h\x00\x93)R" * 300 + b"e."
    tracemalloc.start()
    with pytest.raises(UsageError, match=r"a global has a name of more than 200 characters"):
        load(content, opaque=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2e6


def test_byte_arrays_longer_than_the_file_are_refused():
    with pytest.raises(UsageError, match="cannot be read as a pickle"):
        load(b"\x80\x05\x96" + (1 << 40).to_bytes(8, "little") + b".")


def text_of(content):
    """The opcodes that push a text and remember it, and so the next place of the memo."""
    return b"X" + struct.pack("<I", len(content)) + content.encode() + b"\x94"


OBJECT = b"cnumpy\ndtype\n(VO8\nI00\nI01\ntR(I3\nV|\nNNNI-1\nI-1\nI0\ntb"
DEEP = b"N" + b"\x85" * 50_000
ATTACKS = {
    "object flags": b"cnumpy._core.multiarray\nscalar\n(" + OBJECT + b"C\x08AAAAAAAAtR.",
    "uninitialised": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I9\ntVb\ntR.",
    "no content": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I1073741824\ntVb\ntR.",
    "hex": b"c_codecs\nencode\n(Va\nVhex\ntR.",
    "punycode": b"c_codecs\nencode\n(Va\nVpunycode\ntR.",
    "deep key": b"}" + DEEP + b"Ns.",
    "deep value": DEEP + b".",
    "nested dtypes": b"cnumpy\ndtype\np0\n" + b"(" * 50_000 + b"Vf4\n" + b"tRg0\n" * 10 + b".",
    "defaults": b"c_codecs\nencode\n}V__defaults__\n(Ntsb.",
    "itself": b"]q\x00h\x00a.",
    "doubling": b"]q\x00" + b"](h\x00h\x00eq\x00" * 60 + b".",
    "digits": b"I" + b"9" * 100_000 + b"\n.",
    "long": b"\x8b" + (100_000).to_bytes(4, "little") + b"\xff" * 100_000 + b".",
    "copies": b"c_codecs\nencode\nq\x00X"
    + (100_000).to_bytes(4, "little")
    + b"a" * 100_000
    + b"q\x01"
    + b"h\x00h\x01\x85R" * 9
    + b".",
    "pairs": b"]q\x01(" + b"NN\x86" * 9000 + b"e" + b"ccollections\nOrderedDict\nh\x01\x85R" * 900 + b".",
    "extension": b"\x82\x01.",
    "object dtype of protocol 2": b"\x80\x02cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nX\x02\0\0\0O8K\0K\1\x87R"
    + b"(K\3X\1\0\0\0|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tbC\x08AAAAAAAA\x86R.",
    "flags of an honest dtype": b"cnumpy._core.multiarray\nscalar\n(cnumpy\ndtype\n(Vf8\nI00\nI01\ntR"
    + b"(I3\nV<\nNNNI-1\nI-1\nI63\ntbC\x08AAAAAAAAtR.",
    "dtype built twice": b"cnumpy\ndtype\n(Vf8\nI00\nI01\ntR" + b"(I3\nV<\nNNNI-1\nI-1\nI0\ntb" * 2 + b".",
    "dtype of a dtype": b"cnumpy\ndtype\n(" * 2 + b"Vf4\ntRtR.",
    "array built twice": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntC\1btR"
    + b"(I1\n(I1\ntcnumpy\ndtype\n(Vu1\nI00\nI01\ntRI00\nC\1atb" * 2
    + b".",
    "more bytes than content": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntC\1btR"
    + b"(I1\n(I17179869184\ntcnumpy\ndtype\n(Vf4\nI00\nI01\ntRI00\nC\4aaaatb.",
    "uninitialised scalar": b"cnumpy._core.multiarray\nscalar\n(cnumpy\ndtype\n(Vf8\nI00\nI01\ntRtR.",
    "hex in hex": b"c_codecs\nencode\n(" * 40 + b"Va\n" + b"Vhex\ntR" * 40 + b".",
    "hex in punycode in latin1": b"c_codecs\nencode\n(" * 3 + b"Va\nVlatin1\ntRVhex\ntRVpunycode\ntR.",
    "tuples as a key": b"}(" + b"(" * 50_000 + b"N" + b"t" * 50_000 + b"Nu.",
    "a dtype inside each of 50,000": b"cnumpy\ndtype\nq\0Vf4\n\x85R" + b"q\1h\0h\1\x85R" * 50_000 + b".",
    "a dtype of 50,000 fields": b"cnumpy\ndtype\n](" + b"Va\nVf4\n\x86" * 50_000 + b"e\x85R.",
    "state of a function": b"cnumpy.core.multiarray\nscalar\n}V__defaults__\n(I1\ntsb.",
    # Python's hash of each of these is 0.
    "places in the memo that collide": b"N" + b"".join(b"p%d\n" % (k * (2**61 - 1)) for k in range(1, 2000)) + b".",
    "equal keys": text_of("a" * 100_000) * 2 + b"}" + b"h\0Nsh\1Ns" * 3000 + b".",
    "equal keys of pairs": (text_of("a" * 100_000) + b"N\x86\x94") * 2
    + b"]("
    + b"h\1h\3" * 3000
    + b"e"
    + b"q\4ccollections\nOrderedDict\nh\4\x85R.",
}


@pytest.mark.parametrize(
    "attack", [pytest.param(name, marks=pytest.mark.slow if "50,000" in name else []) for name in ATTACKS]
)
def test_attacks_are_one_line_without_memory(attack):
    tracemalloc.start()
    with pytest.raises(UsageError, match=r"^some\.file: ") as caught:
        load(ATTACKS[attack])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2e7
    assert len(str(caught.value)) < 400 and str(caught.value).isprintable()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("code", ["?", "i1", "<i2", ">i4", "<i8", "u1", "<u2", ">u4", "<u8", "<f2", ">f4", "<f8"])
def test_arrays_of_each_type_and_order_come_back(protocol, code):
    array = np.arange(6).reshape(2, 3).astype(code)
    written = [array, np.asfortranarray(array), array[:, ::2], array[:0], array[0, 0], np.array(array[0, 1])]
    found = load(pickle.dumps(written, protocol))
    for was, now in zip(written, found, strict=True):
        np.testing.assert_array_equal(now, was)
        if isinstance(now, np.ndarray):
            assert now.dtype == was.dtype and now.shape == was.shape


def test_mutated_files_give_data_or_one_line():
    random = np.random.default_rng(0)
    honest = [pickle.dumps({"a": np.arange(4.0), "b": [1, ("x", None)]}, protocol) for protocol in range(6)]
    for case in range(3000):
        content = bytearray(honest[case % 6])
        for _ in range(random.integers(1, 4)):
            content[random.integers(len(content))] = random.integers(256)
        try:
            load(bytes(content))
        except UsageError as error:
            assert len(str(error)) < 400


@pytest.mark.parametrize("function", ["_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter"])
def test_a_file_of_torch_changes_no_function(function):
    """The next file of the process would have been read with other defaults."""
    before = dict(vars(torch_pickle))
    functions = [each for each in before.values() if isinstance(each, types.FunctionType)]
    defaults = [each.__defaults__ for each in functions]
    for state in (b"}V__defaults__\n(I1\ntsb", b"N}V__defaults__\n(I1\nts\x86b"):
        with pytest.raises(UsageError, match="it sets the state of what has none"):
            torch_pickle.load_pickle(b"ctorch._utils\n" + function.encode() + b"\n" + state + b".", "some.pth")
    assert vars(torch_pickle) == before
    assert defaults == [each.__defaults__ for each in functions]


def test_arrays_of_a_file_are_not_written_into():
    array = load(pickle.dumps({"a": np.zeros(3)}))["a"]
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
