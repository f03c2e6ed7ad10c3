"""The names of Airflow that the task decorators use, wherever a version keeps them. See ``_compat``."""

from __future__ import annotations

try:
    from airflow.sdk.bases.decorator import DecoratedOperator, task_decorator_factory
except ImportError:  # Airflow 2.11
    from airflow.decorators.base import (  # type: ignore[no-redef,attr-defined,import-not-found,unused-ignore]
        DecoratedOperator,
        task_decorator_factory,
    )

try:
    from airflow.sdk.bases.decorator import determine_kwargs
except ImportError:  # Airflow 2.11
    from airflow.utils.operator_helpers import determine_kwargs  # type: ignore[no-redef,attr-defined,unused-ignore]

__all__ = ["DecoratedOperator", "determine_kwargs", "task_decorator_factory"]
