"""The Apache Airflow provider of podbroker.

``RemotePodOperator`` takes the place of ``KubernetesPodOperator``, ``RemoteJobOperator`` and
``RemoteStartKueueJobOperator`` of those for Kubernetes Jobs, ``EksPodOperator`` and ``BatchOperator`` of those that the
Amazon provider has; ``PodbrokerHook`` is the connection to the broker; ``podbroker.airflow.exceptions`` is
what a failed task raises. The names are imported when they are first used, so that Airflow can read the provider's
description without loading the operators.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from podbroker.airflow.batch import BatchOperator
    from podbroker.airflow.eks import EksPodOperator
    from podbroker.airflow.hook import PodbrokerHook
    from podbroker.airflow.kube_job import RemoteJobOperator, RemoteStartKueueJobOperator
    from podbroker.airflow.operator import RemotePodOperator

__all__ = [
    "BatchOperator",
    "EksPodOperator",
    "PodbrokerHook",
    "RemoteJobOperator",
    "RemotePodOperator",
    "RemoteStartKueueJobOperator",
]

_HOMES = {
    "BatchOperator": "podbroker.airflow.batch",
    "EksPodOperator": "podbroker.airflow.eks",
    "PodbrokerHook": "podbroker.airflow.hook",
    "RemoteJobOperator": "podbroker.airflow.kube_job",
    "RemotePodOperator": "podbroker.airflow.operator",
    "RemoteStartKueueJobOperator": "podbroker.airflow.kube_job",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 -- whatever is asked for
    """Import a public name when it is first used."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
