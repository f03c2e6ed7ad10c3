"""A pytest plugin: a skipped test fails the run, since what should run here must run here.

A test that cannot run on this machine says so with a reason that begins with `elsewhere:`; those are counted and shown
and do not fail the run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

ALLOWED = "elsewhere:"


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


def _unexpected(reporter: TerminalReporter) -> list[str]:
    skipped = reporter.stats.get("skipped", [])
    return [f"{one.nodeid}: {_reason(one)}" for one in skipped if not _reason(one).startswith(ALLOWED)]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Turns a green run with unexplained skips into a failed one."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and _unexpected(reporter) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Names them."""
    if unexpected := _unexpected(terminalreporter):
        terminalreporter.section("skipped although they should run", red=True)
        for line in unexpected:
            terminalreporter.line(line)
