"""Finding, downloading and verifying the files of data sets."""

import gzip
import hashlib
import logging
import os
import tarfile
import threading
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from ..errors import DataError

ENVIRONMENT = "DUALGRAD_DATA"
PROBE_SECONDS = 3.0  # for a mirror to answer at all
STALL_SECONDS = 15.0  # without a byte, in the middle of a download

Download = Callable[[Path], str | None]  # brings what a folder lacks; None, or why it cannot

AGAIN = "Delete it and get the official file again."


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
        if root.resolve().name == name:
            raise DataError(
                f"{source}={str(root)!r} is the folder {name}/ itself. Give its parent, "
                f"{str(root.parent)!r}."
            )
        raise DataError(
            f"{source}={str(root)!r} has no folder {name}/ (looked for {root / name}). "
            f"Give the folder that holds {name}/, or put the data set there."
        )
    return root / name


def cached_folder(name: str, download: Download) -> tuple[Path | None, str | None]:
    """Return the complete folder of a data set in the user's cache, or None and the reason why."""
    folder = cache_folder(name)
    if folder is None:
        return None, "pooch is not installed: python -m pip install pooch tqdm"
    reason = download(folder)
    return (folder, None) if reason is None else (None, reason)


def data_folder(data_dir: str | os.PathLike[str] | None, name: str, download: Download) -> Path:
    """Return the folder of a data set in data_dir, in DUALGRAD_DATA or in the user's cache.

    Raises:
        DataError: a given folder does not exist, or without one the data set cannot be downloaded.
    """
    folder = local_folder(data_dir, name)
    if folder is not None:
        return folder
    folder, reason = cached_folder(name, download)
    if folder is None:
        raise DataError(
            f"{name} is not on this machine and could not be downloaded ({reason}). Go online, or "
            f"set {ENVIRONMENT} to the folder that holds {name}/ with the official files."
        )
    return folder


def read_verified(folder: Path, digests: Mapping[str, str]) -> dict[str, bytes]:
    """Return the uncompressed content of each named file, found in folder as NAME or NAME.gz.

    Args:
        folder: where the files lie.
        digests: the SHA-256 of each file's uncompressed content, by file name.

    Raises:
        DataError: a file is missing, cannot be read, or has another content.
    """
    return {name: _verify(find(folder, name), name, digests) for name in digests}


def find(folder: Path, name: str) -> Path:
    """Return the path of NAME or NAME.gz in folder; DataError if there is neither."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise DataError(
        f"{folder} has neither {name} nor {name}.gz. Put the official file there, under this name."
    )


def read(path: Path) -> bytes:
    """Return the content of a file, uncompressed if its name ends in .gz; DataError if damaged."""
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path}: cannot be read, damaged or truncated ({error}). {AGAIN}"
        ) from error


def _verify(path: Path, name: str, digests: Mapping[str, str]) -> bytes:
    content, way_out = read(path), AGAIN
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
    """Bring the files that folder lacks, each NAME.gz, with a progress bar.

    Returns:
        None when all files are there, else why not. What does not verify is deleted, and the next
        mirror tried.
    """

    def bring(mirror):
        for name in _missing(folder, digests):
            path = _retrieve(mirror, folder, f"{name}.gz")
            try:
                _verify(path, name, digests)  # archives differ by mirror, their content may not
            except DataError:
                path.unlink()
                raise

    missing = _missing(folder, digests)
    return _from_mirrors(mirrors, f"{missing[0]}.gz", bring) if missing else None


def download_archive(
    folder: Path, names: Sequence[str], mirrors: Sequence[str], archive: str, sha256: str
) -> str | None:
    """Bring the named files into folder out of one tar archive, with a progress bar.

    Args:
        folder: where the files go; its name is that of the files' folder in the archive.
        names: of the files. If one is missing, all are brought.
        mirrors: addresses to which the archive's name is appended.
        archive: name of the archive, which is deleted when unpacked.
        sha256: of the archive.

    Returns:
        None when all files are there, else why not.
    """

    def bring(mirror):
        path = _retrieve(mirror, folder, archive, sha256)
        with tarfile.open(path) as packed:
            for name in names:
                unpacked = packed.extractfile(f"{folder.name}/{name}")
                partial = folder / f"{name}.part"
                partial.write_bytes(unpacked.read())
                partial.replace(folder / name)  # what has the name is complete
        path.unlink()

    return _from_mirrors(mirrors, archive, bring) if _missing(folder, names) else None


def _missing(folder: Path, names: Collection[str]) -> list[str]:
    return [n for n in names if not ((folder / n).exists() or (folder / f"{n}.gz").exists())]


def _from_mirrors(mirrors: Sequence[str], probe: str, bring: Callable[[str], None]) -> str | None:
    """Return None once bring has succeeded with a mirror, else why the last one failed.

    A mirror is tried once; one that does not answer for the file `probe` within a few seconds is
    left out.
    """
    reason = "no mirror answered"
    for mirror in answering(mirrors, probe):
        try:
            bring(mirror)
        except OSError as error:  # requests' errors and DataError are OSErrors, as a full disk's is
            reason = f"{mirror}: {error}"
        else:
            return None
    return reason


def _retrieve(mirror: str, folder: Path, name: str, sha256: str | None = None) -> Path:
    """Return the path of a file downloaded into folder; DataError if it has another SHA-256."""
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)  # it would print each file's hash
    try:
        path = pooch.retrieve(  # writes a temporary file first: what has the name is complete
            f"{mirror}{name}",
            known_hash=sha256,
            fname=name,
            path=folder,
            downloader=pooch.HTTPDownloader(progressbar=_has_tqdm(), timeout=STALL_SECONDS),
        )
    except ValueError as error:  # pooch's word for another hash
        raise DataError(f"{name}: not the official archive ({error})") from error
    return Path(path)


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
