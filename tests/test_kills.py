"""A short run of the tool that kills, in a process of its own since it forks; and that it sees damage."""

import os
import subprocess
import sys

import kills
import pytest


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_killed_fits_and_files_are_whole():
    command = [sys.executable, kills.__file__, "--kills", str(len(kills.TASKS))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "all whole" in done.stdout


@pytest.mark.parametrize("name", ["shards", "fastnn train", "saving"])
@pytest.mark.parametrize(
    ("file", "content"),
    [
        (kills.CHECKPOINT, b"half"),
        (kills.HISTORY, b"epoch,log_likelihood,objective\n1,-0.5,-0.5\n2,-0."),
        (kills.HISTORY, b"epoch,log_likelihood\n1,-0.5\n2,-0.4"),
        (kills.HISTORY, b"epoch,log_likelihood\n1,-0.5\n3,-0.4\n"),
    ],
)
def test_half_a_file_is_seen(name, file, content, tmp_path):
    task = kills.TASKS[name]
    task.check(tmp_path)
    (tmp_path / file).write_bytes(content)
    with pytest.raises((AssertionError, ValueError)):
        task.check(tmp_path)
