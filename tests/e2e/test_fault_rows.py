"""The short rows of the fault matrix, and the judge that it relies on. `make faults` plays all rows."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from faults import matrix
from faults.batch import ROWS as BATCH
from faults.beside import ROWS as BESIDE
from faults.ledger import Account, Marker, compare
from faults.row import Length, Row, Verdict
from faults.rows_alone import ROWS as ALONE
from faults.runner import Runner
from faults.stage import stamp
from faults.witness import Line, Witness, nanoseconds, parse

if TYPE_CHECKING:
    from e2e.site import Site

CORE = [row for row in (*BESIDE, *BATCH, *ALONE) if row.length is Length.CORE]
GAP = Marker(reason="ROTATED")


@pytest.fixture(scope="module")
def verdicts(site: Site, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Verdict]:
    """All short rows, played together."""
    if not site.is_own:
        pytest.skip("elsewhere: the lines are counted on the node's disk")
    folder = tmp_path_factory.mktemp("rows")
    kept = Path(site.cluster.facts["folder"]) / f"witness-{time.time_ns()}"
    with Witness(logs=Path(site.cluster.facts["pod_logs"]), kept=kept) as witness:
        found = Runner(site=site, witness=witness, folder=folder).run(CORE)
    print(matrix.text(found))
    return {verdict.row.fault: verdict for verdict in found}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("row", CORE, ids=lambda row: row.target)
def test_the_promise_holds(row: Row, verdicts: dict[str, Verdict]) -> None:
    verdict = verdicts[row.fault]
    assert verdict.holds, f"{verdict.problems}\n{verdict.log}"


def test_every_row_has_a_name_of_its_own() -> None:
    rows = (*BESIDE, *BATCH, *ALONE)
    assert len({row.target for row in rows}) == len({row.fault for row in rows}) == len(rows)


def lines(*texts: str) -> list[Line]:
    return [Line(time=number, content=text.encode()) for number, text in enumerate(texts)]


def test_what_arrives_whole_breaks_no_promise() -> None:
    written = lines("a", "b", "b", "c")
    account = compare(written, written)
    assert account == Account(written=4, received=4)
    assert not account.problems


def test_a_line_that_is_missing_without_a_marker_is_lost() -> None:
    a, b, c = lines("a", "b", "c")
    assert compare([a, b, c], [a, c]).lost == 1
    assert compare([a, b, c], [a, b]).lost == 1
    assert compare([a, b, c], []).lost == 3


def test_a_line_that_is_missing_at_a_marker_is_marked() -> None:
    a, b, c = lines("a", "b", "c")
    cases: list[list[Line | Marker]] = [[a, GAP, c], [GAP, b, c], [a, GAP]]
    for received in cases:
        account = compare([a, b, c], received)
        assert account.marked
        assert not account.problems


def test_a_marker_elsewhere_does_not_cover_a_lost_line() -> None:
    a, b, c, d = lines("a", "b", "c", "d")
    account = compare([a, b, c, d], [a, GAP, b, d])
    assert (account.lost, account.marked, account.false_markers) == (1, 0, 1)


def test_a_line_that_comes_again_or_too_late_is_doubled() -> None:
    a, b, c = lines("a", "b", "c")
    assert compare([a, b, c], [a, b, b, c]).doubled == 1
    assert compare([a, b, c], [a, c, b]).doubled == 1


def test_a_line_that_was_never_written_is_noticed() -> None:
    (a,) = lines("a")
    assert compare([a], [a, Line(time=9, content=b"a")]).invented == 1


def test_lines_that_equal_one_another_are_counted() -> None:
    same = Line(time=1, content=b"same")
    assert not compare([same] * 5, [same] * 5).problems
    assert compare([same] * 5, [same] * 4).lost == 1
    assert compare([same] * 5, [same] * 6).doubled == 1


def test_pieces_of_a_line_are_joined_and_keep_the_first_time() -> None:
    data = (
        b"2025-01-01T00:00:00.5Z stdout P one \n"
        b"2025-01-01T00:00:01.000000001Z stderr F between\n"
        b"2025-01-01T00:00:02Z stdout F line\n"
        b"2025-01-01T00:00:03+01:00 stdout F \n"
        b"2025-01-01T00:00:04Z stdout P rest"
    )
    found = parse(data)
    assert [line.content for line in found] == [b"between", b"one line", b"", b"rest"]
    begin = 1_735_689_600_000_000_000
    assert [line.time - begin for line in found] == [1_000_000_001, 500_000_000, -3597 * 10**9, 4 * 10**9]
    assert nanoseconds(stamp(begin + 42)) == begin + 42
