"""``RemotePodOperator``: a ``KubernetesPodOperator`` whose pod runs at a target of the podbroker broker.

Arguments, templating and the making of the manifest are upstream's, unchanged. The life cycle is ours: one submit, one
stream, one acknowledgement. The worker holds no cluster credential and polls nothing. The task succeeds only with the
broker's word that the base container ended with exit code 0. A worker that goes away leaves the pod running, and the
next process of the task goes on with it; only a task that was really killed, or that ran out of time, ends its pod.
"""

from __future__ import annotations

from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from podbroker import ResultSource
from podbroker.airflow import parameters
from podbroker.airflow._compat import conf
from podbroker.airflow.chain import readable
from podbroker.airflow.hook import PodbrokerHook
from podbroker.airflow.identity import target_selector
from podbroker.airflow.pod_lifecycle import PodLifeCycle
from podbroker.airflow.pods import PodClient
from podbroker.airflow.result import source_of_result

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

    from airflow.sdk import Context
    from kubernetes.client import models as k8s

    from podbroker import InfraRetry
    from podbroker.airflow.pump import Pump
    from podbroker.airflow.session import Session

__all__ = ["RemotePodOperator"]

_NAMESPACE_OF_TARGET = "podbroker-target"
"""Stands for the target's namespace while upstream builds the manifest, since upstream would take the worker's own."""


class RemotePodOperator(PodLifeCycle):
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
        deferrable: Whether the pod is followed in the triggerer and not in the worker. Default: the option
            ``default_deferrable`` of the section ``operators`` of Airflow's configuration.
        start_from_trigger: Whether the triggerer also starts the pod, so that a task that succeeds needs no worker
            (Airflow 3.3). Where that cannot be, the task's log says why, and a worker starts it. The task defers then.
        do_xcom_push: Whether the pod hands back a value, JSON in ``/airflow/xcom/return.json``.
        result_source: How that value comes: ``SIDECAR``, from a container that the broker adds, or
            ``TERMINATION_MESSAGE``, as the container's own, up to 4 KiB. A target of AWS Batch knows the second only,
            and there the file is ``/dev/termination-log``.
        assets_from_result: Whether the value's member ``asset_events`` becomes events of the assets in ``outlets``. The
            pod hands back a value then, also without ``do_xcom_push``.
        log_pod_spec_on_failure: Whether a failure's message contains the whole pod. Off, unlike upstream, because the
            pod may hold secrets.

    """

    template_fields: Sequence[str] = (
        *PodLifeCycle.template_fields,
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
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        start_from_trigger: bool = False,
        do_xcom_push: bool = False,
        result_source: ResultSource = ResultSource.SIDECAR,
        assets_from_result: bool = False,
        log_pod_spec_on_failure: bool = False,
        **kwargs: Any,  # noqa: ANN401 -- the arguments of upstream
    ) -> None:
        """Take the arguments; nothing is asked of the broker yet."""
        # Upstream's own sidecar waits for an exec that never comes; the broker adds one that needs none.
        super().__init__(
            do_xcom_push=False,
            deferrable=deferrable or start_from_trigger,
            log_pod_spec_on_failure=log_pod_spec_on_failure,
            **kwargs,
        )
        self.do_xcom_push = do_xcom_push
        self.result_source = source_of_result(
            result_source, known=(ResultSource.SIDECAR, ResultSource.TERMINATION_MESSAGE)
        )
        self.assets_from_result = assets_from_result
        self.target = target
        self.podbroker_conn_id = podbroker_conn_id
        self.deployment_id = deployment_id
        self.ttl = ttl
        self.infra_retry = infra_retry
        self.orphan_after = orphan_after
        self.asks_for_start = start_from_trigger
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
        client = PodClient(
            read=self._read_pod,
            cancel=lambda reason: self._session and self._session.cancel(reason),
            open_log=lambda **what: self._session.open_log(**what) if self._session is not None else None,
            base_container=self.base_container_name,
        )
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

    # What OpenLineage asks for, where its provider is installed.

    def get_openlineage_facets_on_start(self) -> Any:  # noqa: ANN401 -- OpenLineage's OperatorLineage
        """Say where and with what the task runs."""
        return self._lineage()

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:  # noqa: ANN401, ARG002
        """Say also which execution it was, and how it ended."""
        return self._lineage()

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> Any:  # noqa: ANN401, ARG002
        """Say the same of a task that failed."""
        return self._lineage()

    def _lineage(self) -> Any:  # noqa: ANN401 -- None where OpenLineage is not installed
        if find_spec("airflow.providers.openlineage") is None:
            return None
        from podbroker.airflow.lineage import lineage_of

        return lineage_of(self)

    @property
    def named_target(self) -> str | None:
        """The target as the task names it, in words; None where that is left to the connection. Asks nobody."""
        return readable(selector) if (selector := target_selector(self.target)) is not None else None

    @property
    def known_image(self) -> str | None:
        """The base container's image, as far as it is known. Asks nobody."""
        pod = self.remote_pod or self.pod_request_obj
        containers = pod.spec.containers if pod is not None and pod.spec is not None else ()
        found = (each.image for each in containers or () if each.name == self.base_container_name)
        return next(found, None) or self.image
