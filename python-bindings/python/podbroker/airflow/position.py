"""Where a trigger stands in the log, kept for the triggerer that takes it over.

A trigger's own row is written once, so the place goes into an XCom of the task, where Airflow 3 lets a trigger write:
each ``SAVE_SECONDS`` while lines come, and at the end of a triggerer that is stopped. One that was killed leaves a
place that is up to so much behind; the next one says so before it repeats lines. Nothing is written for a task without
lines.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import time
from dataclasses import asdict, dataclass
from typing import Any

from podbroker.airflow._compat import AIRFLOW_V_3_0_PLUS, trigger_comms
from podbroker.airflow.backlog import LOOK_SECONDS, is_taken

__all__ = ["Place", "Position", "decoded", "encoded", "forget"]

KEY = "podbroker_log_place"
"""The XCom. Triggerers of two versions may meet here, so the name and the fields of ``Place`` stay."""

SAVE_SECONDS = 10.0
"""How often the place is kept while lines come: one small write to Airflow's database."""

READ_SECONDS = 60.0
"""How long the place is asked for. The first such question of a triggerer has it start an API server within itself,
which was seen to take 25 s on a busy machine."""

WRITE_SECONDS = 5.0
"""How long it is waited for that a write is answered or, by a triggerer that is stopped, read: it may be killed after
10 s. Airflow 3.3 reads no answers any more by then."""

FIRST_SECONDS = 3.0
"""A trigger that begins sooner than this after its task has deferred is the first: another one cannot have begun and
been stopped. It asks for no place, since Airflow writes an error for an XCom that is not there."""

FRESH_SECONDS = 20.0
"""One that begins later than this may have run elsewhere without leaving a place: Airflow takes more than 25 s to
notice that a triggerer was killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What is kept."""

    trigger: int
    """The trigger's id: another one of the same task has another stream of lines."""
    name: str
    """The execution."""
    cursor: str
    """Base64."""
    exact: bool
    """Whether nothing was printed after it."""


@dataclass(slots=True)
class _Process:
    """What the triggers of a process share."""

    has_asked: bool = False
    """Whether one of them has asked Airflow for something."""


_process = _Process()


class Position:
    """The place of one trigger."""

    def __init__(self, *, name: str, began: float) -> None:
        """``began`` is when the task deferred, in seconds since 1970; ``name`` is the execution's."""
        self._name = name
        self._began = began
        self._saved = b""
        self._saved_at = 0.0
        self._was_saved = False
        self._writing: asyncio.Task[None] | None = None

    async def take_over(self, trigger: Any) -> tuple[bytes, bool]:  # noqa: ANN401 -- a BaseTrigger
        """Give the place where another triggerer stopped, if it was kept, and whether lines may come again."""
        age = time.time() - self._began
        place = await self._load(trigger) if age >= FIRST_SECONDS else None
        if place is None:
            return b"", age >= FRESH_SECONDS
        self._was_saved = True
        cursor = decoded(place.cursor)
        if place.exact:
            # True only until the next line.
            await self._write(trigger, cursor, exact=False)
        return cursor, not (place.exact and cursor)

    def advance(self, trigger: Any, cursor: bytes) -> None:  # noqa: ANN401
        """Keep the place now and then, and wait for nothing; called after each piece of lines.

        The first one of a process is kept at once, since it has Airflow start an API server: a process that is being
        stopped has no time for that.
        """
        now = time.monotonic()
        if not self._saved_at and _process.has_asked:
            self._saved_at = now
        elif now - self._saved_at >= SAVE_SECONDS and (self._writing is None or self._writing.done()):
            self._saved_at = now
            self._writing = asyncio.create_task(self._write(trigger, cursor, exact=False))

    async def leave(self, trigger: Any, cursor: bytes, *, exact: bool) -> None:  # noqa: ANN401
        """Keep the place, because another triggerer goes on; ``exact`` if nothing was printed after it."""
        # Also where nothing is kept for the next one but that it has had a predecessor.
        if cursor or not exact:
            # Written after what may still be on its way: the supervisor keeps the order.
            await self._write(trigger, cursor, exact=exact, is_last=True)

    async def drop(self, trigger: Any) -> None:  # noqa: ANN401
        """Take the place away: the task has gone on."""
        if self._writing is not None:
            await asyncio.wait([self._writing])
        if self._was_saved:
            await _ask("DeleteXCom", trigger)

    async def _load(self, trigger: Any) -> Place | None:  # noqa: ANN401
        _process.has_asked = True
        answer = await _ask("GetXCom", trigger)
        kept = getattr(answer, "value", None)
        if not isinstance(kept, dict):
            return None
        try:
            place = Place(**kept)
        except TypeError:
            return None
        return place if (place.trigger, place.name) == (trigger.trigger_id, self._name) else None

    async def _write(self, trigger: Any, cursor: bytes, *, exact: bool, is_last: bool = False) -> None:  # noqa: ANN401
        place = Place(trigger=trigger.trigger_id or 0, name=self._name, cursor=encoded(cursor), exact=exact)
        self._was_saved = _process.has_asked = True
        await _ask("SetXCom", trigger, is_last=is_last, value=asdict(place))


def encoded(cursor: bytes) -> str:
    """Make JSON of a cursor."""
    return base64.b64encode(cursor).decode("ascii")


def decoded(text: str) -> bytes:
    """Read a cursor; empty when it is none."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


async def forget(trigger: Any, key: str) -> None:  # noqa: ANN401 -- a BaseTrigger
    """Take an XCom of the trigger's task away."""
    await _ask("DeleteXCom", trigger, key=key)


async def _ask(what: str, trigger: Any, *, is_last: bool = False, **more: object) -> Any:  # noqa: ANN401
    """Ask Airflow; None when it does not answer, since a place that is not kept costs repeated lines only.

    Of the last question of a process it is enough that it was read.
    """
    ti = trigger.task_instance
    comms = trigger_comms() if AIRFLOW_V_3_0_PLUS else None
    if comms is None or ti is None:
        return None
    from airflow.sdk.execution_time import comms as messages

    mapped = ti.map_index if ti.map_index is not None and ti.map_index >= 0 else None
    which = {"key": KEY, "dag_id": ti.dag_id, "run_id": ti.run_id, "task_id": ti.task_id, "map_index": mapped} | more
    try:
        until = time.monotonic() + (READ_SECONDS if what == "GetXCom" else WRITE_SECONDS)
        # Finished whoever stops waiting: before 3.3 an answer that nobody has read is taken for the next question's.
        asking = asyncio.ensure_future(comms.asend(getattr(messages, what)(**which)))
        asking.add_done_callback(lambda asked: asked.cancelled() or asked.exception())
        while not asking.done() and (left := until - time.monotonic()) > 0:
            await asyncio.wait([asking], timeout=min(left, LOOK_SECONDS) if is_last else left)
            if is_last and is_taken(comms):
                return None
        return asking.result() if asking.done() else None
    except Exception as error:  # noqa: BLE001 -- of Airflow's API, its database, or a supervisor that is gone
        trigger.log.debug("The place in the log: %s failed: %r", what, error)
        return None
