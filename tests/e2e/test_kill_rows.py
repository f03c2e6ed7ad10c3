"""The cells of the kill matrix and the judge that it relies on. `make kills` plays them."""

from __future__ import annotations

from itertools import product

from kills.cell import Kill, Lines, Mode, Moment
from kills.judge import judge_lines, judge_pods
from kills.rows import RETRIES, ROWS, RULES

BASE = {"metadata": {"name": "pod"}, "spec": {}}


def pod(started: str, ended: str = "") -> dict[str, object]:
    """A pod whose container ran so long; without an end it runs."""
    state: dict[str, object] = {"running": {"startedAt": started}}
    if ended:
        state = {"terminated": {"startedAt": started, "finishedAt": ended}}
    return {**BASE, "status": {"containerStatuses": [{"state": state}]}}


def test_every_cell_is_played_or_left_out_with_a_reason() -> None:
    played = {(row.kill, row.mode, row.moment, row.retries) for row in ROWS}
    moments = (Moment.PENDING, Moment.RUNNING, Moment.ENDING)
    rules = {rule.kill: rule for rule in RULES}
    assert set(rules) == set(Kill)
    for kill, mode, moment, retries in product(Kill, Mode, moments, RETRIES):
        assert (kill, mode, moment, retries) in played or rules[kill].left_out, (kill, mode, moment)
    assert len(played) == len(ROWS)


def test_every_row_has_a_name_of_its_own_that_a_label_can_hold() -> None:
    names = {row.name for row in ROWS}
    assert len(names) == len(ROWS)
    assert all(len(name) <= 63 and name.strip("-") == name for name in names)


def test_lines_that_are_whole_are_right() -> None:
    assert judge_lines(["line 1", "line 2", "other", "last 2"], Lines.ONCE) == ("2 lines, each once", [])
    assert judge_lines(["line 1", "line 2"], Lines.SO_FAR) == ("2 lines, each once", [])
    assert judge_lines([], Lines.SO_FAR) == ("0 lines, each once", [])


def test_lines_that_are_lost_doubled_or_in_disorder_are_noticed() -> None:
    for lines, problem in (
        (["line 1", "line 3", "last 3"], "1 of 3 lines lost"),
        (["line 1", "last 2"], "1 of 2 lines lost"),
        (["line 1", "line 1", "last 1"], "1 lines doubled"),
        (["line 1", "last 1", "last 1"], "1 lines doubled"),
        (["line 2", "line 1", "last 2"], "lines out of order"),
        (["line 1"], "the last line is missing, 1 came"),
    ):
        assert judge_lines(lines, Lines.ONCE)[1] == [problem]


def test_a_second_pod_and_two_at_once_are_noticed() -> None:
    goes_on = next(row for row in ROWS if row.kill is Kill.TASK_TERM)
    replaced = next(row for row in ROWS if row.kill is Kill.CLEAR)
    first, second = pod("2026-01-01T00:00:00Z", "2026-01-01T00:00:05Z"), pod("2026-01-01T00:00:05Z", "x")
    assert judge_pods(replaced, [first, second]) == []
    assert judge_pods(goes_on, [first]) == []
    assert judge_pods(goes_on, [first, second]) == ["2 pods made, should be 1"]
    early = pod("2026-01-01T00:00:04Z", "2026-01-01T00:00:09Z")
    assert [problem[:20] for problem in judge_pods(replaced, [first, early])] == ["two pods ran at once"]
    assert len(judge_pods(replaced, [pod("2026-01-01T00:00:00Z"), second])) == 2
