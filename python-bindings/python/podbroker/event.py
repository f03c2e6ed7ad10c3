"""What a watch says: states, log lines, gaps, notices, the result, the end.

Each event carries ``cursor``, the opaque position after it: a watch that starts there continues with the next one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from podbroker.execution import _Word

if TYPE_CHECKING:
    from datetime import datetime

    from podbroker.execution import Attempt, ContainerRole, Execution, Outcome, ResultSource

__all__ = [
    "AttemptEnded",
    "AttemptStarted",
    "ContainerInstance",
    "End",
    "Event",
    "GapReason",
    "LogChunk",
    "LogGap",
    "LogLine",
    "LogStreamEnd",
    "Notice",
    "NoticeSeverity",
    "Result",
    "StateChanged",
]


class GapReason(_Word):
    """Why lines are missing."""

    UNKNOWN = "UNKNOWN"
    ROTATED = "ROTATED"
    POD_DELETED = "POD_DELETED"
    RESUME_AMBIGUOUS = "RESUME_AMBIGUOUS"
    BUDGET_EXCEEDED = "BUDGET_EXCEEDED"
    DRAIN_DEADLINE = "DRAIN_DEADLINE"
    REFUSED = "REFUSED"
    SLOW_READER = "SLOW_READER"


class NoticeSeverity(_Word):
    """How much a notice matters."""

    UNKNOWN = "UNKNOWN"
    INFO = "INFO"
    WARNING = "WARNING"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerInstance:
    """The lifetime of one container between two restarts."""

    attempt: int
    """1 for the first."""
    container: str
    restart: int
    """0 before the first restart."""
    role: ContainerRole


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """One line, or a piece of a long one."""

    time_ns: int
    """Nanoseconds since 1970-01-01T00:00:00Z, as the container runtime stamped them. May go backwards."""
    content: bytes
    """Without the final newline. Not necessarily UTF-8. At most 64 KiB."""
    continues: bool
    """This piece starts where the piece before it ended."""
    partial: bool
    """The line goes on in the next piece."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChanged:
    """The execution changed; the first event of every watch is one of these."""

    cursor: bytes = field(repr=False)
    execution: Execution


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptStarted:
    """An attempt's pod was created."""

    cursor: bytes = field(repr=False)
    attempt: Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEnded:
    """An attempt ended. This is not the end of the execution: another may follow."""

    cursor: bytes = field(repr=False)
    attempt: Attempt
    outcome: Outcome | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogChunk:
    """Lines of one container instance, at least one."""

    cursor: bytes = field(repr=False)
    instance: ContainerInstance
    lines: tuple[LogLine, ...]
    line_cursor: bytes = field(repr=False)
    """The base of ``cursor_after``."""

    def cursor_after(self, k: int) -> bytes:
        """Give the position after the k-th line of this chunk, 1 for the first."""
        if not 1 <= k <= len(self.lines):
            message = f"the chunk has the lines 1 to {len(self.lines)}, not {k}"
            raise ValueError(message)
        return self.line_cursor + k.to_bytes(4, "big")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogGap:
    """Lines of a container instance are missing here."""

    cursor: bytes = field(repr=False)
    instance: ContainerInstance
    reason: GapReason
    after: datetime | None
    """The time of the last line before the gap, if there was one."""
    before: datetime | None
    """The time of the first line after the gap, if there is one."""
    lines_at_least: int
    """0 when nothing is known."""
    message: str
    """One sentence for a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogStreamEnd:
    """Nothing more comes from this container instance."""

    cursor: bytes = field(repr=False)
    instance: ContainerInstance
    complete: bool
    """Every line was sent, apart from the gaps that were reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something a person should know; no state changed."""

    cursor: bytes = field(repr=False)
    code: str
    """Stable and for a program, such as ``PULLING_IMAGE``; new ones may come."""
    message: str
    severity: NoticeSeverity


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The value that the execution handed back. At most once, before the end."""

    cursor: bytes = field(repr=False)
    source: ResultSource
    content: bytes
    """The bytes of the file, unchanged; meant to be JSON."""
    problem: str
    """Why there is no value although one was asked for; empty otherwise."""
    not_json: str = ""
    """Why the content is no JSON (RFC 8259), with line and column; empty if it is, or if there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The execution is over and everything was sent. Always the last event."""

    cursor: bytes = field(repr=False)
    execution: Execution
    """With its outcome."""


Event: TypeAlias = (
    StateChanged | AttemptStarted | AttemptEnded | LogChunk | LogGap | LogStreamEnd | Notice | Result | End
)
"""One item of a watch."""
