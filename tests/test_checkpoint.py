import dataclasses
import json
import os
import subprocess
import sys
import zlib

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import dualgrad as dg
from dualgrad import checkpoint, tree
from dualgrad.errors import CheckpointError, DtypeError, StructureError
from dualgrad.random import Key

DTYPES = [
    np.dtype(name)
    for name in (
        "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 "
        "float16 float32 float64 complex64 complex128 >f4 >c16 >i2"
    ).split()
]


@dataclasses.dataclass
class Layer:
    weight: np.ndarray
    name: str = "linear"


def check_same_leaf(found, expected):
    assert type(found) is type(expected)
    if isinstance(expected, Key):
        found, expected = np.asarray(found.words), np.asarray(expected.words)
    if isinstance(expected, (np.ndarray, np.generic)):
        assert found.dtype == expected.dtype and found.shape == expected.shape
        assert found.tobytes() == expected.tobytes()
    else:
        assert repr(found) == repr(expected)


def check_round_trip(path, value, like=None):
    dg.save(path, value)
    found = dg.load(path, like=value if like is None else like)
    assert tree.flatten(found)[1] == tree.flatten(value)[1]
    for one, other in zip(tree.leaves(found), tree.leaves(value), strict=True):
        check_same_leaf(one, other)
    return found


@given(
    st.sampled_from(DTYPES).flatmap(
        lambda dtype: hnp.arrays(
            dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
        )
    )
)
def test_an_array_comes_back_bit_for_bit(tmp_path_factory, array):
    found = check_round_trip(tmp_path_factory.getbasetemp() / "array.safetensors", array)
    assert found.flags.writeable and found.flags.owndata


@given(st.integers() | st.floats() | st.complex_numbers() | st.booleans() | st.none() | st.text())
def test_a_python_value_comes_back_with_its_type(tmp_path_factory, value):
    check_round_trip(tmp_path_factory.getbasetemp() / "value.safetensors", {"x": value})


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_numpy_number_stays_one(dtype, tmp_path):
    number = np.ones((), dtype.newbyteorder("="))[()]
    assert isinstance(number, np.generic)
    check_round_trip(tmp_path / "x", [number, np.asarray(number)])


def test_every_bit_of_a_float_is_kept(tmp_path):
    words = np.array(
        [0x7FC00001, 0xFFC12345, 0x7F800000, 0x80000000, 1], np.uint32
    )  # nans, inf, -0
    check_round_trip(tmp_path / "x", words.view(np.float32))
    check_round_trip(tmp_path / "x", words.view(np.float32)[:4].view(np.complex64))
    check_round_trip(
        tmp_path / "x", [float("nan"), -0.0, float("-inf"), 5e-324, complex(-0.0, 0.1)]
    )


def test_strides_do_not_matter(tmp_path):
    base = np.arange(24.0).reshape(4, 6)
    frozen = base.copy()
    frozen.flags.writeable = False
    views = [base.T, base[::2, ::-1], base[:, 1], np.broadcast_to(base[0], (3, 6)), frozen]
    found = check_round_trip(tmp_path / "x", views)
    assert all(leaf.flags.writeable for leaf in found)


def test_a_nested_tree_with_keys_comes_back(tmp_path):
    value = {
        "model": [Layer(np.ones((2, 3), np.float32)), (np.tanh, Layer(np.zeros(0)))],
        "key": Key(3).fold_in("dropout"),
        "step": 10**40,
        "rate": 0.1,
        "moments": ({}, np.float16(0.5), None),
    }
    found = check_round_trip(tmp_path / "x", value)
    assert isinstance(found["model"][0], Layer) and found["model"][1][0] is np.tanh


def test_the_values_come_from_the_file_and_not_from_like(tmp_path):
    saved = {"w": np.arange(3.0), "step": 5, "key": Key(1), "mode": "a"}
    like = {"w": np.zeros(3), "step": 0, "key": Key(0), "mode": "b"}
    check_round_trip(tmp_path / "x", saved, like)
    np.testing.assert_array_equal(like["w"], 0)


def test_a_single_leaf_is_a_tree(tmp_path):
    check_round_trip(tmp_path / "x", np.arange(3))
    check_round_trip(tmp_path / "x", {})


def test_a_number_may_have_become_an_array_of_its_dtype(tmp_path):
    dg.save(tmp_path / "x", [np.float64(2.0), np.asarray(3.0)])
    found = dg.load(tmp_path / "x", like=[1.0, 1.0])
    check_same_leaf(found[0], np.float64(2.0))
    check_same_leaf(found[1], np.asarray(3.0))
    with pytest.raises(CheckpointError, match=r"0 was saved as float64 \(\) .* int64 \(\)"):
        dg.load(tmp_path / "x", like=[1, 1.0])


class State:
    """What a training state looks like from here."""

    def __init__(self, weight, step):
        self.weight, self.step = weight, step

    def state_tree(self):
        return {"weight": self.weight, "step": self.step}

    def with_state_tree(self, values):
        return State(values["weight"], values["step"])


def test_an_object_is_saved_through_its_state_tree(tmp_path):
    dg.save(tmp_path / "x", State(np.ones(2), 7))
    found = dg.load(tmp_path / "x", like=State(np.zeros(2), 0))
    assert type(found) is State and found.step == 7
    np.testing.assert_array_equal(found.weight, 1)


def test_other_tools_can_read_the_tensors(tmp_path):
    value = {"layer": [np.arange(6.0).reshape(2, 3)], "z": np.array([1 + 2j])}
    dg.save(tmp_path / "x", value)
    found = safetensors.numpy.load_file(tmp_path / "x")
    np.testing.assert_array_equal(found["layer/0"], value["layer"][0])
    np.testing.assert_array_equal(found["z"], [[1, 2]])


def test_the_same_tree_gives_the_same_tensors_and_description(tmp_path):
    value = {name: np.arange(i) for i, name in enumerate("dacb")}
    for name in "xy":
        dg.save(tmp_path / name, value)
    headers = []
    for name in "xy":
        content = (tmp_path / name).read_bytes()
        headers.append(json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]))
    assert headers[0] == headers[1]


@pytest.mark.parametrize(
    "leaf",
    [
        np.array(["a"]),
        np.array([None]),
        np.zeros(1, [("a", float)]),
        np.zeros(2, np.longdouble),
        np.ma.masked_array([1.0]),
        object(),
        b"x",
    ],
    ids=lambda leaf: type(leaf).__name__,
)
def test_what_cannot_be_kept_is_refused_by_path(leaf, tmp_path):
    with pytest.raises(DtypeError, match="a/1"):
        dg.save(tmp_path / "x", {"a": [1, leaf]})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [{"a/b": 1, "a": {"b": 2}}, {"__metadata__": np.ones(2)}])
def test_ambiguous_paths_are_refused(value, tmp_path):
    with pytest.raises(StructureError, match="path '(a/b|__metadata__)'"):
        dg.save(tmp_path / "x", value)


def test_another_structure_is_refused_by_path(tmp_path):
    dg.save(tmp_path / "x", {"w": np.ones(2), "b": np.ones(2), "m": [1, 2]})
    with pytest.raises(CheckpointError, match="Not in the file: c. Only in the file: b, m/1."):
        dg.load(tmp_path / "x", like={"w": np.ones(2), "c": np.ones(2), "m": [1]})
    with pytest.raises(CheckpointError, match="Not in the file: w/0, .* and 12 more"):
        dg.load(tmp_path / "x", like={"w": [1.0] * 20, "b": np.ones(2), "m": [1, 2]})


@pytest.mark.parametrize(
    "like, said",
    [
        (np.ones(3), r"float64 \(2,\) and is expected as float64 \(3,\)"),
        (np.ones((1, 2)), r"\(2,\) .* \(1, 2\)"),
        (np.ones(2, np.float32), r"float64 .* float32"),
        (1.0, r"\(2,\) .* \(\)"),
        (None, "expected as NoneType"),
        (Key(0), "expected as Key"),
        (np.tanh, "expected as a callable"),
    ],
    ids=str,
)
def test_another_shape_or_dtype_is_refused(like, said, tmp_path):
    dg.save(tmp_path / "x", {"w": np.ones(2)})
    with pytest.raises(CheckpointError, match=f"w was saved as .*{said}"):
        dg.load(tmp_path / "x", like={"w": like})


def test_a_missing_file_is_an_os_error_too(tmp_path):
    with pytest.raises(CheckpointError, match="nothing: cannot be read"):
        dg.load(tmp_path / "nothing", like={})
    assert issubclass(CheckpointError, OSError)


def test_any_flipped_byte_is_noticed_or_harmless(tmp_path):
    value = {
        "w": np.arange(3, dtype=np.float32),
        "z": np.array([1j]),
        "step": 7,
        "key": Key(2),
        "s": "a",
    }
    path = tmp_path / "x"
    dg.save(path, value)
    whole = path.read_bytes()
    harmless = 0
    for where in range(len(whole)):
        for bit in (0x01, 0x20):
            path.write_bytes(whole[:where] + bytes([whole[where] ^ bit]) + whole[where + 1 :])
            try:
                found = dg.load(path, like=value)
            except CheckpointError:
                continue
            harmless += 1  # such as the dtype in safetensors' header, which is in ours again
            for one, other in zip(tree.leaves(found), tree.leaves(value), strict=True):
                check_same_leaf(one, other)
    assert harmless < len(whole) / 10


def test_any_truncated_file_is_refused(tmp_path):
    value = {"w": np.arange(30.0), "step": 7}
    dg.save(tmp_path / "x", value)
    whole = (tmp_path / "x").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "x").write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="x: damaged or truncated"):
            dg.load(tmp_path / "x", like=value)


def test_a_foreign_file_and_another_format_are_named(tmp_path):
    path = tmp_path / "x"
    safetensors.numpy.save_file({"w": np.ones(2)}, path)
    with pytest.raises(CheckpointError, match="dg.save did not write"):
        dg.load(path, like={"w": np.ones(2)})
    text = json.dumps({"format": "dualgrad 9", "leaves": {}})
    metadata = {"dualgrad": text, "crc32": str(zlib.crc32(text.encode()))}
    safetensors.numpy.save_file({"w": np.ones(2)}, path, metadata=metadata)
    with pytest.raises(CheckpointError, match="format 'dualgrad 9', this version reads"):
        dg.load(path, like={"w": np.ones(2)})


@pytest.mark.parametrize("failing", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failing_write_leaves_the_old_file(failing, error, tmp_path, monkeypatch):
    path = tmp_path / "x"
    dg.save(path, {"step": 1})

    def fail(*args):
        raise error

    monkeypatch.setattr(checkpoint.os, failing, fail)
    with pytest.raises((CheckpointError, KeyboardInterrupt)) as caught:
        dg.save(path, {"step": 2})
    monkeypatch.undo()
    if isinstance(error, OSError):
        assert "No space left on device" in str(caught.value) and "unchanged" in str(caught.value)
    assert os.listdir(tmp_path) == ["x"]
    assert dg.load(path, like={"step": 0}) == {"step": 1}


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be written .No such file"):
        dg.save(tmp_path / "nowhere" / "x", {"step": 1})


def test_the_bytes_are_on_the_disk_before_they_take_the_name(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)

        def record(*args, name=name, real=real):
            calls.append(name)
            return real(*args)

        monkeypatch.setattr(checkpoint.os, name, record)
    dg.save(tmp_path / "x", {"step": 1})
    assert calls == ["fsync", "replace", "fsync"]  # the file, its name, the folder


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "x").symlink_to(tmp_path / "real" / "y")
    dg.save(tmp_path / "x", {"step": 1})
    assert (tmp_path / "x").is_symlink() and (tmp_path / "real" / "y").is_file()


def test_killed_at_any_moment_the_file_is_whole(tmp_path):
    """A process that saves without pause is killed; what it leaves is always one of the states."""
    path = tmp_path / "x"
    program = (
        "import sys, numpy as np, dualgrad as dg\n"
        "for step in range(10**9):\n"
        "    dg.save(sys.argv[1], {'step': step, 'w': np.full(100_000, float(step))})\n"
        "    if step == 5: print('going', flush=True)\n"
    )
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, cwd=os.getcwd()
        )
        with process:
            assert process.stdout.readline() == b"going\n"
            process.kill()
        found = dg.load(path, like={"step": 0, "w": np.zeros(100_000)})
        assert found["step"] >= 5
        np.testing.assert_array_equal(found["w"], found["step"])
