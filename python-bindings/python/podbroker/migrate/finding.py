"""What a person has to look at, and where."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["Finding", "Level"]


class Level(Enum):
    """How much it matters."""

    PERSON = "person"
    """The file is not right before a person has looked; ``--check`` fails."""
    NOTE = "note"
    """Good to know."""


@dataclass(frozen=True)
class Finding:
    """One place in a file."""

    offset: int
    """Where, in the file's text."""
    level: Level
    code: str
    """A short name for what was found, the same for all places of its kind."""
    message: str
