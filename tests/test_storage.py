"""Saved networks: they come back as they were, hostile files are refused, and a crash loses nothing."""

import copy
import json
import os
import pickle
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from pairs import parametrize_pairs

import fastnn
from fastnn import export, plotting
from fastnn._validation import check_writable


@pytest.fixture
def network(rng, dtype):
    network = fastnn.Network([7, 5, 4, 3], ["tanh", "relu"], dtype)
    network.parameters = rng.standard_normal(network.parameters.size)
    return network


@pytest.fixture
def saved(network, tmp_path):
    path = tmp_path / "net.safetensors"
    network.save(path)
    return path


def test_a_network_comes_back_as_it_was(network, saved):
    other = fastnn.Network.load(str(saved))
    assert (other.sizes, other.activation, other.dtype) == (network.sizes, network.activation, network.dtype)
    np.testing.assert_array_equal(other.parameters, network.parameters)
    # Loading gives a network that can be trained on.
    fastnn.Trainer(other).fit(np.ones((2, 7)), [0, 1], epochs=1)


@pytest.mark.parametrize("scale", [None, 1 / 256, 1 / 255, 5e-324, np.float32(0.1), 3])
def test_the_scale_of_inputs_is_kept_wherever_a_network_goes(network, tmp_path, scale):
    network.input_scale = scale
    network.save(tmp_path / "net")
    normalised = fastnn.Network([7, 5, 3], batch_norm=True)
    normalised.input_scale = scale
    others = [fastnn.Network.load(tmp_path / "net"), pickle.loads(pickle.dumps(network)), copy.deepcopy(network)]
    for other in [*others, copy.copy(network), network.without_norm(), normalised.without_norm()]:
        assert other.input_scale == (None if scale is None else float(scale))
        assert type(other.input_scale) in (float, type(None))
    with safetensors.safe_open(tmp_path / "net", framework="numpy") as file:
        assert ("input_scale" in json.loads(file.metadata()["fastnn"])) == (scale is not None)
    pytest.importorskip("onnx")
    model = export.to_onnx(network)
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert told.get("input_scale") == (None if scale is None else repr(float(scale)))


@pytest.mark.parametrize("batch_norm", [False, True])
def test_quantiles_are_kept_wherever_a_network_goes(tmp_path, batch_norm):
    options = {"loss": "quantile", "quantiles": [np.float32(0.1), 0.5], "batch_norm": batch_norm}
    network = fastnn.Network([7, 5, 2], **options)
    network.save(tmp_path / "net")
    others = [fastnn.Network.load(tmp_path / "net"), pickle.loads(pickle.dumps(network)), copy.deepcopy(network)]
    for other in [*others, network.without_norm(), eval(repr(network), {"Network": fastnn.Network})]:
        assert other.quantiles == (float(np.float32(0.1)), 0.5)
        assert set(map(type, other.quantiles)) == {float}
    fastnn.Network([7, 2], loss="absolute").save(tmp_path / "net")
    assert fastnn.Network.load(tmp_path / "net").quantiles == ()
    with safetensors.safe_open(tmp_path / "net", framework="numpy") as file:
        assert "quantiles" not in json.loads(file.metadata()["fastnn"])


def test_pickles_of_earlier_versions_have_no_scale_and_no_quantiles(network):
    state = network.__getstate__()
    del state["input_scale"], state["quantiles"]
    other = fastnn.Network.__new__(fastnn.Network)
    other.__setstate__(state)
    assert other.input_scale is None
    assert other.quantiles == ()
    np.testing.assert_array_equal(other.parameters, network.parameters)


@pytest.mark.parametrize("wrong", [0, -1, np.inf, np.nan, 10**400, "1/256", True, [1.0]])
def test_an_impossible_scale_is_refused(network, wrong):
    network.input_scale = 0.5
    with pytest.raises((TypeError, ValueError), match="input_scale must be"):
        network.input_scale = wrong
    assert network.input_scale == 0.5


def test_other_programs_can_read_the_file(network, saved):
    tensors = safetensors.numpy.load_file(saved)
    np.testing.assert_array_equal(tensors["layers.0.weight"], network.weights[0])
    np.testing.assert_array_equal(tensors["layers.2.bias"], network.biases[2])
    with safetensors.safe_open(saved, framework="numpy") as file:
        architecture = json.loads(file.metadata()["fastnn"])
    assert architecture == {
        "format": 2,
        "input_shape": [7],
        "layers": [
            {"kind": "Dense", "units": 5, "activation": "tanh", "batch_norm": False},
            {"kind": "Dense", "units": 4, "activation": "relu", "batch_norm": False},
            {"kind": "Dense", "units": 3, "activation": None, "batch_norm": False},
        ],
        "loss": "cross_entropy",
        "dtype": network.dtype.name,
    }


def test_saving_replaces_a_file_and_leaves_nothing_else(network, saved, tmp_path):
    network.biases[0] = np.ones(5)
    network.save(saved)
    np.testing.assert_array_equal(fastnn.Network.load(saved).biases[0], 1)
    assert os.listdir(tmp_path) == [saved.name]


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_saving_through_a_link_keeps_the_link(network, saved, tmp_path):
    link = tmp_path / "link.safetensors"
    link.symlink_to(saved)
    network.biases[0] = np.ones(5)
    network.save(link)
    assert link.is_symlink()
    np.testing.assert_array_equal(fastnn.Network.load(saved).biases[0], 1)


def test_a_failure_in_the_middle_leaves_the_old_file(network, saved, tmp_path, monkeypatch):
    before = saved.read_bytes()

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    network.biases[0] = np.ones(5)
    with pytest.raises(OSError, match="No space left"):
        network.save(saved)
    assert saved.read_bytes() == before
    assert os.listdir(tmp_path) == [saved.name]


LONGEST = 255  # bytes of a file's name, on nearly all systems


def long_name(letter, ending):
    """The longest name that ends so, made of a letter of one byte or more."""
    return letter * ((LONGEST - len(ending)) // len(letter.encode())) + ending


def write_history(network, path):
    trainer = fastnn.Trainer(network, callbacks=[fastnn.callbacks.HistoryFile(path)])
    trainer.fit(np.ones((2, 7)), [0, 1], epochs=1)


def write_checkpoint(network, path):
    trainer = fastnn.Trainer(network, callbacks=[fastnn.callbacks.Checkpoint(path)])
    trainer.fit(np.ones((2, 7)), [0, 1], epochs=1)


def write_picture(network, path):
    plotting.write_figure(plotting.plot_weights(network), path)


@pytest.mark.skipif(os.name == "nt", reason="names are counted otherwise there")
@parametrize_pairs(
    {
        "letter": ["n", "ä", "数", "🙂"],
        "write, ending": [
            (lambda network, path: network.save(path), ""),
            (write_history, ".csv"),
            (write_history, ".json"),
            (write_checkpoint, ""),
            (lambda network, path: export.to_onnx(network, path), ".onnx"),
            (write_picture, ".png"),
        ],
        "dtype": ["float32", "float64"],
    }
)
def test_a_name_may_be_as_long_as_the_system_allows(dtype, network, tmp_path, letter, write, ending):
    needed = {".onnx": "onnx", ".png": "matplotlib"}
    if ending in needed:
        pytest.importorskip(needed[ending])
    path = tmp_path / long_name(letter, ending)
    assert LONGEST - 4 < len(os.fsencode(path.name)) <= LONGEST
    assert check_writable(path) == str(path)
    for _ in range(2):  # a new file, and one that is replaced
        write(network, path)
        assert os.listdir(tmp_path) == [path.name]
    too_long = path.with_stem(path.stem + letter * 4)
    with pytest.raises(OSError, match="File name too long"):
        check_writable(too_long)
    with pytest.raises(OSError, match="File name too long"):
        write(network, too_long)
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.skipif(os.name == "nt", reason="other names and folders there")
@pytest.mark.parametrize(
    ("path", "kind", "message"),
    [
        (".", IsADirectoryError, "out: . is a folder"),
        ("folder", IsADirectoryError, "out: folder is a folder"),
        ("new/", IsADirectoryError, "out: new/ is a folder"),
        ("missing/net", FileNotFoundError, "out: the folder .*missing does not exist"),
        ("dangling/net", FileNotFoundError, "out: the folder .*nowhere does not exist"),
        ("file/net", NotADirectoryError, "out: .*file is not a folder"),
        ("x" * 256, OSError, "out: x* cannot be written: File name too long"),
        ("/sys/net", PermissionError, "out: /sys/net cannot be written: "),
        ("a\0b", ValueError, "out: .* cannot be the name of a file"),
        ("\ud800", ValueError, "out: .* cannot be the name of a file"),
        ("", ValueError, "out: '' cannot be the name of a file"),
        (3, TypeError, "out must be a path, not 3"),
    ],
)
def test_a_place_that_cannot_be_written_is_told(tmp_path, monkeypatch, path, kind, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "dangling").symlink_to("nowhere")
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(kind, match=message):
        check_writable(path, "out")
    assert sorted(os.listdir(tmp_path)) == before


def test_a_place_that_can_be_written_is_left_alone(saved, tmp_path):
    before = saved.read_bytes()
    for name in (saved.name, "new", b"bytes"):
        assert check_writable(os.path.join(os.fsencode(tmp_path), os.fsencode(name))) == str(
            tmp_path / os.fsdecode(name)
        )
    assert saved.read_bytes() == before
    assert os.listdir(tmp_path) == [saved.name]


@pytest.mark.skipif(os.name == "nt", reason="no such devices there")
def test_a_device_or_a_pipe_is_written_to_and_stays(network, tmp_path):
    # Replacing it, as files are, would take /dev/null away from everyone where root does it.
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert check_writable(pipe) == str(pipe)
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE) as reader:
        network.save(pipe)
        content, _ = reader.communicate(timeout=60)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    network.save(tmp_path / "net")
    assert content == (tmp_path / "net").read_bytes()
    assert check_writable("/dev/null") == "/dev/null"
    script = f"import fastnn; fastnn.Network.load({str(tmp_path / 'net')!r}).save('/dev/stdout')"
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, timeout=60, cwd=tmp_path)
    assert done.stdout == content
    if os.path.exists("/dev/full"):  # not on macOS
        (tmp_path / "link").symlink_to("/dev/full")
        with pytest.raises(OSError, match="No space left"):
            network.save(tmp_path / "link")


def test_a_failure_names_the_file_that_was_asked_for(network, tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        network.save(tmp_path / "missing" / "net")
    assert caught.value.filename == str(tmp_path / "missing" / "net")


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL there")
def test_a_crash_in_the_middle_leaves_the_old_file(saved, tmp_path):
    before = saved.read_bytes()
    script = f"""
        import os, signal
        import fastnn
        network = fastnn.Network.load({str(saved)!r})
        network.biases[0] = [1.0] * 5
        os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
        network.save({str(saved)!r})
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], timeout=120, cwd=tmp_path)
    assert done.returncode == -signal.SIGKILL
    assert saved.read_bytes() == before
    fastnn.Network.load(saved)


def test_missing_files_and_folders(network, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.safetensors"):
        fastnn.Network.load(tmp_path / "missing.safetensors")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        network.save(tmp_path / "no such folder" / "net.safetensors")
    with pytest.raises(TypeError, match="path must be a path, not 3"):
        network.save(3)
    with pytest.raises(TypeError, match="path must be a path"):
        fastnn.Network.load(None)
    with pytest.raises(IsADirectoryError if os.name != "nt" else PermissionError):
        fastnn.Network.load(tmp_path)


def test_every_truncation_is_refused(saved):
    content = saved.read_bytes()
    for length in [*range(0, 400, 7), len(content) - 1]:
        saved.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"net\.safetensors is not a usable fastnn network"):
            fastnn.Network.load(saved)


def test_damage_is_refused_or_gives_a_whole_network(saved, rng):
    content = bytearray(saved.read_bytes())
    for _ in range(300):
        damaged = content.copy()
        damaged[rng.integers(len(content))] = rng.integers(256)
        saved.write_bytes(damaged)
        try:
            network = fastnn.Network.load(saved)
        except ValueError as error:
            assert "net.safetensors" in str(error)  # noqa: PT017
        else:
            assert np.isfinite(network.parameters).all()


def test_the_same_network_gives_the_same_bytes(network, saved, tmp_path):
    for _ in range(10):
        network.save(tmp_path / "again")
        assert (tmp_path / "again").read_bytes() == saved.read_bytes()


def write(path, tensors, architecture):
    path.write_bytes(safetensors.numpy.save(tensors, {"fastnn": architecture}))


FORMAT_1 = {"format": 1, "sizes": [2, 3], "activation": [], "dtype": "float32"}


@pytest.mark.parametrize(
    ("change", "architecture", "message"),
    [
        ({}, json.dumps(FORMAT_1 | {"format": 3}), "its format is 3, not 1 or 2"),
        ({}, "{", "Expecting"),
        ({}, "[]", "not a usable fastnn network"),
        ({}, "{}", "format"),
        ({}, "[" * 100_000, "not a usable fastnn network"),
        ({}, json.dumps(FORMAT_1 | {"sizes": [2**31 - 1, 2**31 - 1]}), "more parameters than memory"),
        ({}, json.dumps(FORMAT_1 | {"sizes": [2**20, 2**20]}), "should be float32 of shape"),
        ({}, json.dumps(FORMAT_1 | {"sizes": [10**30, 3]}), "sizes"),
        ({}, json.dumps(FORMAT_1 | {"sizes": [3, 2]}), "should be float32 of shape"),
        ({}, json.dumps(FORMAT_1 | {"sizes": [2, 3, 3]}), "activation must be"),
        ({}, json.dumps(FORMAT_1 | {"activation": 3}), "not a usable"),
        ({}, json.dumps(FORMAT_1 | {"dtype": "float64"}), "should be float64 of shape"),
        ({}, json.dumps(FORMAT_1 | {"dtype": "int8"}), "dtype must be"),
        ({}, json.dumps(FORMAT_1 | {"dtype": ["f4", "f4"]}), "dtype must be"),
        ({}, json.dumps(FORMAT_1 | {"input_scale": 0}), "input_scale must be above 0"),
        ({}, json.dumps(FORMAT_1 | {"input_scale": float("nan")}), "input_scale must be above 0"),
        ({}, json.dumps(FORMAT_1 | {"input_scale": 10**400}), "input_scale must be above 0"),
        ({}, json.dumps(FORMAT_1 | {"input_scale": True}), "input_scale must be a number"),
        ({}, json.dumps(FORMAT_1 | {"input_scale": "1/256"}), "input_scale must be a number"),
        ({}, json.dumps(FORMAT_1) + " " * 10**7, "its description has"),
        ({"layers.0.bias": np.ones(4, "f4")}, json.dumps(FORMAT_1), r"layers.0.bias should be float32 of shape \(3,\)"),
        ({"layers.0.bias": np.ones(3, "f8")}, json.dumps(FORMAT_1), "layers.0.bias should be float32"),
        ({"layers.0.bias": np.full(3, np.nan, "f4")}, json.dumps(FORMAT_1), "holds NaN or infinity"),
        ({"extra": np.ones(3)}, json.dumps(FORMAT_1), "its tensors are not those"),
    ],
)
def test_files_that_contradict_themselves_are_refused(tmp_path, change, architecture, message):
    path = tmp_path / "net.safetensors"
    tensors = {"layers.0.weight": np.ones((2, 3), "f4"), "layers.0.bias": np.ones(3, "f4")}
    write(path, tensors, json.dumps(FORMAT_1))
    fastnn.Network.load(path)
    write(path, tensors | change, architecture)
    with pytest.raises(ValueError, match=message):
        fastnn.Network.load(path)


DENSE = {"kind": "Dense", "units": 3, "activation": None, "batch_norm": False}
HIDDEN = DENSE | {"activation": "tanh"}
FORMAT_2 = {"format": 2, "input_shape": [2], "layers": [DENSE], "loss": "huber", "dtype": "float32"}


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        (FORMAT_2 | {"format": 1}, "its description has no 'sizes'"),
        ({name: FORMAT_2[name] for name in FORMAT_2 if name != "loss"}, "its description has no 'loss'"),
        ({name: FORMAT_2[name] for name in FORMAT_2 if name != "layers"}, "its description has no 'layers'"),
        (FORMAT_2 | {"loss": "hubris"}, "loss must be one of"),
        (FORMAT_2 | {"input_shape": None}, "input_shape must say"),
        (FORMAT_2 | {"input_shape": []}, "input_shape must be one integer"),
        (FORMAT_2 | {"input_shape": [1, 2]}, "no Flatten between an image and Dense"),
        (FORMAT_2 | {"input_shape": [1, 2, 1, 1]}, "input_shape must be one integer"),
        (FORMAT_2 | {"input_shape": "2"}, "input_shape must be an integer"),
        (FORMAT_2 | {"input_shape": [0]}, "input_shape must be at least 1"),
        (FORMAT_2 | {"input_shape": [10**30]}, "input_shape must be at least 1 and at most"),
        (FORMAT_2 | {"input_shape": [2.0]}, "input_shape must be an integer"),
        (FORMAT_2 | {"input_shape": [3]}, r"should be float32 of shape \(3, 3\)"),
        (FORMAT_2 | {"layers": []}, "layers must hold at least one"),
        (FORMAT_2 | {"layers": 3}, "layers must be a list, not 3"),
        (FORMAT_2 | {"layers": "Dense"}, "layers must be a list"),
        (FORMAT_2 | {"layers": {"kind": "Dense"}}, "layers must be a list"),
        (FORMAT_2 | {"layers": [[]]}, "a layer must be an object"),
        (FORMAT_2 | {"layers": [DENSE | {"kind": "Sparse"}]}, "kind of layer must be one of 'Dense', .*not 'Sparse'"),
        (FORMAT_2 | {"layers": [DENSE | {"kind": ["Dense"]}]}, "kind of layer must be one of"),
        (FORMAT_2 | {"layers": [{"units": 3}]}, "kind of layer must be one of 'Dense', .*not None"),
        (FORMAT_2 | {"layers": [{"kind": "Dense", "units": 3}]}, "a Dense layer must have the fields"),
        (FORMAT_2 | {"layers": [DENSE | {"size": 3}]}, "a Dense layer must have the fields"),
        (FORMAT_2 | {"layers": [DENSE | {"units": 0}]}, "units must be at least 1"),
        (FORMAT_2 | {"layers": [DENSE | {"units": 2**31}]}, "units must be .* at most 2147483647"),
        (FORMAT_2 | {"layers": [DENSE | {"units": 1e400}]}, "units must be an integer"),
        (FORMAT_2 | {"layers": [DENSE | {"units": "3"}]}, "units must be an integer"),
        (FORMAT_2 | {"layers": [DENSE | {"activation": "tanh"}]}, "the output layer must have no activation"),
        (FORMAT_2 | {"layers": [DENSE | {"activation": ["tanh"]}]}, "activation must be one of"),
        (FORMAT_2 | {"layers": [DENSE | {"batch_norm": True}]}, "the output layer must have no batch_norm"),
        (FORMAT_2 | {"layers": [DENSE | {"batch_norm": 0}]}, "batch_norm must be one of"),
        (FORMAT_2 | {"layers": [DENSE | {"batch_norm": None}]}, "do not all state"),
        (FORMAT_2 | {"layers": [DENSE, DENSE]}, "do not all state activation"),
        (FORMAT_2 | {"layers": [HIDDEN | {"batch_norm": None}, DENSE]}, "do not all state"),
        (FORMAT_2 | {"layers": [HIDDEN, HIDDEN | {"batch_norm": True}, DENSE]}, "its tensors are not those of"),
        (FORMAT_2 | {"layers": [HIDDEN, DENSE]}, "its tensors are not those of a network of 2 layers"),
        (FORMAT_2 | {"layers": [HIDDEN | {"units": 2**31 - 1}] * 3 + [DENSE]}, "more parameters than memory"),
        (FORMAT_2 | {"layers": [HIDDEN] * 10_000 + [DENSE]}, "its tensors are not those of a network of 10001 layers"),
        (FORMAT_2 | {"batch_norm": 1}, "batch_norm must be one of"),
        (FORMAT_2 | {"quantiles": [0.1, 0.5, 0.9]}, "quantiles are for the loss 'quantile', not 'huber'"),
        (FORMAT_2 | {"loss": "quantile"}, "quantiles must be increasing and as many as outputs, 3,"),
        (FORMAT_2 | {"loss": "quantile", "quantiles": [0.5]}, "as many as outputs, 3,"),
        (FORMAT_2 | {"loss": "quantile", "quantiles": [[0.1], 0.5, 0.9]}, "must be a number"),
        (FORMAT_2 | {"loss": "quantile", "quantiles": {"0.1": 1}}, "must be a number"),
        (FORMAT_2 | {"loss": "quantile", "quantiles": None}, "must be a number"),
        (FORMAT_2 | {"loss": "quantile", "quantiles": [0.1, 0.5, 1e999]}, "must be above 0"),
    ],
)
def test_descriptions_of_layers_that_cannot_be_are_refused(tmp_path, architecture, message):
    path = tmp_path / "net.safetensors"
    tensors = {"layers.0.weight": np.ones((2, 3), "f4"), "layers.0.bias": np.ones(3, "f4")}
    write(path, tensors, json.dumps(FORMAT_2))
    assert repr(fastnn.Network.load(path)) == "Network([2, 3], dtype='float32', loss='huber')"
    write(path, tensors, json.dumps(architecture))
    with pytest.raises(ValueError, match=rf"net\.safetensors is not a usable fastnn network.*{message}"):
        fastnn.Network.load(path)


# What earlier versions wrote, and what they had in hand then.
EARLIER = {
    "format1-softmax.safetensors": "Network([3, 2], dtype='float64')",
    "format1-layers.safetensors": "Network([3, 2, 4, 2], activation=['relu', 'tanh'], dtype='float32')",
    "format1-batch_norm.safetensors": (
        "Network([3, 4, 2, 1], activation='gelu', dtype='float64', loss='binary_cross_entropy', batch_norm=True)"
    ),
    "format1-no_hidden_batch_norm.safetensors": "Network([3, 1], dtype='float64', loss='huber', batch_norm=True)",
    "network-layers.pickle": "Network([3, 2, 4, 2], activation=['relu', 'tanh'], dtype='float32')",
    "network-batch_norm.pickle": (
        "Network([3, 4, 2, 1], activation='gelu', dtype='float64', loss='binary_cross_entropy', batch_norm=True)"
    ),
}


@pytest.mark.parametrize("name", EARLIER)
def test_networks_of_earlier_versions_are_read(tmp_path, name):
    path = Path(__file__).parent / "data" / name
    if name.endswith("pickle"):
        pytest.importorskip("numpy._core", reason="NumPy 2 wrote the pickle")
    network = pickle.loads(path.read_bytes()) if name.endswith("pickle") else fastnn.Network.load(path)
    network.save(tmp_path / "net")
    for each in (network, fastnn.Network.load(tmp_path / "net"), pickle.loads(pickle.dumps(network))):
        assert repr(each) == EARLIER[name]
        np.testing.assert_array_equal(each.parameters, np.arange(1, each.parameters.size + 1) / 32)
        np.testing.assert_array_equal(each.weights[0].ravel(), np.arange(1, each.weights[0].size + 1) / 32)
        assert each.input_scale == (1 / 256 if "Network([3, 4, 2, 1]" in repr(each) else None)
        assert each.batch_norm == network.batch_norm == ("batch_norm" in name)
        assert each.layers == network.layers
    assert json.loads(safetensors.safe_open(tmp_path / "net", "numpy").metadata()["fastnn"])["format"] == 2


def test_a_file_of_another_program_is_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    path.write_bytes(safetensors.numpy.save({"a": np.ones(3)}))
    with pytest.raises(ValueError, match="its metadata has no 'fastnn'"):
        fastnn.Network.load(path)
