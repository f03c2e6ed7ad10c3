"""``EksPodOperator``: takes the place of the Amazon provider's operator of the same name.

The arguments say which cluster, as there; here they only pick one of the broker's targets. The worker signs nothing and
describes no cluster. Of the AWS connection the role and the region are read, by Airflow's own means, so the Amazon
provider need not be installed; the connection's keys are never looked at and never sent.
"""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

from podbroker import InvalidRequestError, NotFoundError, PodbrokerError, TargetPlace
from podbroker.airflow import exceptions as ex
from podbroker.airflow._compat import AirflowException, AirflowNotFoundException, BaseHook
from podbroker.airflow.chain import readable
from podbroker.airflow.hook import PodbrokerHook
from podbroker.airflow.operator import RemotePodOperator

if TYPE_CHECKING:
    import logging
    from collections.abc import Sequence

    from airflow.sdk import Context
    from airflow.sdk._shared.logging.types import Logger
    from kubernetes.client import models as k8s

    _Log: TypeAlias = logging.Logger | Logger

__all__ = ["EksPodOperator", "place_of_cluster"]

_PARTS = ("cluster", "region", "namespace", "role_arn")


class EksPodOperator(RemotePodOperator):
    """Runs a pod at the broker's target for an EKS cluster.

    Takes every argument of ``RemotePodOperator`` but ``target``, and of ``KubernetesPodOperator`` but ``config_file``.

    Args:
        cluster_name: The EKS cluster's name. Templated.
        in_cluster: Without effect; here because the Amazon provider's operator has it. Templated.
        namespace: The namespace that the pod runs in, which is a part of the choice of the target. Templated.
        pod_name: The pod's name, to which a random suffix is added. None: the task's id. Templated.
        aws_conn_id: The AWS connection that says the role (``role_arn``) and the region (``region_name``) in its extra.
            A connection that does not exist, or None, leaves both open. Templated.
        region: The AWS region. None: the connection's, else ``AWS_DEFAULT_REGION``, else any. Templated.
        on_finish_action: ``delete_pod`` (also for None), ``delete_succeeded_pod`` or ``keep_pod``.

    """

    template_fields: Sequence[str] = (
        *RemotePodOperator.template_fields,
        "cluster_name",
        "in_cluster",
        "pod_name",
        "aws_conn_id",
        "region",
    )

    def __init__(
        self,
        *,
        cluster_name: str,
        in_cluster: bool = False,
        namespace: str | None = "default",
        pod_name: str | None = None,
        aws_conn_id: str | None = "aws_default",
        region: str | None = None,
        on_finish_action: str | None = None,
        **kwargs: Any,  # noqa: ANN401 -- the arguments of RemotePodOperator
    ) -> None:
        """Take the arguments; neither the connection nor the broker is asked yet."""
        for name, why in _REFUSED.items():
            if kwargs.pop(name, None) is not None:
                message = f"EksPodOperator takes no {name}: {why}"
                raise AirflowException(message)
        if on_finish_action is not None:
            kwargs["on_finish_action"] = on_finish_action
        super().__init__(in_cluster=in_cluster, namespace=namespace, name=pod_name, **kwargs)
        self.cluster_name = cluster_name
        self.pod_name = pod_name
        self.aws_conn_id = aws_conn_id
        self.region = region

    @cached_property
    def hook(self) -> PodbrokerHook:
        """The connection to the broker, with the cluster as its target whatever that connection's default is."""
        if not self.cluster_name:
            message = "cluster_name is empty: it says at which of the broker's targets the pod runs"
            raise AirflowException(message)
        place = place_of_cluster(
            cluster_name=self.cluster_name,
            namespace=self.namespace,
            region=self.region,
            aws_conn_id=self.aws_conn_id,
            log=self.log,
        )
        return PodbrokerHook(self.podbroker_conn_id, target=place)

    @property
    def named_target(self) -> str | None:
        """The place as the arguments say it, without what the AWS connection would add. Asks nobody."""
        return readable(
            TargetPlace(cluster=self.cluster_name, region=self.region or "", namespace=self.namespace or "")
        )

    def get_or_create_pod(self, pod_request_obj: k8s.V1Pod, context: Context) -> k8s.V1Pod:
        """Start the execution, or find the one to go on with; say what to configure when no one target fits."""
        try:
            return super().get_or_create_pod(pod_request_obj, context)
        except ex.RemotePodRefused as error:
            if not _means_target(error.__cause__):
                raise
            raise self._no_target(error.__cause__) from error.__cause__

    def _no_target(self, cause: BaseException | None) -> ex.RemotePodRefused:
        asked = self.hook.target
        words = "Several targets of the broker fit" if isinstance(cause, InvalidRequestError) else _NO_TARGET
        lines = [f"{words} {readable(asked)}.", *self._offered(asked)]
        if isinstance(cause, InvalidRequestError):
            lines.append("Say more: region, and role_arn in the extra of the AWS connection; or use RemotePodOperator.")
        elif isinstance(asked, TargetPlace):
            lines += ["Correct the arguments or the AWS connection, or add to the broker's configuration:"]
            lines += ["  [[targets]]", f'  name = "{asked.cluster.lower().replace("_", "-")}"', '  kind = "eks"']
            lines += [f'  {part} = "{getattr(asked, part) or "..."}"' for part in _PARTS]
            lines.append("and the name to the targets of this caller's token there.")
        return ex.RemotePodRefused("\n".join(lines))

    def _offered(self, asked: str | TargetPlace) -> list[str]:
        """List what the broker offers to this caller, and in what each differs."""
        try:
            targets = self.hook.conn.targets()
        except PodbrokerError as error:
            self.log.info("The broker's targets cannot be listed: %s", error)
            return []
        if not targets:
            return ["The broker offers no target to this caller."]
        lines = ["The broker offers:"]
        for target in targets:
            differs = [part for part in _PARTS if getattr(asked, part, "") not in {"", getattr(target.place, part)}]
            note = f"; differs in {', '.join(differs)}" if differs else ""
            lines.append(f"  {target.name} ({readable(target.place) or 'no place'}{note})")
        return lines


_NO_TARGET = "No target of the broker fits"

_REFUSED = {
    "config_file": "the broker reaches the cluster, not the worker.",
    "aws_profile": "the worker needs no AWS credential; the broker's target says which role is assumed.",
    "target": "it is found by cluster_name, region, namespace and the role of the AWS connection. "
    "RemotePodOperator takes the name of a target.",
}


def place_of_cluster(
    *, cluster_name: str, namespace: str | None, region: str | None, aws_conn_id: str | None, log: _Log
) -> dict[str, str]:
    """Say which target is meant, as ``RemotePodOperator.target`` takes it; parts that are not known are left out.

    Of the AWS connection nothing but ``role_arn`` and ``region_name`` of its extra is used.
    """
    extra = _extra_of(aws_conn_id, log)
    parts = {
        "cluster": cluster_name,
        # In the order in which the Amazon provider looks for it.
        "region": region or extra.get("region_name") or os.environ.get("AWS_DEFAULT_REGION"),
        "namespace": namespace,
        "role_arn": extra.get("role_arn"),
    }
    return {part: str(value) for part, value in parts.items() if value}


def _extra_of(aws_conn_id: str | None, log: _Log) -> dict[str, Any]:
    if not aws_conn_id:
        return {}
    try:
        extra: Any = BaseHook.get_connection(aws_conn_id).extra_dejson
    except AirflowNotFoundException:
        log.info("There is no connection %s: the target is found without a role", aws_conn_id)
        return {}
    if not isinstance(extra, dict):
        return {}
    if not extra.get("role_arn"):
        log.info("The connection %s names no role_arn: the target is found without a role", aws_conn_id)
    return {name: extra.get(name) for name in ("role_arn", "region_name")}


def _means_target(cause: BaseException | None) -> bool:
    """Tell whether a call was refused because the place fits no target, or more than one."""
    if isinstance(cause, NotFoundError):
        return cause.reason == "NO_SUCH_TARGET"
    return isinstance(cause, InvalidRequestError) and any(
        violation.field.startswith("target") for violation in cause.field_violations
    )
