"""The little of a Kubernetes client that callbacks and subclasses may still use.

Upstream hands its callbacks a ``CoreV1Api``. A worker of ours has no credential for one, so they get this instead: it
reads and lists the execution's own pod through the broker, and deletes it by cancelling. Everything else is refused in
words that say why.
"""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator

from podbroker.airflow._compat import AirflowException, PodNotFoundException

if TYPE_CHECKING:
    from collections.abc import Callable

    from kubernetes.client import models as k8s

    from podbroker import Execution

__all__ = ["PodClient", "manifest_of", "named_pod", "pod_of"]


def manifest_of(pod: k8s.V1Pod) -> dict[str, Any]:
    """Turn a pod into the JSON that the API server takes; asks no cluster."""
    manifest: dict[str, Any] = PodGenerator.serialize_pod(pod)
    return manifest


def pod_of(execution: Execution | None) -> k8s.V1Pod | None:
    """Read the pod of an execution's full view; None when it has none."""
    if execution is None or not execution.pod_json:
        return None
    return PodGenerator.deserialize_model_dict(json.loads(execution.pod_json))


def named_pod(name: str, namespace: str) -> k8s.V1Pod:
    """Stand in for a pod that cannot be read any more."""
    return PodGenerator.deserialize_model_dict({"metadata": {"name": name, "namespace": namespace or None}})


class PodClient:
    """Reads the pod of one execution, in the words of ``CoreV1Api``."""

    def __init__(self, *, read: Callable[[], k8s.V1Pod | None], cancel: Callable[[str], object]) -> None:
        """``read`` asks the broker for the pod, ``cancel`` for its end with a reason."""
        self._read = read
        self._cancel = cancel

    def read(self) -> k8s.V1Pod | None:
        """Read the execution's pod; None while there is none."""
        return self._read()

    def read_namespaced_pod(self, name: str, namespace: str, **_: object) -> k8s.V1Pod:
        """Read the execution's pod."""
        pod = self._read()
        if pod is None or pod.metadata.name != name or pod.metadata.namespace not in {namespace, None}:
            message = f"The broker shows no pod {namespace}/{name} for this execution"
            raise PodNotFoundException(message)
        return pod

    def list_namespaced_pod(self, namespace: str, **_: object) -> SimpleNamespace:
        """List the execution's pod, whatever the selector."""
        pod = self._read()
        return SimpleNamespace(items=[pod] if pod is not None and pod.metadata.namespace in {namespace, None} else [])

    def delete_namespaced_pod(self, name: str, namespace: str, **_: object) -> None:
        """Cancel the execution."""
        self._cancel(f"delete of pod {namespace}/{name} through the operator's client")

    def __getattr__(self, name: str) -> NoReturn:
        """Refuse what would need a credential of the cluster."""
        if name.startswith("_"):
            raise AttributeError(name)
        message = (
            f"{name} is not available: the broker holds the credentials of the cluster, and its client reads, lists and"
            " deletes the pod of this execution only"
        )
        raise AirflowException(message)
