"""The command ``podbroker-migrate``.

The diff goes to the standard output and everything else to the standard error, so that ``podbroker-migrate dags | git
apply`` does what ``--write`` does.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from podbroker.migrate.difference import difference
from podbroker.migrate.files import find, write
from podbroker.migrate.finding import Level
from podbroker.migrate.source import SourceError
from podbroker.migrate.workers import analyse_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podbroker.migrate.analysis import Report

__all__ = ["main"]

_ENDING = """\
exit codes:
  0  done, also when there was nothing to do
  1  with --check: a file would be rewritten, or a person has to look at something
  2  a file could not be read, parsed or written (the others were handled), or the command line is wrong

A comment `podbroker-migrate: ignore` keeps what is found on its line out of the list.
"""


@dataclass
class _Run:
    """What one run of the command has seen."""

    applies: bool
    files: int = 0
    changed: int = 0
    people: int = 0
    problems: int = 0
    without_target: int = 0
    lines: list[str] = field(default_factory=list)
    """The list of what was found; it is printed after the diffs."""

    def problem(self, path: Path, message: str, line: int | None = None) -> None:
        """Report a file that could not be handled."""
        self.problems += 1
        where = f"{path}:{line}" if line is not None else f"{path}"
        self.lines.append(f"{where}: error: {message}")

    def note(self, path: Path, message: str) -> None:
        """Report something about a whole file."""
        self.lines.append(f"{path}: note: {message}")

    def handle(self, path: Path, report: Report | SourceError | OSError) -> None:
        """Rewrite one file, or show how it would be."""
        self.files += 1
        if isinstance(report, SourceError):
            self.problem(path, str(report), report.line)
            return
        try:
            if isinstance(report, OSError):
                raise report
            if report.is_changed and self.applies:
                write(path, report.new)
        except OSError as error:
            self.problem(path, error.strerror or str(error))
            return
        self.without_target += report.without_target
        if report.is_changed:
            self.changed += 1
            if not self.applies:
                sys.stdout.buffer.write(difference(_name(path), report.old, report.new))
        self._list(path, report)

    def _list(self, path: Path, report: Report) -> None:
        for place in report.places:
            line, column = place.after if self.applies else place.before
            finding = place.finding
            mark = ""
            if finding.level is Level.PERSON:
                self.people += 1
            else:
                mark = "note: "
            self.lines.append(f"{path}:{line}:{column}: {mark}{finding.message} [{finding.code}]")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and give its exit code."""
    options = _parser().parse_args(arguments)
    run = _Run(applies=options.write)
    for path, report in analyse_files(list(find(options.path, problem=run.problem, note=run.note))):
        run.handle(path, report)
    sys.stdout.buffer.flush()
    verb = "rewritten" if run.applies else "would be rewritten"
    for line in run.lines:
        _say(line)
    if run.without_target:
        tasks = _count(run.without_target, "task")
        _say(f"note: {tasks} without target=: the default target of the connection podbroker_default is taken")
    _say(
        f"{_count(run.files, 'file')} read, {run.changed} {verb}, {_count(run.people, 'place')} for a person,"
        f" {_count(run.problems, 'error')}"
    )
    if run.problems:
        return 2
    return 1 if options.check and (run.changed or run.people) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="podbroker-migrate",
        description="Rewrite the imports of DAGs from KubernetesPodOperator and EksPodOperator to the operators of"
        " podbroker, and list what a person has to look at. Shows a diff and changes nothing unless told to.",
        epilog=_ENDING,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("path", type=Path, nargs="+", help="a file, or a folder whose *.py files are meant")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--write", action="store_true", help="rewrite the files")
    what.add_argument("--check", action="store_true", help="as without it, with exit code 1 if anything is left to do")
    return parser


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _name(path: Path) -> str:
    """Give the path as a diff names it: without a leading slash, so that it can be applied."""
    return path.as_posix().lstrip("/")


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
