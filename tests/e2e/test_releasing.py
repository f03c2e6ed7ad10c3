"""After the end: release applies the finish policy, and no finalizer is ever left behind."""

from __future__ import annotations

import datetime
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

import podbroker
from e2e.broker import Brokers, program
from e2e.following import follow, follow_until, has_line
from e2e.manifests import UNTIL_TOLD, container, pod, shell
from e2e.site import FINALIZER
from e2e.waiting import wait_for
from podbroker import FinishAction, Policies

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.site import Namespace, Site
    from podbroker import Client

TARGET = "local"
#: Seconds: nothing is deleted before `submit_before` plus what clocks may differ by.
GONE = 180.0


@dataclass(frozen=True, kw_only=True)
class Released:
    """An execution that was followed to its end and released."""

    submission: podbroker.Submission
    cursor: bytes
    answer: podbroker.Execution

    @property
    def name(self) -> str:
        return self.submission.execution.name

    @property
    def pod(self) -> str:
        return self.submission.execution.attempts[0].pod_name


CASES: dict[str, tuple[dict[str, Any], FinishAction | None]] = {
    "default": (shell("echo hi"), None),
    "failed": (shell("exit 1"), FinishAction.DELETE),
    "keep-succeeded": (shell("true"), FinishAction.KEEP),
    "keep-failed": (shell("exit 1"), FinishAction.KEEP),
    "succeeded-of-two": (shell("true"), FinishAction.DELETE_SUCCEEDED),
    "failed-of-two": (shell("exit 1"), FinishAction.DELETE_SUCCEEDED),
    "still-running": (pod(container("main", "true"), container("beside", UNTIL_TOLD)), None),
}


@pytest.fixture(scope="module")
def shared(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Namespace, Client]]:
    """One namespace and broker for all that has to wait for its `submit_before`, so that they wait together."""
    brokers = Brokers(site=site, folder=tmp_path_factory.mktemp("releasing"))
    with site.namespace() as namespace:
        try:
            broker = brokers.start(namespace=namespace)
            yield namespace, broker.client()
            assert "panicked" not in broker.log
        finally:
            print(brokers.show())
            brokers.close()


@pytest.fixture(scope="module")
def released(shared: tuple[Namespace, Client]) -> dict[str, Released]:
    """All cases, each released as soon as it has ended."""
    namespace, client = shared
    submit_before = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=15)
    submissions = {
        key: client.submit(
            target=TARGET,
            execution_id=key,
            pod=manifest,
            submit_before=submit_before,
            policies=Policies(
                finish=action, deciding_containers=("main",), drain_deadline=datetime.timedelta(seconds=2)
            ),
        )
        for key, (manifest, action) in CASES.items()
    }
    found = {}
    for key, submission in submissions.items():
        story = follow(client, submission.execution.name)
        there = namespace.pod(submission.execution.attempts[0].pod_name)
        assert there is not None
        assert FINALIZER in there["metadata"]["finalizers"]
        answer = client.release(submission.execution.name, claim=submission.claim)
        assert answer.release_time is not None
        found[key] = Released(submission=submission, cursor=story.events[0].cursor, answer=answer)
    return found


@pytest.mark.parametrize("case", ["default", "failed", "succeeded-of-two", "still-running"])
def test_a_released_execution_is_deleted(
    shared: tuple[Namespace, Client], released: dict[str, Released], case: str
) -> None:
    namespace, _ = shared

    wait_for("the pod to be gone", lambda: namespace.pod(released[case].pod) is None, within=GONE)


def test_a_deleted_execution_has_expired_for_who_has_a_cursor_and_is_unknown_to_others(
    shared: tuple[Namespace, Client], released: dict[str, Released]
) -> None:
    namespace, client = shared
    gone = released["default"]
    wait_for("the pod to be gone", lambda: namespace.pod(gone.pod) is None, within=GONE)

    with pytest.raises(podbroker.NotFoundError) as unknown:
        client.get(gone.name)
    assert unknown.value.reason == "NO_SUCH_EXECUTION"
    with pytest.raises(podbroker.ExpiredError), client.watch(gone.name, cursor=gone.cursor) as watch:
        next(watch)
    assert gone.name not in {execution.name for execution in client.list(TARGET).executions}


@pytest.mark.parametrize("case", ["keep-succeeded", "keep-failed", "failed-of-two"])
def test_a_pod_that_is_kept_has_no_finalizer(
    shared: tuple[Namespace, Client], released: dict[str, Released], case: str
) -> None:
    namespace, _ = shared
    name = released[case].pod

    def is_free() -> bool:
        kept = namespace.pod(name)
        assert kept is not None
        return not kept["metadata"].get("finalizers")

    wait_for("the finalizer to go", is_free, within=GONE)
    namespace.delete_pod(name)
    wait_for("kubectl delete to work", lambda: namespace.pod(name) is None)


def test_nothing_is_deleted_before_submit_before(namespace: Namespace, client: Client) -> None:
    submission = client.submit(target=TARGET, execution_id="early", pod=shell("true"))
    follow(client, submission.execution.name)

    client.release(submission.execution.name)

    again = client.submit(target=TARGET, execution_id="early", pod=shell("true"))
    assert not again.created
    assert len(namespace.pods) == 1


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
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=8)
    submission = client.submit(target=TARGET, execution_id="next", pod=shell("true"), submit_before=soon)
    follow(client, submission.execution.name)
    client.release(submission.execution.name)
    broker.kill()
    broker.start()

    wait_for("the pod to be gone", lambda: not namespace.pods, within=GONE)


def test_an_uninstall_takes_the_finalizers_off_and_leaves_the_pods(namespace: Namespace, brokers: Brokers) -> None:
    broker = brokers.start(namespace=namespace)
    client = broker.client()
    name = client.submit(target=TARGET, execution_id="stays", pod=shell(UNTIL_TOLD)).execution.name
    follow_until(client, name, has_line("ready"))
    broker.kill()
    command = [str(program()), "uninstall", "--config", str(broker.folder / "config.toml")]

    asked = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    assert asked.returncode == 1
    assert "--yes" in asked.stderr
    assert FINALIZER in namespace.only_pod["metadata"]["finalizers"]

    done = subprocess.run([*command, "--yes"], capture_output=True, text=True, timeout=60, check=True)
    assert f"local: namespace {namespace.name}, pods: 1, not ended: 1" in done.stdout
    assert "local: finalizers taken off: 1" in done.stdout
    assert not namespace.only_pod["metadata"].get("finalizers")
    assert namespace.only_pod["status"]["phase"] == "Running"
