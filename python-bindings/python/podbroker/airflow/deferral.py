"""Deferring: the pod is started in a worker, followed in the triggerer, and settled in a worker again.

The row of the trigger and what the worker is given back hold names, numbers and a claim, no credential and no result:
that is fetched when the task comes back, and only then is the execution acknowledged. A trigger that cannot follow the
pod loses nothing: another one is asked, and then the worker follows it.
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
from podbroker.airflow.lines import SILENT, Lines, LinesAway, LineSpec
from podbroker.airflow.logs import LAST_LINES
from podbroker.airflow.pods import named_pod
from podbroker.airflow.position import decoded, encoded
from podbroker.airflow.pump import Pump
from podbroker.airflow.session import Session
from podbroker.airflow.starting import Start, StartFromTrigger, StartTrigger, decide
from podbroker.airflow.trigger import RemotePodTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["Deferrable"]

MAX_TRIGGERS = 3
"""How often a trigger is asked that could not follow the pod; then the worker follows it."""

BACKSTOP = timedelta(minutes=5)
"""How long after the task's execution_timeout Airflow fails a trigger that did not end by itself."""


class Deferrable(LifeCycle):
    """What ``RemotePodOperator`` does with its pod when it defers."""

    podbroker_conn_id: str
    asks_for_start: bool = False
    """Whether the pod is to be started in the triggerer. Airflow looks before ``__init__`` has said so."""
    _decided: Start | None = None

    start_from_trigger = StartFromTrigger()
    start_trigger_args = StartTrigger()

    @property
    def start(self) -> Start:
        """Where the pod is started, and why."""
        if not self.asks_for_start:
            return Start(arguments=None)
        return self._decided or decide(self)

    def render_template_fields(self, context: Context, jinja_env: Any = None) -> None:  # noqa: ANN401 -- jinja2's
        """Render the templates, as ever. What they become says no more whether the triggerer may start the pod."""
        self._decided = self.start
        super().render_template_fields(context, jinja_env)

    def execute_async(self, context: Context) -> Any:  # noqa: ANN401 -- as execute
        """Start the pod, then defer. Returns its value if it has ended already."""
        if self.asks_for_start:
            index = context["ti"].map_index
            mapped = "a mapped task is started by a worker" if index is not None and index >= 0 else ""
            why = mapped or self.start.why_not or "Airflow has sent it to a worker"
            self.log.info("start_from_trigger has no effect: %s", why)
        return self._start_and_defer(context)

    def _start_and_defer(self, context: Context) -> Any:  # noqa: ANN401 -- as execute
        with self._settling(context):
            if not self._start(context).state.is_final:
                self._checkpoint(context)
                self._defer(context)
            self.log.info("The pod has ended already: there is nothing to defer for")
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
        """Go on after the trigger's event: settle the pod's end, or follow it where the trigger could not.

        Args:
            context: The context of this process of the task.
            event: What the trigger said.
            execution: The broker's address of the execution; empty when the trigger has started it, and says it.
            claim: Says that this task instance holds it; empty as well.
            triggers: How many triggers have followed it so far.

        """
        self.name = self._set_name(self.name)
        if event.get("status") == "start":
            self.log.info("A worker starts the pod: %s", event.get("message"))
            return self._start_and_defer(context)
        started_there = not execution
        execution, claim = execution or event.get("execution", ""), claim or event.get("claim", "")
        self._printed_elsewhere = decoded(event.get("cursor", ""))
        with self._settling(context):
            if execution:
                self._session = Session.resume(
                    client=self.hook.conn,
                    name=execution,
                    claim=claim,
                    log=self.log,
                    checkpoint=lambda: self._checkpoint(context),
                )
                self._session.load()
            else:
                self._find(context)
            known = self._known()
            self.remote_pod = self._read_pod()
            self.pod = self.remote_pod or named_pod(event.get("name", ""), event.get("namespace", ""))
            if started_there:
                self._push_names(context)
            self._call_back("on_operator_resuming", context, fresh_pod=True, event=event)
            if event.get("status") == "timeout":
                if self._session is not None and (event.get("complete") or known.state.is_final):
                    if not event.get("complete"):
                        # Its lines were left to this worker.
                        follow = self._follow = self._open(context, cursor=decoded(event.get("cursor", "")))
                        self._pump(until=follow.over)
                    self._session.release()
                message = f"Pod {event.get('name')} was cancelled: the execution_timeout of the task has passed"
                raise AirflowTaskTimeout(message)
            if event.get("complete"):
                return self._settle_end(context)
            if event.get("to_worker"):
                self._say_why_here(event)
            elif not known.state.is_final and triggers < MAX_TRIGGERS:
                self.log.warning("The trigger could not follow the pod (%s): deferring again", event.get("message"))
                self._defer(context, cursor=decoded(event.get("cursor", "")), triggers=triggers + 1)
            return self._follow_to_end(context, cursor=decoded(event.get("cursor", "")))

    def _say_why_here(self, event: dict[str, Any]) -> None:
        after = event.get("after", "the task's own code failed in the triggerer")
        self.log.info("The pod is followed here, after %s", after)
        if event.get("may_repeat"):
            self.log.warning("Lines that a triggerer has printed may come again below")

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:  # noqa: ANN401
        """Go on after a deferral. One that failed leaves the pod to this worker, one that took too long ends it."""
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
                    if self.start.arguments is None:
                        raise
                    self.log.warning("The trigger failed before it started the pod: it is started here")
                    return self._start_and_defer(context)
                self.log.warning("The trigger failed: the pod is followed here. Lines may be printed again.")
                return self._follow_to_end(context)

    def _find(self, context: Context) -> bool:
        """Find the execution that an earlier process of this try started; False when there is none."""
        self.name = self._set_name(self.name)
        if self.pod_request_obj is None:
            self.pod_request_obj = self.build_pod_request_obj(context)
        session, _ = self._new_session(self.pod_request_obj, context)
        if not session.find():
            return False
        self.pod = self._read_pod() or self.pod_request_obj
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
        if not self.get_logs and not self.init_container_logs:
            return None
        try:
            return LineSpec.of(
                base_container=self.base_container_name,
                containers=self.container_logs if self.get_logs else None,
                init_containers=self.init_container_logs,
                prefix=getattr(self, "container_name_log_prefix_enabled", True),
                startup_notices=getattr(self, "log_events_on_startup", True),
                formatter=getattr(self, "log_formatter", None),
                callbacks=self.callbacks,
                progress=self._progress_callback,
            ).to_json()
        except LinesAway as error:
            self.log.warning("The lines of the pod are printed when it has ended: %s", error)
            return {}

    def _settle_end(self, context: Context) -> Any:  # noqa: ANN401 -- as execute
        """Settle what a trigger has followed to its end: nothing of what it printed is printed again."""
        session = self._session
        base = (self.base_container_name,) if self.get_logs else None
        silent = Lines.silent(base_container=self.base_container_name, containers=base)
        if session is None:
            message = "There is no execution to settle"
            raise ex.RemotePodError(message)
        follow = self._follow = Pump(
            open_watch=lambda cursor: session.watch(cursor=cursor, containers=base, tail_lines=LAST_LINES),
            execution=self._known(),
            printer=silent.printer,
            log=SILENT,
            checkpoint=lambda: self._checkpoint(context),
        )
        self._pump(until=follow.over)
        self._printer = silent.printer
        outcome = follow.outcome
        if outcome is not None:
            failed = outcome.state is not ExecutionState.SUCCEEDED
            self.log.info("Pod %s ended: %s", self._pod_name, why(outcome) if failed else outcome.state.value)
        if follow.execution.start_time is not None:
            self._call_back("on_pod_starting", context, fresh_pod=True)
        return self._settle(context, follow)
