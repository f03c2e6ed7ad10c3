"""Lines as upstream prints them."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest
import scripted as s

from podbroker import GapReason
from podbroker.airflow import logs
from podbroker.airflow._compat import level_of
from podbroker.airflow.logs import LinePrinter

reads_levels = pytest.mark.skipif(
    level_of.__module__ == "podbroker.airflow._compat", reason="the installed provider prints every line as INFO"
)


@pytest.fixture
def printer(log):
    return LinePrinter(log=log, base_container="base", containers="base", init_containers=None, prefix=True)


@pytest.mark.parametrize(
    ("text", "level"),
    [
        pytest.param("ERROR: broken", logging.ERROR, marks=reads_levels),
        pytest.param("[WARN] careful", logging.WARNING, marks=reads_levels),
        pytest.param("CRITICAL - dead", logging.CRITICAL, marks=reads_levels),
        ("just words", logging.INFO),
        ("no ERROR: at the start", logging.INFO),
    ],
)
def test_the_level_is_read_from_the_line(printer, log, text, level):
    printer.chunk(s.lines(text))
    assert log.records == [(level, f"[base] {text}")]


def test_percent_signs_and_bytes_that_are_no_text_are_printed_as_they_are(printer, log):
    printer.chunk(s.lines("100 % %s", b"\xff\xfe"))
    assert log.lines == ["[base] 100 % %s", "[base] \\xff\\xfe"]


def test_empty_lines_are_left_out(printer, log):
    printer.chunk(s.lines("", "x", "\r"))
    assert log.lines == ["[base] x"]


def test_group_markers_stay_raw_so_that_they_fold(printer, log, capsys):
    printer.chunk(s.lines("::group::Part", "inside", "::endgroup::"))
    assert log.lines == ["[base] inside"]
    assert capsys.readouterr().out == "::group::Part\n::endgroup::\n"


def test_the_pieces_of_a_long_line_are_one_line(printer, log):
    printer.chunk(s.lines(s.line("one ", partial=True), s.line("two ", continues=True, partial=True)))
    printer.chunk(s.lines(s.line("three", continues=True), "next"))
    assert log.lines == ["[base] one two three", "[base] next"]


def test_a_character_cut_in_two_by_the_pieces_is_whole_again(printer, log):
    whole = "é".encode()
    printer.chunk(s.lines(s.line(whole[:1], partial=True), s.line(whole[1:], continues=True)))
    assert log.lines == ["[base] é"]


def test_a_line_without_end_is_printed_when_the_stream_ends_or_breaks(printer, log):
    printer.chunk(s.lines(s.line("cut", partial=True)))
    printer.gap(s.gap())
    printer.chunk(s.lines(s.line("again", partial=True)))
    printer.end_of(s.stream_end())
    assert [text for text in log.lines if "missing" not in text] == ["[base] cut", "[base] again"]


def test_a_piece_whose_beginning_was_lost_is_printed(printer, log):
    printer.chunk(s.lines(s.line("the rest", continues=True)))
    assert log.lines == ["[base] the rest"]


def test_an_endless_line_is_printed_in_parts(printer, log, monkeypatch):
    monkeypatch.setattr(logs, "MAX_LINE_BYTES", 4)
    for _ in range(5):
        printer.chunk(s.lines(s.line("xx", continues=True, partial=True)))
    assert log.lines == ["[base] xxxx", "[base] xxxx"]


@pytest.mark.parametrize("reason", list(GapReason))
def test_every_gap_says_something(printer, log, reason):
    printer.gap(s.gap(reason=reason, after=s.NOW, before=s.NOW + timedelta(seconds=5)))
    ((level, text),) = log.records
    assert level == logging.WARNING
    assert text.startswith(
        "[base] Log lines are missing here, between 2026-11-21 12:00:00 and 2026-11-21 12:00:05 UTC: "
    )
    assert not text.endswith(": ")


def test_the_last_lines_are_the_last_ones(printer):
    printer.chunk(s.lines(*(str(n) for n in range(50))))
    assert printer.last_lines == tuple(str(n) for n in range(40, 50))
