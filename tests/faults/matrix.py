"""Prints the matrix, as text and as a page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from faults.row import Verdict

HEAD: Final = ("fault", "the caller saw", "written", "received", "doubled", "lost", "marked", "made", "left", "verdict")

_PAGE: Final = """\
# What was broken, and what came of it

Written by `make faults`, {played}, on a real cluster
({where}). Each row breaks one thing in the middle of a run. Lines are counted against the container's log files
on the node's disk. *Doubled* are lines received twice, out of order, or never written; *lost* are missing
without a marker; *marked* are missing where the stream says so. *Made* and *left* are pods. A row holds when
nothing is doubled or lost, no marker stands where nothing is missing or for lines that nobody had taken away,
the outcome is right, and the right number of pods was made and none is left. In the rows of AWS Batch jobs are
counted, by what the double of it knows: made are jobs, left are jobs that have not ended, records and pods. A
job that was made twice must be ended and counted by the broker. Where Batch takes a pod away while it runs, or
at once when it has ended, a marker may stand although nothing is missing, since nobody can know. How a row is
played is in `tests/faults`.

{table}

{summary}
{problems}"""


def rows(verdicts: Sequence[Verdict]) -> list[tuple[str, ...]]:
    """The cells."""
    return [
        (
            verdict.row.fault,
            verdict.seen,
            *(str(number) for number in (account.written, account.received, account.doubled + account.invented)),
            *(str(number) for number in (account.lost, account.marked, verdict.made, verdict.left)),
            "holds" if verdict.holds else "BROKEN",
        )
        for verdict in verdicts
        for account in (verdict.account,)
    ]


def text(verdicts: Sequence[Verdict]) -> str:
    """A table for a terminal."""
    table = [HEAD, *rows(verdicts)]
    widths = [max(len(line[column]) for line in table) for column in range(len(HEAD))]
    lines = []
    for line in table:
        cells = [
            cell.rjust(width) if cell.isdigit() else cell.ljust(width) for cell, width in zip(line, widths, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([*lines, "", summary(verdicts)])


def page(verdicts: Sequence[Verdict], *, where: str, rows_in_all: int) -> str:
    """The page in docs."""
    played = "all rows" if len(verdicts) == rows_in_all else f"{len(verdicts)} of {rows_in_all} rows"
    ruler = tuple("---" if column in (0, 1, len(HEAD) - 1) else "--:" for column in range(len(HEAD)))
    table = "\n".join(f"| {' | '.join(line)} |" for line in (HEAD, ruler, *rows(verdicts)))
    broken = [verdict for verdict in verdicts if not verdict.holds]
    listed = "\n".join(f"- {one.row.fault}: {'; '.join(one.problems)}" for one in broken)
    problems = f"\nNot kept:\n\n{listed}\n" if broken else ""
    return _PAGE.format(played=played, where=where, table=table, summary=summary(verdicts), problems=problems)


def summary(verdicts: Sequence[Verdict]) -> str:
    """One sentence."""
    broken = sum(not verdict.holds for verdict in verdicts)
    lines = sum(verdict.account.written for verdict in verdicts)
    return f"{len(verdicts)} rows, {len(verdicts) - broken} hold, {broken} are broken; {lines} lines were written."
