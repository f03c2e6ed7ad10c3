"""Puts a DAG into the database.

Nothing is serialised: the tests that run here ask for the rows that a run refers to, and not for what is in them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.models import DagModel
from airflow.models.dag_version import DagVersion
from airflow.models.dagbundle import DagBundleModel
from airflow.utils.session import create_session
from sqlalchemy import select

if TYPE_CHECKING:
    from airflow.sdk import DAG

BUNDLE = "testing"


def sync_dag_to_db(dag: DAG) -> None:
    """Make the rows of bundle, DAG and version, unless they are there."""
    with create_session() as session:
        if session.get(DagBundleModel, BUNDLE) is None:
            session.add(DagBundleModel(name=BUNDLE))
            session.flush()
        if session.get(DagModel, dag.dag_id) is None:
            session.add(
                DagModel(
                    dag_id=dag.dag_id,
                    bundle_name=BUNDLE,
                    fileloc=dag.fileloc,
                    max_active_tasks=dag.max_active_tasks,
                    max_active_runs=dag.max_active_runs,
                    max_consecutive_failed_dag_runs=dag.max_consecutive_failed_dag_runs,
                    has_task_concurrency_limits=False,
                )
            )
            session.flush()
        if session.scalar(select(DagVersion).where(DagVersion.dag_id == dag.dag_id)) is None:
            session.add(DagVersion(dag_id=dag.dag_id, version_number=1, bundle_name=BUNDLE))
