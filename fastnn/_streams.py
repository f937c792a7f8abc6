"""Standard streams that cannot end a program.

A stream may have been closed before the program began (``>&-``), its reader may leave, or its disk may be full.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO


class Stream:
    """A text stream that never fails: it drops what cannot be written, and keeps the error.

    Attributes
    ----------
    error : Exception or None
        The error that ended it.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: Exception | None = None

    def write(self, text: str) -> int:
        """Write text, with escapes for characters that the encoding lacks."""
        encoding = self._stream.encoding or "utf-8"
        try:
            text.encode(encoding, self._stream.errors or "strict")
        except UnicodeEncodeError:
            text = text.encode(encoding, "backslashreplace").decode(encoding)
        self._attempt(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Write what is buffered."""
        self._attempt(self._stream.flush)

    def _attempt(self, act: Callable[[], Any]) -> None:
        if self.error is not None:
            return
        try:
            act()
        except (OSError, ValueError) as error:  # ValueError: the stream is closed
            self.error = error
            with contextlib.suppress(OSError, ValueError):
                # Python flushes the buffer at exit, so it needs somewhere to go.
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)
                self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def fill_descriptors() -> None:
    """Open closed standard streams, so that no file that is opened later takes their number and their output."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number


@contextlib.contextmanager
def lasting_streams() -> Iterator[tuple[Stream, Stream]]:
    """Replace ``sys.stdout`` and ``sys.stderr`` by streams that never fail, and flush these at the end."""
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
