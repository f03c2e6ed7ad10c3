"""Executions of a group take each other's place: one is active, and whoever came last holds the claim."""

from __future__ import annotations

import datetime
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

import podbroker
from e2e.following import follow, follow_until, has_line
from e2e.manifests import UNTIL_TOLD, shell
from e2e.proxy import Instead
from e2e.waiting import wait_for
from podbroker import Client, ExecutionState, Group, GroupAction, InfraRetry, Policies

if TYPE_CHECKING:
    from e2e.broker import Brokers
    from e2e.site import Namespace, Site

TARGET = "local"
#: Pods that no node takes: they cost the cluster one object and nothing else.
NOWHERE = {"nodeSelector": {"nowhere": "x"}}
#: Longer than a pod takes to end.
PATIENT = 120.0


def submit(
    client: Client,
    execution_id: str,
    script: str = "true",
    *,
    group: Group | str = "g",
    node: bool = True,
    **more: Any,  # noqa: ANN401  of Client.submit
) -> podbroker.Submission:
    """Submits to a group; without `node` the pod stays pending."""
    return client.submit(
        target=TARGET,
        execution_id=execution_id,
        pod=shell(script, **({} if node else NOWHERE)),
        group=Group(group_id=group) if isinstance(group, str) else group,
        **more,
    )


def uid(submission: podbroker.Submission) -> str:
    """The uid of the first pod."""
    return submission.execution.attempts[0].pod_uid


def test_two_submits_to_one_group_at_the_same_moment_get_one_pod(namespace: Namespace, brokers: Brokers) -> None:
    rounds = 20
    clients = [brokers.start(namespace=namespace).client() for _ in range(2)]
    together = threading.Barrier(2)

    def race(client: Client, execution_id: str, group: str) -> podbroker.Submission:
        together.wait(timeout=60)
        return submit(client, execution_id, group=group, node=False)

    with ThreadPoolExecutor(2) as pool:
        for number in range(rounds):
            group = f"g{number}"
            both = list(pool.map(race, clients, [f"one-{number}", f"other-{number}"], [group, group]))
            assert len({one.execution.name for one in both}) == 1
            assert len({uid(one) for one in both}) == 1
            assert sorted(one.created for one in both) == [False, True]
            late = next(one for one in both if not one.created)
            first = next(one for one in both if one.created)
            assert first.claim != late.claim
            # The one that made it is the older claim, at either broker.
            for client in clients:
                with pytest.raises(podbroker.RefusedError) as refused:
                    client.cancel(first.execution.name, claim=first.claim)
                assert refused.value.reason == "CLAIM_SUPERSEDED"
    assert len(namespace.pods) == rounds


def test_the_late_kill_of_an_old_try_does_nothing(namespace: Namespace, brokers: Brokers) -> None:
    clients = [brokers.start(namespace=namespace).client() for _ in range(2)]
    old = submit(clients[0], "old", UNTIL_TOLD)
    follow_until(clients[0], old.execution.name, has_line("ready"))

    new = submit(clients[1], "new", "echo another manifest")

    assert new.execution.name == old.execution.name
    assert not new.created
    for act in (clients[0].cancel, clients[0].release):
        with pytest.raises(podbroker.RefusedError) as refused:
            act(old.execution.name, claim=old.claim)
        assert refused.value.reason == "CLAIM_SUPERSEDED"
    assert clients[1].get(new.execution.name).cancel is None
    clients[0].cancel(new.execution.name, claim=new.claim)
    assert follow(clients[1], new.execution.name).end.state is ExecutionState.CANCELLED
    assert len(namespace.pods) == 1


def test_a_submit_that_is_repeated_keeps_its_place(namespace: Namespace, brokers: Brokers) -> None:
    clients = [brokers.start(namespace=namespace).client() for _ in range(2)]
    first = submit(clients[0], "first", node=False)
    second = submit(clients[0], "second", node=False)
    third = submit(clients[1], "third", node=False)

    for client in clients:
        for execution_id, before in (("first", first), ("second", second), ("third", third)):
            again = submit(client, execution_id, node=False)
            assert (again.execution.name, again.claim, again.created) == (before.execution.name, before.claim, False)
            found = submit(client, execution_id, node=False, must_exist=True)
            assert (found.execution.name, found.claim) == (before.execution.name, before.claim)
        with pytest.raises(podbroker.NotFoundError):
            submit(client, "fourth", node=False, must_exist=True)
        with pytest.raises(podbroker.ConflictError):
            submit(client, "first", "something else", node=False)
        with pytest.raises(podbroker.ConflictError):
            submit(client, "first", group="another", node=False)
        with pytest.raises(podbroker.RefusedError):
            client.cancel(second.execution.name, claim=second.claim)
    assert len(namespace.pods) == 1


def test_what_failed_is_followed_by_the_next_and_what_succeeded_is_adopted(
    namespace: Namespace, client: Client
) -> None:
    failed = submit(client, "one", "exit 3")
    assert follow(client, failed.execution.name).outcome.exit_code == 3
    succeeded = submit(client, "two", "echo two")
    assert succeeded.created
    assert follow(client, succeeded.execution.name).end.state is ExecutionState.SUCCEEDED

    adopted = submit(client, "three", "echo three")

    assert adopted.execution.name == succeeded.execution.name
    assert follow(client, adopted.execution.name).text() == ["two"]
    client.release(adopted.execution.name, claim=adopted.claim)
    after = submit(client, "four", "echo four")
    assert after.created
    assert follow(client, after.execution.name).text() == ["four"]
    names = [name.rsplit("-", 2)[1:] for name in sorted(namespace.pod_names)]
    assert names == [["1", "1"], ["2", "1"], ["3", "1"]]


def test_cancel_first_waits_for_the_end_of_the_old_one(namespace: Namespace, brokers: Brokers) -> None:
    broker = brokers.start(namespace=namespace)
    client = broker.client(retry_for=PATIENT)
    old = submit(client, "old", UNTIL_TOLD)
    follow_until(client, old.execution.name, has_line("ready"))
    clear = Group(group_id="g", action=GroupAction.CANCEL_FIRST)
    with pytest.raises(podbroker.UnavailableError) as busy:
        submit(broker.client(retry_for=0.0), "new", "echo new", group=clear)
    assert busy.value.reason == "GROUP_BUSY"

    new = submit(client, "new", "echo new", group=clear)

    assert new.created
    ended = client.get(old.execution.name)
    assert ended.state is ExecutionState.CANCELLED
    assert ended.cancel is not None
    assert "new takes its place" in ended.cancel.reason
    assert follow(client, new.execution.name).text() == ["new"]
    assert submit(client, "new", "echo new", group=clear).execution.name == new.execution.name


def test_what_is_too_old_is_ended_and_not_adopted(namespace: Namespace, brokers: Brokers) -> None:
    client = brokers.start(namespace=namespace).client(retry_for=PATIENT)
    old = submit(client, "old", UNTIL_TOLD)
    created = old.execution.create_time
    assert created is not None

    same = submit(client, "same", group=Group(group_id="g", not_before=created))
    assert same.execution.name == old.execution.name
    second = datetime.timedelta(seconds=1)
    new = submit(client, "new", "echo new", group=Group(group_id="g", not_before=created + second))

    assert new.created
    assert client.get(old.execution.name).state is ExecutionState.CANCELLED
    assert follow(client, new.execution.name).text() == ["new"]
    assert len(namespace.pods) == 2


def test_start_makes_one_beside_the_other(namespace: Namespace, client: Client) -> None:
    one = submit(client, "one", node=False)

    other = submit(client, "other", group=Group(group_id="g", action=GroupAction.START), node=False)

    assert other.created
    assert client.get(one.execution.name).cancel is None
    assert submit(client, "third", node=False).execution.name == other.execution.name
    assert len(namespace.pods) == 2


@pytest.mark.parametrize("instead", list(Instead))
def test_an_answer_that_was_lost_changes_nothing(namespace: Namespace, brokers: Brokers, instead: Instead) -> None:
    with brokers.api_server_proxy() as proxy:
        broker = brokers.start(namespace=namespace, api_server=proxy)
        client = broker.client(retry_for=PATIENT)
        create = proxy.swallow("POST", r"/namespaces/[^/]+/pods\b", instead=instead)
        first = submit(client, "first", node=False)
        assert create.done == 1
        attach = proxy.swallow("PATCH", r"/namespaces/[^/]+/pods/", instead=instead)
        second = submit(client, "second", node=False)
        assert attach.done == 1

    assert second.execution.name == first.execution.name
    assert uid(second) == namespace.only_pod["metadata"]["uid"]
    client = brokers.start(namespace=namespace).client()
    assert submit(client, "second", node=False).claim == second.claim
    assert submit(client, "first", node=False).claim == first.claim
    client.cancel(second.execution.name, claim=second.claim)


def test_a_member_is_found_by_a_broker_that_did_not_make_it(namespace: Namespace, brokers: Brokers) -> None:
    one, other = (brokers.start(namespace=namespace).client() for _ in range(2))

    submission = submit(one, "seen", "echo hello")

    assert other.get(submission.execution.name).execution_id == "seen"
    assert follow(other, submission.execution.name).text() == ["hello"]
    with pytest.raises(podbroker.NotFoundError):
        other.get(submission.execution.name + "x")


def test_a_member_keeps_its_place_over_another_attempt(namespace: Namespace, brokers: Brokers, site: Site) -> None:
    clients = [brokers.start(namespace=namespace).client() for _ in range(2)]
    policies = Policies(infra_retry=InfraRetry(max_attempts=2, backoff=datetime.timedelta(seconds=5)))
    old = submit(clients[0], "old", UNTIL_TOLD, policies=policies)
    follow_until(clients[0], old.execution.name, has_line("ready"))
    pod_name = old.execution.attempts[0].pod_name
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod_name}}
    site.core.create_namespaced_pod_eviction(pod_name, namespace.name, body)

    wait_for("another attempt", lambda: len(clients[1].get(old.execution.name).attempts) == 2, within=PATIENT)
    assert clients[1].get(old.execution.name).attempts[1].pod_name == pod_name.removesuffix("-1") + "-2"
    new = submit(clients[1], "new")
    assert new.execution.name == old.execution.name
    for client in clients:
        with pytest.raises(podbroker.RefusedError) as refused:
            client.cancel(old.execution.name, claim=old.claim)
        assert refused.value.reason == "CLAIM_SUPERSEDED"
    clients[0].cancel(new.execution.name, claim=new.claim)
    assert follow(clients[1], new.execution.name).end.state is ExecutionState.CANCELLED
    assert len(namespace.pods) == 2
