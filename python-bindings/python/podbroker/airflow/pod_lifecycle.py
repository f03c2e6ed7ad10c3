"""The life cycle of the operator: submitted, followed, settled, in one process or in several.

One submit, one stream, one acknowledgement. A synchronous task follows its pod in the worker; a deferred one leaves
that to a trigger and comes back when the pod has ended. What is left to do then, the result, the callbacks, the verdict
and the acknowledgement, is the same for both.
"""

from __future__ import annotations

import contextlib
import copy
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from podbroker import ExecutionState, GroupAction
from podbroker.airflow import assets, ending, parameters
from podbroker.airflow import exceptions as ex
from podbroker.airflow._compat import (
    AirflowSkipException,
    AirflowTaskTerminated,
    AirflowTaskTimeout,
    ExecutionMode,
    KubernetesPodOperator,
    conf,
)
from podbroker.airflow.earlier import plan
from podbroker.airflow.failure import container_of, exception_of_outcome
from podbroker.airflow.identity import execution_id, execution_labels, group_labels, group_of
from podbroker.airflow.listeners import tell
from podbroker.airflow.logs import LinePrinter
from podbroker.airflow.pods import manifest_of, pod_of
from podbroker.airflow.policies import policies_of
from podbroker.airflow.pump import Pump
from podbroker.airflow.result import push_result, read_result, result_error, take_position
from podbroker.airflow.session import Session, new_request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import timedelta

    from airflow.sdk import Context
    from kubernetes.client import models as k8s

    from podbroker import Execution, InfraRetry, Outcome
    from podbroker.airflow.hook import PodbrokerHook

__all__ = ["LifeCycle"]


class LifeCycle(KubernetesPodOperator):
    """What ``RemotePodOperator`` does with its pod."""

    deployment_id: str | None
    ttl: timedelta | None
    infra_retry: InfraRetry | None
    orphan_after: timedelta | None
    assets_from_result: bool
    _session: Session | None
    _follow: Pump | None
    _settled: bool
    _context: Context | None
    _result: Any
    _printed_elsewhere: bytes = b""
    """Up to where a trigger has printed the lines, until this process prints some."""

    if TYPE_CHECKING:

        @cached_property
        def hook(self) -> PodbrokerHook:
            """The connection to the broker."""

    def execute(self, context: Context) -> Any:  # noqa: ANN401 -- whatever JSON the pod hands back
        """Run the pod and give back its value, or defer until it has ended."""
        self.name = self._set_name(self.name)
        return self.execute_async(context) if self.deferrable else self.execute_sync(context)

    def execute_sync(self, context: Context) -> Any:  # noqa: ANN401 -- as execute
        """Run the pod to its end in this process."""
        with self._settling(context):
            self._start(context)
            return self._follow_to_end(context)

    def get_or_create_pod(self, pod_request_obj: k8s.V1Pod, context: Context) -> k8s.V1Pod:
        """Start the execution, or find the one to go on with; give back the request under the pod's real name."""
        session, has_groups = self._new_session(pod_request_obj, context)
        execution = None
        if context["ti"].try_number > 1:
            execution = self._meet_earlier(session, context, has_groups=has_groups)
        if execution is None:
            execution = session.submit(look_first=_reschedules(context) > 0)
        self.log.info("Execution: %s", execution.name)
        pod = copy.deepcopy(pod_request_obj)
        if execution.attempts:
            attempt = execution.attempts[-1]
            pod.metadata.name, pod.metadata.namespace = attempt.pod_name, attempt.pod_namespace
        return pod

    def _new_session(self, pod_request_obj: k8s.V1Pod, context: Context) -> tuple[Session, bool]:
        """Prepare to submit, and tell whether the broker knows groups."""
        self._session = session = Session(
            client=self.hook.conn,
            request=new_request(
                target=self.hook.target,
                execution_id=execution_id(context, deployment_id=self._deployment),
                pod=manifest_of(pod_request_obj),
                labels=execution_labels(context, deployment_id=self._deployment),
                policies=policies_of(self),
            ),
            log=self.log,
            checkpoint=lambda: self._checkpoint(context),
        )
        has_groups = session.knows_groups()
        if has_groups:
            session.join(group_of(context, deployment_id=self._deployment, action=GroupAction.ATTACH))
        return session, has_groups

    def find_pod(self, namespace: str, context: Context, **_: Any) -> k8s.V1Pod | None:  # noqa: ANN401, ARG002
        """Read the execution's pod through the broker; None while there is none."""
        return self._read_pod()

    def cleanup(
        self,
        pod: k8s.V1Pod,
        remote_pod: k8s.V1Pod,
        xcom_result: Any = None,  # noqa: ANN401 -- whatever JSON the pod hands back
        context: Context | None = None,
        **_: Any,  # noqa: ANN401 -- what other provider versions pass
    ) -> None:
        """Acknowledge the outcome, then raise if it is not a success. Without an outcome nothing is touched."""
        outcome = self._follow.outcome if self._follow is not None else None
        if outcome is None or self._session is None or self._follow is None:
            return
        failed = outcome.state is not ExecutionState.SUCCEEDED
        if failed:
            if self.do_xcom_push:
                push_result(self, context or self._context, xcom_result if xcom_result is not None else self._result)
            if self.log_events_on_failure:
                self._log_containers(outcome)
        pod_spec = str(remote_pod or self._read_pod()) if failed and self.log_pod_spec_on_failure else ""
        self._session.release()
        base = container_of(outcome, self.base_container_name)
        exit_code = base.exit_code if base is not None else outcome.exit_code
        if exit_code is not None and exit_code in self.skip_on_exit_code:
            message = f"Pod {pod.metadata.name} returned exit code {exit_code}. Skipping."
            raise AirflowSkipException(message)
        if failed:
            raise exception_of_outcome(
                outcome,
                pod_name=pod.metadata.name,
                base_container=self.base_container_name,
                execution_name=self._session.name,
                last_lines=self._printer.last_lines,
                pod_spec=pod_spec,
            )

    def on_kill(self) -> None:
        """Note that the task was told to end. What that means is found out by the pump, outside the signal handler."""
        self._killed = True
        follow = self._follow
        if follow is not None:
            follow.wake()

    @contextlib.contextmanager
    def _settling(self, context: Context) -> Iterator[None]:
        """Do for the pod what the way means on which this process of the task ends."""
        try:
            yield
        except AirflowTaskTimeout:
            self._settled = True
            ending.cancel(
                session=self._session,
                follow=self._follow,
                reason="The execution_timeout of the Airflow task has passed",
            )
            raise
        except AirflowTaskTerminated:  # Airflow 2.11 raises it in its signal handler, after on_kill
            self._settle_kill(context)
        finally:
            if self._follow is not None:
                self._follow.close()

    def _start(self, context: Context) -> Execution:
        self._say_what_is_ignored()
        if self.pod_request_obj is None:
            self.pod_request_obj = self.build_pod_request_obj(context)
        self._call_back("on_pod_manifest_created", context, pod_request=self.pod_request_obj)
        if self.pod is None:
            self.pod = self.get_or_create_pod(pod_request_obj=self.pod_request_obj, context=context)
        self._push_names(context)
        self._call_back("on_pod_creation", context, fresh_pod=True)
        return self._known()

    def _known(self) -> Execution:
        session = self._session
        if session is None or session.execution is None:
            message = "There is no execution to follow: get_or_create_pod made none"
            raise ex.RemotePodError(message)
        return session.execution

    def _push_names(self, context: Context) -> None:
        if self.pod is not None:
            context["ti"].xcom_push(key="pod_name", value=self.pod.metadata.name)
            context["ti"].xcom_push(key="pod_namespace", value=self.pod.metadata.namespace)

    def _follow_to_end(self, context: Context, *, cursor: bytes = b"") -> Any:  # noqa: ANN401 -- as execute
        follow = self._follow = self._open(context, cursor=cursor)
        if not follow.started():
            follow.open_group(f"Waiting for pod {self._pod_name} to start")
        self._pump(until=follow.started)
        follow.close_group()
        if follow.execution.start_time is not None:
            self._call_back("on_pod_starting", context, fresh_pod=True)
        self._pump(until=follow.over)
        return self._settle(context, follow)

    def _settle(self, context: Context, follow: Pump) -> Any:  # noqa: ANN401 -- as execute
        self._call_back("on_pod_completion", context, fresh_pod=True)
        self._call_back("on_pod_teardown", context, pod=self.remote_pod)

        result, problem = read_result(follow, log=self.log) if self.wants_result else (None, None)
        said: Any = None
        if self.assets_from_result:
            result, said = assets.take(result)
        # Older providers hand neither to cleanup.
        self._context, self._result = context, result
        self.post_complete_action(pod=self.pod, remote_pod=self.remote_pod, context=context, result=result)
        if problem is not None:
            raise problem
        if said is not None:
            self._emit(context, follow, said)
        return result if self.do_xcom_push else None

    def _emit(self, context: Context, follow: Pump, said: Any) -> None:  # noqa: ANN401 -- JSON
        """Make events of what a pod that succeeded says about assets."""
        if follow.outcome is None or follow.outcome.state is not ExecutionState.SUCCEEDED:
            return
        try:
            events = assets.plan(said, self.outlets or ())
        except assets.AssetEventsError as error:
            raise result_error(follow, f"The pod's asset events cannot be emitted: {error}") from error
        assets.emit(events, context["outlet_events"])
        self.log.info("Asset events of the pod's result: %d", len(events))

    @property
    def wants_result(self) -> bool:
        """Whether the pod hands back a value."""
        return self.do_xcom_push or self.assets_from_result

    @property
    def _pod_name(self) -> str:
        return str(self.pod.metadata.name) if self.pod is not None else "of the task"

    def _pump(self, *, until: Callable[[], bool]) -> None:
        """Handle what comes on the one stream until the predicate holds."""
        if self._follow is not None:
            self._follow.run(until)

    def _open(self, context: Context, *, cursor: bytes) -> Pump:
        session, execution = self._session, self._known()
        if session is None:
            message = "There is no execution to follow"
            raise ex.RemotePodError(message)
        self._printed_elsewhere = b""
        return Pump(
            open_watch=lambda cursor: session.watch(cursor=cursor, containers=self._printer.wanted),
            cursor=self._kept_position(context) or cursor,
            execution=execution,
            printer=self._printer,
            log=self.log,
            checkpoint=lambda: self._checkpoint(context),
        )

    def _kept_position(self, context: Context) -> bytes:
        """Read how far the process came that was drained before this one."""
        if _reschedules(context) == 0 or self._session is None:
            return b""
        cursor = take_position(context, name=self._session.name)
        if not cursor:
            self.log.info("The place in the log was not kept: lines from before the reschedule are printed again")
        return cursor

    @cached_property
    def _printer(self) -> LinePrinter:
        return LinePrinter(
            log=self.log,
            base_container=self.base_container_name,
            containers=self.container_logs if self.get_logs else None,
            init_containers=self.init_container_logs,
            prefix=getattr(self, "container_name_log_prefix_enabled", True),
            startup_notices=getattr(self, "log_events_on_startup", True),
            formatter=getattr(self, "log_formatter", None),
            on_line=self._show_progress if self.callbacks or self._progress_callback else None,
        )

    @property
    def _deployment(self) -> str:
        return self.deployment_id or conf.get("podbroker", "deployment_id", fallback="airflow")

    def _meet_earlier(self, session: Session, context: Context, *, has_groups: bool) -> Execution | None:
        """Adopt or end what earlier tries of this task instance left behind."""
        decided = plan(
            session.earlier(group_labels(context, deployment_id=self._deployment)),
            own_id=execution_id(context, deployment_id=self._deployment),
            reattach=self.reattach_on_restart,
            not_before=getattr(context.get("dag_run"), "start_date", None),
            max_tries=getattr(context["ti"], "max_tries", None),
        )
        for execution in decided.end:
            ending.end_earlier(
                session.other(execution),
                printer=self._printer,
                log=self.log,
                reason="A new try of the Airflow task takes its place",
            )
        if decided.adopt is not None:
            self.log.info("Adopting execution %s of an earlier try", decided.adopt.name)
            if not session.shares_group(decided.adopt):
                return session.adopt(decided.adopt)
        elif has_groups:
            session.join(group_of(context, deployment_id=self._deployment, action=decided.action))
        return None

    # Kill.

    def _checkpoint(self, context: Context) -> None:
        if self._killed and not self._settled:
            self._settle_kill(context)

    def _settle_kill(self, context: Context) -> NoReturn:
        self._settled = True
        ending.settle_kill(
            context=context,
            session=self._session,
            follow=self._follow,
            place=self._printed_elsewhere or (self._follow.cursor if self._follow is not None else b""),
            log=self.log,
            keep=self._keeps_on_kill,
        )

    @property
    def _keeps_on_kill(self) -> bool:
        return getattr(getattr(self, "on_kill_action", None), "value", None) == "keep_pod"

    # Callbacks and what is read for them.

    def _call_back(self, name: str, context: Context, *, fresh_pod: bool = False, **kwargs: object) -> None:
        if not self.callbacks:
            return
        if fresh_pod and self.pod is not None:
            # By the method that subclasses override, as upstream does it.
            self.remote_pod = self.find_pod(self.pod.metadata.namespace, context=context) or self.remote_pod
            kwargs["pod"] = self.remote_pod
        for callback in self.callbacks:
            getattr(callback, name)(
                client=self.client, mode=ExecutionMode.SYNC, context=context, operator=self, **kwargs
            )

    def _show_progress(self, line: str, container: str, time_ns: int) -> None:
        tell(
            line,
            container,
            time_ns,
            callbacks=self.callbacks,
            progress=self._progress_callback,
            mode=ExecutionMode.SYNC,
            client=lambda: self.client,
            pod=lambda: self.pod,
        )

    def _read_pod(self) -> k8s.V1Pod | None:
        return pod_of(self._session.read()) if self._session is not None else None

    def _log_containers(self, outcome: Outcome) -> None:
        for container in outcome.containers:
            self.log.info(
                "Container '%s': exit_code=%s, reason='%s', message='%s'",
                container.container,
                container.exit_code,
                container.reason,
                container.message,
            )

    def _say_what_is_ignored(self) -> None:
        if ignored := parameters.without_effect(self):
            self.log.info("Without effect, because the broker reaches and watches the cluster: %s", ", ".join(ignored))
        if uncalled := parameters.uncalled_overrides(type(self)):
            self.log.warning("%s overrides what is never called here: %s", type(self).__name__, ", ".join(uncalled))


def _reschedules(context: Context) -> int:
    """How often this try was rescheduled: more than 0 means that an earlier process of it was here."""
    return int(context.get("task_reschedule_count") or 0)
