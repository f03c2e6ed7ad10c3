"""Where the tests look for the provider's classes, and what we put there."""

from __future__ import annotations

import importlib
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

_PROVIDER = "airflow.providers.cncf.kubernetes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A name of the provider and ours for it."""

    module: str
    name: str
    ours: str
    """Module and attribute."""


OPERATOR = Place(
    module=f"{_PROVIDER}.operators.pod",
    name="KubernetesPodOperator",
    ours="podbroker.airflow.operator.RemotePodOperator",
)
"""Put in place before anything else of the provider is imported, so that what derives from it derives from ours."""

PLACES = (
    Place(
        module=f"{_PROVIDER}.operators.pod",
        name="KubernetesPodTrigger",
        ours="podbroker.airflow.trigger.RemotePodTrigger",
    ),
    Place(
        module=f"{_PROVIDER}.decorators.kubernetes",
        name="kubernetes_task",
        ours="podbroker.airflow.decorators.remote_pod_task",
    ),
    Place(
        module=f"{_PROVIDER}.decorators.kubernetes_cmd",
        name="kubernetes_cmd_task",
        ours="podbroker.airflow.decorators.remote_pod_cmd_task",
    ),
)
"""Put in place as far as ours exists."""

JOBS = (
    Place(
        module=f"{_PROVIDER}.operators.job",
        name="KubernetesJobOperator",
        ours="podbroker.airflow.kube_job.RemoteJobOperator",
    ),
    Place(
        module=f"{_PROVIDER}.operators.kueue",
        name="KubernetesStartKueueJobOperator",
        ours="podbroker.airflow.kube_job.RemoteStartKueueJobOperator",
    ),
)
"""Ours derive from the provider's own, which derives from its own operator for pods."""

_LOGS = "unit.cncf.kubernetes.utils.test_pod_manager"

IN_TESTS = {
    f"{_LOGS}.TestPodManager": {"PodManager": "parity.logs.PrintedLogs"},
    f"{_LOGS}.TestAsyncPodManager": {"AsyncPodManager": "parity.logs.NOTHING"},
    f"{_LOGS}.TestPodLogsConsumer": {"PodLogsConsumer": "parity.logs.NOTHING"},
    "unit.cncf.kubernetes.triggers.test_pod.TestKubernetesPodTrigger": {
        "KubernetesPodTrigger": "podbroker.airflow.trigger.RemotePodTrigger",
    },
}
"""Names that a module of tests has imported, which in one class of tests stand for ours."""


def put_in_place() -> None:
    """Put our classes in place, and the broker that plays what tests prepare."""
    for place in JOBS:
        _put(place)
    _put(OPERATOR)
    for place in PLACES:
        _put(place)

    from parity.broker import PlayedBroker
    from parity.reentry import begin_at_reentry
    from podbroker.airflow.hook import PodbrokerHook

    begin_at_reentry(found(OPERATOR.ours))
    conn = cached_property(lambda _: PlayedBroker())
    conn.__set_name__(PodbrokerHook, "conn")
    PodbrokerHook.conn = conn


@contextmanager
def placed_in(item: pytest.Item) -> Iterator[None]:
    """Put ours in the place of what the test's module has imported."""
    module, cls = getattr(item, "module", None), getattr(item, "cls", None)
    names = IN_TESTS.get(f"{cls.__module__}.{cls.__qualname__}", {}) if cls is not None else {}
    kept = {name: getattr(module, name) for name in names}
    for name, ours in names.items():
        setattr(module, name, found(ours))
    try:
        yield
    finally:
        for name, theirs in kept.items():
            setattr(module, name, theirs)


def found(path: str) -> Any:
    """Import something by its path."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _put(place: Place) -> None:
    ours = found(place.ours)
    module = importlib.import_module(place.module)
    if not hasattr(module, place.name):
        raise AttributeError(f"{place.module} has no {place.name} to take the place of")
    setattr(module, place.name, ours)
