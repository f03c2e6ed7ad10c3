"""After the end: release applies the finish policy, and no finalizer is ever left behind."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

import pytest

import podbroker
from e2e.following import follow, follow_until, has_line
from e2e.manifests import UNTIL_TOLD, container, pod, shell
from e2e.site import FINALIZER
from e2e.waiting import wait_for
from podbroker import FinishAction, Policies

if TYPE_CHECKING:
    from e2e.broker import Brokers
    from e2e.site import Namespace
    from podbroker import Client

TARGET = "local"
#: Seconds: nothing is deleted before `submit_before` plus what clocks may differ by.
GONE = 150.0


def _soon() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=8)


def test_a_released_execution_is_deleted_and_then_expired(namespace: Namespace, client: Client) -> None:
    submission = client.submit(target=TARGET, execution_id="gone", pod=shell("echo hi"), submit_before=_soon())
    name = submission.execution.name
    story = follow(client, name)
    assert FINALIZER in namespace.only_pod["metadata"]["finalizers"]

    released = client.release(name, claim=submission.claim)
    assert released.release_time is not None
    wait_for("the pod to be gone", lambda: not namespace.pods, within=GONE)

    with pytest.raises(podbroker.NotFoundError):
        client.get(name)
    with pytest.raises(podbroker.ExpiredError), client.watch(name, cursor=story.events[0].cursor) as watch:
        next(watch)
    assert client.list(TARGET).executions == ()


def test_nothing_is_deleted_before_submit_before(namespace: Namespace, client: Client) -> None:
    submission = client.submit(target=TARGET, execution_id="early", pod=shell("true"))
    follow(client, submission.execution.name)

    client.release(submission.execution.name)

    again = client.submit(target=TARGET, execution_id="early", pod=shell("true"))
    assert not again.created
    assert len(namespace.pods) == 1


@pytest.mark.parametrize(
    ("action", "code"), [(FinishAction.KEEP, 0), (FinishAction.KEEP, 1), (FinishAction.DELETE_SUCCEEDED, 1)]
)
def test_a_pod_that_is_kept_has_no_finalizer(
    namespace: Namespace, client: Client, action: FinishAction, code: int
) -> None:
    submission = client.submit(
        target=TARGET,
        execution_id="kept",
        pod=shell(f"exit {code}"),
        submit_before=_soon(),
        policies=Policies(finish=action),
    )
    follow(client, submission.execution.name)

    client.release(submission.execution.name)

    wait_for("the finalizer to go", lambda: not namespace.only_pod["metadata"].get("finalizers"), within=GONE)
    namespace.delete_pod(namespace.only_pod["metadata"]["name"])
    wait_for("kubectl delete to work", lambda: not namespace.pods)


def test_delete_succeeded_deletes_what_succeeded(namespace: Namespace, client: Client) -> None:
    submission = client.submit(
        target=TARGET,
        execution_id="succeeded",
        pod=shell("true"),
        submit_before=_soon(),
        policies=Policies(finish=FinishAction.DELETE_SUCCEEDED),
    )
    follow(client, submission.execution.name)

    client.release(submission.execution.name)

    wait_for("the pod to be gone", lambda: not namespace.pods, within=GONE)


def test_release_ends_what_still_runs(namespace: Namespace, client: Client) -> None:
    submission = client.submit(
        target=TARGET,
        execution_id="still",
        pod=pod(container("main", "true"), container("beside", UNTIL_TOLD)),
        submit_before=_soon(),
        policies=Policies(deciding_containers=("main",), drain_deadline=datetime.timedelta(seconds=1)),
    )
    follow(client, submission.execution.name)

    client.release(submission.execution.name)

    wait_for("the pod to be gone", lambda: not namespace.pods, within=GONE)


def test_release_twice_is_release_once(client: Client) -> None:
    submission = client.submit(target=TARGET, execution_id="twice", pod=shell("true"))
    follow(client, submission.execution.name)

    first = client.release(submission.execution.name)
    second = client.release(submission.execution.name)

    assert first.release_time == second.release_time


def test_release_of_what_still_runs_is_refused(client: Client) -> None:
    name = client.submit(target=TARGET, execution_id="running", pod=shell(UNTIL_TOLD)).execution.name
    follow_until(client, name, has_line("ready"))

    with pytest.raises(podbroker.InvalidRequestError) as refused:
        client.release(name)

    assert "cancel" in str(refused.value)
    client.cancel(name)


def test_a_release_is_carried_out_by_the_next_broker(namespace: Namespace, brokers: Brokers) -> None:
    broker = brokers.start(namespace=namespace)
    client = broker.client()
    submission = client.submit(target=TARGET, execution_id="next", pod=shell("true"), submit_before=_soon())
    follow(client, submission.execution.name)
    client.release(submission.execution.name)
    broker.kill()
    broker.start()

    wait_for("the pod to be gone", lambda: not namespace.pods, within=GONE)
