"""The repository around these tests, which the source distribution does not have.

A test that looks at one of the repository's pages or DAGs gets it here, and is skipped where there is no repository.
"""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
IS_HERE = (ROOT / "Makefile").is_file()
PROJECT = ROOT / "python-bindings" if IS_HERE else ROOT
"""Where the package's page and its ``pyproject.toml`` are: a source distribution has them at its top."""


def place(*parts: str) -> Path:
    """Give a place in the repository; without one, skip the test or, at its import, the module."""
    if not IS_HERE:
        pytest.skip(f"elsewhere: {'/'.join(parts)} is in the repository only", allow_module_level=True)
    return ROOT.joinpath(*parts)


def page(*parts: str) -> str:
    """Read a page of ``docs``, likewise."""
    return place("docs", *parts).read_text()
