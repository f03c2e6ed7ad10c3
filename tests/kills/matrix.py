"""Prints the matrix, as text and as a page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kills.rows import RULES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kills.cell import Verdict
    from kills.everything import Everything
    from kills.rows import Rule

HEAD: Final = ("the pod is", "task", "retries", "task ends as", "tries", "pods", "lines in the log", "verdict")

_PAGE: Final = """\
# What ends a task, and what becomes of its pod

Written by `make kills`, {played}, with a whole Airflow 3.3 (scheduler with LocalExecutor, triggerer, API server, DAG
processor, PostgreSQL) on a real cluster ({where}). Each row starts one task, brings its pod to a moment, and ends a
process of the task, or tries to. The lines number themselves, and the pods are watched beside the broker. *Released* is
a pod whose end was acknowledged: the broker deletes it when the time for its submit is over. *Kept* is one that nobody
has acknowledged: it goes after its `ttl`. A row holds when the task's state, its tries, its pods and its lines are as
the words above its table say, and when two pods of a task never ran at once. How a row is played is in `tests/kills`.

{tables}
{everything}{summary}
{problems}"""


def cells(verdict: Verdict) -> tuple[str, ...]:
    """One line of a table."""
    row = verdict.row
    return (
        row.moment.value,
        row.mode.value,
        str(row.retries),
        verdict.state,
        str(verdict.tries),
        verdict.pods,
        verdict.lines,
        "holds" if verdict.holds else "WRONG",
    )


def text(verdicts: Sequence[Verdict], everything: Everything | None) -> str:
    """Tables for a terminal."""
    table = [("", *HEAD), *((verdict.row.kill.value, *cells(verdict)) for verdict in verdicts)]
    widths = [max(len(line[column]) for line in table) for column in range(len(HEAD) + 1)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]
    parts = ["\n".join(lines), *([said(everything)] if everything else []), summary(verdicts)]
    return "\n\n".join(parts)


def page(verdicts: Sequence[Verdict], everything: Everything | None, *, where: str, rows_in_all: int) -> str:
    """The page in docs."""
    played = "all rows" if len(verdicts) == rows_in_all else f"{len(verdicts)} of {rows_in_all} rows"
    tables = "\n".join(_table(rule, verdicts) for rule in RULES if any(one.row.kill is rule.kill for one in verdicts))
    broken = [f"{one.row.name}: {'; '.join(one.problems)}" for one in verdicts if not one.holds]
    broken += [f"everything: {problem}" for problem in (everything.problems if everything else [])]
    return _PAGE.format(
        played=played,
        where=where,
        tables=tables,
        everything=f"## One DAG with everything\n\n{said(everything)}\n\n## In all\n\n" if everything else "",
        summary=summary(verdicts),
        problems="\nWrong:\n\n" + "\n".join(f"- {one}" for one in broken) + "\n" if broken else "",
    )


def _table(rule: Rule, verdicts: Sequence[Verdict]) -> str:
    ruler = tuple("--:" if column in {2, 4} else "---" for column in range(len(HEAD)))
    shown = [cells(verdict) for verdict in verdicts if verdict.row.kill is rule.kill]
    table = "\n".join(f"| {' | '.join(line)} |" for line in (HEAD, ruler, *shown))
    why = " ".join(part for part in (rule.why, rule.left_out) if part)
    return f"## {rule.kill.value[0].upper()}{rule.kill.value[1:]}\n\n{why}\n\n{table}\n"


def said(everything: Everything) -> str:
    """What came of the DAG with everything, in a sentence."""
    states = ", ".join(f"{count} {state}" for state, count in sorted(everything.states.items()))
    held = "each value is right and each line is there once" if everything.holds else "; ".join(everything.problems)
    if everything.again:
        held += f" (again after a warning in tries that Airflow has repeated, {everything.again} in all)"
    return (
        "A DAG with a synchronous task, a deferred one, one that starts in the triggerer, two decorated and a hundred "
        f"mapped ones, every second of them deferred: {states}; {held}. It took {everything.seconds:.0f} s."
    )


def summary(verdicts: Sequence[Verdict]) -> str:
    """One sentence."""
    broken = sum(not verdict.holds for verdict in verdicts)
    return f"{len(verdicts)} rows, {len(verdicts) - broken} hold, {broken} are wrong."
