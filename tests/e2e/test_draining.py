"""What is left after the outcome is waited for, but not for ever: a read that hangs withholds no verdict.

Nor is anything given up that was read or can be read: the time that a watcher takes for itself is not the broker's.
"""

from __future__ import annotations

import datetime
import time
from typing import TYPE_CHECKING

import pytest

import podbroker
from e2e.following import Story, check_lines, collect, ended, follow
from e2e.manifests import container, pod, shell
from e2e.proxy import Instead
from e2e.waiting import wait_for
from podbroker import ExecutionState, Policies, ResultSource

if TYPE_CHECKING:
    from e2e.broker import Brokers
    from e2e.site import Namespace
    from podbroker import Client

TARGET = "local"
LONG = 180.0
SHORT_DRAIN = datetime.timedelta(seconds=2)

#: 8 MB: more than fits between the broker and a watcher that reads nothing, and less than the node rotates.
MANY = 8_000
FILL = "x" * 1000
WRITE_MANY = f"awk 'BEGIN{{for(k=1;k<={MANY};k++)printf \"%07d {FILL}\\n\", k}}'"
WRITTEN = [b"%07d %s" % (number, FILL.encode()) for number in range(1, MANY + 1)]


def pause_beyond_the_deadline() -> None:
    """The fault itself: a watcher that does nothing for longer than the drain deadline."""
    time.sleep(3 * SHORT_DRAIN.total_seconds())


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


def test_a_container_that_was_silent_for_long_before_its_end_has_given_up_nothing(client: Client) -> None:
    policies = Policies(drain_deadline=SHORT_DRAIN)
    manifest = shell("echo first; sleep 10")
    name = client.submit(target=TARGET, execution_id="silent", pod=manifest, policies=policies).execution.name

    story = follow(client, name, within=LONG)

    assert story.text() == ["first"]
    assert not story.gaps
    (end,) = (event for event in story.events if isinstance(event, podbroker.LogStreamEnd))
    assert end.complete


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


@pytest.mark.parametrize("beside", ["ends", "runs on"])
def test_a_watcher_that_pauses_after_the_outcome_gets_all_that_was_read(client: Client, beside: str) -> None:
    other = container("beside", WRITE_MANY + ("" if beside == "ends" else "; while :; do sleep 1; done"))
    # The result comes once all containers have ended.
    result = ResultSource.SIDECAR if beside == "ends" else ResultSource.NONE
    main = container("main", f"{WRITE_MANY}; mkdir -p /airflow/xcom; echo 7 > /airflow/xcom/return.json")
    policies = Policies(deciding_containers=("main",), drain_deadline=SHORT_DRAIN, result=result)
    name = client.submit(target=TARGET, execution_id="pauses", pod=pod(main, other), policies=policies).execution.name

    with client.watch(name) as watch:
        story = collect(watch, Story(), lambda story: story.lines, within=LONG)
        wait_for("the outcome", lambda: client.get(name).outcome, within=LONG, every=0.5)
        pause_beyond_the_deadline()
        collect(watch, story, ended, within=LONG)

    assert story.outcome.state is ExecutionState.SUCCEEDED
    cut = [("beside", podbroker.GapReason.DRAIN_DEADLINE)] if beside == "runs on" else []
    assert [(gap.instance.container, gap.reason) for gap in story.gaps] == cut
    check_lines(story.content("main"), WRITTEN, [])
    check_lines(story.content("beside"), WRITTEN, [])
    assert (story.result.content if story.result else None) == (b"7\n" if beside == "ends" else None)
    client.release(name)


def test_a_look_at_what_has_ended_takes_as_long_as_its_reader(client: Client) -> None:
    policies = Policies(drain_deadline=SHORT_DRAIN)
    name = client.submit(target=TARGET, execution_id="paged", pod=shell(WRITE_MANY), policies=policies).execution.name
    assert follow(client, name, within=LONG).outcome.state is ExecutionState.SUCCEEDED

    story = Story()
    with client.watch(name, follow=False) as watch:
        collect(watch, story, lambda story: story.lines, within=LONG)
        pause_beyond_the_deadline()
        while (event := watch.poll(LONG)) is not None:
            story.add(event)
        assert watch.ended

    check_lines(story.content(), WRITTEN, story.gaps)
