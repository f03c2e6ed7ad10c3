"""What tests of the archive do again and again: run something, wait until it is archived, take its pod away."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any, Final

from e2e.broker import TARGET
from e2e.manifests import numbered, shell
from e2e.waiting import wait_for

if TYPE_CHECKING:
    from e2e.broker import Broker, Brokers
    from e2e.site import Namespace
    from e2e.stores import Store
    from podbroker import Client

#: Seconds.
LONG: Final = 180.0
WORDS: Final = f"{numbered(300)}; exit 3"
LINES: Final = [f"line {n}" for n in range(1, 301)]
SLOW: Final = numbered(400, pause="0.05")
SLOW_LINES: Final = [f"line {n}" for n in range(1, 401)]


def prepared(brokers: Brokers, namespace: Namespace, store: Store, **more: Any) -> Broker:  # noqa: ANN401  sections
    """A broker with an archive; not started yet."""
    broker = brokers.prepare(namespace=namespace, **store.sections(**more))
    broker.environment = store.environment
    return broker


def soon() -> datetime.datetime:
    """When a submit window ends: no pod is deleted before that."""
    return datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=15)


def run(client: Client, name: str, script: str) -> str:
    """Submits a pod of one container."""
    return client.submit(target=TARGET, execution_id=name, pod=shell(script), submit_before=soon()).execution.name


def archived(store: Store, *, count: int = 1, within: float = LONG) -> None:
    """Waits until so many outcomes are there."""
    wait_for("the outcomes in the archive", lambda: len(store.outcomes()) == count, within=within)


def released(client: Client, name: str, namespace: Namespace) -> None:
    """Releases an execution and waits until the broker has deleted its pod: a minute after the submit window."""
    client.release(name)
    wait_for("the pods to be deleted", lambda: not namespace.pods, within=LONG)


def gone(client: Client, namespace: Namespace, *names: str, target: str = TARGET) -> None:
    """Takes the pods away at once, as somebody with kubectl can, and waits until the broker has heard of it."""
    namespace.clear()
    wait_for("the pods to be deleted", lambda: not namespace.pods, within=LONG)
    wait_for("the broker to see it", lambda: not client.list(target).executions, within=LONG)
    assert all(client.get(name).state.is_final for name in names)
