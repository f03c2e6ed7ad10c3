"""A group outlives its members: names become free from the newest on, and only when no late create can take them."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

import pytest

from e2e.following import follow
from e2e.manifests import shell
from e2e.waiting import wait_for
from podbroker import Group

if TYPE_CHECKING:
    from e2e.broker import Brokers
    from e2e.site import Namespace

pytestmark = pytest.mark.timeout(900)

TARGET = "local"
GROUP = Group(group_id="g")


def generations(namespace: Namespace) -> list[int]:
    """Which members of the group are there."""
    return sorted(int(name.rsplit("-", 2)[1]) for name in namespace.pod_names)


def test_the_members_of_a_group_are_deleted_from_the_newest_on(namespace: Namespace, brokers: Brokers) -> None:
    # Two, since each does what is due.
    clients = [brokers.start(namespace=namespace).client() for _ in range(2)]
    for number in range(3):
        client = clients[number % 2]
        # So short a window that it keeps none of them for long.
        soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=20)
        made = client.submit(
            target=TARGET, execution_id=f"try-{number}", pod=shell("exit 1"), submit_before=soon, group=GROUP
        )
        assert made.created
        follow(client, made.execution.name)
        client.release(made.execution.name, claim=made.claim)
    assert generations(namespace) == [1, 2, 3]

    def is_empty() -> bool:
        there = generations(namespace)
        assert there == list(range(1, len(there) + 1)), "one below a later one was deleted first"
        return not there

    # Those that had a successor stay for two minutes after it was made.
    wait_for("the group to be empty", is_empty, within=600)
    again = clients[0].submit(target=TARGET, execution_id="again", pod=shell("echo again"), group=GROUP)
    assert generations(namespace) == [1]
    assert follow(clients[1], again.execution.name).text() == ["again"]
