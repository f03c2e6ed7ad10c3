"""The triggers that are measured, made as their operators make them.

This is imported by who must not import Airflow: what a kind of trigger needs is imported when one is made.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.triggers.base import BaseTrigger

#: The container of the pods, as `e2e.manifests.shell` names it.
CONTAINER: Final = "main"
#: Files of a triggerer's folder: all triggers run; what its process has measured; the process.
STARTED: Final = "started"
MEASURED: Final = "measured.json"
PID: Final = "pid"
#: How often the peer shows lines where it does, in seconds; by default it shows none while a task is deferred.
LOGGING_INTERVAL: Final = 10


@dataclass(frozen=True, kw_only=True)
class Specification:
    """What to run."""

    kind: str
    """A key of `KINDS`."""
    folder: str
    tasks: list[dict[str, str]]
    """`name` of the execution and `pod`, for each trigger; the first trigger's id is 1."""
    namespace: str = ""
    kubeconfig: str = ""
    """Of the peer's user, a path."""


def _ours(task: dict[str, str], specification: Specification, *, lines: bool) -> BaseTrigger:
    from podbroker.airflow.lines import LineSpec
    from podbroker.airflow.trigger import RemotePodTrigger

    spec = LineSpec.of(
        base_container=CONTAINER,
        containers=True,
        init_containers=None,
        prefix=True,
        formatter=None,
        callbacks=[],
        progress=None,
    )
    return RemotePodTrigger(
        name=task["name"],
        claim="",
        podbroker_conn_id="podbroker_default",
        pod_name=task["pod"],
        pod_namespace=specification.namespace,
        lines=spec.to_json() if lines else None,
        began=time.time(),
    )


def _peer(task: dict[str, str], specification: Specification, *, logging_interval: int | None) -> BaseTrigger:
    """Makes the provider's trigger with what its operator gives it by default."""
    from airflow.providers.cncf.kubernetes.triggers.pod import KubernetesPodTrigger

    return KubernetesPodTrigger(
        pod_name=task["pod"],
        pod_namespace=specification.namespace,
        trigger_start_time=datetime.now(UTC),
        base_container_name=CONTAINER,
        kubernetes_conn_id="kubernetes_default",
        connection_extras={},
        config_dict=json.loads(Path(specification.kubeconfig).read_text()),
        in_cluster=False,
        logging_interval=logging_interval,
    )


def _waiting(task: dict[str, str], specification: Specification) -> BaseTrigger:  # noqa: ARG001  as the others
    from bench.waiting import Waiting

    return Waiting()  # type: ignore[no-untyped-call]


KINDS: Final[dict[str, Callable[[dict[str, str], Specification], BaseTrigger]]] = {
    "waiting": _waiting,
    "ours": lambda task, specification: _ours(task, specification, lines=False),
    "ours-lines": lambda task, specification: _ours(task, specification, lines=True),
    "peer": lambda task, specification: _peer(task, specification, logging_interval=None),
    "peer-lines": lambda task, specification: _peer(task, specification, logging_interval=LOGGING_INTERVAL),
}
