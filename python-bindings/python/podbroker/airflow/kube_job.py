"""``RemoteJobOperator``: a ``KubernetesJobOperator`` whose Job runs at a target of the podbroker broker; and Kueue's.

Arguments, templating and the making of the manifest are upstream's, unchanged. The life cycle is ours, as for a pod:
one submit, one stream, one acknowledgement. The lines of all pods of the Job come as they are written, also those of
pods that are made again. The worker holds no cluster credential and polls nothing.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from podbroker import ExecutionState, Policies, ResultSource
from podbroker.airflow import exceptions as ex
from podbroker.airflow import parameters
from podbroker.airflow._compat import AirflowException, conf
from podbroker.airflow._compat_jobs import KubernetesJobOperator
from podbroker.airflow.deferral import Deferrable
from podbroker.airflow.failure import exception_of_job, first_that_failed
from podbroker.airflow.hook import PodbrokerHook
from podbroker.airflow.job_manifest import Lifetime, containers_of, job_of, lifetime_of, manifest_of_job, masked
from podbroker.airflow.job_parameters import without_effect
from podbroker.airflow.lines import LineSpec
from podbroker.airflow.logs import LinePrinter
from podbroker.airflow.policies import FINISH
from podbroker.airflow.request import JobManifest
from podbroker.airflow.result import read_result

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

    from airflow.sdk import Context
    from kubernetes.client import models as k8s

    from podbroker import Execution, InfraRetry
    from podbroker.airflow.pump import Pump

__all__ = ["RemoteJobOperator", "RemoteStartKueueJobOperator"]

FEATURE = "job"
"""What a broker must know."""

NAME_SECONDS = 10.0
"""How long a task that defers waits for the Job's name before, so that its XComs are there while it runs."""

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
"""By which Kueue finds its Jobs: https://kueue.sigs.k8s.io/docs/tasks/run/jobs/."""

_NAMESPACE_OF_TARGET = "podbroker-target"
"""Stands for the target's namespace while upstream builds the manifest, since upstream would take the worker's own."""


class RemoteJobOperator(Deferrable, KubernetesJobOperator):
    """Runs a Kubernetes Job at a target of the broker, and takes every argument of ``KubernetesJobOperator``.

    Args:
        target: The target's name, or a mapping with some of ``cluster``, ``region``, ``role_arn``, ``namespace`` that
            fits exactly one target. None: the connection's default. The target must run Jobs. Templated.
        podbroker_conn_id: The Airflow connection to the broker. Templated.
        deployment_id: Tells two Airflow installations apart that share a broker. None: the option ``deployment_id`` of
            the section ``podbroker`` of Airflow's configuration, else ``airflow``. Templated.
        ttl: How long the Job is kept when this task never acknowledges its end, for example after a kill. None:
            ``ttl_seconds_after_finished``, else the target's default.
        infra_retry: When the broker makes another Job within the same try, after a lost node or a spot loss. Needs
            ``backoff_limit=0``. None: never.
        orphan_after: How long nobody may follow the Job until it is ended; 5 minutes to 7 days. None: it runs on.
        deferrable: Whether the Job is followed in the triggerer and not in the worker; only with
            ``wait_until_job_complete``. Default: the option ``default_deferrable`` of the section ``operators`` of
            Airflow's configuration.
        do_xcom_push: Whether the Job hands back a value: JSON of at most 4 KiB that the base container writes to
            ``/airflow/xcom/return.json``. Only of a Job of one pod.

    """

    noun = "job"
    template_fields: Sequence[str] = (
        *KubernetesJobOperator.template_fields,
        "target",
        "podbroker_conn_id",
        "deployment_id",
    )
    ui_color = "#cfe3d4"
    _named: str = ""
    """The Job's name, once it is handed on."""
    _lifetime: Lifetime | None = None

    def __init__(
        self,
        *,
        target: str | Mapping[str, str] | None = None,
        podbroker_conn_id: str = PodbrokerHook.default_conn_name,
        deployment_id: str | None = None,
        ttl: timedelta | None = None,
        infra_retry: InfraRetry | None = None,
        orphan_after: timedelta | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        do_xcom_push: bool = False,
        **kwargs: Any,  # noqa: ANN401 -- the arguments of upstream
    ) -> None:
        """Take the arguments; nothing is asked of the broker yet."""
        # Upstream's own sidecar waits for an exec that never comes, and would keep the Job from ever ending.
        super().__init__(do_xcom_push=False, deferrable=deferrable, **kwargs)
        if orphan_after is not None and not self.wait_until_job_complete:
            message = "orphan_after would end the Job soon after the task, since wait_until_job_complete is off"
            raise AirflowException(message)
        self.do_xcom_push = do_xcom_push
        self.target = target
        self.podbroker_conn_id = podbroker_conn_id
        self.deployment_id = deployment_id
        self.ttl = ttl
        self.infra_retry = infra_retry
        self.orphan_after = orphan_after

    # What upstream builds its manifest with.

    @cached_property
    def hook(self) -> PodbrokerHook:  # type: ignore[override]  # upstream asks it for the namespace only
        """The connection to the broker."""
        return PodbrokerHook(self.podbroker_conn_id, target=self.target)

    @cached_property
    def _incluster_namespace(self) -> str:
        # Upstream asks for it when neither an argument nor a spec nor the hook says a namespace.
        found = parameters.namespace_of_connection(self.kubernetes_conn_id, log=self.log)
        return found or _NAMESPACE_OF_TARGET

    def build_job_request_obj(self, context: Context | None = None) -> k8s.V1Job:
        """Make the manifest as upstream does, without its sidecar and without the worker's namespace."""
        wanted = self.do_xcom_push
        self.do_xcom_push = False
        try:
            job = super().build_job_request_obj(context)
        finally:
            self.do_xcom_push = wanted
        for metadata in (job.metadata, job.spec.template.metadata):
            if metadata is not None and metadata.namespace == _NAMESPACE_OF_TARGET:
                metadata.namespace = None
        return job

    # The way of a task.

    def execute(self, context: Context) -> Any:  # noqa: ANN401 -- whatever JSON the Job hands back
        """Run the Job, or start it only, as ``wait_until_job_complete`` says; or defer until it has ended."""
        if self.deferrable and self.wait_until_job_complete:
            return self.execute_async(context)
        return self.execute_sync(context)

    def _workload(self, context: Context) -> JobManifest:
        self.name = self._set_name(self.name)
        given: Any = self.parallelism
        self.parallelism = 1 if given is None else given
        if self.parallelism < 1:
            message = "parallelism cannot be less than 1: a Job that may have no pods never ends"
            raise AirflowException(message)
        if self.job_request_obj is None:
            self.job_request_obj = self.build_job_request_obj(context)
        job = self.job_request_obj
        self._lifetime = lifetime_of(job.spec.ttl_seconds_after_finished, self.ttl)
        job.spec.ttl_seconds_after_finished = self._lifetime.seconds
        if (
            self.do_xcom_push
            and self.wait_until_job_complete
            and max(job.spec.completions or 1, job.spec.parallelism) > 1
        ):
            message = (
                "do_xcom_push: only a Job of one pod hands back a value; let the pods write to where others can read"
            )
            raise AirflowException(message)
        return JobManifest(manifest_of_job(job))

    def _policies(self) -> Policies:
        base = self.base_container_name
        decides = self.job_request_obj is not None and base in containers_of(self.job_request_obj)
        return Policies(
            finish=FINISH[self.on_finish_action.value],
            ttl=self._lifetime.ttl if self._lifetime is not None else self.ttl,
            result=ResultSource.TERMINATION_MESSAGE if self._wants_result else ResultSource.NONE,
            deciding_containers=(base,) if decides else (),
            infra_retry=self.infra_retry,
            orphan_after=self.orphan_after,
        )

    @property
    def _wants_result(self) -> bool:
        return self.do_xcom_push and self.wait_until_job_complete

    def _make_session(self, context: Context) -> None:
        self._new_session(self._workload(context), context, required_features=(FEATURE,))

    def _start(self, context: Context) -> Execution:
        self._say_what_is_ignored()
        session, has_groups = self._new_session(self._workload(context), context, required_features=(FEATURE,))
        self._take_name(context, self._submit(session, context, has_groups=has_groups))
        if self.deferrable and self.wait_until_job_complete and not self._named and not self._known().state.is_final:
            self._pump_to_name(context, seconds=NAME_SECONDS)
            self._follow = None
        return self._known()

    def _follow_to_end(self, context: Context, *, cursor: bytes = b"") -> Any:  # noqa: ANN401 -- as execute
        if self.wait_until_job_complete:
            return super()._follow_to_end(context, cursor=cursor)
        if not self._named:
            follow = self._pump_to_name(context)
            if not self._named:
                return self._settle(context, follow)
        self._push_job(context)
        self.log.info("Job %s is not waited for", self._named)
        return None

    def _is_named(self, follow: Pump) -> bool:
        return follow.attempt is not None and bool(follow.attempt.job_name)

    def _take_name(self, context: Context, execution: Execution) -> None:
        """Hand the Job's name on as soon as it is known."""
        attempt = execution.attempts[-1] if execution.attempts else None
        if attempt is None or attempt.job_name in {"", self._named}:
            return
        self._named = attempt.job_name
        self.log.info("Job %s/%s", attempt.pod_namespace, attempt.job_name)
        context["ti"].xcom_push(key="job_name", value=attempt.job_name)
        context["ti"].xcom_push(key="job_namespace", value=attempt.pod_namespace)

    def _push_job(self, context: Context) -> None:
        self.job = job_of(self._session.read()) if self._session is not None else None
        if self.job is None:
            self.log.info("The Job cannot be read any more, and is no XCom")
            return
        context["ti"].xcom_push(key="job", value=masked(self.job))

    def _settle(self, context: Context, follow: Pump) -> Any:  # noqa: ANN401 -- as execute
        self._take_name(context, follow.execution)
        outcome, session = follow.outcome, self._session
        if outcome is None or session is None:
            message = "The broker says that the Job has ended, and not how"
            raise ex.RemotePodError(message)
        result, problem = read_result(follow, log=self.log) if self._wants_result else (None, None)
        self._push_job(context)
        session.release()
        if outcome.state is ExecutionState.SUCCEEDED:
            if problem is not None:
                raise problem
            if not self._wants_result:
                return None
            return result if getattr(self, "unwrap_single", True) else [result]
        raise exception_of_job(
            outcome,
            name=self._title,
            noun=self.noun,
            execution_name=session.name,
            last_lines_of=self._printer.last_lines_of,
            log=self.log,
        )

    @property
    def _title(self) -> str:
        return self._named or "of the task"

    @property
    def keeps_on_kill(self) -> bool:
        """Whether a kill leaves the Job alone."""
        # Upstream deletes the Job with this policy and leaves its pods running.
        return super().keeps_on_kill or getattr(self, "on_kill_propagation_policy", None) == "Orphan"

    # Lines.

    @cached_property
    def _printer(self) -> LinePrinter:
        return LinePrinter(
            log=self.log,
            base_container="",
            containers=self.container_logs if self.get_logs else None,
            init_containers=getattr(self, "init_container_logs", None),
            prefix=getattr(self, "container_name_log_prefix_enabled", True),
            formatter=getattr(self, "log_formatter", None),
        )

    def _line_spec(self) -> LineSpec | None:
        init_containers = getattr(self, "init_container_logs", None)
        if not self.get_logs and not init_containers:
            return None
        return LineSpec.of(
            base_container="",
            containers=self.container_logs if self.get_logs else None,
            init_containers=init_containers,
            prefix=getattr(self, "container_name_log_prefix_enabled", True),
            formatter=getattr(self, "log_formatter", None),
            callbacks=(),
            progress=None,
        )

    def _last_words_of(self, execution: Execution) -> tuple[str, ...]:
        return first_that_failed(execution.outcome) if execution.outcome is not None and self.get_logs else ()

    def _resume(self, context: Context, event: dict[str, Any]) -> None:  # noqa: ARG002 -- the execution says more
        attempts = self._known().attempts
        # An earlier process has handed it on.
        self._named = attempts[-1].job_name if attempts else ""
        if not self._named:
            self._take_name(context, self._known())

    def _say_what_is_ignored(self) -> None:
        if ignored := without_effect(self):
            self.log.info("Without effect, because the broker reaches and watches the cluster: %s", ", ".join(ignored))
        if (self.get_logs or self.do_xcom_push) and not self.wait_until_job_complete:
            self.log.info("The Job is not waited for: its lines and its value come only with wait_until_job_complete")


class RemoteStartKueueJobOperator(RemoteJobOperator):
    """Runs a Kubernetes Job in a queue of Kueue, and takes every argument of ``KubernetesStartKueueJobOperator``.

    While Kueue holds the Job back, the execution is ``QUEUED``, and the task log says in which queue.

    Args:
        queue_name: The LocalQueue, in the target's namespace. Templated.

    """

    template_fields: Sequence[str] = (*RemoteJobOperator.template_fields, "queue_name")

    def __init__(self, queue_name: str, **kwargs: Any) -> None:  # noqa: ANN401 -- the arguments of RemoteJobOperator
        """Take the arguments; the Job is made suspended, so that Kueue decides when it runs."""
        super().__init__(**kwargs)
        if self.suspend is False:
            message = "suspend cannot be False: a Job that Kueue is to admit is made suspended. Leave it out"
            raise AirflowException(message)
        self.suspend = True
        self.queue_name = queue_name
        self.labels = {**(self.labels or {}), QUEUE_LABEL: queue_name}
        self.annotations = {**(self.annotations or {}), QUEUE_LABEL: queue_name}
