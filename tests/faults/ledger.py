"""Compares what was written with what a caller received. Pure.

A line is known by its time and its bytes. What was received must be a part of what was written, in its order; where
lines are left out there must be a marker, and where none are there must be none.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from faults.witness import Line


@dataclass(frozen=True, kw_only=True)
class Marker:
    """The caller was told that lines are missing here."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Account:
    """Counts of lines, of one container instance or of several."""

    written: int = 0
    received: int = 0
    doubled: int = 0
    """Received again, or later than a line that was written after them."""
    invented: int = 0
    """Received and never written."""
    marked: int = 0
    """Missing where a marker says so."""
    lost: int = 0
    """Missing where nothing says so."""
    markers: int = 0
    false_markers: int = 0
    """Markers where nothing is missing."""

    def __add__(self, other: Account) -> Account:
        """Adds up."""
        return Account(**{name: getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__})

    @property
    def problems(self) -> list[str]:
        """What breaks the promise."""
        counted = (
            (self.lost, "lost"),
            (self.doubled, "doubled or out of order"),
            (self.invented, "never written"),
            (self.false_markers, "markers where nothing is missing"),
        )
        return [f"{count} {what}" for count, what in counted if count]


def compare(written: Sequence[Line], received: Iterable[Line | Marker]) -> Account:
    """Compares the lines of one container instance."""
    places: dict[Line, list[int]] = defaultdict(list)
    for index, line in enumerate(written):
        places[line].append(index)
    taken: dict[Line, int] = defaultdict(int)
    next_index = 0
    pending: list[Marker] = []
    got = doubled = invented = marked = lost = markers = false_markers = 0

    def settle(until: int) -> None:
        nonlocal marked, lost, false_markers
        missing = until - next_index
        if pending and missing:
            marked += missing
            # Two markers in a row are two reasons for one hole.
        elif missing:
            lost += missing
        else:
            false_markers += len(pending)
        pending.clear()

    for item in received:
        if isinstance(item, Marker):
            markers += 1
            pending.append(item)
            continue
        got += 1
        known = places.get(item)
        if known is None:
            invented += 1
            continue
        while taken[item] < len(known) and known[taken[item]] < next_index:
            taken[item] += 1
        if taken[item] == len(known):
            doubled += 1
            continue
        index = known[taken[item]]
        taken[item] += 1
        settle(index)
        next_index = index + 1
    settle(len(written))
    return Account(
        written=len(written),
        received=got,
        doubled=doubled,
        invented=invented,
        marked=marked,
        lost=lost,
        markers=markers,
        false_markers=false_markers,
    )
