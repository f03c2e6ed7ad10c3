"""Names that moved between versions of Airflow."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import timezone

__all__ = ["timezone"]
