"""Cancel is one wish, whoever says it, how often, and whenever."""

from __future__ import annotations

import datetime
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

import podbroker
from e2e.following import follow, follow_until, has_line
from e2e.manifests import UNTIL_TOLD, container, pod, shell
from podbroker import ExecutionState, FailureClass, Policies

if TYPE_CHECKING:
    from e2e.broker import Brokers
    from e2e.following import Story
    from e2e.site import Namespace
    from podbroker import Client

TARGET = "local"


def _cancelled(story: Story) -> None:
    assert story.end.state is ExecutionState.CANCELLED
    assert story.outcome.failure_class is FailureClass.CANCELLED_BY_CALLER


def test_a_waiting_execution_is_cancelled(client: Client) -> None:
    waiting = shell("true", nodeSelector={"nowhere": "x"})
    name = client.submit(target=TARGET, execution_id="waiting", pod=waiting).execution.name

    client.cancel(name, reason="changed my mind")
    story = follow(client, name)

    _cancelled(story)
    assert story.outcome.exit_code is None
    assert "changed my mind" in story.outcome.message
    assert story.end.cancel is not None
    assert story.end.cancel.reason == "changed my mind"


def test_a_running_execution_is_cancelled_with_its_last_lines_and_exit_code(client: Client) -> None:
    name = client.submit(
        target=TARGET, execution_id="running", pod=shell(UNTIL_TOLD.replace("exit 0", "exit 5"))
    ).execution.name
    follow_until(client, name, has_line("ready"))

    answer = client.cancel(name)
    assert answer.cancel is not None
    story = follow(client, name)

    _cancelled(story)
    assert story.text() == ["ready", "bye"]
    assert story.outcome.containers[0].exit_code == 5


def test_a_container_that_does_not_listen_is_killed_after_the_grace(client: Client) -> None:
    deaf = shell("trap '' TERM; echo ready; while :; do sleep 0.1; done", terminationGracePeriodSeconds=3600)
    name = client.submit(target=TARGET, execution_id="deaf", pod=deaf).execution.name
    follow_until(client, name, has_line("ready"))

    client.cancel(name, grace=datetime.timedelta(seconds=2))
    story = follow(client, name, within=60)

    _cancelled(story)
    assert story.outcome.containers[0].exit_code == 137


def test_cancel_while_it_ends_keeps_its_own_outcome(client: Client) -> None:
    # The deciding container has ended; the other one keeps the execution in ENDING.
    manifest = pod(container("main", "exit 3"), container("beside", UNTIL_TOLD))
    policies = Policies(deciding_containers=("main",), drain_deadline=datetime.timedelta(seconds=20))
    name = client.submit(target=TARGET, execution_id="ending", pod=manifest, policies=policies).execution.name
    follow_until(client, name, lambda story: "ENDING" in story.states)

    client.cancel(name)
    outcome = follow(client, name).outcome

    assert outcome.state is ExecutionState.FAILED
    assert outcome.exit_code == 3


def test_cancel_after_the_end_changes_nothing(client: Client) -> None:
    name = client.submit(target=TARGET, execution_id="over", pod=shell("exit 0")).execution.name
    before = follow(client, name).outcome

    answer = client.cancel(name)

    assert answer.outcome == before
    assert answer.cancel is None
    assert follow(client, name).outcome == before


def test_cancel_twice_is_cancel_once(client: Client) -> None:
    name = client.submit(target=TARGET, execution_id="twice", pod=shell(UNTIL_TOLD)).execution.name
    follow_until(client, name, has_line("ready"))

    client.cancel(name, reason="first")
    client.cancel(name, reason="second")
    story = follow(client, name)

    _cancelled(story)
    assert story.end.cancel is not None
    assert story.end.cancel.reason == "first"
    client.cancel(name, reason="third")


def test_two_brokers_cancel_the_same_execution_at_once(namespace: Namespace, brokers: Brokers) -> None:
    clients = [brokers.start(namespace=namespace).client() for _ in range(2)]
    name = clients[0].submit(target=TARGET, execution_id="both", pod=shell(UNTIL_TOLD)).execution.name
    follow_until(clients[1], name, has_line("ready"))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda client: client.cancel(name), clients))

    for client in clients:
        story = follow(client, name)
        _cancelled(story)
        assert story.text() == ["ready", "bye"]


def test_a_cancel_survives_the_death_of_the_broker_that_took_it(namespace: Namespace, brokers: Brokers) -> None:
    broker = brokers.start(namespace=namespace)
    client = broker.client()
    name = client.submit(target=TARGET, execution_id="death", pod=shell(UNTIL_TOLD)).execution.name
    follow_until(client, name, has_line("ready"))

    client.cancel(name)
    broker.kill()
    broker.start()

    _cancelled(follow(client, name))


def test_dropping_a_watch_is_not_a_cancel(client: Client) -> None:
    name = client.submit(target=TARGET, execution_id="drop", pod=shell(UNTIL_TOLD)).execution.name
    for _ in range(3):
        follow_until(client, name, has_line("ready"))

    assert client.get(name).state is ExecutionState.RUNNING
    client.cancel(name)
    _cancelled(follow(client, name))


def test_cancel_of_what_never_existed_is_not_found(client: Client) -> None:
    with pytest.raises(podbroker.NotFoundError) as refused:
        client.cancel(f"targets/{TARGET}/executions/never")

    assert refused.value.reason == "NO_SUCH_EXECUTION"
