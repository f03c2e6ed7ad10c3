"""Deferring: what is run is started in a worker, followed in the triggerer, and settled in a worker again.

The row of the trigger and what the worker is given back hold names, numbers and a claim, no credential and no result:
that is fetched when the task comes back, and only then is the execution acknowledged. A trigger that cannot follow it
loses nothing: another one is asked, and then the worker follows it.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from podbroker import ExecutionState
from podbroker.airflow import ending
from podbroker.airflow import exceptions as ex
from podbroker.airflow._compat import AirflowTaskTimeout, TaskDeferralError, TaskDeferralTimeout
from podbroker.airflow.failure import why
from podbroker.airflow.lifecycle import LifeCycle
from podbroker.airflow.lines import SILENT, Lines, LinesAway
from podbroker.airflow.logs import LAST_LINES
from podbroker.airflow.position import decoded, encoded
from podbroker.airflow.pump import Pump
from podbroker.airflow.session import Session
from podbroker.airflow.trigger import RemotePodTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

    from podbroker import Execution
    from podbroker.airflow.lines import LineSpec

__all__ = ["Deferrable"]

MAX_TRIGGERS = 3
"""How often a trigger is asked that could not follow the execution; then the worker follows it."""

BACKSTOP = timedelta(minutes=5)
"""How long after the task's execution_timeout Airflow fails a trigger that did not end by itself."""


class Deferrable(LifeCycle):
    """What an operator does with its execution when it defers."""

    podbroker_conn_id: str

    # What differs by what is run.

    def _make_session(self, context: Context) -> None:
        """Make a session on the execution of this try, from the task's arguments."""
        raise NotImplementedError

    def _found(self) -> None:
        """Go on with an execution that was found after a trigger failed."""

    @property
    def _leaves_start_to_trigger(self) -> bool:
        """Whether the trigger was to start the execution, so that there may be none when it failed."""
        return False

    def _resume(self, context: Context, event: dict[str, Any]) -> None:
        """Go on in another process with an execution that is known."""

    def _line_spec(self) -> LineSpec | None:
        """Say how a trigger prints the lines; None: not at all. Raises ``LinesAway`` when it cannot."""
        raise NotImplementedError

    def _last_words_of(self, execution: Execution) -> tuple[str, ...]:
        """Name the container whose last lines the message of a failure repeats; at most one."""
        raise NotImplementedError

    # The way of a deferred task.

    def execute_async(self, context: Context) -> Any:  # noqa: ANN401 -- as execute
        """Start the execution, then defer. Returns its value if it has ended already."""
        return self._start_and_defer(context)

    def _start_and_defer(self, context: Context) -> Any:  # noqa: ANN401 -- as execute
        with self._settling(context):
            if not self._start(context).state.is_final:
                self._checkpoint(context)
                self._defer(context)
            self.log.info("The %s has ended already: there is nothing to defer for", self.noun)
            return self._follow_to_end(context)

    def trigger_reentry(
        self,
        context: Context,
        event: dict[str, Any],
        *,
        execution: str = "",
        claim: str = "",
        triggers: int = 1,
    ) -> Any:  # noqa: ANN401 -- as execute
        """Go on after the trigger's event: settle the end, or follow the execution where the trigger could not.

        Args:
            context: The context of this process of the task.
            event: What the trigger said.
            execution: The broker's address of the execution.
            claim: Says that this task instance holds it.
            triggers: How many triggers have followed it so far.

        """
        self._printed_elsewhere = decoded(event.get("cursor", ""))
        with self._settling(context):
            if execution:
                self._session = Session.resume(
                    client=self.hook.conn,
                    name=execution,
                    claim=claim,
                    log=self.log,
                    checkpoint=lambda: self._checkpoint(context),
                    noun=self.noun,
                )
                self._session.load()
            else:
                self._find(context)
            known = self._known()
            self._resume(context, event)
            if event.get("status") == "timeout":
                if self._session is not None and (event.get("complete") or known.state.is_final):
                    if not event.get("complete"):
                        # Its lines were left to this worker.
                        follow = self._follow = self._open(context, cursor=decoded(event.get("cursor", "")))
                        self._pump(until=follow.over)
                    self._session.release()
                named = f"{self.noun.capitalize()} {self._title}"
                message = f"{named} was cancelled: the execution_timeout of the task has passed"
                raise AirflowTaskTimeout(message)
            if event.get("complete"):
                return self._settle_end(context)
            if event.get("to_worker"):
                self._say_why_here(event)
            elif not known.state.is_final and triggers < MAX_TRIGGERS:
                self.log.warning(
                    "The trigger could not follow the %s (%s): deferring again", self.noun, event.get("message")
                )
                self._defer(context, cursor=decoded(event.get("cursor", "")), triggers=triggers + 1)
            return self._follow_to_end(context, cursor=decoded(event.get("cursor", "")))

    def _say_why_here(self, event: dict[str, Any]) -> None:
        after = event.get("after", "the task's own code failed in the triggerer")
        self.log.info("The %s is followed here, after %s", self.noun, after)
        if event.get("may_repeat"):
            self.log.warning("Lines that a triggerer has printed may come again below")

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:  # noqa: ANN401
        """Go on after a deferral. One that failed leaves the rest to this worker, one that took too long ends it."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except TaskDeferralTimeout:
            with self._settling(context):
                if self._find(context):
                    ending.cancel(
                        session=self._session,
                        follow=None,
                        reason="The execution_timeout of the Airflow task has passed while it was deferred",
                    )
            raise
        except TaskDeferralError:
            with self._settling(context):
                if not self._find(context):
                    if not self._leaves_start_to_trigger:
                        raise
                    self.log.warning("The trigger failed before it started the %s: it is started here", self.noun)
                    return self._start_and_defer(context)
                self.log.warning("The trigger failed: the %s is followed here. Lines may be printed again.", self.noun)
                return self._follow_to_end(context)

    def _find(self, context: Context) -> bool:
        """Find the execution that an earlier process of this try started; False when there is none."""
        self._make_session(context)
        if self._session is None or not self._session.find():
            return False
        self._found()
        return True

    def _defer(self, context: Context, *, cursor: bytes = b"", triggers: int = 1) -> NoReturn:
        session, execution = self._session, self._known()
        deadline, limit = self._deadline(context)
        pod = execution.attempts[-1] if execution.attempts else None
        trigger = RemotePodTrigger(
            name=execution.name,
            claim=session.claim if session is not None else "",
            podbroker_conn_id=self.podbroker_conn_id,
            pod_name=pod.pod_name if pod is not None else "",
            pod_namespace=pod.pod_namespace if pod is not None else "",
            lines=self.lines_of_trigger(),
            began=time.time(),
            cursor=encoded(cursor or self._kept_position(context)),
            deadline=deadline,
            keep_on_kill=self.keeps_on_kill,
            noun=self.noun,
        )
        kwargs = {"execution": execution.name, "claim": trigger.claim, "triggers": triggers}
        self.defer(trigger=trigger, method_name="trigger_reentry", kwargs=kwargs, timeout=limit)

    def _deadline(self, context: Context) -> tuple[float | None, timedelta | None]:
        """Say when the task has taken too long, and how long Airflow may wait for the trigger at most."""
        if self.execution_timeout is None:
            return None, None
        # The same after a second deferral: Airflow keeps the start of the try.
        started = getattr(context["ti"], "start_date", None)
        begin = started.timestamp() if started is not None else time.time()
        deadline = begin + self.execution_timeout.total_seconds()
        return deadline, max(timedelta(0), timedelta(seconds=deadline - time.time())) + BACKSTOP

    def lines_of_trigger(self) -> dict[str, Any] | None:
        """Say for a trigger's row how lines are printed; None: not at all, empty: by a worker."""
        try:
            spec = self._line_spec()
        except LinesAway as error:
            self.log.warning("The lines of the %s are printed when it has ended: %s", self.noun, error)
            return {}
        return spec.to_json() if spec is not None else None

    def _settle_end(self, context: Context) -> Any:  # noqa: ANN401 -- as execute
        """Settle what a trigger has followed to its end: nothing of what it printed is printed again."""
        session, known = self._session, self._known()
        last_words = self._last_words_of(known)
        silent = Lines.silent(base_container="".join(last_words), containers=last_words)
        if session is None:
            message = "There is no execution to settle"
            raise ex.RemotePodError(message)
        follow = self._follow = Pump(
            open_watch=lambda cursor: session.watch(
                cursor=cursor, containers=last_words or None, tail_lines=LAST_LINES
            ),
            execution=known,
            printer=silent.printer,
            log=SILENT,
            checkpoint=lambda: self._checkpoint(context),
            noun=self.noun,
        )
        self._pump(until=follow.over)
        self._printer = silent.printer
        outcome = follow.outcome
        self._take_name(context, follow.execution)
        if outcome is not None:
            failed = outcome.state is not ExecutionState.SUCCEEDED
            said = why(outcome) if failed else outcome.state.value
            self.log.info("%s %s ended: %s", self.noun.capitalize(), self._title, said)
        self._started(context, follow)
        return self._settle(context, follow)
