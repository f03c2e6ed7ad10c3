"""Every DAG of the project is read as Airflow reads it."""

from __future__ import annotations

from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag

from podbroker.airflow import RemotePodOperator

DAGS = sorted((Path(__file__).resolve().parents[3] / "dags").glob("*.py"))


@pytest.mark.parametrize("path", DAGS, ids=lambda path: path.stem)
def test_airflow_reads_the_dag_and_it_says_how_to_run_it(path):
    bag = DagBag(dag_folder=str(path))
    assert bag.import_errors == {}
    (dag,) = bag.dags.values()
    assert dag.dag_id == path.stem
    assert dag.tasks
    assert f"airflow dags test {path.stem}" in path.read_text()


def test_the_smallest_dag_differs_from_upstreams_by_its_operator_and_its_target():
    (path,) = [path for path in DAGS if path.stem == "remote_kpo"]
    (dag,) = DagBag(dag_folder=str(path)).dags.values()
    (task,) = dag.tasks
    assert isinstance(task, RemotePodOperator)
    assert task.do_xcom_push
    assert "RemotePodOperator" in path.read_text()
    assert set(dag.params) == {"image", "target"}
