"""How an execution ended is data, and it is right whoever ended it and whoever was looking."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

import pytest

import podbroker
from e2e.following import follow, follow_until, has_line
from e2e.manifests import UNTIL_TOLD, container, pod, shell
from e2e.waiting import wait_for
from podbroker import ExecutionState, FailureClass, Policies

if TYPE_CHECKING:
    from e2e.broker import Brokers
    from e2e.site import Namespace, Site
    from podbroker import Client

TARGET = "local"
NOWHERE = {"nodeSelector": {"nowhere": "x"}}


@pytest.mark.parametrize("code", [0, 1, 3, 255])
def test_the_exit_code_of_the_container_is_the_exit_code_of_the_execution(client: Client, code: int) -> None:
    name = client.submit(target=TARGET, execution_id="code", pod=shell(f"exit {code}")).execution.name

    outcome = follow(client, name).outcome

    assert outcome.exit_code == code
    if code == 0:
        assert outcome.state is ExecutionState.SUCCEEDED
        assert outcome.failure_class is None
    else:
        assert outcome.state is ExecutionState.FAILED
        assert outcome.failure_class is FailureClass.APPLICATION
        assert outcome.message


def test_a_container_killed_for_memory_is_out_of_memory(client: Client) -> None:
    eater = "exec awk 'BEGIN { s = \"x\"; while (1) s = s s }'"
    limits = {"limits": {"memory": "24Mi"}}
    name = client.submit(
        target=TARGET, execution_id="memory", pod=pod(container("main", eater, resources=limits))
    ).execution.name

    outcome = follow(client, name).outcome

    assert outcome.failure_class is FailureClass.OUT_OF_MEMORY
    assert outcome.exit_code == 137
    assert outcome.reason == "OOMKilled"


def test_a_failing_init_container_fails_the_execution_and_says_which(client: Client) -> None:
    manifest = pod(container("main", "echo never"), init=(container("first", "echo no; exit 5"),))
    name = client.submit(target=TARGET, execution_id="init", pod=manifest).execution.name

    story = follow(client, name)

    assert story.outcome.failure_class is FailureClass.APPLICATION
    assert story.text("first") == ["no"]
    assert story.text("main") == []
    first = next(one for one in story.outcome.containers if one.container == "first")
    assert first.exit_code == 5
    assert "first" in story.outcome.message


def test_the_run_deadline_ends_the_execution(client: Client) -> None:
    policies = Policies(run_deadline=datetime.timedelta(seconds=3))
    name = client.submit(
        target=TARGET, execution_id="deadline", pod=shell(UNTIL_TOLD), policies=policies
    ).execution.name

    story = follow(client, name)

    assert story.outcome.failure_class is FailureClass.DEADLINE
    assert story.text() == ["ready", "bye"]


def test_an_image_that_does_not_exist_ends_by_the_start_deadline(client: Client) -> None:
    manifest = pod({"name": "main", "image": "podbroker.test/not-there:1"})
    policies = Policies(start_deadline=datetime.timedelta(seconds=10))
    name = client.submit(target=TARGET, execution_id="image", pod=manifest, policies=policies).execution.name

    story = follow(client, name)

    assert story.outcome.failure_class is FailureClass.IMAGE_PULL
    assert "podbroker.test/not-there:1" in story.outcome.message
    assert "IMAGE_PULL_FAILED" in story.notices
    assert story.outcome.exit_code is None


def test_a_pod_that_no_node_takes_ends_by_the_start_deadline(client: Client) -> None:
    policies = Policies(start_deadline=datetime.timedelta(seconds=5))
    name = client.submit(
        target=TARGET, execution_id="nowhere", pod=shell("true", **NOWHERE), policies=policies
    ).execution.name

    story = follow(client, name)

    assert story.outcome.failure_class is FailureClass.UNSCHEDULABLE
    assert story.outcome.message
    assert "UNSCHEDULABLE" in story.notices


def test_a_start_deadline_that_passed_while_no_broker_ran_is_kept(namespace: Namespace, brokers: Brokers) -> None:
    broker = brokers.start(namespace=namespace)
    client = broker.client()
    policies = Policies(start_deadline=datetime.timedelta(seconds=2))
    name = client.submit(
        target=TARGET, execution_id="away", pod=shell("true", **NOWHERE), policies=policies
    ).execution.name
    broker.kill()
    created = datetime.datetime.fromisoformat(namespace.only_pod["metadata"]["creationTimestamp"])
    wait_for("the deadline", lambda: datetime.datetime.now(datetime.UTC) - created > datetime.timedelta(seconds=3))
    broker.start()

    assert follow(client, name).outcome.failure_class is FailureClass.UNSCHEDULABLE


def test_an_outcome_survives_kubectl_delete_while_no_broker_runs(namespace: Namespace, brokers: Brokers) -> None:
    broker = brokers.start(namespace=namespace)
    client = broker.client()
    name = client.submit(target=TARGET, execution_id="gone", pod=shell("sleep 2; exit 3")).execution.name
    broker.kill()
    pod_name = namespace.only_pod["metadata"]["name"]
    wait_for("the pod to end", lambda: namespace.only_pod["status"]["phase"] == "Failed")
    namespace.delete_pod(pod_name)
    broker.start()

    outcome = follow(client, name).outcome

    assert outcome.exit_code == 3
    assert outcome.failure_class is FailureClass.APPLICATION


@pytest.mark.parametrize("code", [0, 6])
def test_a_running_pod_deleted_while_no_broker_runs_is_pod_deleted(
    namespace: Namespace, brokers: Brokers, code: int
) -> None:
    broker = brokers.start(namespace=namespace)
    client = broker.client()
    script = UNTIL_TOLD.replace("exit 0", f"exit {code}")
    name = client.submit(target=TARGET, execution_id="deleted", pod=shell(script)).execution.name
    follow_until(client, name, has_line("ready"))
    broker.kill()
    namespace.delete_pod(namespace.only_pod["metadata"]["name"])
    wait_for("the container to end", lambda: "terminated" in _main(namespace)["state"])
    # The kubelet's own last delete, with no grace, moves the deletion's time behind the container's end.
    wait_for("the kubelet to be done", lambda: namespace.only_pod["metadata"]["deletionGracePeriodSeconds"] == 0)
    broker.start()

    outcome = follow(client, name).outcome

    assert outcome.state is ExecutionState.FAILED
    assert outcome.failure_class is FailureClass.POD_DELETED
    assert outcome.containers[0].exit_code == code


def _main(namespace: Namespace) -> dict[str, Any]:
    status: dict[str, Any] = namespace.only_pod["status"]["containerStatuses"][0]
    return status


def test_a_running_pod_deleted_by_somebody_else_is_pod_deleted_with_its_last_lines(
    namespace: Namespace, client: Client
) -> None:
    name = client.submit(target=TARGET, execution_id="else", pod=shell(UNTIL_TOLD)).execution.name
    follow_until(client, name, has_line("ready"))

    namespace.delete_pod(namespace.only_pod["metadata"]["name"])
    story = follow(client, name)

    assert story.outcome.failure_class is FailureClass.POD_DELETED
    assert story.text() == ["ready", "bye"]
    assert "deleted" in story.outcome.message


def test_a_waiting_pod_deleted_by_somebody_else_is_pod_deleted(namespace: Namespace, client: Client) -> None:
    name = client.submit(target=TARGET, execution_id="wait", pod=shell("true", **NOWHERE)).execution.name

    namespace.delete_pod(namespace.only_pod["metadata"]["name"])
    outcome = follow(client, name).outcome

    assert outcome.failure_class is FailureClass.POD_DELETED
    assert outcome.exit_code is None


def test_an_eviction_is_evicted(namespace: Namespace, client: Client, site: Site) -> None:
    name = client.submit(target=TARGET, execution_id="evict", pod=shell(UNTIL_TOLD)).execution.name
    follow_until(client, name, has_line("ready"))
    pod_name = namespace.only_pod["metadata"]["name"]

    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod_name}}
    site.core.create_namespaced_pod_eviction(pod_name, namespace.name, body)
    story = follow(client, name)

    assert story.outcome.failure_class is FailureClass.EVICTED
    assert "Eviction API" in story.outcome.message
    assert story.text() == ["ready", "bye"]


def test_a_child_killed_for_memory_is_out_of_memory_also_when_the_program_ends_well(client: Client) -> None:
    eater = "awk 'BEGIN { s = \"x\"; while (1) s = s s }'; echo survived; exit 0"
    limits = {"limits": {"memory": "24Mi"}}
    manifest = pod(container("main", eater, resources=limits))
    name = client.submit(target=TARGET, execution_id="child", pod=manifest).execution.name

    story = follow(client, name)

    assert "survived" in story.text()
    assert story.outcome.failure_class is FailureClass.OUT_OF_MEMORY
    assert story.outcome.exit_code == 0


def test_a_namespace_that_does_not_exist_is_named(brokers: Brokers) -> None:
    client = brokers.start(namespace="pb-e2e-not-there").client(retry_for=5)

    with pytest.raises(podbroker.RefusedError, match="pb-e2e-not-there") as refused:
        client.submit(target=TARGET, execution_id="x", pod=shell("true"))

    assert refused.value.reason == "NAMESPACE_NOT_FOUND"


def test_a_quota_that_is_used_up_is_told_and_nothing_stays(namespace: Namespace, brokers: Brokers) -> None:
    namespace.create("resource_quota", {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}})
    client = brokers.start(namespace=namespace).client(retry_for=1)
    wait_for("the quota", lambda: _quota_is_in_force(namespace))

    with pytest.raises(podbroker.QuotaError) as refused:
        client.submit(target=TARGET, execution_id="full", pod=shell("true"))

    assert refused.value.reason == "QUOTA"
    assert refused.value.retryable
    assert namespace.pods == []


def _quota_is_in_force(namespace: Namespace) -> bool:
    status = namespace.site.core.read_namespaced_resource_quota("none", namespace.name).status
    return bool(status and status.hard)


def test_a_pod_that_admission_denies_is_refused_with_the_cause(site: Site, brokers: Brokers) -> None:
    with site.namespace(labels={"pod-security.kubernetes.io/enforce": "restricted"}) as strict:
        client = brokers.start(namespace=strict).client()

        with pytest.raises(podbroker.RefusedError, match="PodSecurity") as refused:
            client.submit(target=TARGET, execution_id="denied", pod=shell("true"))

        assert refused.value.reason == "ADMISSION_DENIED"
        assert strict.pods == []


def test_a_broker_without_rights_says_which_right_is_missing(
    namespace: Namespace, site: Site, brokers: Brokers
) -> None:
    if not site.is_own:
        pytest.skip("elsewhere: a user without rights is made")
    nobody = site.cluster.user("nobody", groups=("nobodies",))
    client = brokers.start(namespace=namespace, kubeconfig=nobody).client(retry_for=5)

    with pytest.raises(podbroker.RefusedError) as refused:
        client.submit(target=TARGET, execution_id="forbidden", pod=shell("true"))

    assert refused.value.reason == "FORBIDDEN_BY_CLUSTER"
    assert "pods" in str(refused.value)
    failed = [check for check in client.check(TARGET) if check.status.value == "FAILED"]
    assert failed
    assert all(check.fix for check in failed)
