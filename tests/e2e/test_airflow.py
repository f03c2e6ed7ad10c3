"""A DAG's task is a pod at the other end: its lines, its value, its failure and its kill, through a real Airflow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from e2e.airflow import Airflow, Run
from e2e.broker import TARGET, Brokers
from e2e.waiting import wait_for
from podbroker import ExecutionState, FailureClass

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from e2e.broker import Broker
    from e2e.site import Namespace, Site

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def namespace(site: Site) -> Iterator[Namespace]:
    """One for all: Airflow takes long to start, and the runs have names of their own."""
    with site.namespace() as namespace:
        yield namespace


@pytest.fixture(scope="module")
def broker(site: Site, namespace: Namespace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    brokers = Brokers(site=site, folder=tmp_path_factory.mktemp("airflow-broker"))
    yield brokers.start(namespace=namespace)
    print(brokers.show())
    brokers.close()


@pytest.fixture(scope="module")
def airflow(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    folder = tmp_path_factory.mktemp("airflow")
    with Airflow(folder=folder, dags=Path(__file__).with_name("dags"), broker=broker.address, target=TARGET) as airflow:
        yield airflow


def _seen(run: Run, text: str, *, times: int = 1) -> bool:
    """Whether the task's log has the line, with or without the prefix that names the container."""
    return sum(line == text or line.endswith(f"] {text}") for line in run.log("pod")) == times


def _assert_lines(run: Run, lines: list[str]) -> None:
    """The task's log holds these lines in this order, each once."""
    found = [line.rpartition("] ")[2] for line in run.log("pod")]
    found = [line for line in found if line in set(lines)]
    assert found == lines


def test_a_task_succeeds_with_its_lines_in_the_log_and_its_value_in_xcom(airflow: Airflow) -> None:
    run = airflow.trigger("succeed")

    assert run.finish() == "success", run.log("pod")
    _assert_lines(run, ["one", "two", "three"])
    assert run.value("pod") == {"rows": 3, "run": run.run}


def test_a_task_fails_with_the_last_lines_and_the_exit_code(airflow: Airflow) -> None:
    run = airflow.trigger("fail")

    assert run.finish() == "failed"
    _assert_lines(run, ["reading", "cannot read: no such table"])
    end = "\n".join(run.log("pod")[-10:])
    assert "3" in end
    assert "exit code" in end.lower() or "exit_code" in end.lower()


def test_a_failed_task_is_tried_again_with_a_pod_of_its_own(airflow: Airflow) -> None:
    run = airflow.trigger("retried")

    assert run.finish() == "success", run.log("pod", 2)
    assert any(line.endswith("try 1") for line in run.log("pod", 1))
    assert any(line.endswith("try 2") for line in run.log("pod", 2))


def test_a_task_goes_on_when_the_broker_is_killed_and_every_line_is_there_once(
    airflow: Airflow, broker: Broker
) -> None:
    run = airflow.trigger("slow")
    wait_for("lines in the task's log", lambda: _seen(run, "line 80"), within=120)

    broker.kill()
    broker.start()

    assert run.finish() == "success", run.log("pod")
    _assert_lines(run, [f"line {i}" for i in range(1, 401)])


def test_a_task_that_takes_too_long_fails_and_its_pod_is_cancelled(
    airflow: Airflow, broker: Broker, namespace: Namespace
) -> None:
    run = airflow.trigger("late")

    assert run.finish() == "failed"
    _assert_ends_cancelled(broker, namespace, run)


def test_a_task_that_is_marked_failed_ends_its_pod(airflow: Airflow, broker: Broker, namespace: Namespace) -> None:
    run = airflow.trigger("endless")
    wait_for("the pod to be ready", lambda: _seen(run, "ready"), within=120)

    run.set_state("pod", "failed")

    _assert_ends_cancelled(broker, namespace, run)
    assert run.finish() == "failed"


def test_a_function_runs_in_a_pod_and_its_value_goes_into_the_command_of_the_next(airflow: Airflow) -> None:
    run = airflow.trigger("decorated")

    assert run.finish() == "success", [*run.log("count"), *run.log("report")]
    assert any(line.endswith("käse on Linux") for line in run.log("count"))
    assert run.value("count") == {"one": 3, "three": 5}
    assert any(line.endswith("one=3 three=5") for line in run.log("report"))
    assert run.value("report") == f"report of {run.run}"


def _assert_ends_cancelled(broker: Broker, namespace: Namespace, run: Run) -> None:
    client = broker.client()

    def cancelled() -> bool:
        (execution,) = (one for one in client.list(TARGET).executions if _is_of(one.labels, run))
        return execution.state is ExecutionState.CANCELLED

    wait_for("the execution to be cancelled", cancelled, within=90)
    (execution,) = (one for one in client.list(TARGET).executions if _is_of(one.labels, run))
    assert execution.outcome is not None
    assert execution.outcome.failure_class is FailureClass.CANCELLED_BY_CALLER
    pod = namespace.pod(execution.attempts[0].pod_name)
    assert pod is None or pod["status"]["phase"] in {"Failed", "Succeeded"}


def _is_of(labels: Mapping[str, str], run: Run) -> bool:
    return run.dag in labels.values()
