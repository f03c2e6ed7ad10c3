"""The names of Airflow that links need, wherever a version keeps them. Nothing else is imported: see ``links``."""

from __future__ import annotations

from typing import Any

try:
    from airflow.sdk import BaseOperatorLink
except ImportError:  # Airflow 2.11
    from airflow.models.baseoperatorlink import BaseOperatorLink  # type: ignore[no-redef,import-not-found,unused-ignore]

__all__ = ["BaseOperatorLink", "read_xcom"]


def read_xcom(ti_key: Any, key: str) -> Any:  # noqa: ANN401 -- whatever was pushed
    """Read an XCom of a task instance; None when there is none."""
    try:
        from airflow.sdk.execution_time.xcom import XCom
    except ImportError:  # Airflow 2.11
        from airflow.models.xcom import XCom  # type: ignore[no-redef,attr-defined,assignment,unused-ignore]
    return XCom.get_value(ti_key=ti_key, key=key)
