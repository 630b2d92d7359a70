import gzip
import hashlib
import http.server
import importlib
import threading

import numpy as np
import pytest

import dualgrad as dg
from dualgrad.datasets import batch_at, batches, batches_per_epoch, files
from dualgrad.datasets.idx import parse_idx
from dualgrad.errors import DataError, OptionError, ShapeError
from dualgrad.random import Key

module = importlib.import_module("dualgrad.datasets.mnist")  # the package's `mnist` is the function


def idx_bytes(array):
    header = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
    return header + array.tobytes()


SMALL = {
    name: idx_bytes(
        np.random.default_rng(i).integers(0, 256 if "images" in name else 10, shape, "u1")
    )
    for i, (name, shape) in enumerate(
        {
            "train-images-idx3-ubyte": (20, 28, 28),
            "train-labels-idx1-ubyte": (20,),
            "t10k-images-idx3-ubyte": (5, 28, 28),
            "t10k-labels-idx1-ubyte": (5,),
        }.items()
    )
}


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A folder of small files in the official layout, half of them gzipped; mnist expects these."""
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in SMALL.items()}
    monkeypatch.setattr(module, "DIGESTS", sums)
    monkeypatch.delenv("DUALGRAD_DATA", raising=False)
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    for name, content in SMALL.items():
        if "images" in name:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def cache(small, monkeypatch, tmp_path):
    """The user's cache, empty."""
    monkeypatch.setattr(files, "cache_folder", lambda name: tmp_path / "cache" / name)
    return tmp_path / "cache" / "mnist"


@pytest.fixture
def mirror(monkeypatch):
    """A local server of the small files: its address, what it serves, and what it was asked."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            asked.append((self.command, self.path))
            content = served.get(self.path.removeprefix("/mnist/"))
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content or b"")

        def log_message(self, *args):
            pass

    asked = []
    served = {f"{name}.gz": gzip.compress(content) for name, content in SMALL.items()}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}/mnist/"
        monkeypatch.setattr(module, "MIRRORS", (url,))
        yield url, served, asked
        server.shutdown()
        thread.join()


def check_small(data):
    (x_train, y_train), (x_test, y_test) = data
    assert x_train.shape == (20, 28, 28, 1) and x_test.shape == (5, 28, 28, 1)
    assert x_train.dtype == x_test.dtype == np.float32
    assert y_train.dtype == y_test.dtype == np.int64
    pixels = np.frombuffer(SMALL["train-images-idx3-ubyte"][16:], np.uint8)
    np.testing.assert_array_equal(np.rint(x_train.ravel() * 255), pixels)
    assert x_train.max() <= 1.0 and x_train.min() >= 0.0
    assert bytes(y_test.astype(np.uint8)) == SMALL["t10k-labels-idx1-ubyte"][8:]


def test_reads_data_dir_and_the_environment(small, monkeypatch, tmp_path):
    check_small(dg.datasets.mnist(data_dir=small.parent))
    monkeypatch.setenv("DUALGRAD_DATA", str(small.parent))
    check_small(dg.datasets.mnist())
    with pytest.raises(DataError, match="is not a folder"):  # data_dir comes first
        dg.datasets.mnist(data_dir=tmp_path / "elsewhere")


def test_a_folder_that_is_not_there_is_an_error(small, monkeypatch, tmp_path):
    monkeypatch.setenv("DUALGRAD_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="DUALGRAD_DATA='.*nowhere' is not a folder"):
        dg.datasets.mnist()
    monkeypatch.setenv("DUALGRAD_DATA", str(tmp_path))
    with pytest.raises(DataError, match=f"has no folder mnist/ .looked for {tmp_path / 'mnist'}"):
        dg.datasets.mnist()


def test_a_missing_file_is_named(small):
    (small / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="neither t10k-labels-idx1-ubyte nor .*gz"):
        dg.datasets.mnist(small.parent)


def rewrite(path, change):
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
    "name, change, message",
    [
        ("train-images-idx3-ubyte.gz", lambda b: b[:-100], "damaged or truncated"),
        ("train-images-idx3-ubyte.gz", lambda b: b"<html>", "damaged or truncated"),
        (
            "train-images-idx3-ubyte.gz",
            lambda b: b"",
            "SHA-256 expected .* found e3b0c442.*; 0 bytes",
        ),
        (
            "train-labels-idx1-ubyte",
            lambda b: b[:-1],
            "SHA-256 expected .*; 27 bytes.*official file",
        ),
        ("train-labels-idx1-ubyte", lambda b: b[:-1] + bytes([b[-1] ^ 1]), "expected .* found"),
    ],
)
def test_a_damaged_file_is_refused_by_name(small, name, change, message):
    rewrite(small / name, change)
    with pytest.raises(DataError, match=f"{name}: .*{message}"):
        dg.datasets.mnist(small.parent)


def test_a_flipped_byte_inside_the_archive_is_refused(small):
    path = small / "train-images-idx3-ubyte.gz"
    content = path.read_bytes()
    for where in (len(content) // 2, len(content) - 6):  # the pixels; the archive's own sum
        path.write_bytes(content[:where] + bytes([content[where] ^ 4]) + content[where + 1 :])
        with pytest.raises(DataError, match="train-images-idx3-ubyte.gz: "):
            dg.datasets.mnist(small.parent)


def test_a_renamed_file_is_recognised(small):
    (small / "train-labels-idx1-ubyte").unlink()
    (small / "t10k-labels-idx1-ubyte").rename(small / "train-labels-idx1-ubyte")
    with pytest.raises(DataError, match="holds the content of t10k-labels-idx1-ubyte"):
        dg.datasets.mnist(small.parent)


def test_downloads_once_into_the_cache(cache, mirror, capsys):
    _, _, asked = mirror
    check_small(dg.datasets.mnist())
    assert sorted(path.name for path in cache.iterdir()) == sorted(f"{name}.gz" for name in SMALL)
    assert sum(method == "GET" for method, _ in asked) == 4
    asked.clear()
    check_small(dg.datasets.mnist())
    assert asked == []
    assert "subset" not in capsys.readouterr().err


def test_a_damaged_file_in_the_cache_is_refused(cache, mirror):
    dg.datasets.mnist()
    rewrite(cache / "t10k-images-idx3-ubyte.gz", lambda b: b[:50])
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte.gz: .*Delete it"):
        dg.datasets.mnist()


def check_subset(data, capsys):
    (x_train, y_train), (x_test, y_test) = data
    assert (len(x_train), len(y_train), len(x_test), len(y_test)) == (10000, 10000, 1500, 1500)
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert "packaged subset" in line and "DUALGRAD_DATA" in line
    return line


def test_a_mirror_that_sends_something_else_is_left_out(cache, mirror, monkeypatch, capsys):
    url, served, _ = mirror
    served["train-labels-idx1-ubyte.gz"] = b"<html>Please log in</html>"
    line = check_subset(dg.datasets.mnist(), capsys)
    assert "train-labels-idx1-ubyte.gz" in line
    assert not (cache / "train-labels-idx1-ubyte.gz").exists()
    monkeypatch.setattr(module, "MIRRORS", (url, url.replace("/mnist/", "/mnist//")))
    served["/train-labels-idx1-ubyte.gz"] = gzip.compress(SMALL["train-labels-idx1-ubyte"])
    served.update({f"/{n}.gz": gzip.compress(c) for n, c in SMALL.items()})
    check_small(dg.datasets.mnist())


def test_offline_gives_the_subset_and_says_so(cache, monkeypatch, capsys):
    monkeypatch.setattr(module, "MIRRORS", ("http://127.0.0.1:9/mnist/",))  # nothing listens there
    assert "no mirror answered" in check_subset(dg.datasets.mnist(), capsys)


def test_without_pooch_the_line_says_what_to_install(cache, monkeypatch, capsys):
    monkeypatch.setattr(files, "cache_folder", lambda name: None)
    assert "pip install pooch tqdm" in check_subset(dg.datasets.mnist(), capsys)


def test_a_mirror_that_hangs_is_left_behind(monkeypatch):
    requests = pytest.importorskip("requests")
    released = threading.Event()  # a mirror that was waited for would hold this test for ever

    def hang(url, **options):
        released.wait()
        raise requests.ConnectionError

    monkeypatch.setattr(requests, "head", hang)
    monkeypatch.setattr(files, "PROBE_SECONDS", 0.05)
    assert files.answering(["http://a/", "http://b/"], "x") == []
    released.set()


def test_the_packaged_subset_is_balanced_and_real():
    (x_train, y_train), (x_test, y_test) = module.load_idx(module._SUBSET, module.SUBSET_DIGESTS)
    np.testing.assert_array_equal(np.bincount(y_train), [1000] * 10)
    np.testing.assert_array_equal(np.bincount(y_test), [150] * 10)
    assert x_train.shape == (10000, 28, 28, 1) and x_train.dtype == np.float32
    means = np.stack([x_train[y_train == digit].mean(0) for digit in range(10)]).reshape(10, -1)
    distance = ((x_test.reshape(-1, 1, 784) - means) ** 2).sum(-1)
    assert (distance.argmin(1) == y_test).mean() > 0.75  # the nearest mean gets 0.82 of all MNIST


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "not an IDX file"),
        (b"\x89PNG....", "begins with '89 50 4e 47'"),
        (b"\0\0\x0d\x01\0\0\0\1....", "unsigned bytes"),
        (b"\0\0\x08\x03\0\0\0\1", "header ends after 8 of 16"),
        (b"\0\0\x08\x01\0\0\0\3ab", r"announces \(3,\) = 3 bytes, 2 follow"),
        (b"\0\0\x08\x01\0\0\0\1ab", "1 bytes, 2 follow"),
    ],
)
def test_idx_headers_are_checked(content, message):
    with pytest.raises(DataError, match=f"labels: .*{message}"):
        parse_idx(content, "labels")


def test_idx_keeps_the_axes_in_order():
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    np.testing.assert_array_equal(parse_idx(idx_bytes(array), "x"), array)


X, Y = np.arange(23)[:, None], np.arange(23) + 100


def rows(generator):
    return [x[:, 0].tolist() for x, _ in generator]


def test_an_epoch_is_a_permutation_without_the_remainder():
    found = list(batches(X, Y, 5, key=Key(1), epoch=0))
    assert [x.shape for x, _ in found] == [(5, 1)] * 4 and batches_per_epoch(23, 5) == 4
    seen = np.concatenate([x[:, 0] for x, _ in found])
    assert len(set(seen.tolist())) == 20
    for x, y in found:
        np.testing.assert_array_equal(y, x[:, 0] + 100)


def test_the_order_depends_on_key_and_epoch_alone():
    first = rows(batches(X, Y, 5, key=Key(1), epoch=3))
    assert rows(batches(X, Y, 5, key=Key(1), epoch=3)) == first
    assert rows(batches(X, Y, 5, key=Key(1), epoch=4)) != first
    assert rows(batches(X, Y, 5, key=Key(2), epoch=3)) != first


def test_entered_in_the_middle_it_goes_on_as_from_the_start():
    key = Key(7)
    run = [row for epoch in range(3) for row in rows(batches(X, Y, 5, key=key, epoch=epoch))]
    assert [batch_at(X, Y, 5, step, key=key)[0][:, 0].tolist() for step in range(12)] == run
    assert rows(batches(X, Y, 5, key=key, epoch=1, start=2)) == run[6:8]
    assert rows(batches(X, Y, 5, key=key, epoch=1, start=4)) == []


def test_every_example_is_met_over_some_epochs():
    met = {
        i
        for epoch in range(20)
        for row in rows(batches(X, Y, 5, key=Key(0), epoch=epoch))
        for i in row
    }
    assert met == set(range(23))


def test_batches_refuses_what_it_cannot_cut():
    for size in (0, 24):
        with pytest.raises(OptionError, match=f"batch of {size} .* 23 examples"):
            batches(X, Y, size, key=Key(0), epoch=0)
    with pytest.raises(ShapeError, match="x has 23 examples and y 22"):
        batches(X, Y[1:], 5, key=Key(0), epoch=0)
    with pytest.raises(OptionError, match="no batch 5 of epoch 0"):
        batches(X, Y, 5, key=Key(0), epoch=0, start=5)
    with pytest.raises(OptionError, match="epoch -1"):
        batches(X, Y, 5, key=Key(0), epoch=-1)
    with pytest.raises(OptionError, match="size is 2.5"):
        batches(X, Y, 2.5, key=Key(0), epoch=0)
    with pytest.raises(OptionError, match=r"x is a list.*np\.asarray\(x\)"):
        batches([1, 2], [1, 2], 1, key=Key(0), epoch=0)
