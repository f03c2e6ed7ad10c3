"""The rows that break a part of the cluster; one after another, and mended after each."""

from __future__ import annotations

import contextlib
import time
from functools import partial
from typing import TYPE_CHECKING, Final

import podbroker
from cluster.identity import ROLE, USER
from e2e.following import ended, has_line
from e2e.manifests import UNTIL_TOLD, numbered, shell
from e2e.waiting import wait_for
from faults.pods import LONG, SLOW, TAKES_TIME
from faults.row import Place, Row
from faults.runner import PARTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from e2e.following import Story
    from faults.stage import Stage


def restarted(part: str) -> Callable[[Stage], None]:
    def play(stage: Stage) -> None:
        reader = stage.start(stage.broker().client(), SLOW, until="line 100")
        stage.component(part, "restart")
        reader.to_end()

    return play


def down(part: str, *, seconds: float) -> Callable[[Stage], None]:
    def play(stage: Stage) -> None:
        reader = stage.start(stage.broker().client(), LONG, until="line 50")
        stage.component(part, "kill")
        time.sleep(seconds)
        stage.component(part, "start")
        reader.to_end()

    return play


def paused(part: str, *, seconds: float) -> Callable[[Stage], None]:
    def play(stage: Stage) -> None:
        reader = stage.start(stage.broker().client(), LONG, until="line 50")
        stage.component(part, "pause")
        time.sleep(seconds)
        stage.component(part, "resume")
        reader.to_end()

    return play


def all_killed(stage: Stage) -> None:
    reader = stage.start(stage.broker().client(), shell(numbered(2000, pause="0.05")))
    for part in PARTS:
        if part != "containerd":
            reader.until(partial(_is_beyond, len(reader.story.text()) + 20))
            stage.component(part, "kill")
            stage.component(part, "start")
    reader.to_end()


def _is_beyond(lines: int, story: Story) -> bool:
    return len(story.text()) > lines or ended(story)


def submitted_while_away(stage: Stage) -> None:
    broker = stage.broker()
    stage.component("kube-apiserver", "stop")
    with contextlib.suppress(podbroker.UnavailableError):
        stage.submit(broker.client(retry_for=5), SLOW)
        stage.remarks.append("no error")
    stage.component("kube-apiserver", "start")
    stage.start(broker.client(), SLOW).to_end()


def ends_without_kubelet(stage: Stage) -> None:
    reader = stage.start(stage.broker().client(), SLOW, until="line 100")
    stage.component("kubelet", "stop")
    stage.await_written(400)
    stage.component("kubelet", "start")
    reader.to_end()


def cancelled_without_kubelet(stage: Stage) -> None:
    client = stage.broker().client()
    reader = stage.start(client, shell(UNTIL_TOLD), until="ready")
    stage.component("kubelet", "stop")
    client.cancel(reader.name)
    stage.component("kubelet", "start")
    reader.to_end()


def partitioned(stage: Stage) -> None:
    reader = stage.start(stage.broker().client(), LONG, until="line 50")
    stage.component("kubelet", "pause")
    wait_for("the node to be given up", lambda: stage.node_condition() == "Unknown", within=180, every=0.5)
    # The container runs, and whoever looks at the cluster alone would say that its node is lost.
    lines = stage.written()
    stage.await_written(lines + 20)
    stage.component("kubelet", "resume")
    reader.to_end()


def tainted(stage: Stage) -> None:
    reader = stage.start(stage.broker().client(), shell(TAKES_TIME), until="ready")
    with stage.taint():
        reader.to_end()


def tainted_and_silent(stage: Stage) -> None:
    client = stage.broker().client()
    reader = stage.start(client, shell(UNTIL_TOLD), until="ready")
    stage.component("kubelet", "kill")
    with stage.taint():
        wait_for("the eviction", lambda: stage.pod["metadata"].get("deletionTimestamp"), within=120)
        state = client.get(reader.name).state
        stage.remarks.append(f"{state} while nobody can know")
        assert state is podbroker.ExecutionState.RUNNING
    stage.component("kubelet", "start")
    reader.to_end()


def credentials_expired(stage: Stage) -> None:
    from e2e.aws import Aws

    folder = stage.brokers.folder / "aws"
    folder.mkdir()
    aws = Aws(site=stage.site, folder=folder)
    # The session's user may do everything, so that the row has a namespace of its own like any other.
    aws.map_roles({ROLE: {"username": USER, "groups": ["system:masters"]}})
    target = {**aws.target(namespace=stage.namespace.name), "name": stage.target}
    broker = stage.prepare(targets=[target], aws={"credentials": "irsa"})
    broker.environment |= aws.environment()
    reader = stage.start(broker.start().client(), LONG, until="line 50")
    for line in ("line 200", "line 400", "line 600"):
        aws.expire()
        # A request with the dead session, whatever the streams do.
        assert broker.client().get(reader.name, full=True).name == reader.name
        reader.until(has_line(line))
    reader.to_end()
    denied = sum(one["outcome"] == "ExpiredToken" for one in aws.checks())
    stage.remarks.append(f"{denied} tokens of a dead session")


ALONE: Final = Place.ALONE

ROWS: Final = (
    Row(fault="API server restart", play=restarted("kube-apiserver"), place=ALONE),
    Row(fault="API server down for 60 s", play=down("kube-apiserver", seconds=60), place=ALONE),
    Row(fault="API server paused for 20 s", play=paused("kube-apiserver", seconds=20), place=ALONE),
    Row(fault="etcd paused for 20 s", play=paused("etcd", seconds=20), place=ALONE),
    Row(fault="containerd paused for 20 s", play=paused("containerd", seconds=20), place=ALONE),
    Row(fault="each part of the cluster killed in turn", play=all_killed, place=ALONE),
    Row(fault="submit while the API server is away", play=submitted_while_away, place=ALONE),
    Row(fault="kubelet stopped, the pod ends meanwhile", play=ends_without_kubelet, place=ALONE),
    Row(
        fault="cancel while the kubelet is away",
        play=cancelled_without_kubelet,
        ends="CANCELLED CANCELLED_BY_CALLER",
        place=ALONE,
    ),
    Row(fault="node partitioned while the container runs", play=partitioned, place=ALONE),
    Row(fault="node tainted NoExecute", play=tainted, ends="FAILED NODE_LOST", place=ALONE),
    Row(fault="silent node tainted NoExecute", play=tainted_and_silent, ends="FAILED NODE_LOST", place=ALONE),
    Row(fault="credentials expired", play=credentials_expired, place=ALONE),
)
