"""What the commands of ``fastnn`` have in common: how they parse, name files and save."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

INTERRUPTED = 130  # 128 + SIGINT, as in shells


def percent(fraction: float) -> str:
    """Return a fraction as text in percent."""
    return f"{100 * fraction:.2f} %"


def plural(count: int, noun: str) -> str:
    """Return a count and its noun."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Raise ValueError, which says what is wrong."""
        raise ValueError(f"{message} (see {self.prog} --help)")


def adds_arguments(parser: argparse.ArgumentParser) -> Callable[..., Any]:
    """Return a function that adds an argument to a parser, and its default to the help text."""

    def argument(flag: str, text: str, default: Any = None, **options: Any) -> None:
        if default is not None:
            shown = " ".join(map(str, default)) if isinstance(default, list) else default
            text, options = f"{text} (default: {shown})", options | {"default": default}
        parser.add_argument(flag, help=text, **options)

    return argument


def free_name(wanted: str) -> str:
    """Return the wanted name, or the first free one of wanted-2, wanted-3, ... if such a file exists."""
    path, count = Path(wanted), 1
    while path.exists():
        count += 1
        path = Path(wanted).with_stem(f"{Path(wanted).stem}-{count}")
    return str(path)


def save_somewhere(model: Any, path: str, name: str) -> tuple[str, int]:
    """Save a model, under this name elsewhere if the path can no longer be written; return path and status."""
    try:
        model.save(path)
        return path, 0
    except OSError as error:
        failure = error
    for folder in (".", tempfile.gettempdir()):
        with contextlib.suppress(OSError):
            instead = os.path.normpath(free_name(os.path.join(folder, name)))
            model.save(instead)
            print(f"fastnn train: error: {path}: {failure.strerror}; saved as {instead} instead", file=sys.stderr)
            return instead, 2
    raise failure
