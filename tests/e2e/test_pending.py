"""Why an execution does not run yet is told, once, in the watch and in one line of `get`; also without events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from kubernetes import client as kubernetes

import podbroker
from e2e.following import Story, collect, follow, follow_until
from e2e.manifests import container, pod, shell
from e2e.waiting import wait_for
from podbroker import ExecutionState

if TYPE_CHECKING:
    from collections.abc import Callable

    from e2e.broker import Brokers
    from e2e.site import Namespace, Site
    from podbroker import Client

TARGET: Final = "local"
#: A pod that waits for a secret which nobody has made.
NO_SECRET: Final = pod(
    container("main", "true", volumeMounts=[{"name": "keys", "mountPath": "/keys"}]),
    volumes=[{"name": "keys", "secret": {"secretName": "keys"}}],
)
#: What the kubelet says of it. On a busy node it may first say only that its copies of objects take long.
NO_KEYS: Final = 'secret "keys" not found'


def told(code: str, text: str = "") -> Callable[[Story], bool]:
    """A condition: a notice with this code has come, with these words in it."""
    return lambda story: any(text in said for said in words(story, code))


def words(story: Story, code: str) -> list[str]:
    """What the notices with this code say."""
    return [one.message for one in story.events if isinstance(one, podbroker.Notice) and one.code == code]


def reason(client: Client, name: str) -> str:
    """The one line of `get`."""
    return client.get(name).state_reason


def tries(namespace: Namespace, pod_name: str) -> list[int]:
    """How often the kubelet met each trouble with the missing secret."""
    events = namespace.events(pod_name)
    return [one["count"] for one in events if one["reason"] == "FailedMount" and NO_KEYS in one["message"]]


def test_the_scheduler_has_the_word(client: Client) -> None:
    manifest = shell("true", nodeSelector={"nowhere": "x"})
    name = client.submit(target=TARGET, execution_id="nowhere", pod=manifest).execution.name

    story = follow_until(client, name, told("UNSCHEDULABLE"))

    assert "node" in words(story, "UNSCHEDULABLE")[0]
    assert reason(client, name) == words(story, "UNSCHEDULABLE")[0]
    client.cancel(name)


def test_a_volume_that_is_not_there_is_named_once(namespace: Namespace, client: Client) -> None:
    name = client.submit(target=TARGET, execution_id="volume", pod=NO_SECRET).execution.name
    with client.watch(name) as watch:
        story = collect(watch, Story(), told("VOLUME_NOT_READY", NO_KEYS), within=150)
        assert reason(client, name) == words(story, "VOLUME_NOT_READY")[-1]
        # The kubelet tries again and again, and counts in its event.
        pod_name = namespace.only_pod["metadata"]["name"]
        failed = max(tries(namespace, pod_name))
        wait_for("the kubelet to have tried again", lambda: max(tries(namespace, pod_name)) > failed, within=150)
        namespace.create("secret", {"metadata": {"name": "keys"}, "stringData": {"a": "b"}})
        collect(watch, story, lambda story: isinstance(story.events[-1], podbroker.End), within=240)
    assert story.outcome.state is ExecutionState.SUCCEEDED
    assert len([said for said in words(story, "VOLUME_NOT_READY") if NO_KEYS in said]) == 1


def test_a_watcher_that_comes_back_is_not_told_again(client: Client) -> None:
    name = client.submit(target=TARGET, execution_id="again", pod=NO_SECRET).execution.name
    first = follow_until(client, name, told("VOLUME_NOT_READY", NO_KEYS), within=150)

    with client.watch(name, cursor=first.events[-1].cursor) as watch:
        second = collect(watch, Story(), lambda story: story.states, within=120)
        client.cancel(name)
        collect(watch, second, told("CANCEL_REQUESTED"), within=120)

    assert second.notices == ["CANCEL_REQUESTED"]


def test_a_broker_that_starts_later_knows_it_too(namespace: Namespace, brokers: Brokers) -> None:
    broker = brokers.start(namespace=namespace)
    client = broker.client()
    name = client.submit(target=TARGET, execution_id="later", pod=NO_SECRET).execution.name
    follow_until(client, name, told("VOLUME_NOT_READY", NO_KEYS), within=150)
    broker.kill()
    broker.start()

    follow_until(client, name, told("VOLUME_NOT_READY", NO_KEYS), within=150)

    assert NO_KEYS in reason(client, name)


def test_the_image_of_an_init_container_is_named(client: Client) -> None:
    manifest = pod(container("main", "true"), init=({"name": "first", "image": "podbroker.test/not-there:1"},))
    name = client.submit(target=TARGET, execution_id="image", pod=manifest).execution.name

    story = follow_until(client, name, told("IMAGE_PULL_FAILED"), within=150)

    said = words(story, "IMAGE_PULL_FAILED")[0]
    assert "container first" in said
    assert "podbroker.test/not-there:1" in said
    assert reason(client, name) == said
    client.cancel(name)


def test_init_containers_are_counted(client: Client) -> None:
    manifest = pod(container("main", "true"), init=(container("one", "true"), container("two", "sleep 600")))
    name = client.submit(target=TARGET, execution_id="init", pod=manifest).execution.name

    story = follow_until(client, name, lambda story: "2 of 2" in "".join(words(story, "INIT_CONTAINER")), within=150)

    assert words(story, "INIT_CONTAINER")[-1] == "init container two runs, 2 of 2" == reason(client, name)
    client.cancel(name)


def test_a_gated_pod_is_queued_until_the_gate_is_taken_away(namespace: Namespace, client: Client) -> None:
    manifest = shell("echo hi", schedulingGates=[{"name": "example.com/hold"}])
    name = client.submit(target=TARGET, execution_id="gate", pod=manifest).execution.name
    with client.watch(name) as watch:
        story = collect(watch, Story(), told("QUEUED"), within=120)
        assert story.states == ["QUEUED"]
        assert "example.com/hold" in reason(client, name)
        pod_name = namespace.only_pod["metadata"]["name"]
        patch = {"spec": {"schedulingGates": None}}
        namespace.site.core.patch_namespaced_pod(pod_name, namespace.name, patch)
        collect(watch, story, lambda story: isinstance(story.events[-1], podbroker.End), within=150)
    assert story.outcome.state is ExecutionState.SUCCEEDED
    assert story.states.index("QUEUED") == 0


def test_a_role_without_events_costs_one_notice_and_nothing_else(
    namespace: Namespace, site: Site, brokers: Brokers
) -> None:
    if not site.is_own:
        pytest.skip("elsewhere: a user with fewer rights is made")
    rules = [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["create", "get", "list", "watch", "patch", "delete"]},
        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
    ]
    group = "rbac.authorization.k8s.io"
    binding = {
        "roleRef": {"apiGroup": group, "kind": "Role", "name": "no-events"},
        "subjects": [{"apiGroup": group, "kind": "Group", "name": namespace.name}],
    }
    rbac = kubernetes.RbacAuthorizationV1Api(site.api)
    metadata = {"name": "no-events"}
    rbac.create_namespaced_role(namespace.name, {"metadata": metadata, "rules": rules})
    rbac.create_namespaced_role_binding(namespace.name, {"metadata": metadata, **binding})
    kubeconfig = site.cluster.user(f"no-events-{namespace.name}", groups=(namespace.name,))
    broker = brokers.start(namespace=namespace, kubeconfig=kubeconfig)
    client = broker.client()
    wait_for("the refusal to be noted", lambda: "the role does not allow to read events" in broker.log)

    stuck = client.submit(target=TARGET, execution_id="stuck", pod=NO_SECRET).execution.name
    story = follow_until(client, stuck, told("EVENTS_NOT_READABLE"))
    fine = client.submit(target=TARGET, execution_id="fine", pod=shell("echo hi")).execution.name

    assert story.notices == ["EVENTS_NOT_READABLE"]
    assert follow(client, fine).text() == ["hi"]
    (target,) = client.targets()
    assert target.health is podbroker.TargetHealth.SERVING
