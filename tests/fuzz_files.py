"""Files that nobody wrote: readers must refuse them by a ValueError that names the file, or give what stands in them.

    python tests/fuzz_files.py READER [libFuzzer's options and folders]     # such as png -runs=1000000

needs atheris (``pip install atheris``, CPython 3.11 or newer), whose libFuzzer keeps what reaches new code, and mutates
that.  The process may take 1 GB more than it has at its start, so that whatever trusts a size that a file states fails.
``test_fuzz_files.py`` runs some thousands of mutations of the same seeds that are the same each time.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import pickle
import random
import re
import struct
import sys
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

# The modules whose coverage guides, beside fastnn.datasets.
GUIDES = {
    "idx": ["gzip"],
    "network": ["fastnn.storage", "fastnn._validation", "fastnn.layers", "fastnn.slots"],
    "ensemble": ["fastnn.storage", "fastnn._validation", "fastnn.layers", "fastnn.slots", "fastnn.ensemble"],
    "tabular": ["fastnn.storage", "fastnn._validation", "fastnn.layers", "fastnn.slots", "fastnn.tabular"],
    "checkpoint": ["fastnn.storage", "json"],
    "table": ["fastnn.tabular.sources"],
    "png": ["PIL.PngImagePlugin", "PIL.ImageFile"],
    "npy": ["numpy.lib"],
    "npz": ["numpy.lib", "zipfile"],
}
importing = contextlib.nullcontext()
if __name__ == "__main__":
    import atheris

    # atheris 3.0 keeps the arrays that it sees compared: those of pictures would fill the memory.
    blind = ["fastnn.datasets._files"] if sys.argv[1] == "png" else []
    modules = ["fastnn.datasets", *GUIDES.get(sys.argv[1], [])]
    importing = atheris.instrument_imports(include=modules, exclude=blind)

with importing:
    import numpy as np
    import PIL.PngImagePlugin
    import safetensors.numpy
    from PIL import Image

    import fastnn
    from fastnn import tabular
    from fastnn.datasets import load_mnist, read_idx, read_rows
    from fastnn.layers import AveragePool2D, Category, Columns, Conv2D, Dense, GlobalAveragePool2D, MaxPool2D, Number
    from fastnn.storage import load_checkpoint
    from fastnn.tabular.sources import read_source

N_IN = 16  # numbers in a row
MEMORY = 2**30


# What each reader gives, held against the bytes of the file.


def check_idx(path, data):
    found = read_idx(path)
    content = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    shape = struct.unpack_from(f">{content[3]}I", content, 4)
    assert found.dtype == np.uint8
    assert found.shape == shape
    assert found.tobytes() == content[4 + 4 * len(shape) :]


def check_pickle(path, data):
    kind = "uint8" if sum(data) % 3 == 0 else "float32"
    for X, y in load_mnist(path, kind):
        assert X.dtype == kind
        assert X.ndim == 2
        assert y.shape == X.shape[:1]
        assert y.dtype == np.int64
        assert y.min() >= 0
        assert np.isfinite(X).all()


def check_network(path, data):
    check_parameters(fastnn.Network.load(path), safetensors.numpy.load(data))


def check_ensemble(path, data):
    ensemble, tensors = fastnn.Ensemble.load(path), safetensors.numpy.load(data)
    for k, network in enumerate(ensemble):
        prefix = f"networks.{k}."
        check_parameters(network, {n[len(prefix) :]: t for n, t in tensors.items() if n.startswith(prefix)})
    assert len(tensors) == sum(1 for network in ensemble for _ in network.slots)


def check_parameters(network, tensors):
    for k, arrays in enumerate(network.slots.by_layer(network.parameters)):
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, tensors[f"layers.{k}.{name}"])
    assert len(tensors) == sum(1 for _ in network.slots)
    assert np.isfinite(network.parameters).all()
    assert network.input_scale is None or 0 < network.input_scale < np.inf
    assert network.facts()[-1].n_out == network.n_out
    if max(network.sizes) > 100_000:  # a small file can tell of large images
        return
    with np.errstate(all="ignore"):  # sums of large weights may overflow
        rows = np.zeros((2, network.n_in))
        if network.columns is not None:
            rows[1] = np.nan
        network.predict(rows)


def check_tabular(path, data):
    model, tensors = tabular.load(path), safetensors.numpy.load(data)
    for network in model.networks_:
        assert np.isfinite(network.parameters).all()
        assert network.n_in == len(model.table_.inputs)
    assert len(tensors) == sum(1 for network in model.networks_ for _ in network.slots)
    with np.errstate(all="ignore"):  # sums of large weights may overflow
        assert len(model.predict({name: [None, None] for name in model.table_.names})) == 2


def check_checkpoint(path, data):
    content, tensors = load_checkpoint(path)
    assert isinstance(content, dict)
    expected = safetensors.numpy.load(data)
    assert tensors.keys() == expected.keys()
    for name, array in tensors.items():
        np.testing.assert_array_equal(array, expected[name])


def check_csv(path, data):
    found = read_rows(path, N_IN)
    assert found.dtype == np.float64
    assert np.isfinite(found).all()
    lines = data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    kept = [line for line in lines if line.strip() and not line.startswith("#")]
    bare = re.sub('"[^"]*"', "", kept[0])
    mark = next((mark for mark in ";,\t" if mark in bare), None)
    cells = [[cell.strip().strip('"') for cell in line.split(mark)] for line in kept]
    numbers = [float(cell) for line in cells[-len(found) :] for cell in line[-N_IN:]]
    if len(found) > 1 or len(cells[-1]) >= N_IN:  # not a single image in several lines
        np.testing.assert_array_equal(found.ravel(), numbers)


def check_table(path, data):
    found, _ = read_source(path)
    content = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    text = content.decode("utf-8-sig").replace('"', "")
    assert len({len(column) for column in found.values()}) == 1
    for name, column in found.items():
        cells = column if isinstance(column, list) else []
        assert all(cell.replace('"', "") in text for cell in [name, *cells])
        assert len(column) < len(text)


def check_png(path, data):
    found = read_rows(path, N_IN)
    assert found.dtype == np.uint8
    assert found.shape == (1, N_IN)


def check_numpy(path, data):
    found = read_rows(path, N_IN)
    assert found.dtype.kind in "biuf"
    assert found.ndim == 2
    assert found.shape[1] == N_IN
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = np.load(io.BytesIO(data), allow_pickle=False)
        array = loaded if isinstance(loaded, np.ndarray) else loaded["X" if "X" in loaded.files else loaded.files[0]]
    assert found.tobytes() == array.tobytes()


# Small files that are right, to begin with.


def written(write, ending=""):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, f"a{ending}")
        write(path)
        return Path(path).read_bytes()


def idx_seeds():
    rng = np.random.default_rng(0)
    for shape in ((3,), (0,), (2, 5), (4, 2, 3), (1, 2, 3, 4)):
        content = struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape)
        content += rng.integers(0, 256, np.prod(shape)).astype(np.uint8).tobytes()
        yield content
    yield gzip.compress(content)


def pickle_seeds():
    for dtype in ("<f4", ">f8", "u1"):
        X, y = np.arange(12).reshape(3, 4).astype(dtype), np.arange(3)
        X = X if dtype == "u1" else X / X.dtype.type(256)
        for protocol in range(6):
            for order in "CF":
                yield pickle.dumps(((np.asarray(X, order=order), y),) * 3, protocol)
            yield pickle.dumps([(X.tolist(), list(y)), (X, y.tolist()), (list(X), y)], protocol)
    yield gzip.compress(pickle.dumps(((X, y),) * 3, 5))


def network_seeds():
    for sizes, options in (
        ([2, 3], {}),
        ([3, 2, 2], {"dtype": "float32", "activation": "relu"}),
        ([3, 2, 1], {"loss": "binary_cross_entropy", "batch_norm": True}),
        ([2, 2], {"loss": "quantile", "quantiles": (0.1, 0.9)}),
        ([2, 3, 2, 2], {"loss": "huber", "activation": ["gelu", "tanh"], "batch_norm": True}),
        ([Conv2D(2, 2), MaxPool2D(2), Dense(2, dropout=0.5), Dense(2)], {"input_shape": (4, 3), "batch_norm": True}),
        ([Columns([Number(1.5, 0.2, (0, 1.5, 3), True), Category(2, True), Number()]), Dense(1)], {"input_shape": 3}),
        ([AveragePool2D(2, 1), Conv2D(2, 1, 2, "same"), GlobalAveragePool2D(), Dense(1)], {"input_shape": (2, 3, 2)}),
    ):
        network = fastnn.Network(sizes, **options)
        yield written(network.save)
        network.input_scale = 1 / 256
        yield written(network.save)
    for path in sorted(Path(__file__).parent.glob("data/format1-*")):
        yield path.read_bytes()


def ensemble_seeds():
    for loss in ("cross_entropy", "squared"):
        networks = [fastnn.Network([3, 2], loss=loss, dtype="float32"), fastnn.Network([3, 2, 2], loss=loss)]
        for n in (1, 2):
            yield written(fastnn.Ensemble(networks[:n]).save)


def tabular_seeds():
    rows = {"a": [1.5, None, 3, 4] * 3, "b": ["x", "y", "x", ""] * 3, "c": ["2024-01-31", "2023-07-01"] * 6}
    options = {"max_epochs": 1, "hidden_layer_sizes": (2,), "random_state": 0}
    for n_members in (1, 2):
        yield written(tabular.TabularClassifier(n_members, **options).fit(rows, ["u", "v"] * 6).save)
        for quantiles in ((), (0.1, 0.9)):
            model = tabular.TabularRegressor(n_members, quantiles=quantiles, **options)
            yield written(model.fit(rows, np.arange(12.0)).save)


def checkpoint_seeds():
    X, y = np.random.default_rng(0).standard_normal((6, 3)), np.array([0, 1, 0, 1, 1, 0])
    for optimizer in (fastnn.SGD(0.1), fastnn.SGD(0.1, momentum=0.9), fastnn.Adam(), fastnn.LBFGS()):

        def write(path, optimizer=optimizer):
            callbacks = [fastnn.callbacks.EarlyStopping("log_likelihood"), fastnn.callbacks.Checkpoint(path, 0)]
            batch_size = None if isinstance(optimizer, fastnn.LBFGS) else 2
            trainer = fastnn.Trainer(fastnn.Network([3, 2, 2]), optimizer, batch_size, callbacks=callbacks, n_threads=1)
            trainer.fit(X, y, epochs=2)

        yield written(write)


def csv_seeds():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (3, N_IN))
    header = ",".join(map(str, range(N_IN)))
    for mark, form in ((",", "%d"), (";", "%.18e"), ("\t", "%g"), (" ", "%.3f"), (", ", '"%d"')):
        yield written(lambda path, mark=mark, form=form: np.savetxt(path, X, form, mark))
        yield written(
            lambda path, mark=mark, form=form: np.savetxt(path, X / 7, form, mark, "\r\n", header, "note", "")
        )
    yield written(lambda path: np.savetxt(path, X[:1].reshape(4, 4), "%d", ","))
    lines = [f",{header}", *(f"{k}," + ",".join(map(str, row)) for k, row in enumerate(X / 256))]
    yield b"\xef\xbb\xbf" + "\n\n".join(lines).encode()


def table_seeds():
    for mark in ",;\t":
        rows = (
            ['"the price"', "size", "city"],
            ["1.5", "", "Rome"],
            ["", "NA", f'"Lima{mark} ""Peru"""'],
            ["3", "4", ""],
        )
        yield "\n".join(map(mark.join, rows)).encode()
    yield b"\xef\xbb\xbf" + "\r\n".join(f"{k},{mark.join(row)}" for k, row in enumerate(["ab", "12", "34"])).encode()
    yield b",a,b\n0,x,1\n1,y,2\n\n"
    yield gzip.compress(b"a,b\n1,\n\n2,x\n")


def png_seeds():
    rng = np.random.default_rng(0)
    grey = Image.fromarray(rng.integers(0, 256, (5, 6)).astype(np.uint8))
    deep = Image.fromarray(rng.integers(0, 65536, (4, 4)).astype(np.uint16))
    pictures = [(grey.convert(mode), {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")]
    pictures += [(deep, {}), (deep, {"transparency": 9}), (grey, {"transparency": 3})]
    pictures += [(grey.convert("RGB"), {"transparency": (1, 2, 3)}), (grey.convert("P"), {"transparency": b"\0\1\2"})]
    pictures += [(grey.quantize(4), {"bits": 2}), (grey, {"dpi": (9, 9)}), (grey.convert("1"), {"transparency": 0})]
    told = PIL.PngImagePlugin.PngInfo()
    told.add_text("a", "b" * 40, zip=True)
    told.add_itxt("a", "b", zip=True)
    pictures += [(grey, {"pnginfo": told}), (grey, {"save_all": True, "append_images": [grey.rotate(90)]})]
    for picture, options in pictures:
        yield written(lambda path, picture=picture, options=options: picture.save(path, **options), ".png")


def npy_seeds():
    rng = np.random.default_rng(0)
    for dtype in ("b1", "u1", "<i2", ">i8", "<f2", ">f4", "<f8", "<c8", "<U3", "g"):
        array = rng.integers(0, 100, (2, N_IN)).astype(dtype)
        for shaped in (array, np.asfortranarray(array), array.reshape(2, 4, 4), array[0], array[:0]):
            yield written(lambda path, shaped=shaped: np.save(path, shaped), ".npy")
    structured = np.zeros(2, [("a", "<f4"), ("b", "u1", (3,))])
    yield written(lambda path: np.save(path, structured), ".npy")
    for version in ((1, 0), (2, 0), (3, 0)):
        content = io.BytesIO()
        np.lib.format.write_array(content, rng.standard_normal((2, N_IN)), version)
        yield content.getvalue()


def npz_seeds():
    X = np.random.default_rng(0).integers(0, 256, (3, N_IN)).astype(np.uint8)
    for save in (np.savez, np.savez_compressed):
        yield written(lambda path, save=save: save(path, X), ".npz")
        yield written(lambda path, save=save: save(path, y=np.arange(3), X=X / 256), ".npz")


# Mutations that get past checksums and lengths.


def png_fixed(data, mutate):
    """Mutate the chunks of a picture, unpacked pixels too, and put their lengths and checksums right."""
    position, parts = 8, [data[:8]]
    while position + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        content = data[position + 8 : position + 8 + length]
        position += 12 + length
        choice = mutate.random.random()
        if choice < 0.3 and name == b"IDAT":
            with contextlib.suppress(zlib.error):
                content = zlib.compress(mutate(zlib.decompress(content)), 1)
        elif choice < 0.5:
            content = mutate(content)
        elif choice < 0.6:
            name = mutate.random.choice(
                [
                    b"tRNS",
                    b"PLTE",
                    b"iCCP",
                    b"zTXt",
                    b"iTXt",
                    b"tEXt",
                    b"gAMA",
                    b"acTL",
                    b"fcTL",
                    b"fdAT",
                    b"eXIf",
                    b"pHYs",
                    b"cHRM",
                    b"sRGB",
                    name,
                ]
            )
        repeat = 2 if mutate.random.random() < 0.05 else 1
        parts += [
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        ] * repeat
    return b"".join(parts)


def safetensors_fixed(data, mutate):
    """Mutate the header, as text or as what it says, and put its length right."""
    length = int.from_bytes(data[:8], "little")
    header, rest = data[8 : 8 + length], data[8 + length :]
    try:
        told = json.loads(header)
        key = mutate.random.choice(sorted(told))
        if key == "__metadata__" and mutate.random.random() < 0.8:
            inner = mutate.random.choice(sorted(told[key]))
            told[key][inner] = mutate(told[key][inner].encode()).decode("utf-8", "replace")
        elif mutate.random.random() < 0.5:
            told[key] = json.loads(mutate(json.dumps(told[key]).encode()))
        else:
            rest = mutate(rest)
        header = json.dumps(told).encode()
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        header = mutate(header)
    return struct.pack("<Q", len(header)) + header + rest


def npz_fixed(data, mutate):
    """Mutate a member and pack it again."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(packed, "w") as new:
        for member in old.infolist()[:4]:
            unusual = mutate.random.random() < 0.02  # NumPy packs in two ways, of four
            kind = mutate.random.choice([zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA] if unusual else [0, zipfile.ZIP_DEFLATED])
            content = old.read(member)[: 10**5]
            name = mutate.random.choice([member.filename, "X.npy", "X", "y.npy"])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # names that come twice
                new.writestr(name, mutate(content) if mutate.random.random() < 0.7 else content, kind)
    return packed.getvalue()


def gzip_fixed(data, mutate):
    """Mutate what is packed and pack it again."""
    if data[:2] != b"\x1f\x8b":
        return mutate(data)
    content = mutate(gzip.decompress(data))
    return gzip.compress(content, 1) if mutate.random.random() < 0.9 else content


class Reader(NamedTuple):
    check: Callable
    seeds: Callable
    fixed: Callable
    ending: str


READERS = {
    "idx": Reader(check_idx, idx_seeds, gzip_fixed, ""),
    "pickle": Reader(check_pickle, pickle_seeds, gzip_fixed, ".pkl.gz"),
    "network": Reader(check_network, network_seeds, safetensors_fixed, ".safetensors"),
    "ensemble": Reader(check_ensemble, ensemble_seeds, safetensors_fixed, ".safetensors"),
    "tabular": Reader(check_tabular, tabular_seeds, safetensors_fixed, ".safetensors"),
    "checkpoint": Reader(check_checkpoint, checkpoint_seeds, safetensors_fixed, ""),
    "csv": Reader(check_csv, csv_seeds, lambda data, mutate: mutate(data), ".csv"),
    "table": Reader(check_table, table_seeds, gzip_fixed, ".csv"),
    "png": Reader(check_png, png_seeds, png_fixed, ".png"),
    "npy": Reader(check_numpy, npy_seeds, lambda data, mutate: mutate(data), ".npy"),
    "npz": Reader(check_numpy, npz_seeds, npz_fixed, ".npz"),
}


class Mutator:
    """Changes of bytes by `change`, with random numbers for those who choose what to change."""

    def __init__(self, change, seed):
        self.change, self.random = change, random.Random(seed)

    def __call__(self, data):
        return self.change(self, data)


def mutated(reader, data, mutator):
    """Return a file like data: changed anywhere, or such that checksums and lengths fit."""
    if mutator.random.random() < 0.7:
        with contextlib.suppress(Exception):  # what is not a file of this kind at all
            return reader.fixed(data, mutator)
    return mutator(data)


INTERESTING = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**62, 2**63 - 1, 2**64 - 1]


def change_bytes(mutator, data):
    """Make one to four changes that need no coverage to be guided by."""
    content, rng = bytearray(data), mutator.random
    for _ in range(rng.choice([1, 1, 2, 4])):
        begin = rng.randrange(len(content) + 1)
        end = min(len(content), begin + rng.choice([1, 2, 4, 8, 30]))
        width = rng.choice([1, 2, 4, 8])
        number = (rng.choice(INTERESTING) % 256**width).to_bytes(width, rng.choice(["little", "big"]))
        content[begin:end] = rng.choice(
            [
                b"",
                bytes(content[begin:end]) * 2,
                number,
                rng.randbytes(end - begin),
                str(rng.choice(INTERESTING)).encode(),
                bytes(content[rng.randrange(len(content) + 1) :][: end - begin]),
            ]
        )
    return bytes(content)


def run(reader, path, data):
    """Return whether a file of this data can be read; raises all but right content and errors that name it."""
    with open(os.open(path, os.O_RDWR | os.O_CREAT), "wb") as file:  # emptied first, it would go to the disk each time
        file.write(data)
        file.truncate()
    try:
        reader.check(path, data)
    except ValueError as error:
        if path not in str(error):
            raise
        return False
    return True


def main(arguments):
    """Fuzz one reader until libFuzzer's options say that it is enough."""
    import resource

    reader = READERS[arguments[1]]
    shared = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        seeds = os.path.join(folder, "seeds")
        os.mkdir(seeds)
        for k, seed in enumerate(reader.seeds()):
            Path(seeds, str(k)).write_bytes(seed)
        path = os.path.join(folder, f"file{reader.ending}")
        warnings.simplefilter("error")
        in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY, in_use + MEMORY))

        def change(mutator, data):
            return atheris.Mutate(data, len(data) + 64)

        def mutate(data, max_size, seed):
            return mutated(reader, data, Mutator(change, seed))[:max_size]

        options = ["-max_len=8192", "-timeout=30", *arguments[2:], seeds]

        def test(data):
            run(reader, path, data)

        atheris.Setup([arguments[0], *options], test, custom_mutator=mutate)
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
