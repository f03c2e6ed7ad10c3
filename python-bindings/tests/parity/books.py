"""A pytest plugin that holds every test to what ``expected.toml`` says of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from parity import ledger as ledgers
from parity.page import SHARED

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let another file be used, and be written anew."""
    parser.addoption("--expected", default=str(ledgers.FILE), help="what is expected of the tests")
    parser.addoption("--record", action="store_true", help="write down what happens as what is expected")
    parser.addoption("--fewer", action="store_true", help="with --record: also that fewer tests pass than before")


def pytest_configure(config: pytest.Config) -> None:
    """Open the books."""
    config.pluginmanager.register(Books(config), "parity-books-of-this-run")


class Books:
    """Holds every test to what is expected of it."""

    def __init__(self, config: pytest.Config) -> None:
        """Read what is expected."""
        self._recording = config.getoption("--record")
        self._fewer = config.getoption("--fewer")
        self._file = Path(config.getoption("--expected"))
        self._ledger = ledgers.load(self._file, recording=self._recording)
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
            try:
                unsorted = ledgers.record(self._results, self._ledger, self._file, fewer=self._fewer)
            except ledgers.FewerError as error:
                self._problems = [f"nothing is recorded: {error}"]
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
            else:
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
