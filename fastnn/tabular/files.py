"""Files of fitted estimators for tables: what was learned of the columns, the networks and how they were trained.

The networks are stored as in files of ensembles; the rest is JSON beside them.  A file is read as hostile.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastnn import storage
from fastnn._validation import check_choice, check_number
from fastnn.network import Network
from fastnn.tabular.recipe import Recipe
from fastnn.tabular.table import Table

# Kinds of NumPy's dtypes that classes in a file may have, and Python's types of a class.
CLASS_TYPES = {"b": bool, "i": int, "u": int, "f": float, "U": str}


class Model(NamedTuple):
    """What a file holds of a fitted estimator.

    Parameters
    ----------
    kind : str
        Name of the estimator's class.
    parameters : dict
        Of the estimator; those that JSON cannot hold, such as a RandomState, are left out.
    table : Table
    recipe : Recipe
    networks : list of Network
    classes : (n_classes,) array or None
    residuals : (n * n_out,) array
        Of held-out rows, for intervals: row by row, each output minus what was found.
    target : str or None
        Name of what is predicted.
    """

    kind: str
    parameters: dict[str, Any]
    table: Table
    recipe: Recipe
    networks: list[Network]
    classes: NDArray[Any] | None
    residuals: NDArray[np.float64]
    target: str | None


def write(path: Any, model: Model) -> None:
    """Write a model, atomically.

    Raises
    ------
    OSError
        If it cannot be written.
    TypeError
        If the classes are of a type that a file cannot have.
    """
    told = {
        "kind": model.kind,
        "parameters": {name: value for name, value in model.parameters.items() if _is_json(value)},
        "table": model.table.to_json(),
        "recipe": dataclasses.asdict(model.recipe),
        "classes": None if model.classes is None else _told_classes(model.classes),
        "residuals": model.residuals.tolist(),
        "target": model.target,
    }
    storage.save_tabular(path, [(network.description(), network.parameters) for network in model.networks], told)


def read(path: Any, kinds: list[str]) -> Model:
    """Return the model in a file, of an estimator of one of these kinds.

    Raises
    ------
    OSError
        If there is no such file or it cannot be read.
    ValueError
        If it is something else, damaged or contradicts itself; the message names the file.
    """
    pairs, told = storage.load_tabular(path)
    try:
        if not isinstance(told, dict) or told.keys() != set(Model._fields) - {"networks"}:
            raise ValueError("its description is not one of a model")
        types = {"parameters": dict, "residuals": list, "target": str | None}
        if not all(isinstance(told[name], kind) for name, kind in types.items()):
            raise ValueError("its description is not one of a model")
        return Model(
            check_choice(told["kind"], "kind", kinds),
            {name: tuple(value) if type(value) is list else value for name, value in told["parameters"].items()},
            Table.from_json(told["table"]),
            _read_recipe(told["recipe"]),
            _read_networks(pairs),
            None if told["classes"] is None else _read_classes(told["classes"]),
            np.array([check_number(each, "residuals", -np.inf, open_left=True) for each in told["residuals"]], float),
            told["target"],
        )
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is not a usable fastnn model of a table: {error}") from error


def _is_json(value: Any) -> bool:
    # Whether JSON gives back what it is given, with lists for tuples.
    try:
        again = json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        return False
    return bool(again == (list(value) if isinstance(value, tuple) else value))


def _told_classes(classes: NDArray[Any]) -> list[Any]:
    kind = classes.dtype.kind
    told: list[Any] = classes.tolist()
    if kind == "O" and all(type(value) is str for value in told):
        kind = "U"
    if kind not in CLASS_TYPES:
        raise TypeError(f"a file holds classes that are text, numbers or booleans, not {type(told[0]).__name__}")
    return told


def _read_classes(told: Any) -> NDArray[Any]:
    types = {type(value) for value in told} if isinstance(told, list) else set()
    if len(types) != 1 or not types <= set(CLASS_TYPES.values()) or told != sorted(set(told)):
        raise ValueError("its classes must be a list of texts, numbers or booleans that increase")
    return np.array(told)


def _read_networks(pairs: list[Any]) -> list[Network]:
    if not pairs:
        raise ValueError("networks is empty")
    return [Network.assemble(*pair) for pair in pairs]


def _read_recipe(told: Any) -> Recipe:
    fields = {field.name: field.type for field in dataclasses.fields(Recipe)}
    if not isinstance(told, dict) or told.keys() != fields.keys():
        raise ValueError("its recipe has other fields")
    checks: dict[Any, Any] = {
        "int": lambda value: type(value) is int,
        "float": lambda value: type(value) in (int, float),
        "bool": lambda value: type(value) is bool,
        "str": lambda value: type(value) is str,
        "tuple[int, ...]": lambda value: type(value) is list and all(type(size) is int for size in value),
        "Mapping[str, str]": lambda value: type(value) is dict and all(type(each) is str for each in value.values()),
    }
    for name, value in told.items():
        if not checks[fields[name]](value):
            raise ValueError(f"its recipe's {name} must be of type {fields[name]}")
    read: dict[str, Any] = {name: tuple(value) if type(value) is list else value for name, value in told.items()}
    return Recipe(**read)
