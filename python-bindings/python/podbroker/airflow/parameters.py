"""What becomes of each argument of ``KubernetesPodOperator``, and of what subclasses of it override.

One table for three readers: the page ``docs/parameters.md`` is written from it, a test holds it against the provider's
signature, and the operator names at run time what it was given and cannot use, so that nothing is dropped in silence.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from podbroker.airflow._compat import AirflowNotFoundException, BaseHook, KubernetesPodOperator

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow.sdk._shared.logging.types import Logger
    from kubernetes.client import models as k8s

__all__ = [
    "EKS_PARAMETERS",
    "PARAMETERS",
    "Parameter",
    "Verdict",
    "namespace_of_connection",
    "uncalled_overrides",
    "unknown_containers",
    "upstream_defaults",
    "without_effect",
]


class Verdict(str, Enum):
    """How an argument compares with upstream's."""

    SAME = "same"
    BETTER = "better"
    DIFFERS = "differs"
    NO_EFFECT = "no effect"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Parameter:
    """What becomes of one argument."""

    verdict: Verdict
    how: str = ""
    """In one or two sentences for the author of a DAG; may be empty where nothing differs."""


_SAME = Parameter(Verdict.SAME)
_MANIFEST = Parameter(Verdict.SAME, "a field of the manifest")
_RATE = Parameter(Verdict.NO_EFFECT, "nothing is polled; accepted, and the task log says so")
_WAY = Parameter(Verdict.NO_EFFECT, "the broker reaches the cluster; accepted, and the task log says so")

PARAMETERS: Mapping[str, Parameter] = {
    # Connection.
    "kubernetes_conn_id": Parameter(
        Verdict.DIFFERS,
        "nothing is connected to. If it is not the default one, its `namespace` counts as upstream's does; the rest of"
        " it is not used",
    ),
    "in_cluster": _WAY,
    "cluster_context": _WAY,
    "config_file": _WAY,
    # Identity.
    "name": Parameter(
        Verdict.SAME, "a pod of an earlier process that the task goes on with keeps its name; `pod_name` says which"
    ),
    "random_name_suffix": _SAME,
    "namespace": Parameter(
        Verdict.DIFFERS,
        "argument, then spec or template, then connection, as upstream; then the target's in place of the worker's own."
        " The broker refuses one that the target does not have",
    ),
    "labels": Parameter(
        Verdict.SAME, "with upstream's own labels; `airflow_kpo_in_cluster` is always `False`, and the broker adds its"
    ),
    "annotations": _MANIFEST,
    # Container.
    "image": _MANIFEST,
    "cmds": _MANIFEST,
    "arguments": _MANIFEST,
    "image_pull_policy": _MANIFEST,
    "image_pull_secrets": _MANIFEST,
    "ports": _MANIFEST,
    "env_vars": _MANIFEST,
    "env_from": _MANIFEST,
    "configmaps": _MANIFEST,
    "secrets": _MANIFEST,
    "pod_runtime_info_envs": _MANIFEST,
    "volumes": _MANIFEST,
    "volume_mounts": _MANIFEST,
    "container_resources": _MANIFEST,
    "container_security_context": _MANIFEST,
    "termination_message_policy": Parameter(Verdict.SAME, "the message is in the exception"),
    "base_container_name": Parameter(
        Verdict.BETTER, "this container alone decides; one beside it that never ends hangs nothing"
    ),
    # Pod.
    "init_containers": _MANIFEST,
    "affinity": _MANIFEST,
    "tolerations": _MANIFEST,
    "node_selector": _MANIFEST,
    "runtime_class_name": _MANIFEST,
    "service_account_name": _MANIFEST,
    "automount_service_account_token": _MANIFEST,
    "hostnetwork": _MANIFEST,
    "host_aliases": _MANIFEST,
    "security_context": _MANIFEST,
    "dnspolicy": _MANIFEST,
    "dns_config": _MANIFEST,
    "hostname": _MANIFEST,
    "subdomain": _MANIFEST,
    "schedulername": _MANIFEST,
    "priority_class_name": _MANIFEST,
    "active_deadline_seconds": Parameter(Verdict.BETTER, "a field of the manifest, with an exception of its own"),
    "termination_grace_period": Parameter(Verdict.SAME, "a field of the manifest, which a kill keeps to"),
    "full_pod_spec": _SAME,
    "pod_template_file": Parameter(Verdict.SAME, "read on the worker"),
    "pod_template_dict": _SAME,
    # Start.
    "startup_timeout_seconds": Parameter(
        Verdict.DIFFERS,
        "added to `schedule_timeout_seconds`: one time from submit to the start of the base container. It does not run"
        " while a scheduling gate holds the pod back, and the broker keeps it while no worker looks",
    ),
    "schedule_timeout_seconds": Parameter(Verdict.DIFFERS, "see `startup_timeout_seconds`"),
    "startup_check_interval_seconds": _RATE,
    "log_events_on_startup": Parameter(
        Verdict.BETTER, "why the pod does not run yet, once each, as it happens; nothing lists the namespace's events"
    ),
    # Logs.
    "get_logs": Parameter(Verdict.BETTER, "each line once and in order; missing ones are announced with the reason"),
    "container_logs": Parameter(Verdict.BETTER, "all chosen containers at once, not one after the other"),
    "init_container_logs": Parameter(Verdict.BETTER, "as they are written, also while the pod is pending"),
    "container_name_log_prefix_enabled": _SAME,
    "log_formatter": _SAME,
    "logging_interval": _RATE,
    "log_events_on_failure": Parameter(
        Verdict.DIFFERS, "logs how each container ended; events are notices, which come as they happen"
    ),
    "log_pod_spec_on_failure": Parameter(
        Verdict.DIFFERS, "off unless asked for: the whole pod in an exception's text shows the values of `env_vars`"
    ),
    "progress_callback": Parameter(Verdict.BETTER, "called for each line; upstream keeps it and never calls it"),
    # End.
    "base_container_status_polling_interval": _RATE,
    "deferrable": Parameter(
        Verdict.BETTER, "lines of all containers, as they are written, in the triggerer's log of the task; kills work"
    ),
    "poll_interval": _RATE,
    "trigger_kwargs": Parameter(Verdict.NO_EFFECT, "ours takes none; accepted, and the task log says so"),
    "skip_on_exit_code": _SAME,
    "do_xcom_push": Parameter(
        Verdict.BETTER,
        "the broker adds a sidecar that needs no exec, and whose image it is told in its configuration; a value that is"
        " too large or no JSON is an error of its own. `result_source` leaves the sidecar out",
    ),
    "xcom_sidecar_container_security_context": Parameter(
        Verdict.NO_EFFECT,
        "the broker's sidecar fits the `restricted` pod security standard; accepted, and the task log says so",
    ),
    # Life.
    "durable": Parameter(
        Verdict.BETTER, "on every version of Airflow: by an id that the broker keeps, not by a name or labels"
    ),
    "reattach_on_restart": Parameter(Verdict.SAME, "the older name of `durable`"),
    "on_finish_action": Parameter(
        Verdict.DIFFERS,
        "`delete_active_pod` keeps the pod, and a container beside the base one that never ends runs on. The others are"
        " the same, and are kept to when the outcome was taken over",
    ),
    "on_kill_action": Parameter(
        Verdict.BETTER, "asked only when the task was really killed; a worker that is drained leaves the pod running"
    ),
    "is_delete_operator_pod": Parameter(Verdict.SAME, "ignored, as upstream"),
    "callbacks": Parameter(
        Verdict.DIFFERS,
        "in upstream's order; `client` reads and lists the pod of this execution, reads its log and cancels it, and"
        " refuses the rest",
    ),
}
"""Of ``KubernetesPodOperator``, in the order of the page."""

EKS_PARAMETERS: Mapping[str, Parameter] = {
    "cluster_name": Parameter(Verdict.DIFFERS, "picks the broker's target, with region, namespace and role"),
    "in_cluster": _WAY,
    "namespace": Parameter(Verdict.SAME, "and a part of the choice of the target; `None` leaves it to the target"),
    "pod_name": _SAME,
    "aws_conn_id": Parameter(Verdict.DIFFERS, "its role and its region pick the target; its keys are not looked at"),
    "region": Parameter(Verdict.SAME, "else the connection's, else `AWS_DEFAULT_REGION`"),
    "on_finish_action": Parameter(Verdict.SAME, "`None` is `delete_pod`"),
    "config_file": Parameter(Verdict.REFUSED, "as upstream refuses it"),
    "aws_profile": Parameter(Verdict.REFUSED, "in words; upstream documents it and has no such argument"),
    "trigger_kwargs": Parameter(Verdict.NO_EFFECT, "the task log says so; upstream raises TypeError"),
}
"""Of the Amazon provider's ``EksPodOperator``, where they are not those of ``KubernetesPodOperator``."""

_UNCALLED = (
    "await_pod_start",
    "await_init_containers_completion",
    "await_pod_completion",
    "extract_xcom",
    "invoke_defer_method",
    "is_istio_enabled",
    "kill_istio_sidecar",
    "patch_already_checked",
    "process_pod_deletion",
)
"""Steps of upstream's life cycle that are none of ours."""


@lru_cache(maxsize=1)
def upstream_defaults() -> Mapping[str, Any]:
    """Read the arguments of the installed provider's operator and their defaults."""
    signature = inspect.signature(KubernetesPodOperator.__init__)
    named = (each for each in signature.parameters.values() if each.kind is inspect.Parameter.KEYWORD_ONLY)
    return {each.name: each.default for each in named}


def without_effect(operator: KubernetesPodOperator) -> list[str]:
    """Name the arguments that the author gave and that do nothing here."""
    ignored = (name for name, parameter in PARAMETERS.items() if parameter.verdict is Verdict.NO_EFFECT)
    defaults = upstream_defaults()
    # The Amazon provider's operator gives in_cluster=False by itself.
    return [name for name in ignored if getattr(operator, name, None) not in (None, False, defaults.get(name))]


def uncalled_overrides(kind: type[KubernetesPodOperator]) -> list[str]:
    """Name the methods of upstream's life cycle that a subclass overrides and that nothing calls here."""
    return [name for name in _UNCALLED if getattr(kind, name, None) is not getattr(KubernetesPodOperator, name, None)]


def unknown_containers(operator: KubernetesPodOperator, pod: k8s.V1Pod) -> list[str]:
    """Name the containers whose lines are asked for and that the pod does not have."""
    spec = pod.spec
    wanted = [
        (operator.container_logs if operator.get_logs else None, spec.containers),
        (operator.init_container_logs, spec.init_containers),
    ]
    missing: list[str] = []
    for choice, containers in wanted:
        known = {container.name for container in containers or ()}
        missing += [name for name in _names(choice) if name not in known]
    return missing


def namespace_of_connection(conn_id: str | None, *, log: Logger) -> str | None:
    """Read the namespace that a Kubernetes connection says; None for the default one, which nobody has chosen."""
    if not conn_id or conn_id == upstream_defaults().get("kubernetes_conn_id"):
        return None
    try:
        extra: Any = BaseHook.get_connection(conn_id).extra_dejson
    except AirflowNotFoundException:
        log.info("There is no connection %s, and none is needed: the broker reaches the cluster", conn_id)
        return None
    # The prefix is of Airflow before 2.3; connections are older than the code that reads them.
    namespace = extra.get("namespace") or extra.get("extra__kubernetes__namespace")
    log.info(
        "Of the connection %s only its namespace is used, which is %s: the broker reaches the cluster",
        conn_id,
        namespace or "not set",
    )
    return str(namespace) if namespace else None


def _names(choice: Iterable[str] | str | bool | None) -> Iterable[str]:
    if isinstance(choice, bool) or choice is None:
        return ()
    return (choice,) if isinstance(choice, str) else choice
