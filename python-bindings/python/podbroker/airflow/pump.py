"""The one loop over the one stream: prints what comes, keeps what is known, stops when its predicate holds.

Every step of the operator (started, completed, over) is a predicate over the same pump, so nothing is asked for twice
and no line waits for a step. Before each event ``checkpoint`` is called: it raises when the task was told to end. The
watch itself reconnects by its cursor; a broker that is away for an hour costs silence and nothing else.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from podbroker import ExpiredError, InvalidCursorError, NotFoundError, PodbrokerError
from podbroker.airflow.exceptions import RemotePodLost
from podbroker.airflow.failure import exception_of_error
from podbroker.airflow.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk._shared.logging.types import Logger

    from podbroker import Event, Execution
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


class Pump(Progress):
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
        noun: str = "pod",
    ) -> None:
        """Begin to follow after ``cursor``.

        ``open_watch`` makes a watch that begins there; ``execution`` is what is known; ``checkpoint`` raises when the
        task has to end.
        """
        super().__init__(execution=execution, printer=printer, log=log, noun=noun)
        self._open_watch = open_watch
        self._begun_at = cursor
        self._watch = open_watch(cursor)
        self._place = cursor
        self._checkpoint = checkpoint

    @property
    def cursor(self) -> bytes:
        """The position from which another process may go on."""
        return self._place

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
                self.handle(event)
                if self.may_resume_after(event):
                    self._place = self._watch.cursor
        return True

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
