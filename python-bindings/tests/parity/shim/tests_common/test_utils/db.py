"""Empties tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.models import DagModel, DagRun, TaskInstance
from airflow.models.dag_version import DagVersion
from airflow.models.dagbundle import DagBundleModel
from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import delete

if TYPE_CHECKING:
    from airflow.models.base import Base


def clear_db_runs() -> None:
    """Runs of DAGs, with what belongs to them."""
    _empty(XComModel, TaskInstance, DagRun)


def clear_db_dags() -> None:
    """DAGs with their versions; runs refer to both, so they go first."""
    clear_db_runs()
    _empty(DagVersion, DagModel)


def clear_db_dag_bundles() -> None:
    """Bundles."""
    _empty(DagBundleModel)


def clear_rendered_ti_fields() -> None:
    """Rendered fields of task instances."""
    _empty(RenderedTaskInstanceFields)


def _empty(*models: type[Base]) -> None:
    with create_session() as session:
        for model in models:
            session.execute(delete(model))
