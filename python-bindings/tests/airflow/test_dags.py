"""Every DAG of the project is imported, as Airflow would import it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from airflow.sdk import DAG

from podbroker.airflow import RemotePodOperator

DAGS = sorted((Path(__file__).resolve().parents[3] / "dags").glob("*.py"))


def load(path: Path) -> list[DAG]:
    spec = importlib.util.spec_from_file_location(f"dag_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [value for value in vars(module).values() if isinstance(value, DAG)] or list(DAG_OF(module))


def DAG_OF(module: object) -> set[DAG]:  # noqa: N802
    return {value.dag for value in vars(module).values() if hasattr(value, "dag")}


@pytest.mark.parametrize("path", DAGS, ids=lambda path: path.stem)
def test_the_dag_can_be_imported_and_says_how_to_run_it(path):
    assert "airflow dags test" in path.read_text()
    load(path)


def test_there_are_dags():
    assert {path.stem for path in DAGS} >= {"remote_kpo"}
