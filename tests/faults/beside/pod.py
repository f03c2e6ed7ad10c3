"""Rows that break a pod, or in which what it does is the fault."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Final

import podbroker
from e2e.manifests import UNTIL_TOLD, container, numbered, pod, shell
from faults.pods import TAKES_TIME
from faults.row import Length, Row
from faults.stage import SIGNALS, SIGNALS_MOUNT

if TYPE_CHECKING:
    from collections.abc import Callable

    from e2e.manifests import Manifest
    from faults.stage import Stage


def pod_deleted(stage: Stage) -> None:
    reader = stage.start(stage.broker().client(), shell(TAKES_TIME), until="ready")
    stage.namespace.delete_pod(stage.pod["metadata"]["name"])
    reader.to_end()


def pod_evicted(stage: Stage) -> None:
    reader = stage.start(stage.broker().client(), shell(TAKES_TIME), until="ready")
    name = stage.pod["metadata"]["name"]
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    stage.site.core.create_namespaced_pod_eviction(name, stage.namespace.name, body)
    reader.to_end()


def process_killed(stage: Stage) -> None:
    reader = stage.start(stage.broker().client(), shell(UNTIL_TOLD), until="ready")
    ctr = stage.site.cluster.facts["ctr"]
    subprocess.run([ctr, "tasks", "kill", "-s", "SIGKILL", stage.container_id], check=True)
    reader.to_end()


def container_restarts(stage: Stage) -> None:
    script = "n=$(cat /signals/n 2>/dev/null || echo 0); echo $((n+1)) >/signals/n; echo run $n; sleep 1; [ $n = 2 ]"
    manifest = pod(
        container("main", script, volumeMounts=[SIGNALS_MOUNT]), volumes=[SIGNALS], restartPolicy="OnFailure"
    )
    stage.start(stage.broker().client(), manifest).to_end()


def init_fails(stage: Stage) -> None:
    manifest = pod(container("main", "echo never"), init=(container("first", "echo no; exit 5"),))
    stage.start(stage.broker().client(), manifest).to_end()


def sidecar_stays(stage: Stage) -> None:
    manifest = pod(container("main", numbered(50)), container("beside", "while :; do echo beside; sleep 0.2; done"))
    policies = podbroker.Policies(deciding_containers=("main",))
    story = stage.start(stage.broker().client(), manifest, policies=policies).to_end()
    # It runs on, and what it writes from now on is what the marker stands for.
    stage.await_written(len(story.text()) + len(story.text("beside")) + 1)


def plays(manifest: Manifest) -> Callable[[Stage], None]:
    """Nothing is broken; what the pod prints is the fault."""

    def play(stage: Stage) -> None:
        stage.start(stage.broker().client(), manifest).to_end()

    return play


ROWS: Final = (
    Row(fault="pod deleted by kubectl", play=pod_deleted, ends="FAILED POD_DELETED", length=Length.CORE),
    Row(fault="eviction", play=pod_evicted, ends="FAILED EVICTED"),
    Row(fault="process killed on the node", play=process_killed, ends="FAILED APPLICATION"),
    Row(fault="container restarts", play=container_restarts),
    Row(fault="init container fails", play=init_fails, ends="FAILED APPLICATION", length=Length.CORE),
    Row(fault="sidecar that never ends", play=sidecar_stays, may_give_up=True),
    Row(fault="line of 2 MB", play=plays(shell("head -c 2000000 /dev/zero | tr '\\0' x; echo; echo after"))),
    Row(fault="no newline at the end", play=plays(shell("echo one; printf two"))),
)
