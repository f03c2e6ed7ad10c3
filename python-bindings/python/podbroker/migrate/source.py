"""A Python file as text, so that edits keep every other byte: encoding, byte order mark, line ends, form feeds.

libcst drops byte order marks and form feeds and knows no line that ends with a carriage return alone, so it is given a
text without them, and the places that it finds are counted back into the file's own text.
"""

from __future__ import annotations

import codecs
import io
import re
import tokenize
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Edit", "Source", "SourceError", "apply", "place_after"]

_LINE_END = re.compile("\r\n?|\n")
_LONE_RETURN = re.compile("\r(?!\n)")
_FORM_FEED = "\x0c"


class SourceError(Exception):
    """A file that cannot be read as Python; the message says why, and ``line`` where if that is known."""

    def __init__(self, message: str, *, line: int = 1) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True, order=True)
class Edit:
    """Puts ``text`` in the place of what is between two offsets."""

    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Source:
    """The text of a file."""

    text: str
    encoding: str
    has_mark: bool
    """Whether the file begins with a byte order mark, which ``text`` leaves out."""

    @classmethod
    def of(cls, content: bytes) -> Source:
        """Decode as Python does. Raises ``SourceError`` when the bytes are not in the encoding that the file names."""
        try:
            encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
        except SyntaxError as error:
            raise SourceError(str(error)) from error
        has_mark = content.startswith(codecs.BOM_UTF8)
        encoding = "utf-8" if has_mark else encoding
        body = content[len(codecs.BOM_UTF8) :] if has_mark else content
        try:
            text = body.decode(encoding)
        except UnicodeDecodeError as error:
            line = 1 + body.count(b"\n", 0, error.start)
            raise SourceError(f"not {encoding}: {error.reason}", line=line) from error
        source = cls(text=text, encoding=encoding, has_mark=has_mark)
        if source.encode(text) != content:
            raise SourceError(f"the encoding {encoding} does not give the same bytes back")
        return source

    def encode(self, text: str) -> bytes:
        """Give the bytes of a text in this file's encoding. Raises ``SourceError`` for a character it does not have."""
        try:
            content = text.encode(self.encoding)
        except UnicodeEncodeError as error:
            raise SourceError(f"cannot be written in {self.encoding}: {error.reason}") from error
        return codecs.BOM_UTF8 + content if self.has_mark else content

    @cached_property
    def plain(self) -> str:
        """The text that libcst is given."""
        text = _LONE_RETURN.sub("\n", self.text.replace(_FORM_FEED, ""))
        # libcst loses some of the blank lines behind the last statement, so a statement is put behind them.
        return f"{text}\npass\n"

    def offset(self, line: int, column: int) -> int:
        """Count a place that libcst found (line from 1, column from 0) into ``text``."""
        place = self._plain_lines[line - 1] + column
        # As many form feeds as lie before the place in the text; each moves the next ones by one.
        return place + bisect_right(self._form_feeds, place)

    def position(self, offset: int) -> tuple[int, int]:
        """Give line and column, both from 1, of an offset in ``text``."""
        line = bisect_right(self._lines, offset)
        return line, offset - self._lines[line - 1] + 1

    @cached_property
    def newline(self) -> str:
        """The line end that the file uses first."""
        found = _LINE_END.search(self.text)
        return found.group() if found else "\n"

    def line_start(self, number: int) -> int:
        """Give the offset at which a line of ``text`` begins."""
        return self._lines[number - 1]

    def line(self, number: int) -> str:
        """Give a line of ``text`` without its end."""
        end = self._lines[number] if number < len(self._lines) else len(self.text)
        return self.text[self._lines[number - 1] : end].rstrip("\r\n")

    @cached_property
    def _lines(self) -> list[int]:
        return _starts(self.text)

    @cached_property
    def _plain_lines(self) -> list[int]:
        return _starts(self.plain)

    @cached_property
    def _form_feeds(self) -> list[int]:
        found = [at for at, character in enumerate(self.text) if character == _FORM_FEED]
        return [at - before for before, at in enumerate(found)]


def apply(text: str, edits: Iterable[Edit]) -> str:
    """Apply edits that do not overlap; of several at one place the one that only inserts comes first."""
    parts, at = [], 0
    for edit in sorted(edits):
        if edit.start < at:
            message = f"two edits overlap at {edit.start}"
            raise ValueError(message)
        parts += [text[at : edit.start], edit.text]
        at = edit.end
    return "".join([*parts, text[at:]])


def place_after(offset: int, edits: Iterable[Edit]) -> int:
    """Say where an offset of the old text lies in the new one."""
    moved = offset
    for edit in edits:
        if edit.end <= offset:
            moved += len(edit.text) - (edit.end - edit.start)
        elif edit.start < offset:
            # Inside of what was replaced: its beginning is the nearest place that still exists.
            moved -= offset - edit.start
    return moved


def _starts(text: str) -> list[int]:
    return [0, *(found.end() for found in _LINE_END.finditer(text))]
