"""The one loop over the one stream: prints what comes, keeps what is known, stops when its predicate holds.

Every step of the operator (started, completed, over) is a predicate over the same pump, so nothing is asked for twice
and no line waits for a step. Before each event ``checkpoint`` is called: it raises when the task was told to end. The
watch itself reconnects by its cursor; a broker that is away for an hour costs silence and nothing else.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from podbroker import (
    AttemptEnded,
    AttemptStarted,
    End,
    ExecutionState,
    ExpiredError,
    InvalidCursorError,
    LogChunk,
    LogGap,
    LogStreamEnd,
    NotFoundError,
    Notice,
    PodbrokerError,
    Result,
    StateChanged,
)
from podbroker.airflow.exceptions import RemotePodLost
from podbroker.airflow.failure import exception_of_error, why

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk._shared.logging.types import Logger

    from podbroker import Attempt, Event, Execution, Outcome
    from podbroker.airflow.logs import LinePrinter

__all__ = ["Pump", "WatchProtocol"]

POLL_SECONDS = 1.0
"""How long one wait for an event lasts. A signal wakes the watch; this bounds whatever might be missed."""


class WatchProtocol(Protocol):
    """What the pump needs of ``podbroker.Watch``."""

    @property
    def ended(self) -> bool:
        """Whether the last event was handed out."""

    @property
    def cursor(self) -> bytes:
        """The position after the last event handed out."""

    def poll(self, timeout: float | None = None) -> Event | None:
        """Wait for the next event, in seconds."""

    def wake(self) -> None:
        """End a wait at once."""

    def close(self) -> None:
        """End the watch."""


class Pump:
    """Follows one execution to its end."""

    def __init__(
        self,
        *,
        open_watch: Callable[[bytes], WatchProtocol],
        execution: Execution,
        printer: LinePrinter,
        log: Logger,
        checkpoint: Callable[[], None],
        cursor: bytes = b"",
    ) -> None:
        """Begin to follow after ``cursor``.

        ``open_watch`` makes a watch that begins there; ``execution`` is what is known; ``checkpoint`` raises when the
        task has to end.
        """
        self._open_watch = open_watch
        self._begun_at = cursor
        self._watch = open_watch(cursor)
        self._printer = printer
        self._log = log
        self._checkpoint = checkpoint
        self._in_group = False
        self._said = ""
        self.execution = execution
        self.result: Result | None = None
        self.result_missing = False
        self.ended = False

    @property
    def outcome(self) -> Outcome | None:
        """How the execution ended, as soon as that is known."""
        return self.execution.outcome

    @property
    def attempt(self) -> Attempt | None:
        """The latest attempt."""
        return self.execution.attempts[-1] if self.execution.attempts else None

    @property
    def cursor(self) -> bytes:
        """The position after everything that was handled."""
        return self._watch.cursor

    def started(self) -> bool:
        """Tell whether a deciding container has started, or never will."""
        return (
            self.execution.start_time is not None or self.execution.state is ExecutionState.RUNNING or self.completed()
        )

    def completed(self) -> bool:
        """Tell whether the outcome is known."""
        return self.outcome is not None or self.ended

    def over(self) -> bool:
        """Tell whether everything was sent."""
        return self.ended

    def run(self, until: Callable[[], bool], *, seconds: float | None = None) -> bool:
        """Handle events until the predicate holds. False when ``seconds`` passed first."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while not until():
            self._checkpoint()
            wait = POLL_SECONDS
            if deadline is not None:
                wait = min(wait, deadline - time.monotonic())
                if wait <= 0:
                    return False
            event = self._next(wait)
            if event is not None:
                self._handle(event)
        return True

    def open_group(self, title: str) -> None:
        """Begin a part of the log that folds."""
        self._log.info("::group::%s", title)
        self._in_group = True

    def close_group(self) -> None:
        """End the part of the log that folds, if there is one."""
        if self._in_group:
            self._in_group = False
            self._log.info("::endgroup::")

    def wake(self) -> None:
        """End a wait at once; may be called in a signal handler."""
        self._watch.wake()

    def close(self) -> None:
        """Stop to follow. The execution goes on."""
        self.close_group()
        self._watch.close()

    def _next(self, wait: float) -> Event | None:
        try:
            event = self._watch.poll(timeout=wait)
        except (NotFoundError, ExpiredError) as error:
            raise exception_of_error(
                error, doing="The execution is gone before its end was seen", execution_name=self.execution.name
            ) from error
        except InvalidCursorError as error:
            if not self._begun_at:
                raise exception_of_error(
                    error, doing="The execution cannot be followed", execution_name=self.execution.name
                ) from error
            self._begun_at = b""
            self._log.warning("The place in the log that was kept is not valid; lines may be printed again: %s", error)
            self._watch.close()
            self._watch = self._open_watch(b"")
            return None
        except PodbrokerError as error:
            raise exception_of_error(
                error, doing="The execution cannot be followed", execution_name=self.execution.name
            ) from error
        if event is None and self._watch.ended and not self.ended:
            message = f"The broker's stream ended without an end of {self.execution.name}"
            raise RemotePodLost(message)
        return event

    def _handle(self, event: Event) -> None:
        match event:
            case StateChanged(execution=execution):
                self._update(execution)
            case End(execution=execution):
                self._update(execution)
                self.ended = True
            case Result():
                self.result = event
            case _:
                self._print(event)

    def _print(self, event: Event) -> None:
        match event:
            case AttemptStarted(attempt=attempt):
                self._log.info("Pod %s/%s was created", attempt.pod_namespace, attempt.pod_name)
            case AttemptEnded(attempt=attempt, outcome=outcome):
                self._log.info("Pod %s ended: %s", attempt.pod_name, (outcome or attempt).state.value)
            case LogChunk(instance=instance):
                if self._printer.shows(instance):
                    self.close_group()
                self._printer.chunk(event)
            case LogGap():
                self._printer.gap(event)
            case LogStreamEnd():
                self._printer.end_of(event)
            case Notice(code=code):
                self.result_missing = self.result_missing or code == "RESULT_MISSING"
                self._printer.notice(event)

    def _update(self, execution: Execution) -> None:
        self.execution = execution
        outcome = execution.outcome
        reason = execution.state_reason
        if outcome is not None and outcome.state is not ExecutionState.SUCCEEDED:
            reason = why(outcome)
        where = f"{execution.state.value}: {reason}" if reason else execution.state.value
        if where != self._said:
            self._said = where
            if self.started():
                self.close_group()
            self._log.info("Pod is %s", where)
