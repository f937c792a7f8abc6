"""Pairwise covering: few combinations of choices, in which every two values of two parameters occur together.

The product of all choices grows with every parameter; these combinations grow with the two longest lists.  Faults that
take three choices at once are for the tests that draw at random.
"""

import collections
import functools
import itertools

import pytest


def covering(choices):
    """Return few combinations in which every two values of two parameters occur together, the same each time.

    Parameters
    ----------
    choices : sequence of sequences
        The values of each parameter; at least two parameters.

    Returns
    -------
    list of tuple
        One value of each parameter.
    """
    options = [[(k, i) for i in range(len(values))] for k, values in enumerate(choices)]
    missing = dict.fromkeys(  # a dict keeps the order
        frozenset(pair) for two in itertools.combinations(options, 2) for pair in itertools.product(*two)
    )
    uses = collections.Counter()

    def gain(row, option):
        return sum(frozenset((option, other)) in missing for other in row), -uses[option]

    rows = []
    while missing:
        row = list(next(iter(missing)))
        begun = {k for k, _ in row}
        for k in range(len(choices)):
            if k not in begun:
                row.append(max(options[k], key=functools.partial(gain, row)))
        uses.update(row)
        for pair in itertools.combinations(row, 2):
            missing.pop(frozenset(pair), None)
        rows.append(tuple(choices[k][i] for k, i in sorted(row)))
    return rows


def parametrize_pairs(choices):
    """Parametrize a test with a covering of its arguments' values.

    Parameters
    ----------
    choices : dict of str to iterable
        Values by the name of an argument; or tuples of values by several names with commas between them, which count
        as one parameter.
    """
    groups = [list(values) if "," in names else [(value,) for value in values] for names, values in choices.items()]
    rows = [tuple(itertools.chain(*row)) for row in covering(groups)]
    return pytest.mark.parametrize(", ".join(choices), rows)
