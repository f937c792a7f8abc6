"""Make programs.json: what Theano 1.0.5 makes of programs in its notation, for tests/test_symbolic_programs.py.

    THEANO_FLAGS=cxx=,optimizer_excluding=fusion python tests/golden/programs/make_programs.py

needs Python 3.8 with NumPy 1.19 and Theano 1.0.5, and takes two minutes.  With a C compiler (without the flags) Theano
gives the same, but compiles most programs anew, for hours.  Unfused, its Python keeps to float32 where C does.
corners.py holds the programs that somebody wrote, networks.py and general.py draw the others.
"""

import json
import warnings

import numpy as np
import theano
import theano.tensor
from corners import corners
from general import general
from networks import network
from running import PROGRAMS, as_plain, differences, precision, run

N_NETWORKS, N_GENERAL = 50, 60


def drawn(make, name, n):
    """Yield as many random programs as asked for, of those that Theano takes."""
    seed = 0
    while n:
        program = make(f"{name}_{seed}", np.random.RandomState(seed))
        seed += 1
        if solved(program, theano.compile.Mode(linker="py")) and is_well_conditioned(program):
            n -= 1
            yield program


def solved(program, mode="FAST_RUN"):
    """Put Theano's results into a program; return whether there are any."""
    try:
        results, names = run(program, theano, mode=mode)
    except Exception:  # it is random, after all
        return False
    program["precision"] = precision(names, theano)
    program["results"] = as_plain(results)
    return True


def is_well_conditioned(program):
    """Whether the results of the program as it is written differ by roundings only, where they are numbers."""
    mode = theano.compile.Mode(linker="py", optimizer=None)
    return not differences(program, run(program, theano, mode=mode)[0], program["results"], numbers_only=True)


def main():
    """Write the file."""
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    programs = [*corners(), *drawn(network, "network", N_NETWORKS), *drawn(general, "general", N_GENERAL)]
    for program in programs:
        assert solved(program), program["name"]
    lines = ",\n".join(json.dumps(program, separators=(",", ":")) for program in programs)
    how = "with" if theano.config.cxx else "without"
    made_by = json.dumps(f"make_programs.py, Theano {theano.__version__} {how} a compiler, NumPy {np.__version__}")
    PROGRAMS.write_text(f'{{"made_by": {made_by}, "programs": [\n{lines}\n]}}\n')
    print(f"{PROGRAMS}: {len(programs)} programs, {PROGRAMS.stat().st_size} bytes")


if __name__ == "__main__":
    main()
