"""Finding, downloading and verifying the files of data sets."""

import gzip
import hashlib
import logging
import os
import threading
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import DataError

ENVIRONMENT = "DUALGRAD_DATA"
PROBE_SECONDS = 3.0  # for a mirror to answer at all
STALL_SECONDS = 15.0  # without a byte, in the middle of a download


def local_folder(data_dir: str | os.PathLike[str] | None, name: str) -> Path | None:
    """Return the folder of a data set inside data_dir or DUALGRAD_DATA, or None if neither is set.

    Raises:
        DataError: the folder, or the data set's folder in it, does not exist.
    """
    source = "data_dir"
    if data_dir is None:
        source, data_dir = ENVIRONMENT, os.environ.get(ENVIRONMENT)
        if not data_dir:
            return None
    root = Path(data_dir)
    if not root.is_dir():
        raise DataError(
            f"{source}={str(root)!r} is not a folder. Give the folder that holds {name}/."
        )
    if not (root / name).is_dir():
        raise DataError(
            f"{source}={str(root)!r} has no folder {name}/ (looked for {root / name}). "
            f"Give the folder that holds {name}/, or put the data set there."
        )
    return root / name


def read_verified(folder: Path, digests: Mapping[str, str]) -> dict[str, bytes]:
    """Return the uncompressed content of each named file, found in folder as NAME or NAME.gz.

    Args:
        folder: where the files lie.
        digests: the SHA-256 of each file's uncompressed content, by file name.

    Raises:
        DataError: a file is missing, cannot be read, or has another content.
    """
    return {name: _verify(_find(folder, name), name, digests) for name in digests}


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise DataError(
        f"{folder} has neither {name} nor {name}.gz. Put the official file there, under this name."
    )


def _verify(path: Path, name: str, digests: Mapping[str, str]) -> bytes:
    way_out = "Delete it and get the official file again."
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path}: cannot be read, damaged or truncated ({error}). {way_out}"
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found == digests[name]:
        return content
    for other, digest in digests.items():
        if found == digest:
            way_out = f"It holds the content of {other}: give it its own name back."
    raise DataError(
        f"{path}: not the official content (SHA-256 expected {digests[name]}, found {found}; "
        f"{len(content)} bytes). {way_out}"
    )


def cache_folder(name: str) -> Path | None:
    """Return the folder of a data set in the user's cache, or None without pooch."""
    try:
        import pooch
    except ImportError:
        return None
    return Path(pooch.os_cache("dualgrad")) / name


def download(folder: Path, digests: Mapping[str, str], mirrors: Sequence[str]) -> str | None:
    """Bring the files that folder lacks from the first mirror that has them, with a progress bar.

    A mirror is tried once for all files; one that does not answer within a few seconds is left out.

    Returns:
        None when all files are there, else why not. What does not verify is deleted, and the next
        mirror tried.
    """
    reason = "no mirror answered"
    missing = _missing(folder, digests)
    for mirror in answering(mirrors, f"{missing[0]}.gz") if missing else ():
        try:
            for name in _missing(folder, digests):
                _fetch(mirror, folder, name, digests)
        except OSError as error:  # requests' errors and DataError are OSErrors, as a full disk's is
            reason = f"{mirror}: {error}"
        else:
            return None
    return reason if missing else None


def _missing(folder: Path, digests: Mapping[str, str]) -> list[str]:
    return [n for n in digests if not ((folder / n).exists() or (folder / f"{n}.gz").exists())]


def _fetch(mirror: str, folder: Path, name: str, digests: Mapping[str, str]) -> None:
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)  # it would print each file's hash
    path = folder / f"{name}.gz"
    pooch.retrieve(  # writes a temporary file first: what has the name is complete
        f"{mirror}{name}.gz",
        known_hash=None,  # archives differ by mirror, their content may not
        fname=path.name,
        path=folder,
        downloader=pooch.HTTPDownloader(progressbar=_has_tqdm(), timeout=STALL_SECONDS),
    )
    try:
        _verify(path, name, digests)
    except DataError:
        path.unlink()
        raise


def _has_tqdm() -> bool:
    try:
        import tqdm  # noqa: F401
    except ImportError:
        return False
    return True


def answering(mirrors: Sequence[str], name: str) -> list[str]:
    """Return the mirrors, in order, that answer for a file within PROBE_SECONDS; all asked at once.

    The questions run in daemon threads: a resolver or a route that hangs is left behind.
    """
    import requests

    answered: set[str] = set()

    def ask(mirror):
        try:
            if requests.head(mirror + name, timeout=PROBE_SECONDS, allow_redirects=True).ok:
                answered.add(mirror)
        except requests.RequestException:
            pass  # no answer is an answer

    threads = [threading.Thread(target=ask, args=(mirror,), daemon=True) for mirror in mirrors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PROBE_SECONDS)
    return [mirror for mirror in mirrors if mirror in answered]
