"""``RemotePodOperator``: a ``KubernetesPodOperator`` whose pod runs at a target of the podbroker broker.

Arguments, templating and the making of the manifest are upstream's, unchanged. The life cycle is ours: one submit, one
stream, one acknowledgement. The worker holds no cluster credential and polls nothing. The task succeeds only with the
broker's word that the base container ended with exit code 0. A worker that goes away leaves the pod running, and the
next process of the task goes on with it; only a task that was really killed, or that ran out of time, ends its pod.
"""

from __future__ import annotations

import copy
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

import pendulum

from podbroker import ExecutionState, GroupAction
from podbroker.airflow import ending, parameters
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
from podbroker.airflow.hook import PodbrokerHook
from podbroker.airflow.identity import execution_id, execution_labels, group_labels, group_of
from podbroker.airflow.logs import LinePrinter
from podbroker.airflow.pods import PodClient, manifest_of, pod_of
from podbroker.airflow.policies import policies_of
from podbroker.airflow.pump import Pump
from podbroker.airflow.result import push_result, read_result, take_position
from podbroker.airflow.session import Session, new_request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import timedelta

    from airflow.sdk import Context
    from kubernetes.client import models as k8s

    from podbroker import Execution, InfraRetry, Outcome

__all__ = ["RemotePodOperator"]

_NAMESPACE_OF_TARGET = "podbroker-target"
"""Stands for the target's namespace while upstream builds the manifest, since upstream would take the worker's own."""


class RemotePodOperator(KubernetesPodOperator):
    """Runs a pod at a target of the broker, and takes every argument of ``KubernetesPodOperator``.

    Args:
        target: The target's name, or a mapping with some of ``cluster``, ``region``, ``role_arn``, ``namespace`` that
            fits exactly one target. None: the connection's default. Templated.
        podbroker_conn_id: The Airflow connection to the broker. Templated.
        deployment_id: Tells two Airflow installations apart that share a broker. None: the option ``deployment_id`` of
            the section ``podbroker`` of Airflow's configuration, else ``airflow``. Templated.
        ttl: How long the pod is kept when this task never acknowledges its end, for example after a kill. None: the
            target's default.
        infra_retry: When the broker makes another pod within the same try, after an eviction, a preemption or a lost
            node. None: never; ``InfraRetry()``: only while no container has started.
        orphan_after: How long nobody may follow the pod, for example because the worker and the scheduler are gone,
            until it is cancelled; 5 minutes to 7 days. None: it runs on.
        deferrable: Not available: True is refused.
        do_xcom_push: Whether the pod hands back a value, JSON in ``/airflow/xcom/return.json``.
        log_pod_spec_on_failure: Whether a failure's message contains the whole pod. Off, unlike upstream, because the
            pod may hold secrets.

    """

    template_fields: Sequence[str] = (
        *KubernetesPodOperator.template_fields,
        "target",
        "podbroker_conn_id",
        "deployment_id",
    )
    ui_color = "#cfe3d4"

    def __init__(
        self,
        *,
        target: str | Mapping[str, str] | None = None,
        podbroker_conn_id: str = PodbrokerHook.default_conn_name,
        deployment_id: str | None = None,
        ttl: timedelta | None = None,
        infra_retry: InfraRetry | None = None,
        orphan_after: timedelta | None = None,
        deferrable: bool = False,
        do_xcom_push: bool = False,
        log_pod_spec_on_failure: bool = False,
        **kwargs: Any,  # noqa: ANN401 -- the arguments of upstream
    ) -> None:
        """Take the arguments; nothing is asked of the broker yet."""
        if deferrable:
            message = "RemotePodOperator runs in the worker: deferrable=True is not available"
            raise ValueError(message)
        # Upstream's own sidecar waits for an exec that never comes; the broker adds one that needs none.
        super().__init__(
            do_xcom_push=False, deferrable=False, log_pod_spec_on_failure=log_pod_spec_on_failure, **kwargs
        )
        self.do_xcom_push = do_xcom_push
        self.target = target
        self.podbroker_conn_id = podbroker_conn_id
        self.deployment_id = deployment_id
        self.ttl = ttl
        self.infra_retry = infra_retry
        self.orphan_after = orphan_after
        self._session: Session | None = None
        self._follow: Pump | None = None
        self._settled = False
        self._context: Context | None = None
        self._result: Any = None

    # What upstream builds its manifest with.

    @cached_property
    def hook(self) -> PodbrokerHook:
        """The connection to the broker."""
        return PodbrokerHook(self.podbroker_conn_id, target=self.target)

    @cached_property
    def client(self) -> Any:  # noqa: ANN401 -- upstream says CoreV1Api
        """What callbacks get in place of a Kubernetes client."""
        client = PodClient(read=self._read_pod, cancel=lambda reason: self._session and self._session.cancel(reason))
        for callback in self.callbacks:
            callback.on_sync_client_creation(client=client, operator=self)
        return client

    @cached_property
    def _incluster_namespace(self) -> str:
        # Upstream asks for it when neither an argument nor a spec nor the hook says a namespace.
        found = parameters.namespace_of_connection(self.kubernetes_conn_id, log=self.log)
        return found or _NAMESPACE_OF_TARGET

    def build_pod_request_obj(self, context: Context | None = None, **kwargs: Any) -> k8s.V1Pod:  # noqa: ANN401
        """Make the manifest as upstream does, without its sidecar and without the worker's namespace."""
        wanted = self.do_xcom_push
        self.do_xcom_push = False
        try:
            pod = super().build_pod_request_obj(context, **kwargs)
        finally:
            self.do_xcom_push = wanted
        if pod.metadata.namespace == _NAMESPACE_OF_TARGET:
            pod.metadata.namespace = None
        for name in parameters.unknown_containers(self, pod):
            self.log.error("The lines of container %s are asked for, and the pod has no such container", name)
        return pod

    # The life cycle.

    def execute(self, context: Context) -> Any:  # noqa: ANN401 -- whatever JSON the pod hands back
        """Run the pod and give back its value."""
        self.name = self._set_name(self.name)
        return self.execute_sync(context)

    def execute_sync(self, context: Context) -> Any:  # noqa: ANN401 -- as execute
        """Run the pod to its end in this process."""
        try:
            return self._run(context)
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

    def get_or_create_pod(self, pod_request_obj: k8s.V1Pod, context: Context) -> k8s.V1Pod:
        """Start the execution, or find the one to go on with; give back the request under the pod's real name."""
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

    def execute_async(self, context: Context) -> NoReturn:
        """Refuse: this operator does not defer."""
        raise NotImplementedError("RemotePodOperator does not defer")

    def trigger_reentry(self, context: Context, event: dict[str, Any]) -> NoReturn:
        """Refuse: this operator does not defer, so no trigger can call it."""
        raise NotImplementedError("RemotePodOperator does not defer")

    def _run(self, context: Context) -> Any:  # noqa: ANN401 -- as execute
        self._say_what_is_ignored()
        if self.pod_request_obj is None:
            self.pod_request_obj = self.build_pod_request_obj(context)
        self._call_back("on_pod_manifest_created", context, pod_request=self.pod_request_obj)
        if self.pod is None:
            self.pod = self.get_or_create_pod(pod_request_obj=self.pod_request_obj, context=context)
        context["ti"].xcom_push(key="pod_name", value=self.pod.metadata.name)
        context["ti"].xcom_push(key="pod_namespace", value=self.pod.metadata.namespace)
        self._call_back("on_pod_creation", context, fresh_pod=True)

        follow = self._follow = self._open(context)
        follow.open_group(f"Waiting for pod {self.pod.metadata.name} to start")
        self._pump(until=follow.started)
        follow.close_group()
        if follow.execution.start_time is not None:
            self._call_back("on_pod_starting", context, fresh_pod=True)
        self._pump(until=follow.over)
        self._call_back("on_pod_completion", context, fresh_pod=True)
        self._call_back("on_pod_teardown", context, pod=self.remote_pod)

        result, problem = read_result(follow, log=self.log) if self.do_xcom_push else (None, None)
        # Older providers hand neither to cleanup.
        self._context, self._result = context, result
        self.post_complete_action(pod=self.pod, remote_pod=self.remote_pod, context=context, result=result)
        if problem is not None:
            raise problem
        return result

    def _pump(self, *, until: Callable[[], bool]) -> None:
        """Handle what comes on the one stream until the predicate holds."""
        if self._follow is not None:
            self._follow.run(until)

    def _open(self, context: Context) -> Pump:
        session = self._session
        if session is None or session.execution is None:
            message = "There is no execution to follow: get_or_create_pod made none"
            raise ex.RemotePodError(message)
        cursor = b""
        if _reschedules(context) > 0:
            cursor = take_position(context, name=session.name)
            if not cursor:
                self.log.info("The place in the log was not kept: lines from before the reschedule are printed again")
        return Pump(
            open_watch=lambda cursor: session.watch(cursor=cursor, containers=self._printer.wanted),
            cursor=cursor,
            execution=session.execution,
            printer=self._printer,
            log=self.log,
            checkpoint=lambda: self._checkpoint(context),
        )

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
        kept = getattr(getattr(self, "on_kill_action", None), "value", None) == "keep_pod"
        ending.settle_kill(context=context, session=self._session, follow=self._follow, log=self.log, keep=kept)

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
        if self._progress_callback is not None:
            self._progress_callback(line)
        for callback in self.callbacks:
            callback.progress_callback(
                line=line,
                client=self.client,
                mode=ExecutionMode.SYNC,
                container_name=container,
                timestamp=pendulum.from_timestamp(time_ns / 1e9) if time_ns else None,
                pod=self.pod,
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
        if conf.getboolean("operators", "default_deferrable", fallback=False):
            self.log.info("[operators] default_deferrable has no effect on RemotePodOperator: it runs in the worker")


def _reschedules(context: Context) -> int:
    """How often this try was rescheduled: more than 0 means that an earlier process of it was here."""
    return int(context.get("task_reschedule_count") or 0)
