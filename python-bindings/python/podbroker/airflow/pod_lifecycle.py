"""The life cycle of a pod: what upstream's operator does on the way, its callbacks, its value and its verdict.

A pod may also be started in the triggerer: ``starting`` decides, and a worker goes on from what the trigger says.
"""

from __future__ import annotations

import copy
from functools import cached_property
from typing import TYPE_CHECKING, Any

from podbroker import ExecutionState
from podbroker.airflow import assets, parameters
from podbroker.airflow._compat import AirflowSkipException, ExecutionMode, KubernetesPodOperator
from podbroker.airflow.deferral import Deferrable
from podbroker.airflow.failure import container_of, exception_of_outcome
from podbroker.airflow.lines import LineSpec
from podbroker.airflow.listeners import tell
from podbroker.airflow.logs import LinePrinter
from podbroker.airflow.pods import manifest_of, named_pod, pod_of
from podbroker.airflow.policies import policies_of
from podbroker.airflow.result import push_result, read_result, result_error
from podbroker.airflow.starting import Start, StartFromTrigger, StartTrigger, decide

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow.sdk import Context
    from kubernetes.client import models as k8s

    from podbroker import Execution, InfraRetry, Outcome, Policies, ResultSource
    from podbroker.airflow.pump import Pump
    from podbroker.airflow.request import Request

__all__ = ["PodLifeCycle"]


class PodLifeCycle(Deferrable, KubernetesPodOperator):
    """What ``RemotePodOperator`` does with its pod."""

    ttl: timedelta | None
    infra_retry: InfraRetry | None
    orphan_after: timedelta | None
    assets_from_result: bool
    result_source: ResultSource
    asks_for_start: bool = False
    """Whether the pod is to be started in the triggerer. Airflow looks before ``__init__`` has said so."""
    _decided: Start | None = None
    _started_there: bool = False
    """Whether no worker has pushed the pod's name yet, because none has started it."""
    _context: Context | None
    _result: Any

    start_from_trigger = StartFromTrigger()
    start_trigger_args = StartTrigger()

    def execute(self, context: Context) -> Any:  # noqa: ANN401 -- whatever JSON the pod hands back
        """Run the pod and give back its value, or defer until it has ended."""
        self.name = self._set_name(self.name)
        return self.execute_async(context) if self.deferrable else self.execute_sync(context)

    def get_or_create_pod(self, pod_request_obj: k8s.V1Pod, context: Context) -> k8s.V1Pod:
        """Start the execution, or find the one to go on with; give back the request under the pod's real name."""
        session, has_groups = self._new_session(manifest_of(pod_request_obj), context)
        execution = self._submit(session, context, has_groups=has_groups)
        pod = copy.deepcopy(pod_request_obj)
        if execution.attempts and execution.attempts[-1].pod_name:
            attempt = execution.attempts[-1]
            pod.metadata.name, pod.metadata.namespace = attempt.pod_name, attempt.pod_namespace
        return pod

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
                name=pod.metadata.name,
                base_container=self.base_container_name,
                execution_name=self._session.name,
                last_lines=self._printer.last_lines,
                pod_spec=pod_spec,
            )

    def _policies(self) -> Policies:
        return policies_of(self)

    def _start(self, context: Context) -> Execution:
        self._say_what_is_ignored()
        if self.pod_request_obj is None:
            self.pod_request_obj = self.build_pod_request_obj(context)
        self._call_back("on_pod_manifest_created", context, pod_request=self.pod_request_obj)
        if self.pod is None:
            self.pod = self.get_or_create_pod(pod_request_obj=self.pod_request_obj, context=context)
        if not self._waits_for_name:
            self._push_names(context)
        self._call_back("on_pod_creation", context, fresh_pod=True)
        return self._known()

    @property
    def _waits_for_name(self) -> bool:
        """Whether a name is still to come, as on Batch, where the pod is made later."""
        execution = self._session.execution if self._session is not None else None
        return execution is not None and bool(execution.attempts) and not execution.attempts[-1].pod_name

    def _push_names(self, context: Context) -> None:
        if self.pod is not None:
            context["ti"].xcom_push(key="pod_name", value=self.pod.metadata.name)
            context["ti"].xcom_push(key="pod_namespace", value=self.pod.metadata.namespace)

    def _is_named(self, follow: Pump) -> bool:
        return follow.attempt is None or bool(follow.attempt.pod_name)

    def _take_name(self, context: Context, execution: Execution) -> None:
        """Push the pod's name when it becomes known after the submit."""
        attempt = execution.attempts[-1] if execution.attempts else None
        if self.pod is None or attempt is None or not attempt.pod_name or not self._waits_for_name:
            return
        if (self.pod.metadata.name, self.pod.metadata.namespace) != (attempt.pod_name, attempt.pod_namespace):
            self.pod.metadata.name, self.pod.metadata.namespace = attempt.pod_name, attempt.pod_namespace
            self._push_names(context)

    def _started(self, context: Context, follow: Pump) -> None:
        if follow.execution.start_time is not None:
            self._call_back("on_pod_starting", context, fresh_pod=True)

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
    def _title(self) -> str:
        return str(self.pod.metadata.name) if self.pod is not None else "of the task"

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

    # Starting in the triggerer.

    @property
    def start(self) -> Start:
        """Where the pod is started, and why."""
        if not self.asks_for_start:
            return Start(arguments=None)
        return self._decided or decide(self)

    @property
    def _leaves_start_to_trigger(self) -> bool:
        return self.start.arguments is not None

    def render_template_fields(self, context: Context, jinja_env: Any = None) -> None:  # noqa: ANN401 -- jinja2's
        """Render the templates, as ever. What they become says no more whether the triggerer may start the pod."""
        self._decided = self.start
        super().render_template_fields(context, jinja_env)

    def request_of(self, context: Context) -> Request:
        """Make the request for the pod of this try, and send nothing."""
        self.name = self._set_name(self.name)
        self.pod_request_obj = self.build_pod_request_obj(context)
        return self._request_of(manifest_of(self.pod_request_obj), context)

    def execute_async(self, context: Context) -> Any:  # noqa: ANN401 -- as execute
        """Start the pod, then defer. Returns its value if it has ended already."""
        if self.asks_for_start:
            index = context["ti"].map_index
            mapped = "a mapped task is started by a worker" if index is not None and index >= 0 else ""
            why = mapped or self.start.why_not or "Airflow has sent it to a worker"
            self.log.info("start_from_trigger has no effect: %s", why)
        return super().execute_async(context)

    def trigger_reentry(
        self,
        context: Context,
        event: dict[str, Any],
        *,
        execution: str = "",
        claim: str = "",
        triggers: int = 1,
    ) -> Any:  # noqa: ANN401 -- as execute
        """Go on after the trigger's event, or start the pod where a trigger that was to start it has not.

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
        self._started_there = not execution
        return super().trigger_reentry(
            context,
            event,
            execution=execution or event.get("execution", ""),
            claim=claim or event.get("claim", ""),
            triggers=triggers,
        )

    # Deferring.

    def _make_session(self, context: Context) -> None:
        self.name = self._set_name(self.name)
        if self.pod_request_obj is None:
            self.pod_request_obj = self.build_pod_request_obj(context)
        self._new_session(manifest_of(self.pod_request_obj), context)

    def _found(self) -> None:
        self.pod = self._read_pod() or self.pod_request_obj

    def _resume(self, context: Context, event: dict[str, Any]) -> None:
        self.remote_pod = self._read_pod()
        self.pod = self.remote_pod or named_pod(event.get("name", ""), event.get("namespace", ""))
        attempt = self._known().attempts[-1] if self._known().attempts else None
        named_late = attempt is not None and attempt.batch_job_id and attempt.pod_name
        if attempt is not None and named_late and self.pod.metadata.name != attempt.pod_name:
            self.pod = named_pod(attempt.pod_name, attempt.pod_namespace)
        if named_late or (self._started_there and not self._waits_for_name):
            self._push_names(context)
        self._call_back("on_operator_resuming", context, fresh_pod=True, event=event)

    def _line_spec(self) -> LineSpec | None:
        if not self.get_logs and not self.init_container_logs:
            return None
        return LineSpec.of(
            base_container=self.base_container_name,
            containers=self.container_logs if self.get_logs else None,
            init_containers=self.init_container_logs,
            prefix=getattr(self, "container_name_log_prefix_enabled", True),
            startup_notices=getattr(self, "log_events_on_startup", True),
            formatter=getattr(self, "log_formatter", None),
            callbacks=self.callbacks,
            progress=self._progress_callback,
        )

    def _last_words_of(self, execution: Execution) -> tuple[str, ...]:  # noqa: ARG002 -- the same for each
        return (self.base_container_name,) if self.get_logs else ()

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
