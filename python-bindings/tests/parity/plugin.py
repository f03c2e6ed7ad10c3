"""The pytest plugin: Airflow with a database of its own, our classes in the provider's places, and the bookkeeping.

It has to be loaded before anything imports Airflow (``-p parity.plugin``).
"""

# ruff: noqa: E402 -- the environment and the path have to be ready before Airflow is imported

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from collections import Counter
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

from parity import ledger as ledgers
from parity.page import SHARED

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping

    from _pytest.terminal import TerminalReporter


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the expectations be written anew."""
    parser.addoption("--record", action="store_true", help="write down what happens as what is expected")


def pytest_configure(config: pytest.Config) -> None:
    """Set up Airflow, put our classes in place and keep the books."""
    from airflow import settings
    from airflow.models import import_all_models
    from airflow.models.base import Base

    import_all_models()
    Base.metadata.create_all(settings.engine)
    _mirror_structlog()

    from parity.places import put_in_place

    put_in_place()
    config.pluginmanager.register(Books(config), "parity-books")


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


class Books:
    """Holds every test to what is expected of it."""

    def __init__(self, config: pytest.Config) -> None:
        """Read what is expected."""
        self._recording = config.getoption("--record")
        self._ledger = ledgers.load(recording=self._recording)
        self._collected: list[str] = []
        self._partial = False
        self._results: dict[str, str] = {}
        self._waived: Counter[str] = Counter()
        self._problems: list[str] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Mark what is expected to fail; strictly, so that a test that passes nevertheless is a failure."""
        for item in items:
            test = ledgers.short(item.nodeid)
            self._collected.append(test)
            category = self._ledger.category_of(test)
            if category is not None and not self._recording:
                item.add_marker(pytest.mark.xfail(strict=True, reason=category))

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        """Know that a part was chosen, of which nothing can be counted."""
        self._partial = self._partial or bool(items)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Run each test with what belongs in its place."""
        from parity.places import placed_in

        with placed_in(item):
            return (yield)

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """Call a waived test by its name, so that nobody counts it as passed."""
        if hasattr(report, "wasxfail") and report.skipped:
            return "waived", "w", "WAIVED"
        return None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what became of a test."""
        test = ledgers.short(report.nodeid)
        if hasattr(report, "wasxfail") and report.skipped:
            self._waived[report.wasxfail] += 1
            self._results[test] = "waived"
        elif report.failed or report.skipped:
            self._results[test] = report.outcome
        elif report.when == "call":
            self._results[test] = "passed"

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Compare the whole with what is expected of it."""
        if self._partial or session.exitstatus not in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}:
            return
        if self._recording:
            unsorted = ledgers.record(self._results, self._ledger)
            self._problems += [f"in no category: {test}" for test in unsorted]
            return
        self._problems = self._compare()
        if self._problems:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        """Print the numbers, and what is wrong beside single tests."""
        for problem in self._problems:
            terminalreporter.line(f"parity: {problem}", red=True)
        passed = sum(outcome == "passed" for outcome in self._results.values())
        shared = sum(ledgers.file_of(test) in SHARED for test, outcome in self._results.items() if outcome == "passed")
        terminalreporter.line(
            f"parity: {passed} of {len(self._results)} of upstream's tests pass: {passed - shared} with our classes in"
            f" place, {shared} on functions of upstream that run as they are"
        )
        for category, count in sorted(self._waived.items()):
            terminalreporter.line(f"parity:   waived, {category}: {count}")

    def _compare(self) -> list[str]:
        problems = [f"vanished: {test}" for test in self._ledger.vanished(self._collected)]
        skipped = {test for test, outcome in self._results.items() if outcome == "skipped"}
        problems += [f"skipped, which nobody expects: {test}" for test in sorted(skipped - {*self._ledger.skipped})]
        problems += [f"not skipped, as it should be: {test}" for test in sorted({*self._ledger.skipped} - skipped)]
        now = Counter(ledgers.file_of(test) for test, outcome in self._results.items() if outcome == "passed")
        for name in sorted({*now, *self._ledger.passed}):
            expected = self._ledger.passed.get(name, 0)
            if now[name] < expected:
                problems.append(f"{name}: {now[name]} tests pass, and {expected} did before")
            elif now[name] > expected:
                problems.append(f"{name}: {now[name]} tests pass, and only {expected} are written down: record it")
        return problems
