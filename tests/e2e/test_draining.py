"""What is left after the outcome is waited for, but not for ever: a read that hangs withholds no verdict."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

import podbroker
from e2e.following import follow
from e2e.manifests import container, pod, shell
from e2e.proxy import Instead
from podbroker import ExecutionState, Policies

if TYPE_CHECKING:
    from e2e.broker import Brokers
    from e2e.site import Namespace
    from podbroker import Client

TARGET = "local"
LONG = 180.0
SHORT_DRAIN = datetime.timedelta(seconds=2)


def test_a_container_that_floods_for_ever_does_not_withhold_the_end(client: Client) -> None:
    flood = container("flood", "while :; do echo and another one and another one and another one; done")
    policies = Policies(deciding_containers=("main",), drain_deadline=SHORT_DRAIN)
    name = client.submit(
        target=TARGET, execution_id="flood", pod=pod(container("main", "echo hi; exit 3"), flood), policies=policies
    ).execution.name

    story = follow(client, name, within=LONG)

    assert story.outcome.exit_code == 3
    assert story.text("main") == ["hi"]
    (gap,) = story.gaps
    assert (gap.instance.container, gap.reason) == ("flood", podbroker.GapReason.DRAIN_DEADLINE)
    client.release(name)


def test_a_read_that_hangs_does_not_withhold_the_outcome(namespace: Namespace, brokers: Brokers) -> None:
    with brokers.api_server_proxy() as proxy:
        client = brokers.start(namespace=namespace, api_server=proxy).client()
        proxy.swallow("GET", "/log", times=100, instead=Instead.KEEP)
        policies = Policies(drain_deadline=SHORT_DRAIN)
        name = client.submit(
            target=TARGET, execution_id="hangs", pod=shell("echo hi; exit 3"), policies=policies
        ).execution.name

        story = follow(client, name, within=LONG)

    assert story.outcome.exit_code == 3
    known = next(
        event
        for event in story.events
        if isinstance(event, podbroker.StateChanged) and event.execution.outcome is not None
    )
    assert known.execution.state is ExecutionState.ENDING
    assert [gap.reason for gap in story.gaps] == [podbroker.GapReason.DRAIN_DEADLINE]
    assert story.events.index(known) < story.events.index(story.gaps[0])
