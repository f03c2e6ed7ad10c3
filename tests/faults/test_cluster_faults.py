"""Parts of the cluster stop, die, hang and come back while pods run."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest

import podbroker
from e2e.following import Story, collect, ended, follow, follow_until, has_line
from e2e.manifests import UNTIL_TOLD, numbered, shell
from e2e.waiting import wait_for
from podbroker import ExecutionState, FailureClass, GapReason

if TYPE_CHECKING:
    from e2e.broker import Brokers
    from e2e.site import Namespace, Site
    from podbroker import Client

pytestmark = pytest.mark.timeout(600)

TARGET = "local"
#: About 15 seconds of lines.
SLOW = numbered(500, pause="0.03")
SLOW_LINES = [f"line {i}" for i in range(1, 501)]


@pytest.mark.parametrize("part", ["kube-apiserver", "etcd", "kubelet", "kube-controller-manager", "kube-scheduler"])
@pytest.mark.parametrize("action", ["restart", "kill"])
def test_every_line_arrives_once_although_a_part_of_the_cluster_goes_and_comes_back(
    site: Site, client: Client, part: str, action: str
) -> None:
    name = client.submit(target=TARGET, execution_id="part", pod=shell(SLOW)).execution.name
    with client.watch(name) as watch:
        story = collect(watch, Story(), has_line("line 100"), within=120)
        site.cluster.component(part, action)
        site.cluster.component(part, "start")
        collect(watch, story, ended, within=240)

    assert story.text() == SLOW_LINES
    assert not story.gaps
    assert story.outcome.exit_code == 0


@pytest.mark.parametrize("part", ["kube-apiserver", "etcd", "kubelet", "containerd"])
def test_every_line_arrives_once_although_a_part_of_the_cluster_hangs(site: Site, client: Client, part: str) -> None:
    name = client.submit(target=TARGET, execution_id="hang", pod=shell(SLOW)).execution.name
    with client.watch(name) as watch:
        story = collect(watch, Story(), has_line("line 100"), within=120)
        site.cluster.component(part, "pause")
        # Long enough that whoever waits for it gives up once; the watch itself tells the time.
        assert _is_silent(watch, story, seconds=15) or part in {"etcd", "containerd"}
        site.cluster.component(part, "resume")
        collect(watch, story, ended, within=240)

    assert story.text() == SLOW_LINES
    assert not story.gaps


def _is_silent(watch: podbroker.Watch, story: Story, *, seconds: float) -> bool:
    """Reads for so long; says whether the last third of the lines was still missing then."""
    event = watch.poll(seconds)
    while event is not None:
        story.add(event)
        if isinstance(event, podbroker.End):
            return False
        event = watch.poll(seconds)
    return len(story.text()) < len(SLOW_LINES)


def test_a_submit_while_the_api_server_is_away_makes_one_pod_when_it_is_back(
    site: Site, namespace: Namespace, client: Client
) -> None:
    site.cluster.component("kube-apiserver", "stop")
    with pytest.raises(podbroker.UnavailableError):
        client_of_little_patience(client).submit(target=TARGET, execution_id="away", pod=shell("echo hi"))
    site.cluster.component("kube-apiserver", "start")

    name = client.submit(target=TARGET, execution_id="away", pod=shell("echo hi")).execution.name

    assert follow(client, name).text() == ["hi"]
    assert len(namespace.pods) == 1


def client_of_little_patience(client: Client) -> Client:
    """Another client of the same broker."""
    found = re.search(r"http://[^'\"]+", repr(client))
    assert found is not None
    return podbroker.Client(found[0], retry_for=2.0)


def test_a_cancel_while_the_kubelet_is_away_is_carried_out_when_it_is_back(site: Site, client: Client) -> None:
    name = client.submit(target=TARGET, execution_id="cancel", pod=shell(UNTIL_TOLD)).execution.name
    follow_until(client, name, has_line("ready"))
    site.cluster.component("kubelet", "stop")

    client.cancel(name)
    assert client.get(name).state is ExecutionState.RUNNING
    site.cluster.component("kubelet", "start")

    story = follow(client, name, within=240)
    assert story.end.state is ExecutionState.CANCELLED
    assert story.text() == ["ready", "bye"]


def test_a_process_killed_on_the_node_is_a_failure_of_the_application(
    site: Site, namespace: Namespace, client: Client
) -> None:
    name = client.submit(target=TARGET, execution_id="killed", pod=shell(UNTIL_TOLD)).execution.name
    follow_until(client, name, has_line("ready"))
    container = namespace.only_pod["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")

    subprocess.run([site.cluster.facts["ctr"], "tasks", "kill", "-s", "SIGKILL", container], check=True)

    outcome = follow(client, name).outcome
    assert outcome.failure_class is FailureClass.APPLICATION
    assert outcome.exit_code == 137


def test_a_pod_evicted_from_a_silent_node_has_not_ended_until_the_node_says_so(
    site: Site, namespace: Namespace, client: Client
) -> None:
    name = client.submit(target=TARGET, execution_id="lost", pod=shell(UNTIL_TOLD)).execution.name
    follow_until(client, name, has_line("ready"))
    site.cluster.component("kubelet", "kill")
    # The controllers do not evict by themselves when every node is silent, and there is only one.
    taint = {"key": "podbroker.test/lost", "effect": "NoExecute"}
    node = site.cluster.facts["node"]
    before = site.core.read_node(node).spec.taints or []
    site.core.patch_node(node, {"spec": {"taints": [*site.api.sanitize_for_serialization(before), taint]}})
    try:
        wait_for("the eviction", lambda: namespace.only_pod["metadata"].get("deletionTimestamp"), within=120)
        # Nobody can say whether the container still runs; it does.
        assert client.get(name).state is ExecutionState.RUNNING
    finally:
        site.core.patch_node(node, {"spec": {"taints": site.api.sanitize_for_serialization(before) or None}})
    site.cluster.component("kubelet", "start")
    story = follow(client, name, within=240)

    assert story.outcome.failure_class is FailureClass.NODE_LOST
    assert story.text()[0] == "ready"


def test_lines_over_many_rotations_arrive_once_or_a_gap_says_so(client: Client) -> None:
    # About 12 MB at 600 kB/s: the file is rotated at half a megabyte, the kubelet looks every 3 seconds.
    script = (
        "filler=$(head -c 1000 /dev/zero | tr '\\0' x); i=0; "
        "while [ $i -lt 12000 ]; do i=$((i+1)); echo $i $filler; [ $((i % 60)) = 0 ] && sleep 0.1; done"
    )
    name = client.submit(target=TARGET, execution_id="rotate", pod=shell(script)).execution.name

    story = follow(client, name, within=300)

    numbers = [int(line.split(" ", 1)[0]) for line in story.text()]
    assert numbers == sorted(set(numbers)), "each once and in order"
    missing = set(range(1, 12001)) - set(numbers)
    if missing:
        reasons = {gap.reason for gap in story.gaps}
        assert reasons & {GapReason.ROTATED, GapReason.RESUME_AMBIGUOUS, GapReason.DRAIN_DEADLINE}, (
            f"{len(missing)} lines are missing and nobody says so"
        )
    else:
        assert numbers[-1] == 12000


def test_what_is_left_after_rotations_that_nobody_saw_has_no_hole(client: Client, brokers: Brokers) -> None:
    script = (
        "filler=$(head -c 1000 /dev/zero | tr '\\0' x); i=0; "
        "while [ $i -lt 12000 ]; do i=$((i+1)); echo $i $filler; [ $((i % 60)) = 0 ] && sleep 0.1; done"
    )
    name = client.submit(target=TARGET, execution_id="late", pod=shell(script)).execution.name
    wait_for("the pod to end", lambda: client.get(name).state.is_final, within=240)

    story = follow(client, name)

    numbers = [int(line.split(" ", 1)[0]) for line in story.text()]
    # The API shows the newest file only and not that there were others: nobody can tell what came before it.
    assert numbers == list(range(numbers[0], 12001))
    assert brokers.show().count("panicked") == 0
