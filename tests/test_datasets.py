"""Data files: the embedded MNIST, users' own, damaged ones and hostile ones."""

import csv
import gzip
import hashlib
import io
import pickle
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pandas
import pytest
from pack_mnist import idx_bytes, pack
from PIL import Image

import fastnn
from fastnn.datasets import _embedded, load_mnist, read_idx, read_rows
from fastnn.datasets._mnist import IDX_FILES, image_shape

DATA = Path(__file__).parent / "data"


@pytest.fixture
def folder(tmp_path, rng):
    """A folder of small IDX files: 12 training and 5 test images of 2 x 3 pixels."""
    for kind, n in (("train", 12), ("t10k", 5)):
        (tmp_path / f"{kind}-images-idx3-ubyte").write_bytes(idx_bytes(rng.integers(0, 256, (n, 2, 3))))
        (tmp_path / f"{kind}-labels-idx1-ubyte").write_bytes(idx_bytes(rng.integers(0, 4, n)))
    return tmp_path


def test_embedded_mnist_is_the_canonical_one():
    lines = (_embedded.FOLDER / "LICENSE").read_text().splitlines()
    digests = dict(reversed(line.split()) for line in lines if line.endswith("ubyte"))
    assert len(digests) == 4
    for part, (images_name, labels_name) in IDX_FILES.items():
        pixels, labels = _embedded.read_part(part)
        assert hashlib.sha256(idx_bytes(pixels.reshape(-1, 28, 28))).hexdigest() == digests[images_name]
        assert hashlib.sha256(idx_bytes(labels)).hexdigest() == digests[labels_name]


@pytest.mark.parametrize("n", [0, 1, 1000, 1001])
@pytest.mark.parametrize("share", [0, 0.1, 0.9, 1])
def test_images_are_packed_and_unpacked(rng, n, share):
    pixels = rng.integers(1, 256, (n, 784), np.uint8) * (rng.random((n, 784)) < share)
    np.testing.assert_array_equal(_embedded.unpack(*pack(pixels)), pixels)


def test_embedded_mnist_has_the_split_of_the_tutorial(mnist):
    train, valid, _test = mnist
    assert [part.X.shape for part in mnist] == [(50_000, 784), (10_000, 784), (10_000, 784)]
    assert [part.y.shape for part in mnist] == [(50_000,), (10_000,), (10_000,)]
    assert [part.y[:3].tolist() for part in mnist] == [[5, 0, 4], [3, 8, 6], [7, 2, 1]]
    pixels, _ = _embedded.read_part("train")
    np.testing.assert_array_equal(train.X[:100], pixels[:100] / 256)
    np.testing.assert_array_equal(valid.X[-100:], pixels[-100:] / 256)
    assert train.y.dtype == np.int64
    assert train.X.dtype == np.float64


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
def test_dtype_of_pixels(dtype, folder):
    train, _, _ = load_mnist(folder, dtype)
    assert train.X.dtype == dtype
    pixels = read_idx(folder / "train-images-idx3-ubyte")[:10].reshape(10, -1)
    np.testing.assert_array_equal(train.X, pixels if dtype == "uint8" else pixels / 256)


@pytest.mark.parametrize("wrong", ["float16", "int64"])
def test_other_dtypes_are_refused(wrong):
    with pytest.raises(ValueError, match="dtype must be one of"):
        load_mnist(dtype=wrong)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("dotted", [False, True])
def test_a_folder_of_idx_files(folder, zipped, dotted):
    expected = load_mnist(folder)
    for path in list(folder.iterdir()):
        name = path.name.replace("-idx", ".idx") if dotted else path.name
        content = path.read_bytes()
        path.unlink()
        (folder / (name + ".gz" * zipped)).write_bytes(gzip.compress(content) if zipped else content)
    train, valid, test = load_mnist(folder)
    assert (len(train.y), len(valid.y), len(test.y)) == (10, 2, 5)
    for part, other in zip((train, valid, test), expected, strict=True):
        np.testing.assert_array_equal(part.X, other.X)
        np.testing.assert_array_equal(part.y, other.y)


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        load_mnist(folder)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_mnist(folder / "nowhere")


@pytest.mark.parametrize("zipped", [False, True])
def test_every_truncation_of_an_idx_file_is_refused(tmp_path, zipped):
    content = idx_bytes(np.arange(24).reshape(4, 2, 3))
    content = gzip.compress(content) if zipped else content
    path = tmp_path / "images"
    path.write_bytes(content)
    read_idx(path)
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="images is not a usable IDX file"):
            read_idx(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "begins with nothing"),
        (b"hello world", "begins with 68 65 6c 6c"),
        (struct.pack(">BBBBI", 0, 0, 13, 1, 0), "begins with 00 00 0d 01"),
        (struct.pack(">BBBB", 0, 0, 8, 0), "1 to 4 dimensions"),
        (struct.pack(">BBBB3I", 0, 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1), "more than 2147483648 bytes"),
        (struct.pack(">BBBB1I", 0, 0, 8, 1, 2**31), "holds only 0 bytes"),
        (idx_bytes(np.zeros(3)) + b"x", "holds more bytes"),
        (b"\x1f\x8b" + b"junk" * 10, "not a usable IDX file"),
    ],
)
def test_wrong_idx_files_are_refused(tmp_path, content, message):
    path = tmp_path / "labels"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_idx(path)
    assert "labels" in str(caught.value)


def test_a_gzip_bomb_is_not_unpacked_beyond_its_header(tmp_path):
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.zeros(3)) + bytes(10**8), 9))
    with pytest.raises(ValueError, match="holds more bytes"):
        read_idx(path)


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte.gz", "mnist.pkl.gz"])
def test_a_gzip_bomb_that_says_what_it_is_is_not_unpacked(folder, name):
    n = 3 * 10**8
    content = struct.pack(">BBBB3I", 0, 0, 8, 3, 1, 1, n) if "idx" in name else b"\x80\x04\x8e" + struct.pack("<Q", n)
    (folder / name.removesuffix(".gz")).unlink(missing_ok=True)
    (folder / name).write_bytes(gzip.compress(content + bytes(n), 9))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=rf"{name} is not a usable"):
            load_mnist(folder if "idx" in name else folder / name)
        assert tracemalloc.get_traced_memory()[1] < 2.1 * 2**26  # with gzip's own buffers
    finally:
        tracemalloc.stop()


def test_idx_files_that_do_not_go_together_are_refused(folder):
    (folder / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(11)))
    with pytest.raises(ValueError, match=r"train-labels-idx1-ubyte holds labels of shape \(11,\) for 12 images"):
        load_mnist(folder)
    (folder / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(12)))
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(np.zeros((5, 3, 3))))
    with pytest.raises(ValueError, match="differ in size"):
        load_mnist(folder)
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(np.zeros((5, 6))))
    with pytest.raises(ValueError, match=r"should hold images \(n, rows, columns\)"):
        load_mnist(folder)


@pytest.mark.parametrize("protocol", [0, 2])
def test_a_genuine_pickle_of_python_2(mnist, protocol):
    found = load_mnist(DATA / f"python2-protocol{protocol}.pkl.gz", "float64")
    for part, whole, n in zip(found, mnist, (12, 4, 5), strict=True):
        np.testing.assert_array_equal(part.X, whole.X[:n])
        np.testing.assert_array_equal(part.y, whole.y[:n])
    pixels = load_mnist(DATA / f"python2-protocol{protocol}.pkl.gz", "uint8")[0].X
    np.testing.assert_array_equal(pixels, mnist[0].X[:12] * 256)


def sets(X=None, y=None):
    X = np.linspace(0, 0.5, 12, dtype="float32").reshape(3, 4) if X is None else X
    return tuple((X, np.array([0, 1, 2]) if y is None else y) for _ in range(3))


def write_pickle(path, value, protocol=2, zipped=True):
    content = pickle.dumps(value, protocol) if not isinstance(value, bytes) else value
    path.write_bytes(gzip.compress(content) if zipped else content)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("order", ["C", "F", "every second", "read-only"])
@pytest.mark.parametrize("kind", ["<f4", ">f8", "u1"])
def test_pickles_of_python_3(tmp_path, protocol, zipped, order, kind):
    path = tmp_path / "mnist.pkl.gz"
    X = np.asarray(np.arange(12).reshape(3, 4), dtype=kind, order=order if len(order) == 1 else "C")
    if order == "every second":
        X = np.repeat(X, 2, axis=1)[:, ::2]
    X.flags.writeable = order != "read-only"
    write_pickle(path, sets(X), protocol, zipped)
    for part in load_mnist(path):
        np.testing.assert_array_equal(part.X, X.astype("float32") / (256 if kind == "u1" else 1))
        np.testing.assert_array_equal(part.y, [0, 1, 2])


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(("old", "new"), [(b"numpy._core.", b"numpy.core."), (b"numpy.core.", b"numpy._core.")])
def test_pickles_of_numpy_1_and_2(tmp_path, protocol, old, new):
    # Each names the modules as its own; the other's names are put in here, whichever runs.
    content = pickle.dumps(sets(y=list(np.arange(3))), protocol)  # classes as NumPy's scalars
    shift = len(new) - len(old)
    if protocol >= 4 and old in content:
        for module in (b"multiarray", b"numeric"):  # strings with their length, in a frame with its length
            name, count = old + module, content.count(old + module)
            content = content.replace(bytes([len(name)]) + name, bytes([len(name) + shift]) + new + module)
            frame = struct.unpack("<Q", content[3:11])[0] + shift * count
            content = content[:3] + struct.pack("<Q", frame) + content[11:]
    write_pickle(tmp_path / "mnist.pkl.gz", content.replace(old, new))
    for part in load_mnist(tmp_path / "mnist.pkl.gz"):
        np.testing.assert_array_equal(part.X, sets()[0][0])
        np.testing.assert_array_equal(part.y, [0, 1, 2])


def test_a_pickle_with_buffers_elsewhere_is_refused(tmp_path):
    buffers = []
    content = pickle.dumps(sets(), 5, buffer_callback=buffers.append)
    assert buffers
    write_pickle(tmp_path / "mnist.pkl.gz", content)
    with pytest.raises(ValueError, match=r"mnist\.pkl\.gz is not a usable"):
        load_mnist(tmp_path / "mnist.pkl.gz")


class Command:
    """Unpickles by running a command."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_would_run_a_command_does_not(tmp_path, protocol):
    import os

    path, proof = tmp_path / "mnist.pkl.gz", tmp_path / "proof"
    command = f"touch {proof}"
    for payload in (
        Command(os.system, command),
        Command(eval, f"__import__('os').system({command!r})"),
        Command(exec, "import os"),
        Command(getattr, "text", "upper"),
    ):
        for value in (payload, [payload], ((payload, payload), 1, 2), {"a": payload}):
            write_pickle(path, value, protocol)
            with pytest.raises(ValueError, match=r"mnist\.pkl\.gz is not a usable MNIST pickle: it asks for"):
                load_mnist(path)
    assert not proof.exists()
    # The payload does work where nothing restricts it, so the test above can fail.
    pickle.loads(pickle.dumps(Command(os.system, command), protocol))
    assert proof.exists()


def hostile_array(shape=(3, 4), dtype="f4", content=bytes(48), version=1, state=()):
    """A pickle of three sets whose X is rebuilt from the given state."""
    reconstruct, arguments, _ = np.zeros(1).__reduce__()

    class Array:
        def __reduce__(self):
            kind = np.dtype(dtype) if isinstance(dtype, str) else dtype
            return reconstruct, arguments, state or (version, shape, kind, False, content)

    return pickle.dumps(sets(Array()), 2)


F4 = np.dtype("f4")


def hostile_buffer(content=b"\0" * 48, dtype=F4, shape=(3, 4), order="C", *more):
    """A pickle of three sets whose X is rebuilt from a buffer as protocol 5 does it."""
    from_buffer = np.ones(3).__reduce_ex__(5)[0]

    class Array:
        def __reduce__(self):
            return from_buffer, (content, dtype, shape, order, *more)

    return pickle.dumps(sets(Array()), 5)


def test_hostile_pickles_would_be_read_if_they_were_not(tmp_path):
    for content in (hostile_array(), hostile_buffer(), hostile_buffer(bytearray(48), order="F")):
        write_pickle(tmp_path / "mnist.pkl.gz", content)
        assert not load_mnist(tmp_path / "mnist.pkl.gz")[0].X.any()


def long_list(n):
    """A list that holds itself as it was before, n times: ten times as many items each time."""
    inner = []
    for _ in range(n):
        inner = [inner] * 10
    return inner


ADMITTED = b"cnumpy\ndtype\n", b"cnumpy\nndarray\n", b"c_codecs\nencode\n", b"cnumpy.core.multiarray\nscalar\n"


@pytest.mark.parametrize(
    "content",
    [
        hostile_buffer(shape=(10**9, 10**9)),
        hostile_buffer(shape=(-3, -4)),
        hostile_buffer(shape=[3, 4]),
        hostile_buffer(shape=(3.0, 4)),
        hostile_buffer(shape=(True, 12)),
        hostile_buffer(shape=(1 << 5000, 0)),
        hostile_buffer(shape=(0,) * 1000),
        hostile_buffer(order="K"),
        hostile_buffer(order=1),
        hostile_buffer(content=bytes(47)),
        hostile_buffer(content="0" * 48),
        hostile_buffer(content=np.zeros(12, "f4")),
        hostile_buffer(dtype="f4"),
        hostile_buffer(dtype=np.dtype("O"), content=bytes(96)),
        hostile_buffer(dtype=np.dtype("c8"), content=bytes(96)),
        hostile_buffer(dtype=np.dtype([("a", "f4")])),
        hostile_buffer(dtype=np.dtype(("f4", (2,))), content=bytes(96)),
        hostile_buffer(bytes(48), F4, (3, 4), "C", (0, 1)),
        pickle.dumps(sets(y=[0, 1, np.str_("2")]), 5),
        pickle.dumps(sets(np.ma.ones((3, 4))), 5),
        pickle.dumps(long_list(12)),
        pickle.dumps((sets()[0], sets()[0], (long_list(12), [0])), 5),
        b"\x80\x02K\x00r\xff\xff\xff\x7f.",  # a memo of 2**31 places
        b"K\x00p2147483647\n.",
        b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",  # a bytearray of a terabyte
        b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b".",
        b"\x80\x04\x96\x02\0\0\0\0\0\0\0ab" + b"(K\x01K\x02e.",  # appended to
        *(b"\x80\x02" + name + b"}X\x01\0\0\0aK\x01sb." for name in ADMITTED),  # attributes for what is only called
        *(b"\x80\x02" + name + b"N}X\x0c\0\0\0__setstate__" + name + b"s\x86b." for name in ADMITTED),
        b"\x80\x02cnumpy\nndarray\n)\x81.",
        b"\x80\x02cnumpy\nndarray\n)R.",
        # Text that is turned into bytes again and again.
        b"\x80\x02X\x00\x01\0\0" + b"a" * 256 + b"q\x000"
        b"(" + (b"c_codecs\nencode\nh\x00X\x06\0\0\0latin1\x86R" * 50) + b"l.",
        hostile_array(shape=(10**9, 10**9)),
        hostile_array(shape=(-3, -4)),
        hostile_array(shape=(3.0, 4)),
        hostile_array(shape=(True, 12)),
        hostile_array(content=bytes(47)),
        hostile_array(content=[1] * 12),
        hostile_array(dtype="O", content=[None] * 12),
        hostile_array(dtype="S4"),
        hostile_array(dtype="c8", content=bytes(96)),
        hostile_array(dtype=np.dtype([("a", "f4")])),
        hostile_array(dtype="M8[s]", content=bytes(96)),
        hostile_array(state=(1, 2)),
        pickle.dumps(sets(np.array([[np.nan]] * 3, "f4"))),
        pickle.dumps(sets(np.ones(3, "f4"))),
        pickle.dumps(sets(np.ones((3, 4), "i4"))),
        pickle.dumps(sets(np.ones((3, 4), "u2"))),
        pickle.dumps(sets(y=np.array([0, 1]))),
        pickle.dumps(sets(y=np.array([0.0, 1, 2]))),
        pickle.dumps(sets(y=np.array([0, -1, 2]))),
        pickle.dumps(sets(np.empty((0, 4), "f4"), np.empty(0, int))),
        pickle.dumps(sets()[:2]),
        pickle.dumps([1, 2, 3]),
        pickle.dumps({"a": 1}),
        pickle.dumps(None),
        pickle.dumps((sets()[0], sets()[0], (np.ones((3, 5), "f4"), np.array([0, 1, 2])))),
        b"",
        b"hello",
        b"\x80\x02(" * 1000,
        b"\x80\x02" + b"]" + b"]a" * 100 + b".",
        b"\x80\x04\x8d" + struct.pack("<Q", 2**62),  # a string of 4 exabytes
        b"\x80\x02cfastnn.datasets._pickle\n_Unpickler\n.",
        b"\x80\x02cnumpy\ndtype\n.",
    ],
)
def test_wrong_pickles_are_refused(tmp_path, content):
    path = tmp_path / "mnist.pkl.gz"
    write_pickle(path, content)
    with pytest.raises(ValueError, match=r"mnist\.pkl\.gz is not a usable MNIST pickle"):
        load_mnist(path)


def test_a_pickle_nested_too_deeply_is_refused(tmp_path):
    path = tmp_path / "mnist.pkl.gz"
    nested = io.BytesIO()
    nested.write(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".")
    write_pickle(path, nested.getvalue())
    with pytest.raises(ValueError, match="nested too deeply"):
        load_mnist(path)


def test_every_truncation_of_a_pickle_is_refused(tmp_path):
    path = tmp_path / "mnist.pkl.gz"
    content = pickle.dumps(sets(), 2)
    for zipped in (False, True):
        whole = gzip.compress(content) if zipped else content
        for length in range(0, len(whole), 1 + 2 * zipped):
            path.write_bytes(whole[:length])
            with pytest.raises(ValueError, match=r"mnist\.pkl\.gz is not a usable"):
                load_mnist(path)


def test_a_pickle_damaged_anywhere_is_refused_or_read(tmp_path, rng):
    path = tmp_path / "mnist.pkl.gz"
    content = bytearray(pickle.dumps(sets(), 2))
    for _ in range(500):
        damaged = content.copy()
        damaged[rng.integers(len(content))] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            found = load_mnist(path)
        except ValueError as error:
            assert "mnist.pkl.gz" in str(error)  # noqa: PT017
        else:
            assert [len(part.X) == len(part.y) > 0 for part in found] == [True] * 3


def test_uint8_from_a_pickle_that_holds_no_pixels_is_refused(tmp_path):
    path = tmp_path / "mnist.pkl.gz"
    write_pickle(path, sets(np.full((3, 4), 7.5, "f4")))
    load_mnist(path)
    with pytest.raises(ValueError, match="does not hold pixel / 256"):
        load_mnist(path, "uint8")


# --- files to classify ---------------------------------------------------------------------------------------


@pytest.fixture
def pixels(rng):
    return rng.integers(0, 256, (5, 16)).astype(np.uint8)


@pytest.mark.parametrize("shape", [(5, 16), (5, 4, 4)])
def test_rows_from_numpy_and_idx_files(tmp_path, pixels, shape):
    array = pixels.reshape(shape)
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "one.npz", array)
    np.savez_compressed(tmp_path / "named.npz", X=array, y=np.zeros(5))
    (tmp_path / "images-idx3-ubyte").write_bytes(idx_bytes(array))
    (tmp_path / "images.gz").write_bytes(gzip.compress(idx_bytes(array)))
    for name in ("a.npy", "one.npz", "named.npz", "images-idx3-ubyte", "images.gz"):
        rows = read_rows(tmp_path / name, 16)
        np.testing.assert_array_equal(rows, pixels)
        assert rows.dtype == np.uint8


@pytest.mark.parametrize("shape", [(16,), (4, 4), (1, 16), (1, 4, 4)])
def test_a_single_image(tmp_path, pixels, shape):
    np.save(tmp_path / "a.npy", pixels[0].reshape(shape))
    np.testing.assert_array_equal(read_rows(tmp_path / "a.npy", 16), pixels[:1])


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [",", ";", "\t", " ", " , "])
@pytest.mark.parametrize("names", [[], [f"pixel{i}" for i in range(16)], [f'"{i}"' for i in range(16)]])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_rows_from_csv(tmp_path, pixels, end, mark, names, start):
    path = tmp_path / "a.csv"
    for X in (pixels, pixels / 256):
        lines = [mark.join(names)] * bool(names) + [mark.join(map(repr, row)) for row in X.tolist()]
        path.write_bytes((start + end.join([*lines, "", ""])).encode())
        rows = read_rows(path, 16)
        np.testing.assert_array_equal(rows, X)  # the numbers as they stand there, whatever the others are
        assert rows.dtype == np.float64


@pytest.mark.parametrize("n_columns", [1, 2, 10, 16])
@pytest.mark.parametrize("sep", [",", ";"])
@pytest.mark.parametrize("index", [False, True])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_csv_files_of_pandas(tmp_path, rng, n_columns, sep, index, quoting):
    path = tmp_path / "a.csv"
    X = rng.standard_normal((4, n_columns))
    for columns in (None, [f"x{k}" for k in range(n_columns)], range(1, n_columns + 1)):
        frame = pandas.DataFrame(X, columns=columns)
        frame.to_csv(path, sep=sep, index=index, quoting=quoting)
        if index or n_columns >= 10 or isinstance(columns, list):
            np.testing.assert_array_equal(read_rows(path, n_columns), X)
        elif columns is None:
            with pytest.raises(ValueError, match="line 1 may be a row or a header of column numbers"):
                read_rows(path, n_columns)
            assert len(read_rows(path, n_columns, header="no")) == 5
        np.testing.assert_array_equal(read_rows(path, n_columns, header="yes"), X)
        frame.to_csv(path, sep=sep, index=False, header=False, quoting=quoting)
        np.testing.assert_array_equal(read_rows(path, n_columns), X)


def test_rows_that_count_up(tmp_path):
    # Many columns: a header, unless the caller says otherwise.  Few: the caller must say.  Others are rows.
    path = tmp_path / "a.csv"
    for n, first, expected in ((16, 0, 1), (16, 1, 1), (10, 0, 1), (9, 0, None), (9, 1, 2), (16, 2, 2), (1, 0, None)):
        row = np.arange(first, first + n)
        path.write_text("\n".join([",".join(map(str, row))] * 2))
        if expected is None:
            with pytest.raises(ValueError, match="line 1 may be a row or a header of column numbers: say which"):
                read_rows(path, n)
        else:
            np.testing.assert_array_equal(read_rows(path, n), [row] * expected)
        np.testing.assert_array_equal(read_rows(path, n, header="no"), [row] * 2)
        np.testing.assert_array_equal(read_rows(path, n, header="yes"), [row])


def test_whether_the_first_line_is_a_header_does_not_depend_on_the_others(tmp_path):
    path = tmp_path / "a.csv"
    for rest in ("1,2", "0.5,0.25", "1,2\n3,4"):
        path.write_text(f"0.0,1.0\n{rest}\n")
        np.testing.assert_array_equal(read_rows(path, 2)[0], [0, 1])
        path.write_text(f"a,b\n{rest}\n")
        assert len(read_rows(path, 2)) == len(rest.split("\n"))


@pytest.mark.parametrize(
    ("content", "n_in", "message"),
    [
        ("a,b\n1,2\n\n3,x\n", 2, "line 4, cell 2: 'x' is not a number"),
        ("# more\n1,2\n3,\n", 2, "line 3, cell 2: an empty cell is not a number"),
        ("1,2\n3\n", 2, "line 2 has 1 cell, and the rows before it have 2"),
        ("1,2\r\n\r\n3,4,5", 2, "line 3 has 3 cells, and the rows before it have 2"),
        ("a,b\n1,2,3\n", 3, "line 2 has 3 cells, and the header has 2"),
        ("1,x\n3,4\n", 2, "line 1, cell 2: 'x' is not a number; if it is a header, say header yes"),
        ("1,2,\n3,4,\n", 2, "line 1, cell 3: '' is not a number"),
        (",\n3,4\n", 2, "line 1, cell 1: '' is not a number"),
        (",0\n3,4\n", 2, "line 1, cell 1: '' is not a number"),  # a row, and one number is missing
        ("1,nan\n", 2, "line 1 holds NaN or infinity"),
        ("1,2\n\n3,-Infinity\n", 2, "line 3 holds NaN or infinity"),
        ("a,b\n1,2\n1e999,2\n", 2, "line 3 holds NaN or infinity"),
        ("1;2\n0,5;3\n", 2, "line 2, cell 1: '0,5' is not a number"),
        ("1,2\n1_000,3\n", 2, "line 2, cell 1: '1_000' is not a number"),
        ("1,2\n0x10,3\n", 2, "line 2, cell 1: '0x10' is not a number"),
        ("1,2\n\uff11,3\n", 2, "line 2, cell 1: '\uff11' is not a number"),
        ("1,2\n1\0,3\n", 2, "line 2, cell 1: '1.x00' is not a number"),
        ('1,2\n"1,2",3\n', 2, "line 2 has 3 cells, and the rows before it have 2"),
        ("a,b\n1,2\na,b\n3,4\n", 2, "line 3, cell 1: 'a' is not a number"),
        ("a,b\n", 2, "it holds no rows: line 1 is taken as a header"),
        ("\n \n", 2, "it holds no rows"),
        ("1,2,3,4,5\n", 2, "line 1 has 5 cells; rows of 2 numbers were expected"),
        ("1,2,3\n", 2, "rows of 2 numbers were expected; is one of the columns an index or the class"),
        ("label,a,b\n1,2,3\n", 2, "rows of 2 numbers were expected; is one of the columns an index or the class"),
        ("1\n2\n3\n", 2, "line 3 has 1 cell; rows of 2 numbers were expected"),
        ("1,2\n\n3,\u20ac\n", 2, "line 3, cell 2: '€' is not a number"),
    ],
)
def test_wrong_csv_files_are_refused_with_file_and_line(tmp_path, content, n_in, message):
    path = tmp_path / "a.csv"
    path.write_bytes(content.encode())
    with pytest.raises(ValueError, match=message) as caught:
        read_rows(path, n_in)
    assert str(path) in str(caught.value)


def test_only_csv_files_have_headers(tmp_path, pixels):
    np.save(tmp_path / "a.npy", pixels)
    with pytest.raises(ValueError, match=r"a\.npy is not a \.csv file: it has no header"):
        read_rows(tmp_path / "a.npy", 16, header="yes")
    with pytest.raises(ValueError, match="header must be one of"):
        read_rows(tmp_path / "a.npy", 16, header=True)


def test_a_header_of_numpy_s(tmp_path, pixels):
    for comments in ("# ", ""):
        np.savetxt(tmp_path / "a.csv", pixels, delimiter=",", header=",".join(map(str, range(16))), comments=comments)
        for header in ("auto", "yes"):
            np.testing.assert_array_equal(read_rows(tmp_path / "a.csv", 16, header), pixels)


def test_no_images_are_none(tmp_path):
    np.save(tmp_path / "a.npy", np.empty((0, 4, 4)))
    assert read_rows(tmp_path / "a.npy", 16).shape == (0, 16)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1"])
@pytest.mark.parametrize("dark_on_light", [False, True])
@pytest.mark.parametrize("scale", [1, 4])
def test_rows_from_a_picture(tmp_path, mode, dark_on_light, scale):
    digit = np.zeros((6, 6), np.uint8)
    digit[1:5, 2:4] = 255
    picture = Image.fromarray(255 - digit if dark_on_light else digit)
    picture = picture.resize((6 * scale, 6 * scale), Image.Resampling.NEAREST).convert(mode)
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_rows(tmp_path / "a.png", 36), digit.reshape(1, -1))


@pytest.mark.parametrize("scale", [1, 3])
def test_a_picture_for_images_of_a_shape(tmp_path, rng, scale):
    colours = rng.integers(0, 256, (4, 7, 3)).astype(np.uint8)
    picture = Image.fromarray(colours).resize((7 * scale, 4 * scale), Image.Resampling.NEAREST)
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_rows(tmp_path / "a.png", (4, 7, 3)), colours.reshape(1, -1))  # light or not
    found = read_rows(tmp_path / "a.png", (4, 7, 1))
    picture.convert("L").save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_rows(tmp_path / "grey.png", (4, 7)), found)
    np.testing.assert_array_equal(
        read_rows(tmp_path / "grey.png", (4, 7, 3)).reshape(4, 7, 3)[:, :, 1],
        np.asarray(picture.convert("L"))[::scale, ::scale],
    )
    with pytest.raises(ValueError, match="the network's images have 2 channels"):
        read_rows(tmp_path / "a.png", (4, 7, 2))


@pytest.mark.parametrize(
    ("given", "shape"),
    [
        ((5, 4, 6, 3), (4, 6, 3)),
        ((4, 6, 3), (4, 6, 3)),
        ((5, 72), (4, 6, 3)),
        ((72,), (4, 6, 3)),
        ((5, 4, 18, 1), (4, 18)),
        ((5, 4, 18), (4, 18, 1)),
        ((4, 18), (4, 18, 1)),
        ((4, 18, 1), (4, 18, 1)),
    ],
)
def test_arrays_of_images_of_a_shape(tmp_path, rng, given, shape):
    array = rng.random(given)
    np.save(tmp_path / "a.npy", array)
    np.testing.assert_array_equal(read_rows(tmp_path / "a.npy", shape), array.reshape(-1, 72))
    if len(given) > 2 and given != (4, 18, 1):
        np.save(tmp_path / "a.npy", np.moveaxis(array, -1, -3))
        with pytest.raises(ValueError, match=r"shape .*; images \(height, width, channels\) of .* were expected"):
            read_rows(tmp_path / "a.npy", shape)


def test_the_shape_of_images_without_reading_them(tmp_path, pixels):
    assert image_shape() == (28, 28)
    path = tmp_path / "train-images.idx3-ubyte"
    path.write_bytes(idx_bytes(pixels.reshape(5, 8, 2)))
    assert image_shape(tmp_path) == (8, 2)
    assert image_shape(path) is None  # a pickle is a file
    path.write_bytes(b"\0\0\x08\x03\0\0")
    with pytest.raises(ValueError, match="is not a usable IDX file: it ends within its header"):
        image_shape(tmp_path)


def test_a_transparent_picture_lies_on_white(tmp_path):
    picture = np.zeros((6, 6, 4), np.uint8)
    picture[1:5, 2:4, 3] = 255  # black ink, nothing around it
    Image.fromarray(picture).save(tmp_path / "a.png")
    expected = np.zeros((6, 6))
    expected[1:5, 2:4] = 255
    np.testing.assert_array_equal(read_rows(tmp_path / "a.png", 36).reshape(6, 6), expected)


def png_bytes(values, depth, kind, clear=b"", palette=b""):
    """A PNG by its specification: depth bits a value, kind 0 grey, 2 RGB, 3 palette, 4 grey and 6 RGB with alpha."""
    values = np.asarray(values)
    height, width = values.shape[:2]
    flat = values.reshape(height, -1)
    if depth == 16:
        lines = [row.astype(">u2").tobytes() for row in flat]
    else:
        bits = (flat[:, :, None] >> np.arange(depth)[::-1]) & 1
        lines = [np.packbits(row.ravel()).tobytes() for row in bits]

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))]
    parts += [(name, content) for name, content in ((b"PLTE", palette), (b"tRNS", clear)) if content]
    parts += [(b"IDAT", zlib.compress(b"".join(b"\0" + line for line in lines))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def on_black(middle):
    """A picture of 8 by 8 values that begins with a dark border, so that it is not turned."""
    picture = np.zeros((8, 8, *np.shape(middle)[2:]), int)
    picture[2:6, 2:6] = middle
    return picture


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("is_clear", [False, True])
def test_grey_pictures_of_every_depth(tmp_path, rng, depth, is_clear):
    top = 2**depth - 1
    middle = rng.integers(0, top + 1, (4, 4))
    middle[0, 0], middle[0, 1], clear = top, 1, max(1, top // 3)
    middle[1, 1] = clear
    picture = on_black(middle)
    (tmp_path / "a.png").write_bytes(png_bytes(picture, depth, 0, struct.pack(">H", clear) if is_clear else b""))
    expected = picture * 255 / top
    if is_clear:
        expected[picture == clear] = 255  # what is clear is white
    found = read_rows(tmp_path / "a.png", 64).reshape(8, 8)
    np.testing.assert_allclose(found, expected, atol=0.5)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("kind", [2, 4, 6])
def test_coloured_and_transparent_pictures_of_both_depths(tmp_path, rng, depth, kind):
    top = 2**depth - 1
    n = {2: 3, 4: 2, 6: 4}[kind]
    picture = on_black(rng.integers(0, top + 1, (4, 4, n)))
    if kind != 2:
        picture[..., -1][picture.sum(axis=2) == 0] = top  # the border is black, not clear
    (tmp_path / "a.png").write_bytes(png_bytes(picture, depth, kind))
    colours = picture / top
    grey = colours[..., :3] @ [0.299, 0.587, 0.114] if kind != 4 else colours[..., 0]
    alpha = 1 if kind == 2 else colours[..., -1]
    found = read_rows(tmp_path / "a.png", 64).reshape(8, 8)
    np.testing.assert_allclose(found, 255 * (grey * alpha + 1 - alpha), atol=2.5)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("is_clear", [False, True])
def test_pictures_with_a_palette(tmp_path, rng, depth, is_clear):
    n = 2**depth
    palette = rng.integers(0, 256, (n, 3))
    palette[0] = 0
    alphas = rng.integers(0, 256, n) if is_clear else np.full(n, 255)
    alphas[0] = 255
    picture = on_black(rng.integers(0, n, (4, 4)))
    clear = bytes(alphas.astype(np.uint8)) if is_clear else b""
    (tmp_path / "a.png").write_bytes(png_bytes(picture, depth, 3, clear, bytes(palette.astype(np.uint8).ravel())))
    grey, alpha = palette @ [0.299, 0.587, 0.114], alphas / 255
    found = read_rows(tmp_path / "a.png", 64).reshape(8, 8)
    np.testing.assert_allclose(found, (grey * alpha + 255 * (1 - alpha))[picture], atol=2.5)


def test_a_transparent_colour(tmp_path, rng):
    picture = on_black(rng.integers(0, 200, (4, 4, 3)))
    picture[3, 3] = [1, 2, 3]
    clear = struct.pack(">HHH", 1, 2, 3)
    (tmp_path / "a.png").write_bytes(png_bytes(picture, 8, 2, clear))
    expected = picture @ [0.299, 0.587, 0.114]
    expected[3, 3] = 255
    np.testing.assert_allclose(read_rows(tmp_path / "a.png", 64).reshape(8, 8), expected, atol=1.5)
    (tmp_path / "a.png").write_bytes(png_bytes(picture, 16, 2, clear))
    with pytest.raises(ValueError, match="its mode is RGB of 16 bits with a transparent colour"):
        read_rows(tmp_path / "a.png", 64)


@pytest.mark.filterwarnings("ignore:Saving I mode images as PNG:DeprecationWarning")
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16", "I;16B", "LAB", "CMYK", "F"])
def test_every_mode_that_pillow_writes_is_read(tmp_path, rng, mode):
    picture = Image.fromarray(on_black(rng.integers(0, 256, (4, 4))).astype(np.uint8))
    if mode.startswith("I"):
        deep = np.asarray(picture).astype(np.uint32) * 257
        kind = {"I": "i4", "I;16": "<u2", "I;16B": ">u2"}[mode]
        picture = Image.frombytes(mode, (8, 8), deep.astype(kind).tobytes())
    else:
        picture = picture.convert(mode) if mode != "LAB" else picture
    try:
        picture.save(tmp_path / "a.png")
    except OSError:
        return  # it is none of PNG's
    expected = np.asarray(picture.convert("L")) if not mode.startswith("I") else deep // 257
    np.testing.assert_array_equal(read_rows(tmp_path / "a.png", 64).reshape(8, 8), expected)


def test_pictures_too_large_are_refused_before_they_are_unpacked(tmp_path):
    path = tmp_path / "a.png"
    content = png_bytes(np.zeros((8, 8), int), 8, 0)
    size = struct.pack(">II", 2**16, 2**16)
    head = b"IHDR" + size + content[24:29]
    path.write_bytes(content[:12] + head + struct.pack(">I", zlib.crc32(head)) + content[33:])
    with pytest.raises(ValueError, match="it has 65536 x 65536 pixels, more than"):
        read_rows(path, 64)
    # Pillow believes the last of several heads.
    head = b"IHDR" + struct.pack(">II", 2**13, 2**13) + content[24:29]
    second = struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    path.write_bytes(content[:33] + second + content[33:])
    with pytest.raises(ValueError, match="it has two sizes"):
        read_rows(path, 64)


def test_the_classifier_reads_a_drawn_digit(tmp_path, mnist):
    train, _, test = mnist
    net = fastnn.Network([784, 10])
    fastnn.Trainer(net, batch_size=100).fit(train.X[:10_000], train.y[:10_000], epochs=2)
    image = (255 - test.X[0] * 256).astype(np.uint8).reshape(28, 28)
    Image.fromarray(image).resize((280, 280), Image.Resampling.BICUBIC).save(tmp_path / "seven.png")
    assert net.predict(read_rows(tmp_path / "seven.png", 784)) == [7]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npy", b"", "not a usable NumPy file"),
        (
            "a.npy",
            b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (9999999999,), }" + b" " * 40,
            "not a usable NumPy file",
        ),
        ("a.npz", b"PK\x03\x04junk", "not a usable NumPy file"),
        ("a.csv", b"", "not a usable CSV file: it holds no rows"),
        ("a.csv", b"1,2,3\n4,5\n", "not a usable CSV file"),
        ("a.csv", b"1,2,x\n1,2,y\n", "not a usable CSV file"),
        ("a.csv", b"\xff\xfe\x00", "not a usable CSV file"),
        ("a.csv", b"1,2,3\n", r"holds an array of shape \(1, 3\); rows of 16 numbers were expected"),
        ("a.png", b"hello", "not a usable PNG file"),
        ("a.png", b"\x89PNG\r\n\x1a\n" + b"junk" * 20, "not a usable PNG file"),
        ("a", b"hello", "not a usable IDX file"),
    ],
)
def test_wrong_files_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_rows(tmp_path / name, 16)
    assert str(tmp_path / name) in str(caught.value)


def test_a_numpy_file_of_a_dtype_with_a_shape_must_be_whole(tmp_path):
    # NumPy takes less than the header says, where it reads straight from a file.
    np.save(tmp_path / "a.npy", np.zeros((2, 16), "b1"))
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(whole.replace(b"'|b1'", b"'2b1'"))
    with pytest.raises(ValueError, match=r"a\.npy is not a usable NumPy file"):
        read_rows(tmp_path / "a.npy", 16)


@pytest.mark.parametrize("kind", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_archives_that_numpy_does_not_write_are_refused(tmp_path, pixels, kind):
    np.save(tmp_path / "X.npy", pixels)
    with zipfile.ZipFile(tmp_path / "a.npz", "w", kind) as archive:
        archive.write(tmp_path / "X.npy", "X.npy")
    with pytest.raises(ValueError, match="X is compressed in a way that NumPy does not use"):
        read_rows(tmp_path / "a.npz", 16)


def test_an_archive_whose_directory_points_nowhere_is_refused(tmp_path, pixels):
    np.savez(tmp_path / "a.npz", pixels)
    content = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(content[-120:])
    with pytest.raises(ValueError, match=r"a\.npz is not a usable NumPy file"):
        read_rows(tmp_path / "a.npz", 16)


def test_a_zip_bomb_is_not_unpacked(tmp_path):
    # The header of the array is right, and there are as many zeros as it says.
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": (2**23, 16)})
        archive.writestr("X.npy", head.getvalue() + bytes(2**27))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="it says that X has 134217856 bytes, from "):
            read_rows(tmp_path / "a.npz", 16)
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def test_a_pickle_beyond_the_wanted_dtype_is_refused(tmp_path):
    X = np.ones((3, 4))
    X[1, 2] = 1e300
    write_pickle(tmp_path / "mnist.pkl.gz", sets(X))
    assert load_mnist(tmp_path / "mnist.pkl.gz", "float64")[0].X.max() == 1e300
    with pytest.raises(ValueError, match="X holds NaN, infinity or numbers beyond float32"):
        load_mnist(tmp_path / "mnist.pkl.gz", "float32")


def test_a_picture_that_says_that_it_moves_is_read_without_a_word(tmp_path, pixels):
    content = png_bytes(on_black(pixels[0].reshape(4, 4)), 8, 0)
    moves = b"acTL" + struct.pack(">II", 0, 0)
    chunk = struct.pack(">I", 8) + moves + struct.pack(">I", zlib.crc32(moves))
    (tmp_path / "a.png").write_bytes(content[:33] + chunk + content[33:])
    np.testing.assert_array_equal(read_rows(tmp_path / "a.png", 64).reshape(8, 8)[2:6, 2:6].ravel(), pixels[0])


def test_numpy_files_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "a.npy"
    for array, message in (
        (np.ones((3, 15)), r"shape \(3, 15\)"),
        (np.ones((0, 15)), r"shape \(0, 15\)"),
        (np.array("x"), "numbers were expected"),
        (np.array([["x"] * 16]), "numbers were expected"),
        (np.float64(3), "numbers were expected"),
    ):
        np.save(path, array)
        with pytest.raises(ValueError, match=message):
            read_rows(path, 16)
    np.save(path, np.array([[Command(print, "run")] * 16], object), allow_pickle=True)
    with pytest.raises(ValueError, match="not a usable NumPy file"):
        read_rows(path, 16)
    np.savez(tmp_path / "two.npz", a=np.ones((1, 16)), b=np.ones((1, 16)))
    with pytest.raises(ValueError, match="one named X was expected"):
        read_rows(tmp_path / "two.npz", 16)


def test_a_missing_file_is_an_os_error(tmp_path):
    for ending in (".npy", ".csv", ".png", ""):
        with pytest.raises(FileNotFoundError, match="missing"):
            read_rows(tmp_path / f"missing{ending}", 16)


def test_a_picture_needs_a_square_of_inputs(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="not a square of pixels"):
        read_rows(tmp_path / "a.png", 15)
