"""One row of the matrix: what it breaks, how the execution has to end, and what came of it."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from faults.ledger import Account

if TYPE_CHECKING:
    from collections.abc import Callable

    from faults.stage import Stage

SUCCEEDED: Final = "SUCCEEDED"


class Place(enum.Enum):
    """What a row breaks."""

    BESIDE = enum.auto()
    """Its own pod, broker or connections: others run at the same time."""
    ALONE = enum.auto()
    """The cluster."""


class Length(enum.Enum):
    """Where a row runs."""

    CORE = enum.auto()
    """Also with the end-to-end tests: it is short and needs no settings of the cluster's own."""
    LONG = enum.auto()
    """In `make faults` only."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is done, and how the execution has to end."""

    fault: str
    """The name, in the words of a person who fears it."""
    play: Callable[[Stage], None]
    """Runs a pod and breaks something; returns when every judged reader has ended."""
    ends: str = SUCCEEDED
    """State, and failure class if there is one."""
    place: Place = Place.BESIDE
    length: Length = Length.LONG
    made: int = 1
    """How many pods must be made, or jobs where AWS Batch makes the pods."""
    duplicates: int = 0
    """How many of the jobs must be found to be made twice, ended and counted."""
    may_be_unsure: bool = False
    """A marker may stand where nothing is missing: only where a pod goes before it is known to have said all."""
    may_give_up: bool = False
    """Lines may be given up at the drain deadline, with a marker: only where something never ends."""

    @property
    def target(self) -> str:
        """A name that fits into a label."""
        letters = "".join(one if one.isalnum() else "-" for one in self.fault.lower())
        return "-".join(part for part in letters.split("-") if part)[:60].rstrip("-")


@dataclass(kw_only=True)
class Verdict:
    """What came of a row."""

    row: Row
    seen: str = ""
    """What the caller saw."""
    account: Account = field(default_factory=Account)
    made: int = 0
    left: int = 0
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0
    log: str = ""
    """The ends of the brokers' logs, for a row that failed."""

    @property
    def holds(self) -> bool:
        """Whether the promise was kept."""
        return not self.problems
