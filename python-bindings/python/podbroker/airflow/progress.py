"""What is known of one execution while it is followed, and how each event of its stream is shown.

It is given events, one after another, by whoever reads the stream: the worker's pump, or a trigger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from podbroker import (
    AttemptEnded,
    AttemptStarted,
    End,
    ExecutionState,
    LogChunk,
    LogGap,
    LogStreamEnd,
    Notice,
    Result,
    StateChanged,
)
from podbroker.airflow.failure import why

if TYPE_CHECKING:
    from airflow.sdk._shared.logging.types import Logger

    from podbroker import Attempt, Event, Execution, Outcome
    from podbroker.airflow.logs import LinePrinter

__all__ = ["Progress"]

RESULT_MISSING = "RESULT_MISSING"
"""The code of the notice that a pod wrote no result."""


class Progress:
    """One execution on its way to its end."""

    def __init__(self, *, execution: Execution, printer: LinePrinter, log: Logger, noun: str = "pod") -> None:
        """``execution`` is what is known so far; ``noun`` is what it is called in the log."""
        self._printer = printer
        self._log = log
        self._in_group = False
        self._said = ""
        self._noun = noun
        self._job: tuple[str, str] | None = None
        self.execution = execution
        self.result: Result | None = None
        self.result_missing = False
        self.ended = False
        self._has_result = False

    @property
    def outcome(self) -> Outcome | None:
        """How the execution ended, as soon as that is known."""
        return self.execution.outcome

    @property
    def attempt(self) -> Attempt | None:
        """The latest attempt."""
        return self.execution.attempts[-1] if self.execution.attempts else None

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

    def may_resume_after(self, event: Event) -> bool:
        """Tell whether another process may go on after an event that was handled.

        It could not print the rest of a line that was half read, and it must find the result, and what is said about
        it, still ahead.
        """
        if isinstance(event, Result) or (isinstance(event, Notice) and event.code == RESULT_MISSING):
            self._has_result = True
        return not self._has_result and self._printer.is_between_lines

    def open_group(self, title: str) -> None:
        """Begin a part of the log that folds."""
        self._log.info("::group::%s", title)
        self._in_group = True

    def close_group(self) -> None:
        """End the part of the log that folds, if there is one."""
        if self._in_group:
            self._in_group = False
            self._log.info("::endgroup::")

    def handle(self, event: Event) -> None:
        """Take the next event in."""
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
                self._tell_job(attempt)
                if attempt.pod_name and not attempt.batch_job_id and not attempt.job_name:
                    self._log.info("Pod %s/%s was created", attempt.pod_namespace, attempt.pod_name)
            case AttemptEnded(attempt=attempt, outcome=outcome):
                job = attempt.batch_job_id or attempt.job_name
                named = f"Job {job}" if job else f"Pod {attempt.pod_name}"
                self._log.info("%s ended: %s", named, (outcome or attempt).state.value)
            case LogChunk(instance=instance):
                if self._printer.shows(instance):
                    self.close_group()
                self._printer.chunk(event)
            case LogGap():
                self._printer.gap(event)
            case LogStreamEnd():
                self._printer.end_of(event)
            case Notice(code=code):
                self.result_missing = self.result_missing or code == RESULT_MISSING
                self._printer.notice(event)

    def _update(self, execution: Execution) -> None:
        self.execution = execution
        if self.attempt is not None:
            self._tell_job(self.attempt)
        outcome = execution.outcome
        reason = execution.state_reason
        if outcome is not None and outcome.state is not ExecutionState.SUCCEEDED:
            reason = why(outcome)
        where = f"{execution.state.value}: {reason}" if reason else execution.state.value
        if where != self._said:
            self._said = where
            if self.started():
                self.close_group()
            self._log.info("%s is %s", self._noun.capitalize(), where)

    def _tell_job(self, attempt: Attempt) -> None:
        """Say which Batch job it is, and its pod when that is known; nothing where there is no job."""
        job = (attempt.batch_job_id, attempt.pod_name)
        if not attempt.batch_job_id or job == self._job:
            return
        self._job = job
        where = f" runs in pod {attempt.pod_namespace}/{attempt.pod_name}" if attempt.pod_name else ""
        self._log.info("AWS Batch job %s%s", attempt.batch_job_id, where)
