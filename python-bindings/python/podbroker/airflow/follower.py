"""What a trigger does: it follows one execution, prints its lines, and hands its place on.

Apart from the trigger itself, since what this needs takes seconds to import, and Airflow imports a trigger's class
while all other triggers of the process wait.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from asgiref.sync import sync_to_async

from podbroker import (
    ExecutionState,
    InvalidCursorError,
    LogChunk,
    LogGap,
    LogStreamEnd,
    PodbrokerError,
    StateChanged,
    UnavailableError,
)
from podbroker.airflow.backlog import ROOM, drained, unread
from podbroker.airflow.channel import channel_of
from podbroker.airflow.kill import Verdict, verdict_of
from podbroker.airflow.lines import AuthorsCodeError, Lines, LinesAway, print_each
from podbroker.airflow.pods import PodClient, pod_of
from podbroker.airflow.position import Position, decoded, encoded
from podbroker.airflow.progress import Progress
from podbroker.airflow.trigger_end import TriggerEnd

if TYPE_CHECKING:
    from podbroker import Event
    from podbroker.airflow.channel import Channel
    from podbroker.airflow.lines import Printed
    from podbroker.airflow.trigger import RemotePodTrigger
    from podbroker.watch_many import Follow

__all__ = ["Follower"]

_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()
"""Who has it may print. The loop runs whoever is ready before it looks at anything else: a hundred triggers that print
a little each would hold it up as one does that prints much."""

LINES_AT_ONCE = 50
"""How many lines are printed until the event loop has its turn: about 5 ms of work for the logging of Airflow."""

KILL_SECONDS = 25.0
"""How long a kill takes at most, with the last lines and their reading: Airflow gives it 30 s."""

READ_SECONDS = 60.0
"""How long Airflow's supervisor may take to read the lines; then more are printed, or the task goes on, without it."""

LEAVE_SECONDS = 4.0
"""The same for a triggerer that is stopped: it may be killed after 10, and has its place to keep then."""

LATE_SECONDS = 60.0
"""How long the end of what was cancelled because the task took too long is waited for: twice a default grace."""


class Follower:
    """Follows the execution of one trigger."""

    def __init__(self, trigger: RemotePodTrigger) -> None:
        """Nothing is asked of anybody yet."""
        self._trigger = trigger
        self._name = trigger.name
        self._noun = trigger.noun
        # As the task's logger: what it writes is told apart by the context of the trigger's coroutine.
        self._log: Any = trigger.log
        self._position = Position(name=trigger.name, began=trigger.began)
        self._end = TriggerEnd(trigger)
        self._channel: Channel | None = None
        self._follow: Follow | None = None
        self._progress: Progress | None = None
        self._lines: Lines | None = None
        self._cursor = decoded(trigger.cursor)
        # The same of what Airflow's supervisor is known to have read.
        self._read = self._cursor
        # What a cancellation has interrupted: an event, and how many of its lines were printed.
        self._interrupted: tuple[Event, int] | None = None
        # Lines of some container were printed after it.
        self._is_behind = False
        self._late_until: float | None = None

    async def kill(self) -> None:
        """End the execution, and show its last lines.

        Airflow also calls this of a triggerer that was taken for dead, when another one has the task: that one's
        execution is left alone.
        """
        until = time.time() + KILL_SECONDS
        state = await self._end.state()
        if state == "deferred":
            self._log.info("The task is deferred still: its %s is left to another triggerer", self._noun)
            return
        if await self._end.cancel("The Airflow task was killed while it was deferred", channel=self._channel):
            # Whoever has the task otherwise has not taken the outcome over yet.
            await self._show_last_lines(until, release=verdict_of(state) is Verdict.CANCEL)
        await drained(to=0, seconds=max(LEAVE_SECONDS, until - time.time()))

    async def done(self) -> None:
        """See to it that all lines are in the task's log; take away what was kept for another triggerer."""
        await drained(to=0, seconds=READ_SECONDS)
        await self._position.drop(self._trigger)

    async def leave(self) -> None:
        """Keep the place for another triggerer. Below Airflow 3.3 also find out whether the task was killed.

        It is the one after the last line that Airflow has read: what a process has logged last is lost with it.
        """
        if await self._end.was_killed(channel=self._channel):
            return
        if await drained(to=0, seconds=LEAVE_SECONDS):
            self._read = self._cursor
        is_exact = self._read == self._cursor and not self._is_behind
        await self._position.leave(self._trigger, self._read, exact=is_exact)

    async def left_to_worker(self) -> dict[str, Any]:
        """Give what the event says of an execution that has ended before it was followed here."""
        cursor, may_repeat = await self._position.take_over(self._trigger)
        after = "it had ended while no triggerer followed it"
        return {
            **self._payload("error", message=f"The {self._noun} has ended"),
            "to_worker": True,
            "after": after,
            "may_repeat": may_repeat,
            "cursor": encoded(cursor or self._cursor),
        }

    async def release(self, *, is_over: bool) -> None:
        """Release the execution of a task that has ended, which is asked for unless it is known."""
        if self._channel is not None:
            await self._end.release(is_over=is_over, channel=self._channel)

    @property
    def progress(self) -> Progress | None:
        """What is known of the execution; None while nothing is."""
        return self._progress

    def close(self) -> None:
        """Follow no longer. The execution runs on."""
        if self._follow is not None:
            self._follow.close()

    def failure(self, error: Exception) -> dict[str, Any]:
        """Give what the event says when the execution cannot be followed here."""
        if isinstance(error, AuthorsCodeError):
            # It would raise again in each triggerer. It may quote a line, and the event is stored.
            return {**self._payload("error", message=type(error.__cause__).__name__), "to_worker": True}
        said = f": {error}" if isinstance(error, PodbrokerError) else ""
        return self._payload("error", message=f"{type(error).__name__}{said}")

    async def follow(self) -> dict[str, Any]:
        """Follow the execution to its end, or to the task's deadline; give what the event says."""
        self._channel = await channel_of(self._trigger.podbroker_conn_id)
        try:
            # As all that runs code of users, which may ask Airflow for something: see channel.py.
            self._lines = await sync_to_async(Lines.from_json, thread_sensitive=False)(
                self._trigger.lines, log=self._log, client=self._pod_client(self._channel)
            )
        except LinesAway as error:
            self._log.warning("The worker prints the lines of the %s at its end, because here %s", self._noun, error)
        await self._take_over()
        self._open(self._cursor)
        while True:
            event = await self._next()
            if event is None:
                if self._late_until is not None:
                    return self._payload("timeout", message=f"The {self._noun} has not ended yet")
                await self._be_late()
                continue
            await self._handle(event)
            progress = self._progress
            if progress is not None and progress.ended:
                return self._ending(progress)

    def _pod_client(self, channel: Channel) -> PodClient:
        """Make what callbacks get; they run in a thread, so it may wait."""
        client = channel.client
        return PodClient(
            read=lambda: pod_of(client.get(self._name, full=True)),
            cancel=lambda reason: client.cancel(self._name, claim=self._trigger.claim, reason=reason),
            open_log=lambda **what: client.watch(self._name, follow=False, **what),
            base_container=(self._trigger.lines or {}).get("base_container", ""),
        )

    async def _take_over(self) -> None:
        cursor, may_repeat = await self._position.take_over(self._trigger)
        self._cursor = self._read = cursor or self._cursor
        if may_repeat and self._lines is not None:
            since = "the last seconds before" if cursor else "the beginning"
            self._log.warning("Another triggerer may have gone before: lines from %s may come again below", since)

    def _open(self, cursor: bytes) -> None:
        if self._channel is None:
            return
        wanted = self._lines.printer.wanted if self._lines is not None else None
        many = self._channel.many
        self._follow = many.follow(self._name, cursor=cursor, logs=wanted is not None, containers=wanted or ())

    async def _next(self) -> Event | None:
        """Wait for the next event; None when the task has taken too long, or what it ran takes too long to end."""
        if self._follow is None:
            return None
        try:
            until = self._late_until or self._trigger.deadline
            if until is None:
                return await anext(self._follow)
            return await asyncio.wait_for(anext(self._follow), max(0.0, until - time.time()))
        except asyncio.TimeoutError:
            return None
        except StopAsyncIteration:
            message = f"the broker's stream ended without an end of {self._name}"
            raise UnavailableError(message) from None
        except InvalidCursorError as error:
            if not self._cursor:
                raise
            self._log.warning("The place in the log that was kept is not valid; lines may be printed again: %s", error)
            self._cursor = b""
            self._open(b"")
            return await self._next()

    async def _handle(self, event: Event, *, done: int = 0) -> None:
        self._interrupted = (event, done)
        if unread() == 0:
            self._read = self._cursor
        has_user_code = self._lines is not None and self._lines.has_user_code
        if isinstance(event, LogChunk) and self._progress is not None:
            await self._handle_lines(event, self._progress, done)
        elif has_user_code and isinstance(event, LogGap | LogStreamEnd) and self._progress is not None:
            # They end a line that was half read. A thread cannot be stopped: it counts as printed.
            self._interrupted = None
            await self._in_thread(self._progress, event)
        else:
            async with _turn():
                self._handle_now(event)
                await asyncio.sleep(0)
        self._interrupted = None

    def _handle_now(self, event: Event) -> None:
        if self._progress is None:
            if not isinstance(event, StateChanged):
                return
            # Whoever prints nothing says nothing of states either: the worker does, with the lines.
            printer = self._lines.printer if self._lines is not None else Lines.silent().printer
            self._progress = Progress(execution=event.execution, printer=printer, log=self._log, noun=self._noun)
            if not self._progress.started():
                attempt = self._progress.attempt
                named = self._trigger.pod_name or (attempt.batch_job_id if attempt is not None else "") or self._name
                self._progress.open_group(f"Waiting for {self._noun} {named} to start")
        self._progress.handle(event)
        self._advance(self._progress, event, event.cursor)
        self._interrupted = None

    async def _handle_lines(self, chunk: LogChunk, progress: Progress, done: int) -> None:
        while done < len(chunk.lines):
            after = min(done + LINES_AT_ONCE, len(chunk.lines))
            if self._lines is not None and self._lines.has_user_code:
                # A thread cannot be stopped: what it was given counts as printed.
                begin, done = done, after
                self._interrupted = (chunk, done)
                await self._in_thread(progress, chunk, begin=begin, end=after)
            else:
                async with _turn():
                    await drained(to=ROOM, seconds=READ_SECONDS)
                    progress.handle(replace(chunk, lines=chunk.lines[done:after]))
                    self._advance(progress, chunk, _cursor_after(chunk, after))
                    done = after
                    self._interrupted = (chunk, done)
                    await asyncio.sleep(0)
        self._position.advance(self._trigger, self._cursor)

    async def _in_thread(self, progress: Progress, event: Event, *, begin: int = 0, end: int = 0) -> None:
        """Print an event, of a chunk the lines from ``begin`` to ``end``, by code of users."""
        printing = asyncio.ensure_future(sync_to_async(print_each, thread_sensitive=False)(progress, event, begin, end))
        try:
            await asyncio.shield(printing)
        except asyncio.CancelledError:
            await asyncio.wait([printing])
            self._took(progress, event, printing.result())
            raise
        self._took(progress, event, printing.result())
        error = printing.result().error
        if isinstance(error, PodbrokerError):
            raise error
        if error is not None:
            raise AuthorsCodeError(f"{type(error).__name__}: {error}") from error

    def _took(self, progress: Progress, event: Event, printed: Printed) -> None:
        """Go on after what was printed, also where the rest of it was not."""
        if not isinstance(event, LogChunk):
            if printed.error is None:
                self._advance(progress, event, event.cursor)
        elif printed.error is None:
            self._advance(progress, event, _cursor_after(event, printed.done))
        elif printed.whole:
            self._cursor, self._is_behind = _cursor_after(event, printed.whole), False

    def _advance(self, progress: Progress, event: Event, cursor: bytes) -> None:
        if progress.may_resume_after(event) and cursor:
            self._cursor, self._is_behind = cursor, False
        elif isinstance(event, LogChunk):
            self._is_behind = True

    async def _be_late(self) -> None:
        self._late_until = time.time() + LATE_SECONDS
        if self._progress is None or self._progress.outcome is None:
            await self._end.cancel("The execution_timeout of the Airflow task has passed", channel=self._channel)

    async def _show_last_lines(self, until: float, *, release: bool) -> None:
        self._late_until = until
        try:
            if self._interrupted is not None:
                interrupted, done = self._interrupted
                await self._handle(interrupted, done=done)
            while self._progress is None or not self._progress.ended:
                event = await self._next()
                if event is None:
                    return
                await self._handle(event)
            if release and self._channel is not None:
                await self._channel.client.release_async(self._name, claim=self._trigger.claim)
        except PodbrokerError as error:
            self._log.info("The last lines of the %s are not known: %s", self._noun, error)

    def _ending(self, progress: Progress) -> dict[str, Any]:
        outcome = progress.outcome
        succeeded = outcome is not None and outcome.state is ExecutionState.SUCCEEDED
        if self._late_until is not None and not succeeded:
            said = f"The {self._noun} was cancelled: the task's execution_timeout has passed"
            return self._payload("timeout", message=said)
        message = "" if outcome is None else outcome.message
        return self._payload("success" if succeeded else "failed", message=message or f"The {self._noun} has ended")

    def _payload(self, status: str, *, message: str) -> dict[str, Any]:
        progress = self._progress
        attempt = progress.attempt if progress is not None else None
        # Where lines are not printed here, the worker prints them, and nothing is done yet.
        shown = self._lines is not None or self._trigger.lines is None
        complete = shown and progress is not None and progress.ended
        return {
            "status": status,
            "message": message,
            "name": attempt.pod_name if attempt is not None else self._trigger.pod_name,
            "namespace": attempt.pod_namespace if attempt is not None else self._trigger.pod_namespace,
            "complete": complete,
            # Of use also when all is printed: a worker that is drained then hands it to the next one.
            "cursor": encoded(self._cursor if shown else decoded(self._trigger.cursor)),
        }


def _cursor_after(chunk: LogChunk, lines: int) -> bytes:
    return chunk.cursor if lines == len(chunk.lines) else chunk.cursor_after(lines)


def _turn() -> asyncio.Lock:
    return _turns.setdefault(asyncio.get_running_loop(), asyncio.Lock())
