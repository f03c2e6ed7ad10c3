"""Unified diffs of bytes, as ``git apply`` and ``patch`` take them."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["difference"]

_NO_END = b"\n\\ No newline at end of file\n"


def difference(name: str, old: bytes, new: bytes) -> bytes:
    """Give the difference of two contents of a file."""
    lines = difflib.diff_bytes(
        difflib.unified_diff, _lines(old), _lines(new), f"a/{name}".encode(), f"b/{name}".encode(), lineterm=b"\n"
    )
    return b"".join(line if line.endswith(b"\n") else line + _NO_END for line in lines)


def _lines(content: bytes) -> list[bytes]:
    """Split at line feeds only, as those programs do; ``bytes.splitlines`` knows more ends."""
    return list(_split(content))


def _split(content: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(content):
        end = content.find(b"\n", start) + 1 or len(content)
        yield content[start:end]
        start = end
