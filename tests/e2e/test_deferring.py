"""Deferred tasks in a real Airflow with real triggerers: lines, values, failures, and every way in which one is ended.

What each row looks at: the state of the task, the pod, and the lines of the task's log, of which none may be missing
and none doubled.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from e2e.airflow import Airflow, Run
from e2e.broker import TARGET, Brokers
from e2e.waiting import wait_for
from podbroker import ExecutionState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.broker import Broker
    from e2e.site import Namespace, Site
    from podbroker import Execution

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def namespace(site: Site) -> Iterator[Namespace]:
    """One for all: Airflow takes long to start, and the runs have names of their own."""
    with site.namespace() as namespace:
        yield namespace


@pytest.fixture(scope="module")
def broker(site: Site, namespace: Namespace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    brokers = Brokers(site=site, folder=tmp_path_factory.mktemp("deferring-broker"))
    yield brokers.start(namespace=namespace)
    print(brokers.show())
    brokers.close()


@pytest.fixture(scope="module")
def airflow(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    with Airflow(
        folder=tmp_path_factory.mktemp("deferring"),
        dags=Path(__file__).with_name("dags"),
        broker=broker.address,
        target=TARGET,
        triggerers=1,
    ) as airflow:
        yield airflow
        for name in airflow.triggerer_names:
            print(f"--- {name}\n{airflow.log(name)[-3000:]}")


def _count(run: Run, text: str, *, attempt: int = 1) -> int:
    """How often the pod's line is in the task's log, with or without the prefix that names the container."""
    return sum(line == text or line.endswith(f"] {text}") for line in run.log("pod", attempt))


def _assert_lines(run: Run, lines: list[str], *, attempt: int = 1) -> None:
    """The task's log holds these lines in this order, each once."""
    found = [line.rpartition("] ")[2] for line in run.log("pod", attempt)]
    assert [line for line in found if line in set(lines)] == lines


def _deferred(run: Run) -> None:
    wait_for("the task to be deferred", lambda: run.task("pod")["state"] == "deferred", within=120)


def _ready(run: Run, *, attempt: int = 1) -> None:
    """The pod runs, and its first line has come through the triggerer."""
    wait_for("the pod's line in the task's log", lambda: _count(run, "ready", attempt=attempt) == 1, within=120)
    assert run.task("pod")["state"] == "deferred"


def _executions(broker: Broker, run: Run) -> list[Execution]:
    page = broker.client().list(TARGET, page_size=1000)
    return [one for one in page.executions if one.labels.get("run_id") == run.run]


def _assert_pod_ended(broker: Broker, namespace: Namespace, run: Run) -> None:
    """The pod was cancelled, and nothing of it runs."""

    def ended() -> bool:
        return all(one.state.is_final for one in _executions(broker, run))

    wait_for("the execution to have ended", ended, within=90)
    states = {one.state for one in _executions(broker, run)}
    assert states == {ExecutionState.CANCELLED}, states
    names = [attempt.pod_name for one in _executions(broker, run) for attempt in one.attempts]
    assert names
    pods = [pod for pod in map(namespace.pod, names) if pod is not None]
    assert all(
        pod["status"]["phase"] in {"Failed", "Succeeded"} or "deletionTimestamp" in pod["metadata"] for pod in pods
    )


def test_synchronous_deferred_and_mapped_tasks_run_together(airflow: Airflow) -> None:
    run = airflow.trigger("together")

    assert run.finish() == "success", run.states()
    assert (run.value("synchronous"), run.value("deferred")) == (1, 2)
    for index in range(4):
        lines = run.log("mapped", map_index=index)
        assert sum(line.endswith(f"] line of {index}") for line in lines) == 1, lines


def test_a_deferred_task_has_its_lines_live_and_its_value_once_it_is_back(airflow: Airflow) -> None:
    run = airflow.trigger("deferred")

    assert run.finish() == "success", run.log("pod")
    _assert_lines(run, ["migrating", "migrated", "one", "two", "three"])
    assert run.value("pod") == {"rows": 3, "run": run.run}
    folder = next(airflow.folder.glob(f"logs/dag_id=deferred/run_id={run.run}/task_id=pod"))
    (triggerers,) = folder.glob("attempt=1.log.trigger.*.log")
    assert "[base] two" in triggerers.read_text(), "the lines came while the task was deferred"
    assert "[setup] migrated" in triggerers.read_text()


def test_a_formatter_that_fails_repeats_no_line(airflow: Airflow) -> None:
    run = airflow.trigger("deferred-stumble")

    assert run.finish() == "failed"
    lines = run.log("pod")
    # Lines are printed 50 at a time, and the 61st is the one that cannot be.
    assert [line for line in lines if line.startswith("formatted ")] == [f"formatted line {at}" for at in range(1, 61)]
    assert sum(line.startswith("The task's own code failed here") for line in lines) == 1


def test_a_deferred_task_fails_with_the_last_lines_and_the_exit_code(airflow: Airflow) -> None:
    run = airflow.trigger("deferred-fail")

    assert run.finish() == "failed"
    _assert_lines(run, ["reading", "cannot read: no such table"])
    assert "RemotePodFailed" in run.printed("pod")
    assert "exit code 3" in run.printed("pod")


def test_a_deferred_task_is_skipped_by_its_exit_code(airflow: Airflow) -> None:
    run = airflow.trigger("deferred-skip")

    run.finish()
    assert run.task("pod")["state"] == "skipped"


def test_a_deferred_task_that_failed_is_tried_again(airflow: Airflow) -> None:
    run = airflow.trigger("deferred-retried")

    assert run.finish() == "success", run.log("pod", 2)
    _assert_lines(run, ["try 1"])
    _assert_lines(run, ["try 2"], attempt=2)


def test_the_row_of_a_trigger_and_the_event_hold_no_result(airflow: Airflow) -> None:
    run = airflow.trigger("deferred")

    assert run.finish() == "success", run.log("pod")
    (fired,) = (line for line in run.printed("pod").splitlines() if "Trigger fired event" in line)
    assert "rows" not in fired


def test_a_broker_that_is_killed_costs_no_line(airflow: Airflow, broker: Broker) -> None:
    run = airflow.trigger("deferred-slow")
    wait_for("lines in the task's log", lambda: _count(run, "line 80") == 1, within=120)

    broker.kill()
    broker.start()

    assert run.finish() == "success", run.log("pod")
    _assert_lines(run, [f"line {i}" for i in range(1, 401)])


def test_a_triggerer_that_is_stopped_hands_on_without_a_doubled_or_lost_line(airflow: Airflow) -> None:
    run = airflow.trigger("deferred-slow")
    wait_for("lines in the task's log", lambda: _count(run, "line 80") == 1, within=120)

    (old,) = airflow.triggerer_names
    airflow.add_triggerer()
    airflow.end(old)

    assert run.finish() == "success", run.log("pod")
    _assert_lines(run, [f"line {i}" for i in range(1, 401)])
    assert "may come again" not in run.printed("pod")


def test_a_triggerer_that_is_killed_loses_no_line_and_those_that_come_again_are_announced(airflow: Airflow) -> None:
    run = airflow.trigger("deferred-slow")
    wait_for("lines in the task's log", lambda: _count(run, "line 80") == 1, within=120)

    (old,) = airflow.triggerer_names
    airflow.end(old, signal.SIGKILL)
    airflow.add_triggerer()

    assert run.finish() == "success", run.log("pod")
    printed = [line.rpartition("] ")[2] for line in run.log("pod")]
    (marker,) = (at for at, line in enumerate(printed) if "may come again" in line)
    before = [line for line in printed[:marker] if line.startswith("line ")]
    after = [line for line in printed[marker:] if line.startswith("line ")]
    assert len(set(before)) == len(before)
    assert len(set(after)) == len(after)
    assert {*before, *after} == {f"line {i}" for i in range(1, 401)}


@pytest.mark.parametrize("state", ["failed", "success"])
def test_marking_a_deferred_task_ends_its_running_pod(
    airflow: Airflow, broker: Broker, namespace: Namespace, state: str
) -> None:
    run = airflow.trigger("deferred-endless")
    _ready(run)

    run.set_state("pod", state)

    _assert_pod_ended(broker, namespace, run)
    assert run.finish() == state
    assert run.task("pod")["state"] == state
    wait_for("the pod's last line", lambda: _count(run, "bye") == 1)
    _assert_lines(run, ["ready", "bye"])


@pytest.mark.parametrize("state", ["failed", "success"])
def test_marking_a_deferred_task_ends_its_pending_pod(
    airflow: Airflow, broker: Broker, namespace: Namespace, state: str
) -> None:
    run = airflow.trigger("deferred-pending")
    _deferred(run)
    wait_for("the pod to be pending", lambda: "Waiting for pod" in run.printed("pod"))

    run.set_state("pod", state)

    _assert_pod_ended(broker, namespace, run)
    assert run.finish() == state


def test_clearing_a_deferred_task_ends_its_pod_and_starts_another(
    airflow: Airflow, broker: Broker, namespace: Namespace
) -> None:
    run = airflow.trigger("deferred-endless")
    _ready(run)

    run.clear("pod")

    wait_for("the task's second try", lambda: run.task("pod")["try_number"] == 2, within=120)
    _ready(run, attempt=2)
    states = sorted(str(one.state) for one in _executions(broker, run))
    assert states == ["CANCELLED", "RUNNING"]
    _assert_lines(run, ["ready", "bye"])

    run.set_state("pod", "failed")
    _assert_pod_ended(broker, namespace, run)


@pytest.mark.parametrize("dag", ["deferred-late", "deferred-pending-late"])
def test_a_deferred_task_that_takes_too_long_fails_and_its_pod_is_cancelled(
    airflow: Airflow, broker: Broker, namespace: Namespace, dag: str
) -> None:
    run = airflow.trigger(dag)

    assert run.finish() == "failed"
    _assert_pod_ended(broker, namespace, run)
    assert "AirflowTaskTimeout" in run.printed("pod")
    if dag == "deferred-late":
        _assert_lines(run, ["ready", "bye"])


def test_a_pending_pod_outlives_its_triggerer(airflow: Airflow, broker: Broker, namespace: Namespace) -> None:
    run = airflow.trigger("deferred-pending")
    _deferred(run)
    wait_for("the pod to be pending", lambda: "Waiting for pod" in run.printed("pod"))

    (old,) = airflow.triggerer_names
    airflow.end(old)
    new = airflow.add_triggerer()

    wait_for("the new triggerer to follow", lambda: run.printed("pod").count("Waiting for pod") == 2, within=120)
    assert new in airflow.triggerer_names
    (execution,) = _executions(broker, run)
    assert execution.state is ExecutionState.PENDING

    run.set_state("pod", "failed")
    _assert_pod_ended(broker, namespace, run)
