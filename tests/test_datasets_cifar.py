"""CIFAR-10 and Fashion-MNIST from small folders and a local mirror, and augmentation."""

import gzip
import hashlib
import http.server
import io
import os
import re
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dualgrad as dg
from dualgrad.datasets import augment, cifar, fashion, files
from dualgrad.errors import DataError, OptionError, ShapeError

RECORDS = 7
NAMES = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
NOWHERE = ("http://127.0.0.1:9/",)  # nothing listens there


def small_file(seed):
    """Return RECORDS records: a label, and 3072 pixels."""
    draw = np.random.default_rng(seed)
    records = draw.integers(0, 256, (RECORDS, 3073), np.uint8)
    records[:, 0] = draw.integers(0, 10, RECORDS)
    return records.tobytes()


SMALL = {name: small_file(seed) for seed, name in enumerate(NAMES)}


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A folder of six small files in the official layout, one gzipped; cifar10 expects the size."""
    monkeypatch.setattr(cifar, "RECORDS", RECORDS)
    monkeypatch.delenv("DUALGRAD_DATA", raising=False)
    folder = tmp_path / "data" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for name, content in SMALL.items():
        (folder / name).write_bytes(content)
    (folder / "data_batch_3.bin").unlink()
    (folder / "data_batch_3.bin.gz").write_bytes(gzip.compress(SMALL["data_batch_3.bin"]))
    return folder


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """The user's cache, empty."""
    monkeypatch.setattr(files, "cache_folder", lambda name: tmp_path / "cache" / name)
    monkeypatch.delenv("DUALGRAD_DATA", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def served(tmp_path):
    """A local server: its address, the folder that it serves, and what it was asked to send."""
    folder, asked = tmp_path / "served", []
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/", folder, asked
        server.shutdown()
        thread.join()


def check_small(data):
    """Compare every pixel and label with the bytes of the files, one by one."""
    (x_train, y_train), (x_test, y_test) = data
    assert x_train.shape == (5 * RECORDS, 32, 32, 3) and x_test.shape == (RECORDS, 32, 32, 3)
    assert x_train.dtype == x_test.dtype == np.float32
    assert y_train.dtype == y_test.dtype == np.int64
    x = np.concatenate([x_train, x_test]).tolist()
    y = np.concatenate([y_train, y_test]).tolist()
    for place in range(6 * RECORDS):
        content, start = SMALL[NAMES[place // RECORDS]], place % RECORDS * 3073
        assert y[place] == content[start]
        for row in range(32):
            for column in range(32):
                pixel = start + 1 + 32 * row + column
                colours = [content[pixel], content[pixel + 1024], content[pixel + 2048]]
                assert x[place][row][column] == [float(np.float32(c / 255)) for c in colours]


def test_pixels_and_labels_land_where_they_should(small):
    check_small(dg.datasets.cifar10(small.parent))


def test_reads_the_environment(small, monkeypatch, tmp_path):
    monkeypatch.setenv("DUALGRAD_DATA", str(small.parent))
    (_, labels), _ = dg.datasets.cifar10()
    assert labels[0] == SMALL["data_batch_1.bin"][0]
    monkeypatch.setenv("DUALGRAD_DATA", str(tmp_path))
    with pytest.raises(DataError, match="has no folder cifar-10-batches-bin/"):
        dg.datasets.cifar10()
    with pytest.raises(DataError, match="data_dir='.*nowhere' is not a folder"):
        dg.datasets.cifar10(tmp_path / "nowhere")


def test_a_folder_too_deep_is_told_from_another(small):
    with pytest.raises(DataError, match="is the folder cifar-10-batches-bin/ itself. Give its par"):
        cifar.cifar10(small)


def test_a_missing_batch_is_named(small):
    (small / "data_batch_4.bin").unlink()
    with pytest.raises(DataError, match="neither data_batch_4.bin nor data_batch_4.bin.gz"):
        dg.datasets.cifar10(small.parent)


def relabelled(content):
    return content[: 2 * 3073] + bytes([10]) + content[2 * 3073 + 1 :]


@pytest.mark.parametrize(
    "name, change, message",
    [
        ("data_batch_2.bin", lambda b: b[:-1], "21510 bytes, .* has 21511 .7 records of 3073."),
        ("test_batch.bin", lambda b: b + b[:3073], "24584 bytes, where"),
        ("data_batch_5.bin", lambda b: b"", ": 0 bytes, where"),
        ("data_batch_5.bin", relabelled, "record 2 has the label 10; .* and 1 of 7 are not"),
        ("data_batch_3.bin.gz", lambda b: b[:-9], "damaged or truncated"),
        ("data_batch_3.bin.gz", lambda b: gzip.compress(b"short"), ": 5 bytes, where"),
    ],
)
def test_a_damaged_batch_is_refused_by_name(small, name, change, message):
    path = small / name
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=f"{re.escape(str(path))}: .*{message.lstrip(': ')}"):
        dg.datasets.cifar10(small.parent)


def tar_gz(contents):
    """Return an archive of the official layout that has one more file, as the official one does."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in {"readme.html": b"<html>", **contents}.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


@pytest.fixture
def archive(small, cache, served, monkeypatch):
    """The local server offers the small files' archive, whose sum cifar10 expects."""
    url, folder, asked = served
    content = tar_gz(SMALL)
    (folder / cifar.ARCHIVE).write_bytes(content)
    monkeypatch.setattr(cifar, "SHA256", hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(cifar, "MIRRORS", (url,))
    return url, folder, asked


def test_the_archive_is_downloaded_and_unpacked_once(archive, cache):
    asked = archive[2]
    check_small(dg.datasets.cifar10())
    assert sorted(os.listdir(cache / "cifar-10-batches-bin")) == NAMES
    assert asked == [f"/{cifar.ARCHIVE}"]
    dg.datasets.cifar10()
    assert len(asked) == 1


def test_an_unpacking_that_was_interrupted_is_done_again(archive, cache):
    dg.datasets.cifar10()
    folder = cache / "cifar-10-batches-bin"
    (folder / "test_batch.bin").rename(folder / "test_batch.bin.part")
    check_small(dg.datasets.cifar10())
    assert sorted(os.listdir(folder)) == NAMES


def test_another_archive_is_not_unpacked(archive, cache, monkeypatch):
    url, folder, _ = archive
    (folder / "altered").mkdir()
    (folder / "altered" / cifar.ARCHIVE).write_bytes(tar_gz({**SMALL, "test_batch.bin": b""}))
    monkeypatch.setattr(cifar, "MIRRORS", (f"{url}altered/",))
    with pytest.raises(DataError, match="cifar-10-binary.tar.gz: not the official archive"):
        dg.datasets.cifar10()
    assert not list((cache / "cifar-10-batches-bin").iterdir())
    monkeypatch.setattr(cifar, "MIRRORS", (f"{url}altered/", url))
    check_small(dg.datasets.cifar10())


@pytest.mark.parametrize(
    "load, module, folder",
    [
        (dg.datasets.cifar10, cifar, "cifar-10-batches-bin"),
        (dg.datasets.fashion_mnist, fashion, "fashion-mnist"),
    ],
)
def test_without_data_the_error_says_what_to_do(load, module, folder, cache, monkeypatch):
    monkeypatch.setattr(module, "MIRRORS", NOWHERE)
    with pytest.raises(DataError) as caught:
        load()
    assert str(caught.value) == (
        f"{folder} is not on this machine and could not be downloaded (no mirror answered). Go "
        f"online, or set DUALGRAD_DATA to the folder that holds {folder}/ with the official files."
    )
    monkeypatch.setattr(files, "cache_folder", lambda name: None)
    with pytest.raises(DataError, match=r"pooch is not installed: .*install pooch tqdm"):
        load()


def test_the_real_images_where_they_are():
    folder = Path(os.environ.get("DUALGRAD_DATA") or ".") / cifar.FOLDER
    if not all((folder / name).is_file() for name in NAMES):
        pytest.skip("DUALGRAD_DATA holds no cifar-10-batches-bin/ in the official layout")
    (x, y), (x_test, y_test) = dg.datasets.cifar10(folder.parent)
    assert x.shape == (50000, 32, 32, 3) and x_test.shape == (10000, 32, 32, 3)
    np.testing.assert_array_equal(np.bincount(y), [5000] * 10)
    np.testing.assert_array_equal(np.bincount(y_test), [1000] * 10)
    # The channels' means that everyone's normalisation has, red first.
    np.testing.assert_allclose(
        x.mean((0, 1, 2), dtype=np.float64), [0.4914, 0.4822, 0.4465], atol=5e-4
    )


# --- Fashion-MNIST


def idx_bytes(array):
    header = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
    return header + array.tobytes()


@pytest.fixture
def clothes(monkeypatch):
    """The small content of the four files, which fashion_mnist expects."""
    draw = np.random.default_rng(0)
    contents = {
        "train-images-idx3-ubyte": draw.integers(0, 256, (6, 28, 28), np.uint8),
        "train-labels-idx1-ubyte": draw.integers(0, 10, 6, np.uint8),
        "t10k-images-idx3-ubyte": draw.integers(0, 256, (4, 28, 28), np.uint8),
        "t10k-labels-idx1-ubyte": draw.integers(0, 10, 4, np.uint8),
    }
    sums = {n: hashlib.sha256(idx_bytes(array)).hexdigest() for n, array in contents.items()}
    assert sums.keys() == fashion.DIGESTS.keys()
    monkeypatch.setattr(fashion, "DIGESTS", sums)
    return contents


def write_all(folder, contents):
    """Write the images gzipped and the labels not."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in contents.items():
        if "images" in name:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx_bytes(array)))
        else:
            (folder / name).write_bytes(idx_bytes(array))


def check_clothes(data, contents):
    for (x, y), part, count in zip(data, ("train", "t10k"), (6, 4), strict=True):
        assert x.shape == (count, 28, 28, 1) and x.dtype == np.float32 and y.dtype == np.int64
        expected = contents[f"{part}-images-idx3-ubyte"].astype(np.float32) / np.float32(255)
        np.testing.assert_array_equal(x[..., 0], expected)
        np.testing.assert_array_equal(y, contents[f"{part}-labels-idx1-ubyte"])


def test_fashion_reads_the_files_and_refuses_others(clothes, tmp_path):
    folder = tmp_path / "fashion-mnist"
    write_all(folder, clothes)
    check_clothes(dg.datasets.fashion_mnist(tmp_path), clothes)
    path = folder / "t10k-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\x0b")
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte: not the official content"):
        dg.datasets.fashion_mnist(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match="neither t10k-labels-idx1-ubyte nor"):
        dg.datasets.fashion_mnist(tmp_path)


def test_fashion_is_downloaded_once(clothes, cache, served, monkeypatch):
    url, folder, asked = served
    for name, array in clothes.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(idx_bytes(array)))
    monkeypatch.setattr(fashion, "MIRRORS", (url,))
    check_clothes(dg.datasets.fashion_mnist(), clothes)
    check_clothes(dg.datasets.fashion_mnist(), clothes)
    assert sorted(asked) == sorted(f"/{name}.gz" for name in clothes)
    assert len(list((cache / "fashion-mnist").iterdir())) == 4


# --- augmentation


def slowly(x, key, pad, flip):
    """Augment image by image: mirror, pad and slice, after the draws (top, left, mirror)."""
    draws = dg.random.uniform(key.fold_in("augment"), (len(x), 3))
    shifts = 2 * pad + 1
    images = []
    for image, (top, left, mirror) in zip(x, draws.tolist(), strict=True):
        if flip and mirror < 0.5:
            image = np.fliplr(image)
        framed = np.pad(image, [(pad, pad), (pad, pad), (0, 0)])
        top, left = int(top * shifts), int(left * shifts)
        images.append(framed[top : top + x.shape[1], left : left + x.shape[2]])
    return np.array(images, x.dtype).reshape(x.shape)


@given(
    shape=st.tuples(st.integers(0, 5), st.integers(1, 6), st.integers(1, 6), st.integers(1, 4)),
    pad=st.integers(0, 7),
    flip=st.booleans(),
    dtype=st.sampled_from(["f4", "f8", "u1", "i8", "?", "c8"]),
    seed=st.integers(0, 2**64 - 1),
)
@settings(max_examples=60)
def test_augmentation_is_the_loop_over_images(shape, pad, flip, dtype, seed):
    x, pad = np.random.default_rng(0).integers(1, 256, shape).astype(dtype), min(pad, *shape[1:3])
    before, key = x.copy(), dg.Key(seed)
    found = augment(x, key=key, pad=pad, flip=flip)
    assert found.dtype == x.dtype and not np.shares_memory(found, x)
    np.testing.assert_array_equal(found, slowly(x, key, pad, flip))
    np.testing.assert_array_equal(x, before)


def test_augmentation_of_other_layouts():
    x = np.arange(2 * 3 * 5 * 4).reshape(2, 3, 5, 4)
    planar = np.ascontiguousarray(x.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    planar.flags.writeable = False
    found = augment(planar, key=dg.Key(5), pad=2)
    np.testing.assert_array_equal(found, augment(x, key=dg.Key(5), pad=2))
    found[...] = 0  # the caller's own


SIDE, PAD = 9, 2


def located(n):
    """Return n images whose two channels hold the row and the column of each pixel, plus one."""
    rows, columns = np.indices((SIDE, SIDE)) + 1
    return np.broadcast_to(np.stack([rows, columns], -1), (n, SIDE, SIDE, 2))


def read_off(found):
    """Return what was done to located images: the shifts down and right, and if mirrored."""
    middle = SIDE // 2
    row, column = (found[:, middle, middle].T - 1).astype(int)
    mirrored = found[:, middle, middle + 1, 1] < found[:, middle, middle, 1]
    return row - middle, np.where(mirrored, SIDE - 1 - column, column) - middle, mirrored


def test_all_shifts_are_equally_likely_and_half_is_mirrored():
    n = 20000
    down, right, mirrored = read_off(augment(located(n), key=dg.Key(0), pad=PAD))
    assert set(down) == set(right) == {-2, -1, 0, 1, 2}
    counts = np.zeros((5, 5, 2))
    np.add.at(counts, (down + PAD, right + PAD, mirrored.astype(int)), 1)
    expected = n / 50
    assert ((counts - expected) ** 2 / expected).sum() < 85.35  # 99.9 % of chi-square with 49
    assert abs(mirrored.mean() - 0.5) < 4 * 0.5 / np.sqrt(n)


def test_neighbours_and_keys_are_unrelated():
    n = 20000
    first = np.array(read_off(augment(located(n), key=dg.Key(1), pad=PAD)), float)
    second = np.array(read_off(augment(located(n), key=dg.Key(2), pad=PAD)), float)
    bound = 4 / np.sqrt(n)  # four standard deviations of a correlation of independent draws
    for a, b in [(first, second), (first[:, 1:], first[:, :-1])]:
        assert np.abs(np.corrcoef(a, b)[:3, 3:]).max() < bound
    assert np.abs(np.corrcoef(first) - np.eye(3)).max() < bound


def test_what_happens_depends_on_key_and_place_alone():
    x = np.random.default_rng(1).random((12, 8, 8, 3), np.float32)
    whole = augment(x, key=dg.Key(3))
    np.testing.assert_array_equal(augment(x, key=dg.Key(3)), whole)
    np.testing.assert_array_equal(augment(x[:5], key=dg.Key(3)), whole[:5])
    np.testing.assert_array_equal(augment(-x, key=dg.Key(3)), -whole)
    assert (augment(x, key=dg.Key(4)) != whole).any()
    images = located(12)
    unmirrored = read_off(augment(images, key=dg.Key(3), pad=PAD, flip=False))
    crops = read_off(augment(images, key=dg.Key(3), pad=PAD))
    assert not unmirrored[2].any() and crops[2].any()
    np.testing.assert_array_equal(unmirrored[0], crops[0])


def test_augmentation_refuses_what_it_cannot_do():
    x = np.zeros((2, 4, 4, 1))
    with pytest.raises(ShapeError, match=r"augment: x has shape \(4, 4, 1\).*channels"):
        augment(x[0], key=dg.Key(0))
    with pytest.raises(OptionError, match="augment: pad is -1"):
        augment(x, key=dg.Key(0), pad=-1)
    for pad in (1.5, 5, 10, True):
        with pytest.raises(OptionError, match=f"augment: pad is {pad}.*shorter side.*, 4"):
            augment(x, key=dg.Key(0), pad=pad)
    with pytest.raises(OptionError, match="augment: key=0; give"):
        augment(x, key=0)
