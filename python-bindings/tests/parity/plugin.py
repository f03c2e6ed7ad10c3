"""A pytest plugin: Airflow with a database of its own, and our classes in the provider's places.

It has to be loaded before anything imports Airflow (``-p parity.plugin``).
"""

# ruff: noqa: E402 -- the environment and the path have to be ready before Airflow is imported

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

HOME = tempfile.TemporaryDirectory(prefix="podbroker-parity-")
os.environ.update(
    {
        "AIRFLOW_HOME": HOME.name,
        "AIRFLOW__CORE__UNIT_TEST_MODE": "True",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{HOME.name}/airflow.db",
        "AIRFLOW_CONN_PODBROKER_DEFAULT": json.dumps(
            {"conn_type": "podbroker", "host": "127.0.0.1", "extra": {"target": "parity"}}
        ),
    }
)
HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "shim"), str(HERE.parent / "airflow")]

import pytest
from _pytest.logging import LogCaptureHandler

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping


def pytest_configure() -> None:
    """Set up Airflow and put our classes in place."""
    from airflow import settings
    from airflow.models import import_all_models
    from airflow.models.base import Base

    import_all_models()
    Base.metadata.create_all(settings.engine)
    _mirror_structlog()

    from parity.places import put_in_place

    put_in_place()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Run each test with what belongs in its place."""
    from parity.places import placed_in

    with placed_in(item):
        return (yield)


def _mirror_structlog() -> None:
    """Show pytest's ``caplog`` what Airflow's loggers say, which do not write through the standard library."""
    import structlog
    from airflow.sdk._shared.logging import structlog as airflow_logging

    # All levels: what a test asked for is looked at below.
    airflow_logging.PER_LOGGER_LEVELS[""] = logging.DEBUG
    *before, last = structlog.get_config()["processors"]
    structlog.configure(processors=[*before, _mirror, last])


def _mirror(_: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    name = str(event.get("logger", ""))
    level = logging.getLevelNamesMapping().get(str(event.get("level", method)).upper(), logging.INFO)
    if logging.getLogger(name).isEnabledFor(level):
        error = event.get("exc_info")
        if isinstance(error, BaseException):
            error = (type(error), error, error.__traceback__)
        elif error and not isinstance(error, tuple):
            error = sys.exc_info()
        record = logging.LogRecord(name, level, __file__, 0, str(event.get("event", "")), (), error or None)
        for handler in logging.getLogger().handlers:
            if isinstance(handler, LogCaptureHandler):
                handler.handle(record)
    return event
