"""Saving whole trees (arrays, numbers, keys) to one safetensors file, and back bit for bit.

The file has one tensor a leaf, named by the leaf's path in the tree; complex tensors have a last
axis (real, imaginary). Its metadata is one JSON object that says what each leaf was, with the
CRC-32 of its bytes; Python numbers and strings are in that object alone.
"""

import errno
import json
import os
import secrets
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from . import tree as trees
from .beside import beside, has_memory, on_device
from .errors import CheckpointError, DtypeError, StructureError
from .random import Key

Tree = Any
FORMAT = "dualgrad 1"
_REAL = {"complex64": "float32", "complex128": "float64"}
_DTYPES = {"bool", "float16", "float32", "float64", *_REAL} | {
    f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}


def save(path: str | os.PathLike[str], tree: Tree) -> None:
    """Write a tree to a safetensors file, whole or not at all.

    The bytes go to a temporary file beside it that then takes its place: whatever happens, the path
    holds the old file or the new one. An object with `state_tree()` is saved as the tree it gives.

    Args:
        path: the file to write or replace; its folder must exist.
        tree: leaves are NumPy arrays and numbers, Python numbers, strings, None, and keys.
            Callables are not written: `load` takes them from its `like`.

    Raises:
        DtypeError: a leaf of another type or dtype.
        StructureError: two leaves have the same path.
        CheckpointError: the file cannot be written; an older one is as it was.
    """
    from safetensors.numpy import save as to_bytes

    tensors, entries = {}, {}
    for name, leaf in _named_leaves(tree).items():
        entry, tensor = _encode(name, leaf)
        if tensor is not None:
            tensors[name] = tensor
            entry["crc32"] = zlib.crc32(tensor.tobytes())
        entries[name] = entry
    text = json.dumps({"format": FORMAT, "leaves": entries}, sort_keys=True)
    content = to_bytes(
        tensors, metadata={"dualgrad": text, "crc32": str(zlib.crc32(text.encode()))}
    )
    _replace(Path(os.path.realpath(path)), content)


def load(path: str | os.PathLike[str], like: Tree) -> Tree:
    """Return the saved tree: the structure of `like` with the types, dtypes and bits of the file.

    Args:
        path: a file that `save` wrote.
        like: a tree of the same structure, whose leaves have the shapes and dtypes of the saved
            ones; or an object with `state_tree()`, whose `with_state_tree(tree)` gives the result.

    Raises:
        CheckpointError: the file is missing, damaged, not by dualgrad, or holds another structure,
            shape or dtype; the message names the paths.
        StructureError: two leaves of `like` have the same path.
    """
    named = _named_leaves(like)
    entries, arrays = _read(Path(path))
    missing, extra = sorted(set(named) - set(entries)), sorted(set(entries) - set(named))
    if missing or extra:
        raise CheckpointError(
            f"{path}: saved from another structure.{_listing('Not in the file', missing)}"
            f"{_listing('Only in the file', extra)} Load it like a tree built as the saved one was."
        )
    leaves = []
    for name, expected in named.items():
        leaf = _decode(entries[name], arrays.get(name), expected)
        if _signature(leaf) != _signature(expected):
            raise CheckpointError(
                f"{path}: {name or 'the leaf'} was saved as {_signature(leaf)} and is expected as "
                f"{_signature(expected)}. Load it like a tree built as the saved one was."
            )
        leaves.append(beside(expected).asarray(leaf) if on_device(expected) else leaf)
    result = trees.unflatten(trees.flatten(_tree_of(like))[1], leaves)
    return like.with_state_tree(result) if hasattr(like, "with_state_tree") else result


def _tree_of(tree: Tree) -> Tree:
    return tree.state_tree() if hasattr(tree, "state_tree") else tree


def _named_leaves(tree: Tree) -> dict[str, Any]:
    tree = _tree_of(tree)
    names = trees.paths(tree)
    doubles = sorted({name for name in names if names.count(name) > 1 or name == "__metadata__"})
    if doubles:
        raise StructureError(
            f"save, load: the path {doubles[0]!r} is reserved or belongs to several leaves. "
            f'Use keys that are strings without "/" and not "__metadata__".'
        )
    return dict(zip(names, trees.leaves(tree), strict=True))


def _encode(name: str, leaf: Any) -> tuple[dict[str, Any], np.ndarray | None]:
    """Return what the metadata says of a leaf, and its tensor if it has one."""
    leaf = leaf.get() if on_device(leaf) else leaf
    if isinstance(leaf, Key):
        kind, array = "key", np.asarray(leaf.words)
    elif type(leaf) is np.ndarray or isinstance(leaf, np.generic):
        kind, array = ("scalar" if isinstance(leaf, np.generic) else "array"), np.asarray(leaf)
    else:
        return _encode_python(name, leaf), None
    if array.dtype.name not in _DTYPES:
        raise DtypeError(
            f"save: {name or 'the leaf'} has dtype {array.dtype}, which safetensors cannot hold. "
            f"Convert it to one of {', '.join(sorted(_DTYPES))}."
        )
    entry = {"kind": kind, "dtype": array.dtype.str, "shape": list(array.shape)}
    array = np.array(array, array.dtype.newbyteorder("<"), order="C", copy=None)
    if array.dtype.name in _REAL:
        array = array[..., None].view(_REAL[array.dtype.name])
    return entry, array


def _encode_python(name: str, leaf: Any) -> dict[str, Any]:
    if leaf is None or isinstance(leaf, (bool, str)):
        return {"kind": "python", "value": leaf}
    if type(leaf) is int:
        return {"kind": "int", "value": hex(leaf)}  # of any size
    if type(leaf) in (float, complex):
        parts = (leaf,) if type(leaf) is float else (leaf.real, leaf.imag)
        return {"kind": type(leaf).__name__, "value": struct.pack(f"<{len(parts)}d", *parts).hex()}
    if callable(leaf):
        return {"kind": "callable"}
    raise DtypeError(
        f"save: {name or 'the leaf'} is a {type(leaf).__module__}.{type(leaf).__qualname__}. "
        f"Leaves are NumPy arrays, numbers, strings, None and keys."
    )


def _decode(entry: dict[str, Any], array: np.ndarray | None, expected: Any) -> Any:
    kind = entry["kind"]
    if kind == "callable":
        return expected
    if kind == "python":
        return entry["value"]
    if kind == "int":
        return int(entry["value"], 16)
    if kind in ("float", "complex"):
        parts = struct.unpack("<d" if kind == "float" else "<2d", bytes.fromhex(entry["value"]))
        return parts[0] if kind == "float" else complex(*parts)
    assert array is not None  # _read gives one for every other kind
    if kind == "key":
        return Key.from_words(array)
    return array[()] if kind == "scalar" else array


def _signature(leaf: Any) -> str:
    """Say what file and `like` must agree in; a number is as good as a 0-d array of its dtype."""
    if isinstance(leaf, np.generic) or has_memory(leaf):
        return f"{leaf.dtype.name} {leaf.shape}"
    if isinstance(leaf, (bool, int, float, complex)):
        return f"{np.dtype(type(leaf)).name} ()"
    return "a callable" if callable(leaf) else type(leaf).__name__


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return what the metadata says of each leaf, and the arrays, their check sums compared."""
    from safetensors import SafetensorError, deserialize

    try:
        content = path.read_bytes()
        stored = {name: tensor["data"] for name, tensor in deserialize(content)}
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror}). Check the path."
        ) from error
    except SafetensorError as error:
        raise _damaged(path, str(error)) from error
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    metadata = header.get("__metadata__", {})
    text = metadata.get("dualgrad")
    if text is None:
        raise CheckpointError(
            f"{path}: damaged, or a safetensors file that dg.save did not write. "
            f"Read the latter with safetensors.numpy.load_file."
        )
    if metadata.get("crc32") != str(zlib.crc32(text.encode())):
        raise _damaged(path, "the check sum of its metadata is wrong")
    described = json.loads(text)
    if described["format"] != FORMAT:
        raise CheckpointError(
            f"{path}: written in the format {described['format']!r}, this version reads "
            f"{FORMAT!r}. Load it with the version of dualgrad that saved it."
        )
    entries = described["leaves"]
    arrays = {}
    for name, entry in entries.items():
        if "dtype" not in entry:
            continue
        if zlib.crc32(stored.get(name, b"")) != entry["crc32"]:
            raise _damaged(path, f"the check sum of {name or 'the leaf'} is wrong")
        arrays[name] = _restored(stored[name], np.dtype(entry["dtype"]), entry["shape"])
    return entries, arrays


def _restored(data: bytes, dtype: np.dtype, shape: list[int]) -> np.ndarray:
    little = np.frombuffer(data, dtype.newbyteorder("<")).reshape(shape)
    return np.array(little, dtype)  # writable, which a view of the bytes is not


def _damaged(path: Path, why: str) -> CheckpointError:
    return CheckpointError(f"{path}: damaged or truncated ({why}). Use an older checkpoint.")


def _listing(title: str, names: list[str], most: int = 8) -> str:
    if not names:
        return ""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f" {title}: {', '.join(names[:most])}{more}."


def _replace(path: Path, content: bytes) -> None:
    """Put content at path by a rename; what was there stays until all of it is on the disk."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be written ({error.strerror}). An older file there is unchanged; "
            f"check the folder and the space on the disk."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    if hasattr(os, "O_DIRECTORY"):
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename in the folder durable, where the file system can."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
