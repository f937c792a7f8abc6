"""Tables: what columns are found to be, how their cells become numbers, and which frames are refused."""

import dataclasses
import datetime as dt
import decimal
import json
import math
import pickle
import random
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

narwhals = pytest.importorskip("narwhals")
pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")

from fastnn.tabular import Table  # noqa: E402
from fastnn.tabular.recognition import LEAST_ROWS, MOST_VALUES  # noqa: E402

COLUMNS = {
    "age": [31, None, 58, 44, 31],
    "city": ["Rome", "Oslo", None, "Rome", ""],
    "member": [True, False, None, True, True],
    "since": [dt.datetime(2020, 1, 1), None, dt.datetime(2021, 5, 6, 12, 30), dt.datetime(1969, 12, 31, 6), None],
    "wait": [dt.timedelta(1), None, dt.timedelta(hours=6), dt.timedelta(2), dt.timedelta(-1)],
    "planet": ["Earth"] * 5,
    "nothing": [None] * 5,
    "price": ["1.5", "-2", "NA", "", "1e3"],
    "day": ["2024-02-29", "2024-03-01", None, "2024-03-02", "2023-12-31"],
}
KINDS = ["number", "category", "boolean", "date", "number", "constant", "constant", "number", "date"]
NAN = math.nan
RAW = [
    [31, 1, 1, 18262, 1, 2, 0, 1, 1.5, 19782, 2, 3],
    [NAN, 0, 0, NAN, NAN, NAN, NAN, NAN, -2, 19783, 3, 4],
    [58, NAN, NAN, 18753 + 12.5 / 24, 5, 3, 12.5, 0.25, NAN, NAN, NAN, NAN],
    [44, 1, 1, -0.75, 12, 2, 6, 2, NAN, 19784, 3, 5],
    [31, NAN, 1, NAN, NAN, NAN, NAN, -1, 1000, 19722, 12, 6],
]
SOURCES = {
    "dict": lambda columns: columns,
    "records": lambda columns: [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)],
    "pandas": lambda columns: pd.DataFrame(columns),
    "pandas, objects": lambda columns: pd.DataFrame(columns, dtype=object),
    "pandas, best dtypes": lambda columns: pd.DataFrame(columns).convert_dtypes(),
    "polars": lambda columns: pl.DataFrame(columns),
    "polars, lazy strings": lambda columns: pl.DataFrame(columns, strict=False),
    "list": lambda columns: [list(row) for row in zip(*columns.values(), strict=True)],
    "objects": lambda columns: np.array(list(columns.values()), dtype=object).T,
}


@pytest.fixture(params=SOURCES)
def source(request):
    return SOURCES[request.param]


def test_every_source_gives_the_same_kinds_and_numbers(source):
    X = source(COLUMNS)
    table = Table.learn(X)
    assert [column.kind for column in table.columns] == KINDS
    assert table.names == (tuple(COLUMNS) if table.named else tuple(f"x{j}" for j in range(len(COLUMNS))))
    raw = table.read(X)
    assert raw.dtype == np.float64
    assert raw.flags.c_contiguous
    np.testing.assert_array_equal(raw, RAW)
    assert [each.missing for each in table.inputs] == list(np.isnan(RAW).any(axis=0))
    assert [each.n_values for each in table.inputs] == [None, 2, 2, *[None] * 9]


def test_a_row_is_read_as_a_table_of_one_row_is(source):
    X = source(COLUMNS)
    table = Table.learn(X)
    for i, expected in enumerate(RAW):
        cells = [values[i] for values in COLUMNS.values()]
        for row in (dict(zip(table.names, cells, strict=True)), cells, np.array(cells, dtype=object)):
            assert table.read_row(row).shape == (1, len(table.inputs))
            np.testing.assert_array_equal(table.read_row(row), [expected])
    if isinstance(X, pd.DataFrame):
        np.testing.assert_array_equal(table.read_row(X.iloc[0]), RAW[:1])


def test_a_table_is_described_printed_and_stored(source):
    table = Table.learn(source(COLUMNS), {})
    assert Table.from_json(table.to_json()) == table
    assert pickle.loads(pickle.dumps(table)) == table
    assert hash(pickle.loads(pickle.dumps(table))) == hash(table)
    lines = table.describe().splitlines()
    assert len(lines) == 1 + len(COLUMNS)
    assert lines[1].split() == [table.names[0], "number", "number", "20", "%", "numbers"]
    assert "days, month, weekday, hour" in lines[4]
    assert "text that is numbers" in lines[8]
    assert table != Table.learn({"age": [1, 2]})
    table.read_row([values[0] for values in COLUMNS.values()])
    assert pickle.loads(pickle.dumps(table)) == table  # what is made of it stays out


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, dict])
def test_columns_are_found_by_name_and_others_are_left_alone(make):
    columns = {"a": [1.0, 2.0], "b": ["x", "y"], "c": [1, 1]}
    table = Table.learn(make(columns))
    np.testing.assert_array_equal(table.read(make({"z": [{}, []], "b": ["y", "x"], "a": [3.0, 4.0]})), [[3, 1], [4, 0]])
    with pytest.raises(ValueError, match=r"X must have the columns .* there is no 'b'"):
        table.read(make({"a": [3.0]}))
    with pytest.raises(ValueError, match=r"row must have the columns .* there is no 'a', 'b'"):
        table.read_row({"c": 1})
    assert table.read(make({"a": [], "b": []})).shape == (0, 2)


def test_arrays_are_read_by_position():
    X = np.array([[1.0, 2.0], [3.0, np.nan]], dtype=np.float32)
    table = Table.learn(X)
    assert not table.named
    assert table.names == ("x0", "x1")
    np.testing.assert_array_equal(table.read(X), X)
    np.testing.assert_array_equal(table.read(pd.DataFrame(X, columns=["b", "a"])), X)
    np.testing.assert_array_equal(Table.learn(pd.DataFrame(X, columns=["b", "a"])).read(X), X)
    with pytest.raises(ValueError, match="X has 1 features, but Table is expecting 2 features as input"):
        table.read(X[:, :1])
    with pytest.raises(ValueError, match="row has 3 features, but Table is expecting 2"):
        table.read_row(np.zeros(3))
    assert table.read(X[:0]).shape == (0, 2)
    masked = np.ma.masked_array(np.arange(4).reshape(2, 2), [[True, False], [False, False]])
    np.testing.assert_array_equal(Table.learn(masked).read(masked), [[np.nan, 1], [2, 3]])


@pytest.mark.parametrize("dtype", ["u1", "i8", "f2", "f4", "f8", "longdouble", "U9", "S9", "O"])
def test_numbers_of_every_dtype_are_numbers(dtype):
    X = np.array([[1, 2], [3, 5], [7, 9]]).astype(dtype)
    table = Table.learn(X)
    assert {column.kind for column in table.columns} == {"number"}
    np.testing.assert_array_equal(table.read(X), X.astype(float))


def test_values_that_were_not_seen_have_no_code():
    table = Table.learn({"a": ["x", "y", "x"], "b": [True, False, None]})
    X = {"a": ["z", 3, "", None], "b": [2, "maybe", 0, "True"]}
    expected = [[-1, -1], [-1, -1], [np.nan, 0], [np.nan, 1]]
    np.testing.assert_array_equal(table.read(X), expected)
    np.testing.assert_array_equal(table.read(pd.DataFrame({"a": ["z"], "b": [2]})), [[-1, -1]])
    np.testing.assert_array_equal(table.read(pl.DataFrame({"a": [1.5], "b": [2]})), [[-1, -1]])
    np.testing.assert_array_equal(table.read_row({"a": "x", "b": np.True_}), [[0, 1]])


def test_values_of_another_type_are_known_by_their_text():
    told = Table.learn({"zip": [2139, 94110, 2139]}, {"zip": "category"})
    assert told.columns[0].values == (2139, 94110)
    expected = [[0], [1], [-1], [np.nan]]
    for cells in ([2139, 94110, 1, None], [2139.0, 94110.0, 0.5, np.nan], ["2139", "94110", "x", ""]):
        np.testing.assert_array_equal(told.read({"zip": cells}), expected)
        np.testing.assert_array_equal(told.read(pd.DataFrame({"zip": cells})), expected)
        np.testing.assert_array_equal(told.read(pl.DataFrame({"zip": cells}, strict=False)), expected)
    text = Table.learn({"code": ["1", "2", "1", "b"]})
    np.testing.assert_array_equal(text.read(pd.DataFrame({"code": [1, 2.0, np.nan]})), [[0], [1], [np.nan]])


def test_mixed_cells_are_categories_by_their_text_unless_all_are_numbers():
    table = Table.learn({"a": [1, "b", 2.5, None, 1.0], "n": [1, "2", decimal.Decimal("0.5"), "?", None]})
    assert [(column.kind, column.values) for column in table.columns] == [
        ("category", ("1", "2.5", "b")),
        ("number", ()),
    ]
    assert table.columns[0].why == "number and text mixed, by their text"
    np.testing.assert_array_equal(table.read({"a": ["1", 2.5], "n": [2, " 7 "]}), [[0, 2], [1, 7]])


def test_text_that_looks_like_numbers_but_is_codes_stays_text():
    table = Table.learn({"zip": ["02139", "94110", "02139"], "x": ["0.5", "-0", "10"], "inf": ["inf", "1", "2"]})
    assert [column.kind for column in table.columns] == ["category", "number", "category"]


def test_categorical_types_are_categories_and_keep_their_order():
    cells = ["mid", "low", None, "high", "low"]
    order = ["low", "mid", "high", "never"]
    frames = [
        pd.DataFrame({"a": pd.Categorical(cells, order, ordered=True), "b": pd.Categorical(cells, order)}),
        pl.DataFrame({"a": pl.Series(cells, dtype=pl.Enum(order)), "b": pl.Series(cells, dtype=pl.Categorical)}),
    ]
    for frame in frames:
        table = Table.learn(frame)
        assert [column.values for column in table.columns] == [("low", "mid", "high"), ("high", "low", "mid")]
        assert [column.ordered for column in table.columns] == [True, False]
        expected = [[1, 2], [0, 1], [np.nan, np.nan], [2, 0], [0, 1]]
        np.testing.assert_array_equal(table.read(frame), expected)
        for other in frames:
            np.testing.assert_array_equal(table.read(other), expected)
        np.testing.assert_array_equal(table.read({"a": cells, "b": cells}), expected)
        assert "ordered code of 3 values" in table.describe()
    numbers = Table.learn(pd.DataFrame({"a": pd.Categorical([3, 1, 3, None])}))
    assert numbers.columns[0].values == (1, 3)
    bins = pd.DataFrame({"a": pd.cut(np.arange(6.0), 3)})
    np.testing.assert_array_equal(Table.learn(bins).read(bins), np.repeat([[0], [1], [2]], 2, axis=0))


def test_the_order_of_rows_is_no_part_of_what_is_learned():
    rng = np.random.default_rng(0)
    columns = {"a": rng.choice(list("abcdef"), 50), "b": rng.integers(0, 9, 50)}
    order = rng.permutation(50)
    told = {"b": "category"}
    assert Table.learn(columns, told) == Table.learn({name: values[order] for name, values in columns.items()}, told)


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, dict])
def test_rare_values_are_as_unseen_ones(make):
    cells = ["often"] * 200 + ["few"] * LEAST_ROWS + ["rare"] * (LEAST_ROWS - 1) + ["once"]
    table = Table.learn(make({"a": cells}))
    assert table.columns[0].values == ("few", "often")
    assert table.columns[0].why == "text; 2 rare values as unseen"
    np.testing.assert_array_equal(table.read(make({"a": ["once", "few", "rare"]})), [[-1], [0], [-1]])
    assert Table.learn(make({"a": ["x", "y", "x"]})).columns[0].values == ("x", "y")  # few rows are too few to count in


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, dict])
def test_ten_thousand_categories(make):
    cells = [f"value {i % 10_000:05}" for i in range(30_000)]
    table = Table.learn(make({"a": cells}))
    assert table.columns[0].values == tuple(sorted(set(cells)))
    np.testing.assert_array_equal(table.read(make({"a": cells}))[:, 0], np.arange(30_000) % 10_000)
    assert Table.from_json(table.to_json()) == table


def test_categories_beyond_the_most_are_as_unseen():
    cells = np.repeat(np.arange(MOST_VALUES + 10), 3)
    table = Table.learn({"a": np.append(cells, [MOST_VALUES + 9, MOST_VALUES + 9])}, {"a": "category"})
    values = table.columns[0].values
    assert len(values) == MOST_VALUES
    assert MOST_VALUES + 9 in values


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, dict])
def test_ids_and_prose_are_ignored_unless_told(make):
    columns = {"id": [f"id {i}" for i in range(300)], "two": [f"t{i // 2}" for i in range(300)], "x": list(range(300))}
    table = Table.learn(make(columns))
    assert [column.kind for column in table.columns] == ["ignored", "ignored", "number"]
    assert table.columns[0].why == "300 different values in 300 rows: ids or prose"
    assert table.columns[1].why == "no value is in 3 rows"
    holes = Table.learn(make({**columns, "id": [None] * 30 + columns["id"][30:]}))
    assert (holes.columns[0].kind, round(holes.columns[0].missing, 9)) == ("ignored", 0.1)
    told = Table.learn(make(columns), {"id": "category", "x": "ignored"})
    assert [column.kind for column in told.columns] == ["category", "ignored", "ignored"]
    assert len(told.columns[0].values) == 300


def test_dates_keep_the_parts_that_vary():
    days = [dt.date(2024, 1, 1) + dt.timedelta(days=7 * i) for i in range(4)]
    for make in (pd.DataFrame, pl.DataFrame, dict):
        table = Table.learn(make({"day": days}))
        assert table.columns[0].parts == ("days",)  # Mondays of one month
        assert [each.name for each in table.inputs] == ["day (days)"]
    hours = pd.DataFrame({"when": pd.date_range("2024-01-01", periods=30, freq="h")})
    table = Table.learn(hours)
    assert table.columns[0].parts == ("days", "weekday", "hour")
    raw = table.read(hours)
    when = hours["when"].dt
    np.testing.assert_array_equal(raw[:, 1:], np.column_stack([when.day_of_week, when.hour]))


def test_parts_of_dates_are_those_of_pandas_before_1970_too():
    rng = np.random.default_rng(0)
    stamps = pd.Series(pd.to_datetime(rng.integers(-(10**9), 10**9, 200), unit="s"))
    table = Table.learn(pd.DataFrame({"when": stamps}))
    raw = table.read(pd.DataFrame({"when": stamps}))
    expected = np.column_stack(
        [
            (stamps - pd.Timestamp("1970-01-01")) / pd.Timedelta(days=1),
            stamps.dt.month,
            stamps.dt.day_of_week,
            stamps.dt.hour + stamps.dt.minute / 60 + stamps.dt.second / 3600,
        ]
    )
    np.testing.assert_allclose(raw, expected, rtol=1e-14, atol=1e-12)
    for i in range(0, 200, 20):
        for cell in (stamps[i], stamps[i].to_pydatetime(), stamps[i].to_numpy(), stamps[i].isoformat()):
            np.testing.assert_array_equal(table.read_row({"when": cell}), raw[[i]])


def test_dates_with_a_time_zone_are_read_on_its_clock():
    berlin = pd.date_range("2024-03-30", periods=4, freq="D", tz="Europe/Berlin")
    table = Table.learn(pd.DataFrame({"when": berlin, "x": range(4)}))
    raw = table.read(pd.DataFrame({"when": berlin, "x": range(4)}))
    np.testing.assert_array_equal(raw[:, 0], 19812 + np.arange(4))  # the clock changes on March 31
    assert table.columns[0].zone == "Europe/Berlin"
    assert Table.from_json(table.to_json()) == table
    frames = [pd.DataFrame({"when": berlin.tz_convert("America/New_York"), "x": range(4)})]
    frames += [
        pl.DataFrame({"when": berlin.tz_convert(zone).to_pydatetime(), "x": range(4)}) for zone in ("UTC", "Asia/Tokyo")
    ]
    frames += [{"when": [stamp.isoformat() for stamp in berlin], "x": range(4)}]
    frames += [pd.DataFrame({"when": berlin.tz_convert("+05:30"), "x": range(4)})]
    for frame in frames:
        if isinstance(frame, dict):
            frame["x"] = list(frame["x"])
        np.testing.assert_array_equal(table.read(frame), raw)
    np.testing.assert_array_equal(table.read_row({"when": berlin[2], "x": 2}), raw[[2]])
    with pytest.raises(ValueError, match=r"column 'when' must hold dates with a time zone, not .* \(row 0\)"):
        table.read(pd.DataFrame({"when": berlin.tz_localize(None), "x": range(4)}))
    with pytest.raises(ValueError, match="column 'when' must hold dates without a time zone"):
        Table.learn(pd.DataFrame({"when": berlin.tz_localize(None)})).read(pd.DataFrame({"when": berlin}))
    offset = Table.learn(pd.DataFrame({"when": berlin.tz_convert("+05:30")}))
    assert offset.columns[0].zone == "UTC"


def test_columns_are_what_they_are_told_to_be():
    columns = {"n": ["1", "x2", "1"], "c": [3, 1, 3], "b": [0, 1, None], "d": ["2024-01-01", None, "2024-01-02"]}
    told = {"c": "category", "b": "boolean", "n": "ignored", "d": "category"}
    table = Table.learn(columns, told)
    assert [column.kind for column in table.columns] == ["ignored", "category", "boolean", "category"]
    assert [column.values for column in table.columns[1:]] == [(1, 3), (0, 1), ("2024-01-01", "2024-01-02")]
    assert {column.why for column in table.columns} == {"told"}
    np.testing.assert_array_equal(table.read(columns), [[1, 0, 0], [0, 1, np.nan], [1, np.nan, 1]])
    assert Table.learn({"d": ["2024-01-01", "2024-01-02"]}, {"d": "date"}).columns[0].parts == ("days", "weekday")
    assert Table.learn({"x": [True, False]}, {"x": "number"}).columns[0].kind == "number"
    assert Table.learn({"x": [True, False]}, {"x": "category"}).columns[0].values == (False, True)
    wait = Table.learn({"x": [dt.timedelta(1), dt.timedelta(2)]}, {"x": "number"})
    np.testing.assert_array_equal(wait.read_row([np.timedelta64(36, "h")]), [[1.5]])
    for constant in ("number", "category", "boolean"):
        assert Table.learn({"x": [1, 2], "y": [5, 5]}, {"y": constant}).columns[1].kind == "constant"


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"z": "number"}, r"columns must name columns of X, which are 'n', 'w', 'd', 'x', not 'z'"),
        (
            {"n": "text"},
            r"columns\['n'\] must be one of 'number', 'category', .*, 'ignored', not 'text'",
        ),
        ({"n": "number"}, r"X's column 'n' must hold finite numbers, not 'x2' \(row 1\)"),
        ({"n": "date"}, r"X's column 'n' must hold dates without a time zone, not 'x2' \(row 0\)|not '1' \(row 0\)"),
        ({"x": "date"}, r"X's column 'x' must hold dates without a time zone, not 0.0 \(row 0\)"),
        ({"x": "boolean"}, r"columns\['x'\] must not be 'boolean', for X holds 3 values there: 0, 1, 2, ..."),
        ({"w": "category"}, r"columns\['w'\] must not be 'category', for X holds dates there"),
        ({"d": "number"}, r"X's column 'd' must hold finite numbers, not '2024-01-01' \(row 0\)"),
        ({"w": "number"}, r"X's column 'w' must hold finite numbers"),
    ],
)
def test_what_cannot_be_told_is_refused(told, message):
    columns = {
        "n": ["1", "x2", "1"],
        "w": np.array(["2024-01-01", "2024-01-02", "NaT"], dtype="M8[us]"),
        "d": ["2024-01-01", None, "2024-01-02"],
        "x": np.array([0, 1, 2]),
    }
    for make in (dict, pd.DataFrame, pl.DataFrame):
        with pytest.raises(ValueError, match=message):
            Table.learn(make(columns), told)


def test_columns_of_an_array_are_told_by_position_or_name():
    X = np.array([[3, 1], [1, 2], [3, 3]])
    for told in ({0: "category"}, {np.int64(0): "category"}, {"x0": "category"}):
        table = Table.learn(X, told)
        assert [column.values for column in table.columns] == [(1, 3), ()]
    with pytest.raises(ValueError, match="columns must name columns of X, which are 'x0', 'x1', not 'x2'"):
        Table.learn(X, {2: "category"})


def test_infinities_are_no_values_of_categories():
    for cells in ([1, 2.5, math.inf, 1], [decimal.Decimal(1), 2.5, math.inf, 1], np.array([1, 2.5, -np.inf, 1])):
        table = Table.learn({"a": cells}, {"a": "category"})
        assert Table.from_json(table.to_json()).columns[0].values == (1, 2.5)
        np.testing.assert_array_equal(table.read({"a": cells}), [[0], [1], [-1], [0]])


def test_told_must_be_a_mapping():
    with pytest.raises(TypeError, match="columns must be a mapping of names to kinds, not"):
        Table.learn({"a": [1, 2]}, ["a"])


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, dict])
def test_cells_of_another_type_are_refused_by_column_value_and_row(make):
    table = Table.learn(make(COLUMNS))
    good = {name: [values[0], values[3]] for name, values in COLUMNS.items()}
    for name, cell, message in [
        ("age", "old", r"column 'age' must hold finite numbers, not 'old' \(row 1\)"),
        ("age", math.inf, r"'age' must hold finite numbers, not inf \(row 1\): put NaN, which is missing, or a finite"),
        ("age", dt.datetime(2020, 1, 1), r"'age' must hold finite numbers, not .*2020.* \(row 1\)"),
        ("since", 18000, r"'since' must hold dates without a time zone, not 18000(\.0)? \(row 1\)"),
        ("since", "last May", r"'since' must hold dates without a time zone, not 'last May' \(row 1\)"),
        ("since", "2024-13-01", r"'since' must hold dates without a time zone, not '2024-13-01' \(row 1\)"),
        ("wait", 3.0, r"'wait' must hold durations, not 3.0 \(row 1\)"),
    ]:
        X = make({**good, name: [None, cell]})
        with pytest.raises(ValueError, match=message):
            table.read(X)
        row = {name: values[0] for name, values in good.items()} | {name: cell}
        with pytest.raises(ValueError, match=message.replace(r" \(row 1\)", "")):
            table.read_row(row)
    np.testing.assert_array_equal(table.read(make(good)), [RAW[0], RAW[3]])


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, np.asarray, dict])
@pytest.mark.parametrize("infinity", [np.inf, -np.inf])
def test_infinities_are_refused(make, infinity):
    cells = [[1.0, 2.0], [3.0, infinity]]
    columns = {"a": [1.0, 3.0], "x1": [2.0, infinity]}
    X = np.array(cells) if make is np.asarray else make(columns)
    with pytest.raises(
        ValueError, match=rf"X's column 'x1' must hold finite numbers, not {infinity} \(row 1\): put NaN"
    ):
        Table.learn(X)


class _Nothing:
    pass


@pytest.mark.parametrize(
    ("X", "kind", "message"),
    [
        (np.zeros((0, 3)), ValueError, r"0 sample\(s\) \(shape=\(0, 3\)\)"),
        (np.zeros((3, 0)), ValueError, r"0 feature\(s\) \(shape=\(3, 0\)\) while a minimum of 1 is required"),
        (pd.DataFrame({"a": []}), ValueError, r"0 sample\(s\)"),
        (pl.DataFrame(), ValueError, r"0 feature\(s\)"),
        ({}, ValueError, r"0 feature\(s\)"),
        ([], ValueError, "Expected 2D array, got 1D array instead"),
        (np.zeros(3), ValueError, r"Expected 2D array, got 1D array instead.*Reshape your data"),
        (np.zeros((3, 2, 2)), ValueError, "Expected 2D array, got 3D array"),
        (_Nothing(), ValueError, "Expected 2D array, got 0D array instead: _Nothing"),
        ("table.csv", ValueError, "Expected 2D array, got 0D array instead: str"),
        (None, ValueError, "Expected 2D array, got 0D array instead: NoneType"),
        ([[1, 2], [3]], ValueError, "X must be a table, with as many columns in each row"),
        (np.zeros((3, 2), dtype=complex), ValueError, "Complex data not supported"),
        (np.zeros(3, dtype="f8,i4"), TypeError, "not an array of records"),
        (pd.Series([1, 2]), TypeError, r"X must be a table, not a single column: X.to_frame\(\)"),
        (pl.Series([1, 2]), TypeError, r"X must be a table, not a single column: X.to_frame\(\)"),
        (pl.LazyFrame({"a": [1]}), TypeError, r"X must be in memory, such as X.collect\(\), not a lazy LazyFrame"),
        (pd.DataFrame([[1, 2], [3, 4]], columns=["a", "a"]), ValueError, "different names, not 2 of name 'a'"),
        (pd.DataFrame([[1, 2], [3, 4]], columns=["1", 1]), ValueError, "different names, not 2 of name '1'"),
        ({"a": [1, 2], "b": [1], "c": [3, 4]}, ValueError, "as many rows each: 'a' has 2, 'b' 1"),
        ({"a": [1], "b": [1, 2]}, ValueError, "as many rows each: 'a' has 1, 'b' 2"),
        ({"a": 3}, TypeError, "X's column 'a' must be a list or an array of one dimension, not 3"),
        (
            {"a": ["x", "x"], "b": [None, None]},
            ValueError,
            r"n_samples=2: 'a' is constant, one value: 'x'; 'b' is const",
        ),
        ({"a": [1.5]}, ValueError, "X has no column to learn from in n_samples=1: 'a' is constant, one value: 1.5"),
        (
            {"a": [1, {}]},
            TypeError,
            r"column 'a' cannot be used: argument must be a string.* not {}; ",
        ),
        (pl.DataFrame({"a": [[1], [2]]}), TypeError, r"column 'a' cannot be used"),
        (pd.DataFrame({"a": [1j, 2]}), TypeError, "cannot be used: .* not 1j"),
    ],
)
def test_what_is_no_table_to_learn_from_is_refused(X, kind, message):
    with pytest.raises(kind, match=message):
        Table.learn(X)


def test_sparse_rows_are_refused():
    import scipy.sparse

    with pytest.raises(TypeError, match=r"X must be dense, such as X.toarray\(\), not a sparse csr_array"):
        Table.learn(scipy.sparse.csr_array(np.eye(3)))


def test_what_is_no_row_is_refused():
    table = Table.learn({"a": [1, 2], "b": ["x", "y"]})
    for row in (3, "ab", None, {1, 2}):
        with pytest.raises(TypeError, match="row must be a mapping of names to cells, or an array"):
            table.read_row(row)
    with pytest.raises(TypeError, match=r"column 'b' must hold categories, not \[\]"):
        table.read_row([1, []])
    with pytest.raises(TypeError, match=r"column 'a' must hold finite numbers, not \[\]"):
        table.read_row([[], "x"])
    with pytest.raises(ValueError, match="column 'a' must hold finite numbers, not 1000"):
        table.read_row([10**400, "x"])


def test_names_become_text():
    frame = pd.DataFrame([[1, 2], [3, 4]], columns=[7, ("a", "b")])
    table = Table.learn(frame, {7: "category"})
    assert table.names == ("7", "('a', 'b')")
    assert table.columns[0].kind == "category"
    np.testing.assert_array_equal(table.read(frame[frame.columns[::-1]]), [[0, 2], [1, 4]])


@pytest.mark.parametrize(
    "cells",
    [
        pd.array([1, None, 3], dtype="Int64"),
        pd.array([1.0, None, 3.0], dtype="Float32"),
        pd.arrays.SparseArray([1.0, np.nan, 3.0]),
        [decimal.Decimal(1), None, decimal.Decimal(3)],
        [1, pd.NA, 3],
        [1, pd.NaT, 3.0],
        pl.Series([1, None, 3], dtype=pl.Int8),
        pl.Series([1, None, 3], dtype=pl.Int128),
        pl.Series([1, None, 3], dtype=pl.Decimal(10, 2)),
    ],
    ids=str,
)
def test_missing_numbers_of_every_kind(cells):
    frame = pl.DataFrame({"a": cells}) if isinstance(cells, pl.Series) else pd.DataFrame({"a": cells})
    table = Table.learn(frame)
    assert table.columns[0].kind == "number"
    np.testing.assert_array_equal(table.read(frame), [[1], [np.nan], [3]])


@pytest.mark.parametrize("dtype", ["object", "string", "str", "category"])
def test_missing_text_and_booleans_of_pandas(dtype):
    frame = pd.DataFrame({"a": pd.Series(["x", None, "y", "x"], dtype=dtype)})
    np.testing.assert_array_equal(Table.learn(frame).read(frame), [[0], [np.nan], [1], [0]])
    frame = pd.DataFrame({"a": pd.array([True, None, False], dtype="boolean")})
    assert Table.learn(frame).columns[0].kind == "boolean"
    np.testing.assert_array_equal(Table.learn(frame).read(frame), [[1], [np.nan], [0]])


def test_tables_of_pyarrow():
    pa = pytest.importorskip("pyarrow")
    X = pa.table(COLUMNS)
    table = Table.learn(X)
    assert [column.kind for column in table.columns] == KINDS
    np.testing.assert_array_equal(table.read(X), RAW)
    with pytest.raises(ValueError, match="different names, not 2 of name 'a'"):
        Table.learn(pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]))


def test_text_by_its_first_rows_may_hold_anything_later():
    cells = ["a", "b"] * 100 + [{}]
    with pytest.raises(TypeError, match=r"column 'a' cannot be used: argument must be .*, not {}; leave"):
        Table.learn(pd.DataFrame({"a": cells}))
    table = Table.learn(pd.DataFrame({"a": cells[:-1]}))
    with pytest.raises(TypeError, match=r"column 'a' must hold categories, not {} \(row 200\)"):
        table.read(pd.DataFrame({"a": cells}))
    np.testing.assert_array_equal(table.read(pd.DataFrame({"a": [*cells[:-1], 3]}))[-1], [-1])


CELLS = {
    "number": st.none() | st.floats(allow_infinity=False) | st.integers(-(10**9), 10**9),
    "text": st.none() | st.text(max_size=3),
    "boolean": st.none() | st.booleans(),
    "date": st.none() | st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2200, 1, 1)),
    "any": st.none() | st.floats() | st.integers() | st.text(max_size=3) | st.booleans() | st.dates() | st.binary(),
}
TABLES = st.integers(1, 8).flatmap(
    lambda n: st.dictionaries(
        st.text(max_size=3),
        st.sampled_from(sorted(CELLS)).flatmap(lambda sort: st.lists(CELLS[sort], min_size=n, max_size=n)),
        min_size=1,
        max_size=4,
    )
)


@settings(max_examples=80, deadline=None)
@given(TABLES)
def test_whatever_is_learned_is_stored_and_read_the_same_from_rows_and_frames(columns):
    try:
        table = Table.learn(columns)
    except ValueError:  # infinities, and nothing to learn from
        return
    assert Table.from_json(table.to_json()) == table
    assert "column" in table.describe()
    raw = table.read(columns)
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    np.testing.assert_array_equal(raw, np.concatenate([table.read_row(row) for row in rows]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas has some about dates of several kinds
        frame = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()})
    np.testing.assert_array_equal(raw, table.read(frame))


def _changed(value, rng):
    # One thing in what JSON can hold, changed.
    junk = rng.choice(
        [None, True, -1, 10**400, 1e308, math.nan, "", "days", "../../etc/passwd", [], ["days"], {}, [[]], 0.5]
    )
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        change = rng.random()
        if change < 0.1:
            return {k: v for k, v in value.items() if k != key}
        return value | {key: _changed(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.8:
        i = rng.randrange(len(value))
        change = rng.random()
        if change < 0.2:
            return value[:i] + value[i + 1 :]
        if change < 0.4:
            return value[:i] + value[i:] + [value[i]]
        return [*value[:i], _changed(value[i], rng), *value[i + 1 :]]
    return junk


def test_json_that_nobody_wrote_is_refused_or_a_table():
    table = Table.learn(COLUMNS | {"zip": [1.5, 2, 2, 1.5, 2]}, {"zip": "category"})
    text = table.to_json()
    rng = random.Random(0)
    refused = 0
    for _ in range(3000):
        told = json.loads(text)
        for _ in range(rng.randint(1, 3)):
            told = _changed(told, rng)
        try:
            other = Table.from_json(json.dumps(told))
        except ValueError:
            refused += 1
            continue
        assert Table.from_json(other.to_json()) == other
        assert other.read_row([None] * len(other.columns)).shape == (1, len(other.inputs))
    assert 2000 < refused < 3000
    for damaged in ("", "[]", "{}", "null", text[:-1], text + "x", "[" * 10**5, "1" * 10**5, '{"format": 1}'):
        with pytest.raises(ValueError, match="this is no description of a table"):
            Table.from_json(damaged)


def test_a_column_is_a_record():
    column = Table.learn({"a": ["x", "y"]}).columns[0]
    assert dataclasses.asdict(column)["values"] == ("x", "y")
    assert column.inputs == ("a",)


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame, dict])
def test_whole_numbers_that_a_frame_has_as_text_are_names(frame):
    households, many = [str(k % 4) for k in range(40)], [str(k) for k in range(40)]
    rows = {"household": households, "price": ["1.5", "2"] * 20, "many": many}
    kinds = [column.kind for column in Table.learn(frame(rows)).columns]
    assert kinds == ["number" if frame is dict else "category", "number", "number"]
