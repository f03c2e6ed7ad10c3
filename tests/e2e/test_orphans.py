"""Executions that nobody follows any more, ended where their callers wanted that and nowhere else."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

import pytest

import podbroker
from e2e.broker import TARGET
from e2e.following import Story, collect, follow, has_line
from e2e.manifests import shell
from e2e.waiting import wait_for

if TYPE_CHECKING:
    from e2e.broker import Broker, Brokers
    from e2e.site import Namespace
    from podbroker import Client

#: Shorter than anybody wants; the broker adds a quarter of a minute.
AFTER: Final = timedelta(seconds=3)
#: Seconds for what takes that long on an idle machine.
LIMIT: Final = 180


def start(brokers: Brokers, namespace: Namespace) -> Broker:
    """A broker that takes so short a time."""
    broker = brokers.prepare(namespace=namespace, limits={"shortest_orphan": "1s"})
    broker.arguments = ("--log-level", "debug")
    return broker.start()


def submit(client: Client, name: str, after: timedelta | None = AFTER) -> str:
    """An execution that would run for long."""
    policies = podbroker.Policies(orphan_after=after)
    return client.submit(
        target=TARGET, execution_id=name, pod=shell("echo hi; sleep 600"), policies=policies
    ).execution.name


def test_what_nobody_follows_is_ended_and_the_rest_runs_on(namespace: Namespace, brokers: Brokers) -> None:
    client = start(brokers, namespace).client()
    kept = submit(client, "kept", after=None)
    followed = submit(client, "followed")
    left = submit(client, "left")
    with client.watch(followed) as watch:
        collect(watch, Story(), has_line("hi"), within=LIMIT)

        wait_for("its end", lambda: client.get(left).outcome, within=LIMIT)
        # Asked for only now: a watch would have kept it.
        end = follow(client, left).end
        assert end.state is podbroker.ExecutionState.FAILED
        assert end.outcome is not None
        assert end.outcome.failure_class is podbroker.FailureClass.ORPHANED
        assert "nobody followed it" in end.outcome.message
        assert {client.get(one).state for one in (kept, followed)} == {podbroker.ExecutionState.RUNNING}
    # Its only follower has gone.
    wait_for("its end", lambda: client.get(followed).outcome, within=LIMIT)
    assert client.get(kept).state is podbroker.ExecutionState.RUNNING


def test_who_follows_at_one_replica_is_known_at_the_other_until_it_is_killed(
    namespace: Namespace, brokers: Brokers
) -> None:
    first, second = start(brokers, namespace), start(brokers, namespace)
    here, there = first.client(retry_for=1.0), second.client()
    followed = submit(here, "followed")
    with here.watch(followed, retry_for=1.0) as watch:
        collect(watch, Story(), has_line("hi"), within=LIMIT)
        wait_for("its word", lambda: "told the other replicas whom this one follows" in first.log, within=LIMIT)
        # The other one was about to end it, and has asked.
        wait_for("its question", lambda: "a replica follows it, or did" in second.log, within=LIMIT)
        assert there.get(followed).state is podbroker.ExecutionState.RUNNING
        assert "ending what nobody follows" not in first.log + second.log
        first.kill()
        end = wait_for("its end", lambda: there.get(followed).outcome, within=LIMIT)
    assert end is not None
    assert end.failure_class is podbroker.FailureClass.ORPHANED
    assert "ending what nobody follows" in second.log


def test_a_broker_that_was_away_begins_to_count_anew(namespace: Namespace, brokers: Brokers) -> None:
    broker = start(brokers, namespace)
    client = broker.client()
    left = submit(client, "left", after=timedelta(seconds=20))
    broker.kill()
    broker.start()
    # Whoever comes back finds it running, however long that took; here it is at once.
    with client.watch(left) as watch:
        collect(watch, Story(), has_line("hi"), within=LIMIT)
        assert client.get(left).outcome is None
    wait_for("its end", lambda: client.get(left).outcome, within=LIMIT)


def test_so_short_a_time_needs_a_broker_that_allows_it(client: Client) -> None:
    policies = podbroker.Policies(orphan_after=AFTER)
    with pytest.raises(podbroker.InvalidRequestError, match=r"policies\.orphan\.cancel_after.*300"):
        client.submit(target=TARGET, execution_id="hasty", pod=shell("true"), policies=policies)
