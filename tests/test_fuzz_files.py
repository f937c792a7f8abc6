"""Some thousands of damaged files for each reader, the same each time; `fuzz_files.py` makes millions of others."""

import importlib.util
import random
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("fuzz_files", Path(__file__).parent / "fuzz_files.py")
fuzz_files = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fuzz_files)

TRIED = 2000


@pytest.mark.parametrize("name", fuzz_files.READERS)
def test_damaged_files_are_refused_or_read_as_they_are(tmp_path, name):
    reader = fuzz_files.READERS[name]
    seeds, chosen = list(reader.seeds()), random.Random(0)
    mutator = fuzz_files.Mutator(fuzz_files.change_bytes, 0)
    path = str(tmp_path / f"file{reader.ending}")
    read = sum(fuzz_files.run(reader, path, seed) for seed in seeds)
    assert read > len(seeds) // 3  # most are right; some show what is refused
    read = 0
    for _ in range(TRIED):
        data = fuzz_files.mutated(reader, chosen.choice(seeds), mutator)
        try:
            read += fuzz_files.run(reader, path, data)
        except BaseException:
            print(f"{name}: {data!r}")
            raise
    assert 0.01 * TRIED < read < 0.99 * TRIED  # both happen


def test_a_reader_that_goes_wrong_is_caught(tmp_path):
    # What the other test rests on: wrong content and other errors do not pass.
    content = next(fuzz_files.idx_seeds())
    reader = fuzz_files.READERS["idx"]
    for check, error in (
        (lambda path, data: fuzz_files.check_idx(path, data[:-1] + b"x"), AssertionError),
        (lambda path, data: int("x"), ValueError),  # names no file
        (lambda path, data: {}["x"], KeyError),
    ):
        with pytest.raises(error):
            fuzz_files.run(reader._replace(check=check), str(tmp_path / "file"), content)
