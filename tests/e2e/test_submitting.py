"""Submit is exactly once: whatever is lost, killed or sent twice, there is one pod."""

from __future__ import annotations

import datetime
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

import podbroker
from e2e.following import follow
from e2e.manifests import shell
from e2e.proxy import Instead
from e2e.waiting import wait_for
from podbroker import Client, ExecutionState

if TYPE_CHECKING:
    from e2e.broker import Brokers
    from e2e.site import Namespace

TARGET = "local"
#: Pods that no node takes: they cost the cluster one object and nothing else.
NOWHERE = {"nodeSelector": {"nowhere": "x"}}


def test_a_lost_answer_of_the_api_server_makes_one_pod(namespace: Namespace, brokers: Brokers) -> None:
    with brokers.api_server_proxy() as proxy:
        broker = brokers.start(namespace=namespace, api_server=proxy)
        swallowed = proxy.swallow("POST", r"/namespaces/[^/]+/pods\b")
        client = broker.client()

        submission = client.submit(target=TARGET, execution_id="lost", pod=shell("echo once"))

        assert swallowed.done == 1, "the answer was lost indeed"
        assert submission.execution.attempts[0].pod_uid == namespace.only_pod["metadata"]["uid"]
        assert follow(client, submission.execution.name).text() == ["once"]
        assert len(namespace.pods) == 1


def test_a_broker_killed_between_create_and_answer_makes_one_pod(namespace: Namespace, brokers: Brokers) -> None:
    with brokers.api_server_proxy() as proxy:
        broker = brokers.start(namespace=namespace, api_server=proxy)
        keeping = proxy.swallow("POST", r"/namespaces/[^/]+/pods\b", instead=Instead.KEEP)
        client = broker.client()
        with ThreadPoolExecutor(1) as pool:
            submit = pool.submit(client.submit, target=TARGET, execution_id="killed", pod=shell("echo once"))
            wait_for("the create to reach the API server", lambda: keeping.done and namespace.pods)
            broker.kill()
            broker.start()
            submission = submit.result(timeout=90)

    assert submission.execution.attempts[0].pod_uid == namespace.only_pod["metadata"]["uid"]


def test_two_brokers_with_the_same_request_at_the_same_moment_make_one_pod(
    namespace: Namespace, brokers: Brokers
) -> None:
    rounds = 50
    clients = [brokers.start(namespace=namespace).client() for _ in range(2)]
    together = threading.Barrier(2)

    def submit(client: Client, number: int) -> podbroker.Submission:
        together.wait(timeout=60)
        return client.submit(target=TARGET, execution_id=f"both-{number}", pod=shell("true", **NOWHERE))

    with ThreadPoolExecutor(2) as pool:
        for number in range(rounds):
            one, other = pool.map(submit, clients, [number, number])
            assert one.execution.name == other.execution.name
            assert one.execution.attempts[0].pod_uid == other.execution.attempts[0].pod_uid
            assert {one.created, other.created} == {True, False}
    assert len(namespace.pods) == rounds


def test_many_repeats_of_one_request_at_one_broker_make_one_pod(namespace: Namespace, client: Client) -> None:
    with ThreadPoolExecutor(16) as pool:
        same: dict[str, Any] = {"target": TARGET, "execution_id": "burst", "pod": shell("true", **NOWHERE)}
        submissions = list(pool.map(lambda _: client.submit(**same), range(64)))

    assert sum(one.created for one in submissions) == 1
    assert len({one.execution.attempts[0].pod_uid for one in submissions}) == 1
    assert len(namespace.pods) == 1


def test_an_id_that_stands_for_another_request_is_a_conflict(namespace: Namespace, client: Client) -> None:
    client.submit(target=TARGET, execution_id="taken", pod=shell("echo one", **NOWHERE))

    with pytest.raises(podbroker.ConflictError) as refused:
        client.submit(target=TARGET, execution_id="taken", pod=shell("echo two", **NOWHERE))

    assert refused.value.reason == "EXECUTION_ID_REUSED"
    assert refused.value.code == "ALREADY_EXISTS"
    assert not refused.value.retryable
    assert len(namespace.pods) == 1


def test_the_same_request_after_a_restart_is_the_same_execution(namespace: Namespace, brokers: Brokers) -> None:
    broker = brokers.start(namespace=namespace)
    client = broker.client()
    before = client.submit(target=TARGET, execution_id="restart", pod=shell("true", **NOWHERE))
    broker.kill()
    broker.start()

    after = client.submit(target=TARGET, execution_id="restart", pod=shell("true", **NOWHERE))

    assert not after.created
    assert after.execution.attempts[0].pod_uid == before.execution.attempts[0].pod_uid
    assert len(namespace.pods) == 1


def test_nothing_is_created_after_submit_before(namespace: Namespace, client: Client) -> None:
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=5)

    with pytest.raises(podbroker.RefusedError) as refused:
        client.submit(target=TARGET, execution_id="late", pod=shell("true"), submit_before=past)

    assert refused.value.reason == "SUBMIT_WINDOW_CLOSED"
    assert namespace.pods == []
    with pytest.raises(podbroker.NotFoundError):
        client.submit(target=TARGET, execution_id="late", pod=shell("true"), submit_before=past, must_exist=True)
    assert namespace.pods == []


def test_must_exist_finds_what_is_there_and_creates_nothing(namespace: Namespace, client: Client) -> None:
    same: dict[str, Any] = {"target": TARGET, "execution_id": "there", "pod": shell("true", **NOWHERE)}
    with pytest.raises(podbroker.NotFoundError):
        client.submit(**same, must_exist=True)
    made = client.submit(**same)

    found = client.submit(**same, must_exist=True)

    assert found.execution.name == made.execution.name
    assert not found.created
    assert len(namespace.pods) == 1


def test_a_submit_is_seen_by_a_broker_that_did_not_make_it(namespace: Namespace, brokers: Brokers) -> None:
    one, other = (brokers.start(namespace=namespace).client() for _ in range(2))

    submission = one.submit(target=TARGET, execution_id="seen", pod=shell("echo hello"))

    assert other.get(submission.execution.name).execution_id == "seen"
    assert follow(other, submission.execution.name).text() == ["hello"]


def test_two_installations_in_one_namespace_leave_each_others_pods_alone(
    namespace: Namespace, brokers: Brokers
) -> None:
    one = brokers.start(namespace=namespace, instance="one").client()
    other = brokers.start(namespace=namespace, instance="other").client()

    ours = one.submit(target=TARGET, execution_id="same-id", pod=shell("sleep 2; echo ours"))
    theirs = other.submit(target=TARGET, execution_id="same-id", pod=shell("sleep 2; echo theirs; exit 9"))

    assert ours.created
    assert theirs.created
    assert len(namespace.pods) == 2
    assert [execution.spec_digest for execution in one.list(TARGET).executions] == [ours.execution.spec_digest]
    assert [execution.spec_digest for execution in other.list(TARGET).executions] == [theirs.execution.spec_digest]
    one.cancel(ours.execution.name)
    assert follow(one, ours.execution.name).end.state is ExecutionState.CANCELLED
    assert follow(other, theirs.execution.name).outcome.exit_code == 9


def test_a_cluster_that_does_not_answer_is_unavailable_and_comes_back(namespace: Namespace, brokers: Brokers) -> None:
    with brokers.api_server_proxy() as proxy:
        broker = brokers.start(namespace=namespace, api_server=proxy)
        impatient = broker.client(retry_for=3.0)
        proxy.refuse()

        with pytest.raises(podbroker.UnavailableError) as away:
            impatient.submit(target=TARGET, execution_id="away", pod=shell("echo back"))
        assert away.value.retryable

        proxy.allow()
        submission = broker.client().submit(target=TARGET, execution_id="away", pod=shell("echo back"))
        assert follow(broker.client(), submission.execution.name).text() == ["back"]
        assert len(namespace.pods) == 1
