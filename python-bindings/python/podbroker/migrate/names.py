"""What takes the place of what, and what the arguments of the old operators mean here. Only data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

__all__ = [
    "BATCH_REFUSED",
    "CLUSTER_ARGUMENTS",
    "DECORATORS",
    "GONE",
    "MODULES",
    "NEW_MODULE",
    "OLD_BATCH",
    "OPERATORS",
    "OTHERS",
    "OURS",
    "OWNED_METHODS",
    "REFUSED",
    "TASK_NAMES",
    "WITHOUT_EFFECT",
    "Kind",
    "New",
]


class Kind(Enum):
    """What an operator name means."""

    POD = "pod"
    """``KubernetesPodOperator`` or ``RemotePodOperator``, or those for Jobs, which take the same arguments and more."""
    EKS = "eks"
    """``EksPodOperator`` of either side."""
    BATCH = "batch"
    """``BatchOperator`` of either side."""
    DECORATOR = "decorator"
    """A task decorator that makes such an operator."""


@dataclass(frozen=True)
class New:
    """A name of this package."""

    module: str
    name: str
    kind: Kind


NEW_MODULE: Final = "podbroker.airflow"
"""Where DAGs import from."""

_POD: Final = New(NEW_MODULE, "RemotePodOperator", Kind.POD)
_JOB: Final = New(NEW_MODULE, "RemoteJobOperator", Kind.POD)
_KUEUE: Final = New(NEW_MODULE, "RemoteStartKueueJobOperator", Kind.POD)
_EKS: Final = New(NEW_MODULE, "EksPodOperator", Kind.EKS)
_KUBERNETES: Final = "airflow.providers.cncf.kubernetes"
_AMAZON: Final = "airflow.providers.amazon.aws.operators.eks"

OLD_BATCH: Final = "airflow.providers.amazon.aws.operators.batch.BatchOperator"
"""Rewritten only where its jobs certainly run on EKS: see ``batch``."""

BATCH_REFUSED: Final = {
    "container_overrides": "it is of jobs on ECS",
    "ecs_properties_override": "it is of jobs on ECS",
    "node_overrides": "jobs on EKS have no nodes of their own",
    "waiters": "nothing is polled, and BatchOperator refuses it",
    "verify": "the broker speaks to AWS, and BatchOperator refuses it",
    "botocore_config": "the broker speaks to AWS, and BatchOperator refuses it",
    "region": "the argument is called region_name",
}
"""Arguments of the Amazon provider's ``BatchOperator`` with which ours fails where it is defined, with the reason."""

OPERATORS: Final = {
    f"{_KUBERNETES}.operators.pod.KubernetesPodOperator": _POD,
    # Where it was until release 10 of the provider, and in Airflow 1.10.
    f"{_KUBERNETES}.operators.kubernetes_pod.KubernetesPodOperator": _POD,
    "airflow.contrib.operators.kubernetes_pod_operator.KubernetesPodOperator": _POD,
    f"{_KUBERNETES}.operators.job.KubernetesJobOperator": _JOB,
    f"{_KUBERNETES}.operators.kueue.KubernetesStartKueueJobOperator": _KUEUE,
    f"{_AMAZON}.EksPodOperator": _EKS,
    # Its name until release 3 of the Amazon provider.
    f"{_AMAZON}.EKSPodOperator": _EKS,
    f"{_KUBERNETES}.decorators.kubernetes.kubernetes_task": New(
        f"{NEW_MODULE}.decorators", "remote_pod_task", Kind.DECORATOR
    ),
    f"{_KUBERNETES}.decorators.kubernetes_cmd.kubernetes_cmd_task": New(
        f"{NEW_MODULE}.decorators", "remote_pod_cmd_task", Kind.DECORATOR
    ),
}
"""The old name of everything that is rewritten, with the module that it is imported from."""

MODULES: Final = frozenset(name.rpartition(".")[0] for name in OPERATORS)
"""The modules that have such a name."""

OURS: Final = {
    **{
        f"{NEW_MODULE}{inner}.{new.name}": new
        for inner, new in (
            ("", _POD),
            (".operator", _POD),
            ("", _JOB),
            (".kube_job", _JOB),
            ("", _KUEUE),
            (".kube_job", _KUEUE),
            ("", _EKS),
            (".eks", _EKS),
        )
    },
    **{f"{new.module}.{new.name}": new for new in OPERATORS.values() if new.kind is Kind.DECORATOR},
}
"""What has been rewritten already is looked at like the rest, so that a second run says the same."""

TASK_NAMES: Final = (
    "airflow.sdk.task",
    "airflow.decorators.task",
    "airflow.sdk.definitions.decorators.task",
    "airflow.providers.common.compat.sdk.task",
)
"""Where ``task`` comes from."""

DECORATORS: Final = {"kubernetes": "remote_pod", "kubernetes_cmd": "remote_pod_cmd"}
"""The attributes of ``task``."""

_CLUSTER: Final = "it says which cluster; here target= does, or the default target of the connection podbroker_default"
_POLLING: Final = "nothing is polled"

WITHOUT_EFFECT: Final = {
    "in_cluster": _CLUSTER,
    "config_file": _CLUSTER,
    "cluster_context": _CLUSTER,
    "kubernetes_conn_id": _CLUSTER,
    "logging_interval": f"{_POLLING}: lines come as they are written",
    "trigger_kwargs": "there is no trigger of upstream that would take them",
    "poll_interval": _POLLING,
    "startup_check_interval_seconds": _POLLING,
    "job_poll_interval": _POLLING,
    "discover_pods_retry_number": _POLLING,
    "base_container_status_polling_interval": _POLLING,
    "xcom_sidecar_container_security_context": "the broker's own sidecar fits the `restricted` pod security standard",
}
"""Arguments that are taken and mean nothing, with the reason."""

CLUSTER_ARGUMENTS: Final = frozenset(name for name, reason in WITHOUT_EFFECT.items() if reason is _CLUSTER)
"""Those of them that chose a cluster, so that somebody has to choose a target instead."""

REFUSED: Final = {
    Kind.POD: {},
    Kind.EKS: {
        "config_file": "the broker reaches the cluster, and EksPodOperator refuses it",
        "aws_profile": "the broker's target says which role is assumed, and EksPodOperator refuses it",
    },
}
"""Arguments with which the task fails where it is defined, with the reason."""

OWNED_METHODS: Final = frozenset(
    {
        "await_init_containers_completion",
        "await_pod_completion",
        "await_pod_start",
        "cleanup",
        "client",
        "execute_async",
        "execute_sync",
        "extract_xcom",
        "find_pod",
        "get_or_create_pod",
        "hook",
        "invoke_defer_method",
        "on_kill",
        "patch_already_checked",
        "pod_manager",
        "post_complete_action",
        "process_pod_deletion",
        "trigger_reentry",
    }
)
"""What a subclass of the old operator may override to change its life cycle, which is not upstream's any more."""

GONE: Final = {
    "pod_manager": "no PodManager is used: what is called on it has no effect on the pod",
    "client": "the client reads and cancels this pod only; it is no CoreV1Api",
    "hook": "the hook is a PodbrokerHook: it has no Kubernetes client",
}
"""Attributes of an operator that are something else here."""

OTHERS: Final = {
    f"{_KUBERNETES}.hooks.kubernetes.KubernetesHook": "the hook speaks to a cluster itself",
    f"{_KUBERNETES}.hooks.kubernetes.AsyncKubernetesHook": "the hook speaks to a cluster itself",
    f"{_KUBERNETES}.utils.pod_manager.PodManager": "the class speaks to a cluster itself",
    f"{_KUBERNETES}.triggers.pod.KubernetesPodTrigger": "the trigger speaks to a cluster itself",
    f"{_KUBERNETES}.operators.job.KubernetesDeleteJobOperator": "there is no such operator here",
    f"{_KUBERNETES}.operators.job.KubernetesPatchJobOperator": "there is no such operator here",
    f"{_KUBERNETES}.operators.kueue.KubernetesInstallKueueOperator": "there is no such operator here",
    f"{_KUBERNETES}.operators.resource.KubernetesCreateResourceOperator": "there is no such operator here",
    f"{_KUBERNETES}.operators.resource.KubernetesDeleteResourceOperator": "there is no such operator here",
    f"{_KUBERNETES}.operators.spark_kubernetes.SparkKubernetesOperator": "there is no such operator here",
    "airflow.providers.google.cloud.operators.kubernetes_engine.GKEStartPodOperator": "there is no such operator here",
}
"""What stays as it is and still needs a credential of the cluster, with the reason."""
