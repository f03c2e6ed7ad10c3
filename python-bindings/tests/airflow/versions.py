"""The names of Airflow that the tests use, wherever a version keeps them."""

from __future__ import annotations

import pytest

from podbroker.airflow._compat import AIRFLOW_V_3_0_PLUS

try:
    from airflow.dag_processing.dagbag import DagBag
except ImportError:  # Airflow 2.11, 3.0 and 3.1
    from airflow.models.dagbag import DagBag

try:
    from airflow.sdk import DAG, Connection, task
    from airflow.sdk.execution_time.context import set_current_context
except ImportError:  # Airflow 2.11
    from airflow.decorators import task
    from airflow.models import DAG, Connection
    from airflow.models.taskinstance import set_current_context

try:
    from airflow.sdk.execution_time.context import OutletEventAccessors
except ImportError:  # Airflow 2.11
    from airflow.utils.context import OutletEventAccessors

try:
    from airflow.sdk.exceptions import TaskDeferred
except ImportError:  # Airflow 2.11, 3.0 and 3.1
    from airflow.exceptions import TaskDeferred

__all__ = [
    "DAG",
    "Connection",
    "DagBag",
    "OutletEventAccessors",
    "TaskDeferred",
    "has_deferral_timeouts",
    "on_airflow_3",
    "set_current_context",
    "task",
]

has_deferral_timeouts = pytest.mark.skipif(
    not AIRFLOW_V_3_0_PLUS, reason="Airflow 2.11 tells no timeout from a failure"
)
on_airflow_3 = pytest.mark.skipif(not AIRFLOW_V_3_0_PLUS, reason="written in the words of Airflow 3")
