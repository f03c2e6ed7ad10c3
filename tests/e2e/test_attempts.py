"""A pod that the cluster takes away is made again, within the caller's limits, and the watch goes on."""

from __future__ import annotations

import datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import pytest
from kubernetes import client as kubernetes

import podbroker
from e2e.following import Story, collect, ended, follow, follow_until
from e2e.manifests import UNTIL_TOLD, container, pod
from e2e.waiting import wait_for
from podbroker import Execution, ExecutionState, FailureClass, InfraRetry, Policies

if TYPE_CHECKING:
    from collections.abc import Callable

    from e2e.broker import Brokers
    from e2e.site import Namespace, Site
    from podbroker import Client

TARGET = "local"
LONG = 180.0

#: The first attempt runs until it is told to end, every other one ends by itself.
FIRST_RUNS: dict[str, Any] = pod(
    container(
        "main",
        f'echo "attempt $ATTEMPT"; if [ "$ATTEMPT" -gt 1 ]; then echo done; exit 0; fi; {UNTIL_TOLD}',
        env=[
            {
                "name": "ATTEMPT",
                "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['podbroker.io/attempt']"}},
            }
        ],
    )
)


def twice(backoff: float) -> Policies:
    """Two attempts, with a pause between them."""
    retry = InfraRetry(max_attempts=2, backoff=datetime.timedelta(seconds=backoff))
    return Policies(infra_retry=retry, drain_deadline=datetime.timedelta(seconds=20))


def says(text: str, attempt: int) -> Callable[[Story], bool]:
    """A condition: an attempt has written a line."""
    return lambda story: text in lines(story, attempt)


def lines(story: Story, attempt: int) -> list[str]:
    """The lines of one attempt."""
    chunks = [event for event in story.events if isinstance(event, podbroker.LogChunk)]
    return [line.content.decode() for chunk in chunks if chunk.instance.attempt == attempt for line in chunk.lines]


def evict(site: Site, namespace: Namespace, pod_name: str) -> None:
    """Evicts a pod, as a drain does."""
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod_name}}
    site.core.create_namespaced_pod_eviction(pod_name, namespace.name, body)


def refuses_pods(site: Site, namespace: Namespace) -> bool:
    """Whether the namespace admits no pod like these any more."""
    body = {**FIRST_RUNS, "metadata": {"name": "tried"}}
    try:
        site.core.create_namespaced_pod(namespace.name, body, dry_run="All")
    except kubernetes.ApiException as refused:
        return bool(refused.status == HTTPStatus.FORBIDDEN)
    return False


def wait_for_the_pause(client: Client, name: str) -> Execution:
    """The execution, once its first attempt is over; the second was not made."""

    def is_between(execution: Execution) -> bool:
        (first,) = execution.attempts
        return execution.state is ExecutionState.PENDING and first.state is ExecutionState.FAILED

    def paused() -> Execution | None:
        execution = client.get(name)
        return execution if is_between(execution) else None

    found = wait_for("the pause", paused, within=LONG, about=lambda: client.get(name, full=True))
    assert found is not None
    return found


def submit_and_evict(client: Client, site: Site, namespace: Namespace, policies: Policies, **more: Any) -> Execution:  # noqa: ANN401  those of submit
    """An execution whose first attempt ran and was then evicted."""
    execution = client.submit(target=TARGET, execution_id="again", pod=FIRST_RUNS, policies=policies, **more).execution
    follow_until(client, execution.name, says("ready", 1), within=LONG)
    evict(site, namespace, execution.attempts[0].pod_name)
    return execution


def test_an_evicted_pod_is_made_again_and_one_watch_tells_both(
    namespace: Namespace, client: Client, site: Site
) -> None:
    submit_before = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=30)
    submission = client.submit(
        target=TARGET, execution_id="again", pod=FIRST_RUNS, policies=twice(1), submit_before=submit_before
    )
    name = submission.execution.name
    with client.watch(name) as watch:
        story = collect(watch, Story(), says("ready", 1), within=LONG)
        evict(site, namespace, submission.execution.attempts[0].pod_name)
        collect(watch, story, ended, within=LONG)

    assert story.outcome.state is ExecutionState.SUCCEEDED
    assert lines(story, 1)[:2] == ["attempt 1", "ready"]
    assert lines(story, 2) == ["attempt 2", "done"]
    started = [event.attempt.number for event in story.events if isinstance(event, podbroker.AttemptStarted)]
    assert started == [1, 2]
    first, second = story.of(podbroker.AttemptEnded)
    assert isinstance(first, podbroker.AttemptEnded)
    assert isinstance(second, podbroker.AttemptEnded)
    assert first.outcome is not None
    assert first.outcome.failure_class is FailureClass.EVICTED
    assert (first.attempt.number, second.attempt.number) == (1, 2)
    assert [attempt.state.value for attempt in story.end.attempts] == ["FAILED", "SUCCEEDED"]
    assert "PENDING" in story.states[story.states.index("RUNNING") :]
    assert sorted(namespace.pod_names) == sorted(attempt.pod_name for attempt in story.end.attempts)
    # A watch from the beginning tells the same, also after the first pod's log is gone.
    again = follow(client, name, within=LONG)
    assert lines(again, 2) == ["attempt 2", "done"]
    assert again.end.attempts == story.end.attempts

    client.release(name, claim=submission.claim)
    wait_for("both pods to be gone", lambda: not namespace.pods, within=LONG)


def test_two_brokers_make_one_second_attempt(namespace: Namespace, brokers: Brokers, site: Site) -> None:
    one, other = (brokers.start(namespace=namespace).client() for _ in range(2))
    name = submit_and_evict(one, site, namespace, twice(1)).name

    ends = [follow(client, name, within=LONG).end for client in (one, other)]

    assert [end.state for end in ends] == [ExecutionState.SUCCEEDED] * 2
    assert ends[0].attempts == ends[1].attempts
    assert sorted(namespace.pod_names) == sorted(attempt.pod_name for attempt in ends[0].attempts)
    assert len(namespace.pods) == 2


def test_a_broker_that_was_killed_in_the_pause_makes_the_attempt_after_it(
    namespace: Namespace, brokers: Brokers, site: Site
) -> None:
    broker = brokers.start(namespace=namespace)
    client = broker.client()
    name = submit_and_evict(client, site, namespace, twice(15)).name
    wait_for_the_pause(client, name)
    broker.kill()
    assert len(namespace.pods) == 1
    broker.start()

    story = follow(client, name, within=LONG)

    assert story.outcome.state is ExecutionState.SUCCEEDED
    assert len(namespace.pods) == 2


def test_a_cancel_in_the_pause_is_the_end_at_every_broker(namespace: Namespace, brokers: Brokers, site: Site) -> None:
    broker = brokers.start(namespace=namespace)
    client = broker.client()
    name = submit_and_evict(client, site, namespace, twice(3600)).name
    waiting = wait_for_the_pause(client, name)
    assert "attempt 2 follows" in waiting.state_reason

    answer = client.cancel(name, reason="enough")

    assert answer.state is ExecutionState.CANCELLED
    broker.kill()
    broker.start()
    story = follow(client, name, within=LONG)
    assert story.outcome.state is ExecutionState.CANCELLED
    assert "enough" in story.outcome.message
    assert story.end.cancel is not None
    assert [attempt.state for attempt in story.end.attempts] == [ExecutionState.FAILED]
    assert len(namespace.pods) == 1


def test_a_second_attempt_that_the_cluster_refuses_is_the_outcome(
    namespace: Namespace, client: Client, site: Site
) -> None:
    policies = twice(2)
    execution = client.submit(target=TARGET, execution_id="again", pod=FIRST_RUNS, policies=policies).execution
    follow_until(client, execution.name, says("ready", 1), within=LONG)
    labels = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    site.core.patch_namespace(namespace.name, labels)
    # Admission looks at a copy of the namespace that follows it.
    wait_for("pods to be refused", lambda: refuses_pods(site, namespace), within=LONG)
    evict(site, namespace, execution.attempts[0].pod_name)

    story = follow(client, execution.name, within=LONG)

    assert story.outcome.failure_class is FailureClass.ADMISSION_DENIED
    assert "ATTEMPT_REFUSED" in story.notices
    assert "attempt 2 was refused" in story.outcome.message
    assert "evicted" in story.outcome.message
    assert len(namespace.pods) == 1


def test_a_quota_that_the_next_attempt_waits_for_is_told_once_and_by_every_broker(
    namespace: Namespace, brokers: Brokers, site: Site
) -> None:
    both = [brokers.start(namespace=namespace) for _ in range(2)]
    clients = [broker.client() for broker in both]
    execution = clients[0].submit(target=TARGET, execution_id="again", pod=FIRST_RUNS, policies=twice(1)).execution
    name = execution.name
    follow_until(clients[0], name, says("ready", 1), within=LONG)
    namespace.create("resource_quota", {"metadata": {"name": "full"}, "spec": {"hard": {"pods": "0"}}})
    wait_for("pods to be refused", lambda: refuses_pods(site, namespace), within=LONG)

    def tried(times: int) -> bool:
        return all(broker.log.count("what is due could not be done") >= times for broker in both)

    def written() -> str:
        text: str = namespace.only_pod["metadata"]["annotations"]["podbroker.io/waiting-attempt"]
        return text

    with clients[0].watch(name) as watch:
        evict(site, namespace, execution.attempts[0].pod_name)
        story = collect(watch, Story(), lambda story: "QUOTA" in story.notices, within=LONG)
        for client in clients:
            follow_until(client, name, lambda story: "QUOTA" in story.notices, within=LONG)
            assert "attempt 2 waits" in client.get(name).state_reason
            assert "exceeded quota" in client.get(name).state_reason
        wait_for("each to have tried it", lambda: tried(1), within=LONG)
        first = written()
        wait_for("each to have tried it again", lambda: tried(2), within=LONG)
        assert written() == first, "it is written once"
        assert len(namespace.pods) == 1
        site.core.delete_namespaced_resource_quota("full", namespace.name)
        collect(watch, story, ended, within=LONG)

    assert story.outcome.state is ExecutionState.SUCCEEDED
    assert lines(story, 2) == ["attempt 2", "done"]
    assert story.notices.count("QUOTA") == 1
    assert len(namespace.pods) == 2


def test_a_first_pod_whose_manifest_was_damaged_is_the_last_one(
    namespace: Namespace, client: Client, site: Site
) -> None:
    execution = client.submit(target=TARGET, execution_id="again", pod=FIRST_RUNS, policies=twice(2)).execution
    follow_until(client, execution.name, says("ready", 1), within=LONG)
    pod_name = execution.attempts[0].pod_name
    damage = {"metadata": {"annotations": {"podbroker.io/manifest": "bm8gZ3ppcA=="}}}
    site.core.patch_namespaced_pod(pod_name, namespace.name, damage)
    evict(site, namespace, pod_name)

    story = follow(client, execution.name, within=LONG)

    assert story.outcome.failure_class is FailureClass.EVICTED
    assert "ATTEMPT_REFUSED" in story.notices
    assert len(namespace.pods) == 1


def test_without_a_policy_an_eviction_is_the_end(namespace: Namespace, client: Client, site: Site) -> None:
    name = submit_and_evict(client, site, namespace, Policies()).name

    assert follow(client, name, within=LONG).outcome.failure_class is FailureClass.EVICTED
    assert len(namespace.pods) == 1


def test_what_is_no_fault_of_the_infrastructure_cannot_be_asked_for(client: Client) -> None:
    retry = InfraRetry(failure_classes=(FailureClass.APPLICATION,))
    with pytest.raises(podbroker.InvalidRequestError) as refused:
        client.submit(target=TARGET, execution_id="x", pod=FIRST_RUNS, policies=Policies(infra_retry=retry))
    assert "infra_retry" in str(refused.value)
