"""Tasks that start in the triggerer of a real Airflow: who had them, what became of the pod, and what is in the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from e2e.waiting import wait_for
from podbroker import ExecutionState

if TYPE_CHECKING:
    from pathlib import Path

    from e2e.airflow import Airflow, Run
    from e2e.installation import Installation

TRIGGERERS = 1
pytestmark = pytest.mark.timeout(900)


def _folder(run: Run) -> Path:
    return run.airflow.folder / f"logs/dag_id={run.dag}/run_id={run.run}/task_id=pod"


def _had_worker(run: Run, attempt: int = 1) -> bool:
    """A worker has a log of its own."""
    return (_folder(run) / f"attempt={attempt}.log").exists()


def _ready(run: Run, *, attempt: int = 1) -> None:
    wait_for("the pod's line in the task's log", lambda: run.count("ready", attempt=attempt) == 1, within=120)
    assert run.task("pod")["state"] == "deferred"


def test_a_task_succeeds_without_a_worker(installation: Installation) -> None:
    run = installation.airflow.trigger("started", conf={"word": "two"})

    assert run.finish() == "success", run.printed("pod")
    run.assert_lines(["one", f"two {run.run}", "three"])
    assert not _had_worker(run)
    task = run.task("pod")
    assert (task["state"], task["try_number"], task["pid"]) == ("success", 1, None)
    (execution,) = installation.executions(run)
    assert run.value("pod", "pod_name") == execution.attempts[-1].pod_name
    wait_for("the pod to be released", lambda: installation.client.get(execution.name).release_time is not None)
    assert "on_kill" not in run.printed("pod")


def test_a_value_is_handed_over_without_a_worker(installation: Installation) -> None:
    run = installation.airflow.trigger("started-value")

    assert run.finish() == "success", run.printed("pod")
    assert run.value("pod") == {"rows": 3, "run": run.run}
    assert not _had_worker(run)
    (fired,) = (line for line in run.printed("pod").splitlines() if "Trigger fired event" in line)
    assert "rows" not in fired


def test_a_failure_goes_to_a_worker_and_is_tried_again(installation: Installation) -> None:
    run = installation.airflow.trigger("started-fail")

    assert run.finish(within=400) == "success", run.printed("pod", 2)
    run.assert_lines(["reading 1"])
    run.assert_lines(["reading 2"], attempt=2)
    assert _had_worker(run)
    assert "RemotePodFailed" in run.printed("pod")
    assert "exit code 3" in run.printed("pod")
    assert "A worker starts the pod: a worker looks for what earlier tries have left" in run.log("pod", 2)
    assert len(installation.executions(run)) == 2


@pytest.mark.parametrize("state", ["failed", "success"])
def test_marking_the_task_ends_its_pod(installation: Installation, state: str) -> None:
    run = installation.airflow.trigger("started-endless")
    _ready(run)

    run.set_state("pod", state)

    installation.assert_pod_ended(run)
    assert run.finish() == state
    wait_for("the pod's last line", lambda: run.count("bye") == 1)
    run.assert_lines(["ready", "bye"])
    assert not _had_worker(run)


def test_clearing_the_task_ends_its_pod_and_starts_another(installation: Installation) -> None:
    run = installation.airflow.trigger("started-endless")
    _ready(run)

    run.clear("pod")

    wait_for("the task's second try", lambda: run.task("pod")["try_number"] == 2, within=120)
    _ready(run, attempt=2)
    states = sorted(str(one.state) for one in installation.executions(run))
    assert states == ["CANCELLED", "RUNNING"]

    run.set_state("pod", "failed")
    installation.assert_pod_ended(run)


def test_clearing_a_task_that_succeeded_runs_another_pod(installation: Installation) -> None:
    run = installation.airflow.trigger("started", conf={"word": "two"})
    assert run.finish() == "success", run.printed("pod")
    (execution,) = installation.executions(run)
    wait_for("the pod to be released", lambda: installation.client.get(execution.name).release_time is not None)

    run.clear("pod")

    wait_for("the task's second try", lambda: run.task("pod")["try_number"] == 2, within=120)
    assert run.finish() == "success", run.printed("pod", 2)
    run.assert_lines(["one", f"two {run.run}", "three"], attempt=2)
    assert len(installation.executions(run)) == 2


def test_a_triggerer_that_is_stopped_hands_on_without_a_doubled_or_lost_line(installation: Installation) -> None:
    airflow: Airflow = installation.airflow
    run = airflow.trigger("started-slow")
    wait_for("lines in the task's log", lambda: run.count("line 20") == 1, within=120)

    (old,) = airflow.triggerer_names
    airflow.add_triggerer()
    airflow.end(old)

    assert run.finish() == "success", run.printed("pod")
    run.assert_lines([f"line {i}" for i in range(1, 401)])
    assert not _had_worker(run)
    (execution,) = installation.executions(run)
    assert execution.state is ExecutionState.SUCCEEDED


def test_a_task_with_an_asset_is_ended_by_a_worker(installation: Installation) -> None:
    run = installation.airflow.trigger("started-outlet")

    assert run.finish() == "success", run.printed("pod")
    run.assert_lines(["one"])
    assert _had_worker(run)
    events = installation.airflow.call("GET", f"dags/{run.dag}/dagRuns/{run.run}/taskInstances/pod")
    assert events["state"] == "success"
    made = installation.airflow.call("GET", "assets/events?source_dag_id=started-outlet")["asset_events"]
    assert [event["source_run_id"] for event in made] == [run.run]


def test_the_pods_own_deadline_ends_it_before_airflow_does(installation: Installation) -> None:
    run = installation.airflow.trigger("started-late")

    assert run.finish() == "failed", run.printed("pod")
    assert "RemotePodDeadlineExceeded" in run.printed("pod")


@pytest.mark.parametrize(
    ("dag", "why"),
    [
        ("started-in-vain", "env_vars holds values"),
        ("started-mapped", "a mapped task is started by a worker"),
    ],
)
def test_a_task_that_cannot_start_there_says_why_once(installation: Installation, dag: str, why: str) -> None:
    run = installation.airflow.trigger(dag)

    assert run.finish() == "success"
    index = 0 if dag == "started-mapped" else None
    assert run.states() == {f"pod[{-1 if index is None else index}]": "success"}
    said = [line for line in run.log("pod", map_index=index) if "start_from_trigger" in line]
    assert said == [f"start_from_trigger has no effect: {why}"]
