"""The coverings that parametrize other tests."""

import itertools
import math

import pytest
from pairs import covering, parametrize_pairs


@pytest.mark.parametrize(
    "sizes", [(2, 2), (1, 3), (3, 1, 1), (2, 2, 2), (4, 3, 2), (14, 10, 7, 2), (2,) * 8, (3,) * 5, (5, 1, 5, 2, 5)]
)
def test_every_two_values_of_two_parameters_occur_together(sizes):
    choices = [[f"{k}: {i}" for i in range(size)] for k, size in enumerate(sizes)]
    rows = covering(choices)
    for row in rows:
        assert all(value in values for value, values in zip(row, choices, strict=True))
    for k, m in itertools.combinations(range(len(sizes)), 2):
        assert {(row[k], row[m]) for row in rows} == set(itertools.product(choices[k], choices[m]))
    assert len(set(rows)) == len(rows) <= math.prod(sizes)
    assert covering(choices) == rows


def test_coverings_are_small():
    assert len(covering([range(2)] * 8)) <= 10  # of 256
    assert len(covering([range(3)] * 5)) <= 17  # of 243; 11 is the least
    assert len(covering([range(14), range(10), range(7), range(2)])) <= 145  # of 1960


def test_values_need_not_be_hashable_or_differ():
    assert sorted(covering([[{}, {}], [[], 0.5]]), key=str) == [({}, 0.5), ({}, 0.5), ({}, []), ({}, [])]


def test_names_with_commas_are_one_parameter():
    mark = parametrize_pairs({"a, b": [(1, 2), (3, 4)], "c": "xy"}).mark
    assert mark.args == ("a, b, c", mark.args[1])
    assert sorted(mark.args[1]) == [(1, 2, "x"), (1, 2, "y"), (3, 4, "x"), (3, 4, "y")]
