"""The command line on tables, run as users run it."""

import csv
import gzip
import io
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics
from sklearn.linear_model import Ridge
from test_cli import refused

from fastnn.datasets import _idx
from fastnn.tabular import TabularClassifier, TabularRegressor, load, sources
from fastnn.tabular.estimators import split
from fastnn.tabular.frames import Objects
from fastnn.tabular.readers import reader_of
from fastnn.tabular.recognition import learn_column
from fastnn.tabular.targets import learn_targets

FAST = ("--epochs", 3)


@pytest.fixture(scope="session")
def homes():
    """A table of 200 homes, some cells of which are missing."""
    rng = np.random.default_rng(0)
    size, city = rng.uniform(20, 200, 200).round(1), rng.choice(["Rome", "Oslo", "Lima, Peru", ""], 200)
    frame = pd.DataFrame({"id": [f"h{k}" for k in range(200)], "size": size, "city": city})
    frame["built"] = pd.date_range("1990-01-01", periods=200, freq="ME").strftime("%Y-%m-%d")
    frame["garden"] = rng.choice(["yes", "no"], 200)
    frame["rooms"] = rng.integers(1, 4, 200)
    frame["price"] = (3 * size + 50 * (city == "Oslo") + rng.normal(0, 20, 200)).round(2)
    frame.loc[::7, "size"] = np.nan
    return frame


@pytest.fixture(scope="session")
def made(homes, tmp_path_factory):
    """A folder of the table in homes.csv, and models of it: of prices, of quantiles of them, and of gardens."""
    folder = tmp_path_factory.mktemp("homes")
    homes.to_csv(folder / "homes.csv", index=False)
    X, options = homes.drop(columns="price"), {"max_epochs": 3, "random_state": 0}
    TabularRegressor(**options).fit(X, homes["price"]).save(folder / "price")
    TabularRegressor(**options, quantiles=(0.1, 0.5, 0.9)).fit(X, homes["price"]).save(folder / "range")
    TabularClassifier(**options).fit(homes.drop(columns="garden"), homes["garden"]).save(folder / "garden")
    return folder


@pytest.fixture
def files(made, tmp_path):
    """The same files in the test's own folder."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


def read(text):
    return pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)


def test_train_scores_rows_that_it_kept_out(run, files, homes):
    status, out, err = run("train", "homes.csv", "--target", "price", *FAST)
    assert (status, err) == (0, "")
    assert "homes.csv: 200 rows, 7 columns" in out
    assert "regression of price: numbers" in out
    assert "160 rows to train on, 40 kept out to test" in out
    assert re.search(r"^city +category +code of 3 values +\d+ % +text$", out, re.M)
    assert out.splitlines()[-1] == "next: fastnn predict homes.safetensors homes.csv --output predictions.csv"
    kept, others = split(np.zeros(200, int), 0.2, np.random.RandomState(0))
    X, y = homes.drop(columns="price"), homes["price"]
    ours = TabularRegressor(max_epochs=3, random_state=0).fit(X.iloc[kept], y.iloc[kept])
    np.testing.assert_array_equal(load("homes.safetensors").network_.parameters, ours.network_.parameters)
    errors = [float(cell) for cell in re.search(r"^root mean squared error +(.*)$", out, re.M).group(1).split()]
    found = [ours.predict(X.iloc[others]), None, np.full(40, y[kept].mean())]
    for error, predicted in zip(errors, found, strict=True):
        if predicted is not None:
            assert error == pytest.approx(metrics.root_mean_squared_error(y[others], predicted), rel=1e-5)
    made = pd.get_dummies(X.drop(columns=["id", "built"]), columns=["city", "garden"], dtype=float)
    made["missing"] = made["size"].isna()
    made = made.fillna(made["size"].median())
    linear = Ridge().fit(made.iloc[kept], y[kept]).predict(made.iloc[others])
    assert errors[1] == pytest.approx(metrics.root_mean_squared_error(y[others], linear), rel=0.05)


def test_train_on_classes(run, files, homes):
    status, out, err = run(
        "train", "homes.csv", "--target", "garden", "--save", "g", *FAST, "--balance", "--members", 2
    )
    assert (status, err) == (0, "")
    assert "classification of garden: text, 2 classes (no, yes)" in out
    for score in ("error", "log-likelihood", "area under ROC"):
        assert re.search(rf"^{score} ", out, re.M)
    model = load("g")
    assert (model.target_name_, len(model.networks_), model.class_weight) == ("garden", 2, "balanced")


def test_options_reach_the_estimator(run, files):
    options = "--hidden 5 4 --epochs 2 --learning-rate 0.01 --batch-size 16 --dropout 0.1 --weight-decay 0.3"
    options += " --loss huber --validation-share 0.3 --no-refit --seed 5 --threads 1 --test-share 0 --save net"
    status, out, err = run("train", "homes.csv", "--target", "price", "--column", "rooms=category", *options.split())
    assert (status, err) == (0, "")
    assert "200 rows to train on, 0 kept out to test" in out
    assert "test row" not in out
    parameters = load("net").get_params()
    wanted = {"hidden_layer_sizes": (5, 4), "max_epochs": 2, "learning_rate": 0.01, "batch_size": 16, "dropout": 0.1}
    wanted |= {"weight_decay": 0.3, "loss": "huber", "validation_fraction": 0.3, "refit": False, "random_state": 5}
    wanted |= {"n_threads": 1, "columns": {"rooms": "category"}}
    assert parameters == TabularRegressor(**wanted).get_params() | {"columns": {"rooms": "category"}}


def test_explain_trains_nothing(run, files):
    before = set(os.listdir())
    status, out, err = run("train", "homes.csv", "--target", "price", "--explain")
    assert (status, err) == (0, "")
    assert re.search(r"^id +ignored +nothing ", out, re.M)
    assert re.search(r"^hidden layer sizes +\(", out, re.M)
    assert out.endswith("\nnothing was trained\n")
    assert set(os.listdir()) == before


def test_every_kind_of_file_is_the_same_table(run, files, homes):
    pytest.importorskip("pyarrow")
    homes.to_csv("homes.tsv", index=False, sep="\t")
    homes.to_csv("homes.txt", sep=";", encoding="utf-8-sig", lineterminator="\r\n", quoting=csv.QUOTE_ALL)  # an index
    homes.to_csv("homes.csv.gz", index=False)
    homes.to_parquet("homes.parquet")
    found = set()
    for name in ("homes.csv", "homes.tsv", "homes.txt", "homes.csv.gz", "homes.parquet"):
        status, out, err = run("train", name, "--target", "price", "--save", "net", *FAST)
        assert (status, err) == (0, "")
        assert ("taken as an index" in out) == (name == "homes.txt")
        found.add(load("net").network_.parameters.tobytes())
        found.add(run("predict", "net", name)[1])
    assert len(found) == 2


def test_arrays(run, tmp_path, rng):
    X, y = rng.normal(size=(60, 3)), rng.integers(0, 3, 60)
    np.savez(tmp_path / "data.npz", X=X, y=y)
    np.save(tmp_path / "new.npy", X[:5])
    status, out, err = run("train", "data.npz", *FAST)
    assert (status, err) == (0, "")
    assert "classification of y: 3 different whole numbers, 3 classes (0, 1, 2)" in out
    probabilities = load("data.safetensors").predict_proba({f"x{j}": X[:, j] for j in range(3)})
    status, out, _ = run("predict", "data.safetensors", "new.npy")
    found = read(out)
    assert list(found) == ["prediction", "probability 0", "probability 1", "probability 2"]
    np.testing.assert_allclose(found.iloc[:, 1:].astype(float), probabilities[:5], rtol=1e-5)
    assert (found["prediction"].astype(int) == probabilities[:5].argmax(axis=1)).all()
    TabularClassifier(max_epochs=3, random_state=0).fit(X, y).save("plain")  # of columns without names
    assert (
        f"error {metrics.zero_one_loss(y, load('plain').predict(X)):8.2%}".split("%")[0].split()[1]
        in (run("evaluate", "plain", "data.npz", "--target", "y")[1])
    )
    np.savez("lonely.npz", X=X, z=y)
    refused(run("train", "lonely.npz"), "--target must name a column of lonely.npz, which are 'x0', 'x1', 'x2'")
    np.savez("short.npz", X=X, y=y[:5])
    refused(run("train", "short.npz"), "short.npz holds a y of shape (5,); (60,) was expected")
    np.savez("flat.npz", X=X[0], y=y)
    refused(run("train", "flat.npz"), "holds an X of shape (3,)")


def test_predict_writes_what_the_model_predicts(run, files, homes):
    new = homes.drop(columns="price")[::-1]
    new.to_csv("new.csv", index=False)
    status, out, err = run("predict", "price", "new.csv", "--output", "out.csv", "--keep", "id", "rooms")
    assert (status, out, err) == (0, "200 predictions: out.csv\n", "")
    found = pd.read_csv("out.csv")
    assert list(found) == ["id", "rooms", "prediction"]
    assert found["id"].tolist() == new["id"].tolist()
    assert found["rooms"].tolist() == new["rooms"].tolist()
    np.testing.assert_array_equal(found["prediction"].astype("f4"), load("price").predict(new))
    assert run("predict", "price", "new.csv")[1] == found[["prediction"]].to_csv(index=False)


def test_predict_quantiles_and_intervals(run, files, homes):
    model = load("range")
    found = read(run("predict", "range", "homes.csv", "--interval", 0.8)[1]).astype(float)
    assert list(found) == ["prediction", "quantile 0.1", "quantile 0.5", "quantile 0.9", "lower", "upper"]
    np.testing.assert_allclose(found.iloc[:, 1:4], model.predict_quantiles(homes), rtol=1e-6)
    np.testing.assert_allclose(found.iloc[:, 4:], model.predict_interval(homes, 0.8), rtol=1e-6)
    refused(run("predict", "garden", "homes.csv", "--interval", 0.9), "--interval is not for classification")
    refused(run("predict", "price", "homes.csv", "--interval", 1.5), "coverage must be")


def test_evaluate(run, files, homes):
    status, out, err = run("evaluate", "price", "homes.csv")
    assert (status, err) == (0, "")
    predicted = load("price").predict(homes)
    error = metrics.root_mean_squared_error(homes["price"], predicted)
    assert f"root mean squared error {error:.6g}" in " ".join(out.split())
    assert "1 network, price in 200 rows of homes.csv" in out
    out = run("evaluate", "range", "homes.csv")[1]
    low, _, high = load("range").predict_quantiles(homes).T
    within = 100 * np.mean((low <= homes["price"]) & (homes["price"] <= high))
    assert f"between the quantiles 0.1 and 0.9: {within:.2f} % of the rows" in out
    out = run("evaluate", "garden", "homes.csv")[1]
    matrix = [[int(cell) for cell in row.replace(".", "0").split()[1:3]] for row in out.splitlines()[-2:]]
    expected = metrics.confusion_matrix(homes["garden"], load("garden").predict(homes))
    np.testing.assert_array_equal(matrix, expected)
    log_likelihood = -metrics.log_loss(homes["garden"], load("garden").predict_proba(homes))
    assert f"{log_likelihood:.4f}" in out


def test_an_interrupted_fit_is_saved(run, files, monkeypatch):
    fit = TabularRegressor.fit

    def interrupt(self, X, y, **options):
        fit(self, X, y, **options)
        self.history_[0].interrupted = True
        return self

    monkeypatch.setattr(TabularRegressor, "fit", interrupt)
    status, out, _ = run("train", "homes.csv", "--target", "price", *FAST, "--checkpoint", "check")
    assert status == 130
    assert "interrupted; what has been learnt so far:" in out
    assert "the same command continues from check.0" in out
    assert load("homes.safetensors").target_name_ == "price"


def test_rows_without_a_target_are_left_out(run, files, homes):
    homes.assign(price=homes["price"].where(homes.index % 2 == 0)).to_csv("half.csv", index=False)
    out = run("train", "half.csv", "--target", "price", *FAST)[1]
    assert "half.csv: 100 rows without price left out" in out
    assert "80 rows to train on, 20 kept out to test" in out
    assert "price in 100 rows of half.csv" in run("evaluate", "half.safetensors", "half.csv")[1]


@pytest.mark.parametrize(
    ("cells", "told", "task", "labels"),
    [
        (["0", "1", "", "1"], None, "classification", [0, 1]),
        ([str(k % 10) for k in range(100)], None, "classification", list(range(10))),
        ([str(k % 10) for k in range(90)], None, "regression", None),
        ([str(k % 11) for k in range(200)], None, "regression", None),
        ([str(k % 11) for k in range(200)], "classification", "classification", list(range(11))),
        (["0.5", "1.5"] * 9, None, "regression", None),
        (["0.5", "1.5"] * 9, "classification", "classification", ["0.5", "1.5"]),
        (["0", "1"] * 9, "regression", "regression", None),
        (["a", "b"] * 9, None, "classification", ["a", "b"]),
        (["007", "12"] * 9, None, "classification", ["007", "12"]),
        ([True, False] * 9, None, "classification", [False, True]),
        ([f"t{k}" for k in range(20)], "classification", "classification", sorted(f"t{k}" for k in range(20))),
    ],
)
def test_tasks(cells, told, task, labels):
    found = learn_targets("y", Objects(cells), told)
    assert found.task == task
    assert len(found.rows) == len(found.values) == sum(cell != "" for cell in cells)
    if labels is not None:
        assert np.unique(found.values).tolist() == labels


SOME = "1|2.5|.5|5.|1e3|-1|+2|0||NA|0.5|-0|?|-|nan|inf|1_0|007|00|e|1e|x|null|None|٣|0x1|--1|+|-07|1 2"
TEXTS = SOME.split("|")


@pytest.mark.parametrize("seed", range(20))
def test_text_becomes_numbers_by_the_rules_of_tables(seed):
    rng = np.random.default_rng(seed)
    for _ in range(100):
        cells = rng.choice(TEXTS[: rng.choice([8, 10, 14, len(TEXTS)])], rng.integers(1, 5)).tolist()
        found, column = sources.numbers_of(cells), learn_column("x", Objects(cells), None)
        if column.kind == "number":
            np.testing.assert_array_equal(found, reader_of(column).cells(Objects(cells))[:, 0])
        else:
            assert found is cells or column.kind == "constant"


HOSTILE = {
    "empty": (b"", "is not a usable CSV file: it is empty"),
    "blank": (b"\n \n\n", "it is empty"),
    "header": (b"a,b\n", "it holds no rows but the header"),
    "no_header": (b"1,2.5\n3,4\n", "its first line must be a header"),
    "ragged": (b"a,b\n1,2\n\n3\n", "line 4: it has 1 cell, and the header has 2"),
    "wide": (b"\n\na,b\n1,2,3\n", "line 4: it has 3 cells, and the header has 2"),
    "twice": (b"a,b,a\n1,2,3\n", "2 of its columns have the name 'a'"),
    "unnamed": (b"a,,b\n1,2,3\n", "its column 2 has no name"),
    "nul": (b"a,b\n1,\x00\n", "line 2 holds a NUL"),
    "latin": ("a,b\nR\u00e9,1\n".encode("latin-1"), "it is not text in UTF-8 (byte 0xe9)"),
    "utf16": ("a,b\n1,2\n".encode("utf-16"), "it is not text in UTF-8"),
    "quote": (b'a,b\n"1,2\n3,4\n', "unexpected end of data"),
    "long": (b"a,b\n" + b"1" * 200_000 + b",2\n", "field larger than field limit"),
    "cut": (gzip.compress(b"a,b\n1,2\n" * 100)[:-20], "is not a usable CSV file"),
    "bomb": (gzip.compress(b"a,b\n" + b"1" * 2**27), "line 2 is longer than 16,777,216 characters"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files(run, tmp_path, name):
    content, words = HOSTILE[name]
    (tmp_path / f"{name}.csv").write_bytes(content)
    refused(run("train", f"{name}.csv", "--target", "b"), f"{name}.csv", words)


def test_a_small_file_that_unpacks_to_a_large_one(run, tmp_path, monkeypatch):
    monkeypatch.setattr(_idx, "MUCH", 1000)
    (tmp_path / "bomb.csv").write_bytes(gzip.compress(b"a,b\n" + b"1,2\n" * 100_000))
    refused(run("train", "bomb.csv", "--target", "b"), "it unpacks to more than", "characters")


def test_hostile_parquet(run, tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "a.parquet").write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    refused(run("train", "a.parquet", "--target", "b"), "a.parquet is not a usable Parquet file")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("train homes.csv", "--target must name a column of homes.csv, which are 'id', 'size', 'city'"),
        ("train homes.csv --target prices", "not 'prices'"),
        ("train --target price", "the following arguments are required: TABLE"),
        ("train nothing.csv --target price", "nothing.csv: No such file"),
        ("train homes.csv --target id", "column 'id' cannot be a target: 200 different values in 200 rows"),
        ("train homes.csv --target built", "column 'built' cannot be a target: text that is dates"),
        ("train homes.csv --target city --task regression", "column 'city' holds text: regression needs numbers"),
        ("train homes.csv --target price --label-smoothing 0.1", "--label-smoothing is not for regression"),
        ("train homes.csv --target garden --quantiles 0.1 0.9", "--quantiles is not for classification"),
        ("train homes.csv --target price --quantiles 0.9 0.1", "quantiles must"),
        ("train homes.csv --target price --column city", "must be NAME=KIND"),
        ("train homes.csv --target price --column town=category", "columns must name columns of X"),
        ("train homes.csv --target price --column city=number", "column 'city' must hold finite numbers"),
        ("train homes.csv --target price --test-share 1", "--test-share must be"),
        ("train homes.csv --target price --members 0", "n_members must be at least 1"),
        ("train homes.csv --target price --save homes.csv", "--save must not be homes.csv, which is read"),
        ("train homes.csv --target price --save no/where", "--save"),
        ("train homes.csv --target price --model lenet", "unrecognized arguments: --model lenet"),
        ("predict price homes.csv --keep town", "--keep must name a column of homes.csv"),
        ("predict price homes.csv --output price", "--output must not be price, which is read"),
        ("predict price homes.csv --scale 2", "--scale is not for price, which is a model of a table"),
        ("predict price short.csv", "there is no 'size'"),
        ("predict price odd.csv", "column 'size' must hold finite numbers, not 'big' (row 1)"),
        ("evaluate price", "price is a model of a table: give a file to measure it on"),
        ("evaluate price homes.csv --data .", "--data is not for price, which is a model of a table"),
        ("evaluate price homes.csv --target city", "column 'city' must hold finite numbers"),
        ("evaluate garden homes.csv --target rooms", "must hold the model's classes, 'no', 'yes', not"),
        ("evaluate price empty.csv", "column 'price' of empty.csv holds nothing"),
    ],
)
def test_mistakes(run, files, homes, arguments, words):
    homes.drop(columns=["size", "price"]).to_csv("short.csv", index=False)
    homes.head(3).astype({"size": str}).assign(size=["1", "big", "2"]).to_csv("odd.csv", index=False)
    homes.head(3).assign(price="").to_csv("empty.csv", index=False)
    before = set(os.listdir())
    refused(run(*arguments.split()), words)
    assert set(os.listdir()) == before


def test_one_class(run, tmp_path):
    (tmp_path / "one.csv").write_text("a,b\n" + "1,x\n2,x\n" * 9)
    refused(run("train", "one.csv", "--target", "b"), "column 'b' cannot be a target: one value: 'x'")
    (tmp_path / "one.csv").write_text("a,b\n" + "1,\n2,x\n" * 9)
    refused(run("train", "one.csv", "--target", "b"), "all rows that have one have 'x'")
    (tmp_path / "one.csv").write_text("a,b\n" + "1,\n2,\n" * 9)
    refused(run("train", "one.csv", "--target", "b"), "column 'b' cannot be a target: all cells are missing")


def test_options_of_tables_are_not_for_networks(run, tmp_path):
    import fastnn

    fastnn.Network([4, 2]).save("net")
    np.save("rows.npy", np.zeros((2, 4)))
    refused(
        run("predict", "net", "rows.npy", "--output", "a.csv"), "--output is not for net, which is a model of no table"
    )
    refused(run("evaluate", "net", "rows.npy"), "TABLE is not for net, which is a model of no table")


def test_help_does_not_import_what_tables_need(tmp_path):
    code = "import sys; from fastnn import cli; cli.build_parser(['train', '--help']); print('sklearn' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert found.stdout == "False\n"


def test_help_of_tables(run):
    status, out, err = run("train", "table.csv", "--help")
    assert (status, err) == (0, "")
    assert "--quantiles" in out
    assert "--momentum" not in out
    assert "--momentum" in run("train", "--help")[1]
