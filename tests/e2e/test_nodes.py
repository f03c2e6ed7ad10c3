"""A pod that loses its place to another one, or its node: what the cluster's own controllers do, and how it is told."""

from __future__ import annotations

import contextlib
import datetime
import secrets
from typing import TYPE_CHECKING, Any, Final

import pytest
from kubernetes import client as kubernetes

from e2e.following import follow, follow_until, has_line
from e2e.manifests import Manifest, container, pod, shell
from e2e.waiting import wait_for
from podbroker import ExecutionState, FailureClass

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.site import Namespace, Site
    from podbroker import Client

TARGET: Final = "local"
#: Seconds. The controller that collects pods of nodes that are gone waits for 40 seconds, and looks every 20.
LONG: Final = 180.0
#: Runs until it is told to end, and ends in another second than that: times in a pod have whole seconds.
TAKES_TIME: Final = "trap 'sleep 2; echo bye; exit 0' TERM; echo ready; while :; do sleep 0.1; done"
#: A label of nodes that are taken back at any time, as Karpenter writes it.
SPOT: Final = {"karpenter.sh/capacity-type": "spot"}
#: Which node it is.
ITS_NAME: Final = "podbroker.test/node"


@pytest.fixture
def seat(site: Site) -> Iterator[str]:
    """A resource of which the node has one, so that it is full for those who ask for it, and for nobody else."""
    if not site.is_own:
        pytest.skip("elsewhere: the node is changed")
    resource, node = f"podbroker.test/seat-{secrets.token_hex(4)}", site.cluster.facts["node"]
    for amount in ("1", None):
        status = {"capacity": {resource: amount}, "allocatable": {resource: amount}}
        site.core.patch_node_status(node, {"status": status})
        if amount is not None:
            yield resource


@pytest.fixture
def priority_class(site: Site) -> Iterator[str]:
    """The name of a priority above that of other pods."""
    scheduling, name = kubernetes.SchedulingV1Api(site.api), f"pb-e2e-{secrets.token_hex(4)}"
    scheduling.create_priority_class({"metadata": {"name": name}, "value": 1000})
    yield name
    scheduling.delete_priority_class(name)


@pytest.fixture
def spot_node(site: Site) -> Iterator[str]:
    """A node without a kubelet, of the kind that is taken back."""
    if not site.is_own:
        pytest.skip("elsewhere: a node is made up")
    name = f"spot-{secrets.token_hex(4)}"
    room = {"cpu": "4", "memory": "4Gi", "pods": "10"}
    # No pod gets there that does not tolerate everything.
    taint = {"key": "podbroker.test/made-up", "effect": "NoSchedule"}
    metadata = {"name": name, "labels": {**SPOT, ITS_NAME: name}}
    status = {"capacity": room, "allocatable": room}
    site.core.create_node({"metadata": metadata, "spec": {"taints": [taint]}, "status": status})
    yield name
    with contextlib.suppress(kubernetes.ApiException):
        site.core.delete_node(name)


def sits(script: str, seat: str, **more: Any) -> Manifest:  # noqa: ANN401  fields of a pod's spec
    """A pod that needs the seat."""
    return pod(container("main", script, resources={"limits": {seat: "1"}}), **more)


def says_that_it_runs(namespace: Namespace, pod_name: str) -> None:
    """Writes the status of a pod as a kubelet does that has started its container."""
    now = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}"
    main = {
        "name": "main",
        "image": "",
        "imageID": "",
        "containerID": "containerd://1",
        "ready": True,
        "started": True,
        "restartCount": 0,
        "state": {"running": {"startedAt": now}},
    }
    status = {"phase": "Running", "startTime": now, "containerStatuses": [main]}
    namespace.site.core.patch_namespaced_pod_status(pod_name, namespace.name, {"status": status})


def test_a_pod_that_gives_way_to_one_of_higher_priority_is_preempted(
    client: Client, seat: str, priority_class: str
) -> None:
    low = client.submit(target=TARGET, execution_id="low", pod=sits(TAKES_TIME, seat)).execution.name
    follow_until(client, low, has_line("ready"), within=LONG)

    manifest = sits("echo in", seat, priorityClassName=priority_class)
    high = client.submit(target=TARGET, execution_id="high", pod=manifest).execution.name
    follow_until(client, high, lambda story: "PREEMPTING" in story.notices, within=LONG)

    preempted, other = (follow(client, name, within=LONG) for name in (low, high))
    assert preempted.outcome.state is ExecutionState.FAILED
    assert preempted.outcome.failure_class is FailureClass.PREEMPTED
    assert "higher priority" in preempted.outcome.message
    assert preempted.text() == ["ready", "bye"]
    assert other.outcome.state is ExecutionState.SUCCEEDED
    assert other.text() == ["in"]


def test_a_node_that_is_taken_away_is_a_spot_interruption_for_who_asked_for_such_a_node(
    namespace: Namespace, client: Client, site: Site, spot_node: str
) -> None:
    def submit(execution_id: str, **selector: str) -> str:
        spec = {"nodeSelector": {ITS_NAME: spot_node, **selector}, "tolerations": [{"operator": "Exists"}]}
        manifest = shell("sleep 600", **spec)
        return client.submit(target=TARGET, execution_id=execution_id, pod=manifest).execution.name

    def placed() -> list[str]:
        return [one["metadata"]["name"] for one in namespace.pods if one["spec"].get("nodeName") == spot_node]

    runs, waits = submit("runs", **SPOT), submit("waits", **SPOT)
    anywhere = submit("anywhere")
    wait_for("all to be placed", lambda: len(placed()) == 3, within=LONG)
    says_that_it_runs(namespace, client.get(runs).attempts[0].pod_name)
    wait_for("the broker to see it", lambda: client.get(runs).state is ExecutionState.RUNNING, within=LONG)

    site.core.delete_node(spot_node)

    stories = {name: follow(client, name, within=LONG) for name in (runs, waits, anywhere)}
    for name in (runs, waits):
        outcome = stories[name].outcome
        assert outcome.state is ExecutionState.FAILED
        assert outcome.failure_class is FailureClass.SPOT_INTERRUPTED
        assert spot_node in outcome.message
        assert outcome.exit_code is None
    assert stories[anywhere].outcome.failure_class is FailureClass.NODE_LOST
    # What it may have written went with its node, and that is said; who never ran has no lines to miss.
    assert [gap.instance.container for gap in stories[runs].gaps] == ["main"]
    assert not stories[waits].gaps
