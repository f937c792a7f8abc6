"""Standard streams for a program whose work matters more than what it says about it.

A stream may have been closed before the program began (``>&-``), its reader may leave, or its disk may be full.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO


class Stream:
    """A text stream that never fails: what cannot be written is dropped, and why is remembered.

    Attributes
    ----------
    error : Exception or None
        What ended it.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: Exception | None = None

    def write(self, text: str) -> int:
        """Write text; what the encoding does not have, as escapes."""
        encoding = self._stream.encoding or "utf-8"
        try:
            text.encode(encoding, self._stream.errors or "strict")
        except UnicodeEncodeError:
            text = text.encode(encoding, "backslashreplace").decode(encoding)
        self._attempt(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Write what is kept back."""
        self._attempt(self._stream.flush)

    def _attempt(self, act: Callable[[], Any]) -> None:
        if self.error is not None:
            return
        try:
            act()
        except (OSError, ValueError) as error:  # the system's, and that of a closed stream
            self.error = error
            with contextlib.suppress(OSError, ValueError):
                # What it keeps back must go somewhere, for Python will write it at exit.
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)
                self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def fill_descriptors() -> None:
    """Open standard streams that are closed, lest a file that is opened later take their place and their output."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest that is free


@contextlib.contextmanager
def lasting_streams() -> Iterator[tuple[Stream, Stream]]:
    """Put streams that never fail in place of ``sys.stdout`` and ``sys.stderr``, and flush them at the end."""
    fill_descriptors()
    before = sys.stdout, sys.stderr
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        streams = Stream(before[0] or nowhere), Stream(before[1] or nowhere)
        sys.stdout, sys.stderr = streams
        try:
            yield streams
        finally:
            for stream in streams:
                stream.flush()
            sys.stdout, sys.stderr = before
