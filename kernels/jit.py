"""Compile with numba: kept on disk for this source and CPU, announced when it takes a while.

Modules of compiled code (fused/) decorate their functions with `jit`; they import numba at the top
and are themselves imported inside functions alone, so that `import dualgrad` never loads it.
"""

import functools
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Every fast-math flag that keeps NaN and infinity: nnan and ninf would break isnan and 0 * inf.
SAFE_FASTMATH = frozenset({"contract", "reassoc", "nsz", "arcp", "afn"})

NOT_KEPT = (
    "no folder for compiled kernels can be written, neither beside the package nor in the user's "
    "cache. Set the variable NUMBA_CACHE_DIR to one that can"
)

_announced = False


def jit(
    function: Callable | None = None, *, entry: bool = False, fastmath: bool = True, **options: Any
) -> Any:
    """Return function compiled without the GIL, on its first call with each set of types.

    Args:
        entry: called from Python, and so kept on disk. What an entry calls is compiled into it.
        fastmath: allow the flags of SAFE_FASTMATH.
        options: of numba.njit, a signature among them.
    """
    if function is None:
        return functools.partial(jit, entry=entry, fastmath=fastmath, **options)
    import numba

    signatures = options.pop("signatures", None)
    options = {"nogil": True, "error_model": "numpy", **options}
    options["fastmath"] = set(SAFE_FASTMATH) if fastmath else False
    compiled = numba.njit(**options)(function)
    if entry:
        _keep(compiled)
    for signature in signatures or ():
        compiled.compile(signature)
    return compiled


def _keep(compiled: Any) -> None:
    """Let a dispatcher use the cache on disk, where a folder can be written."""
    _listen()
    try:
        compiled.enable_caching()
    except RuntimeError as error:
        if "cannot cache" not in str(error):
            raise
        return
    # numba's own stamp sees the entry's file alone, and an entry is made of many.
    file = getattr(compiled._cache, "_cache_file", None)
    if file is not None and hasattr(file, "_source_stamp"):
        file._source_stamp = source_digest()


@functools.cache
def source_digest() -> str:
    """Return a digest of every source file of the kernels."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@functools.cache
def _listen() -> None:
    """Announce the first real compilation of an entry: it may take half a minute."""
    from numba.core import event

    class Announce(event.Listener):
        def on_start(self, event: Any) -> None:
            global _announced
            dispatcher = event.data["dispatcher"]
            if not _announced and ".fused." in dispatcher.py_func.__module__:
                _announced = True
                folder = dispatcher.stats.cache_path
                how = (
                    f"once (about 20 s; kept in {folder}; python -m dualgrad.kernels warm does it "
                    f"beforehand)"
                    if folder
                    else f"as in every process (about 20 s): {NOT_KEPT}"
                )
                print(
                    f"dualgrad: compiling kernels for this CPU, {how}", file=sys.stderr, flush=True
                )

        def on_end(self, event: Any) -> None:
            pass

    event.register("numba:compile", Announce())
