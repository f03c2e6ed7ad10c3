"""A watch says everything once, waits as it is told, and goes on after a break."""

from __future__ import annotations

import pickle
import threading
import time
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from running import broker_at, lines, texts

import podbroker
from podbroker import (
    AttemptEnded,
    AttemptStarted,
    Client,
    ContainerRole,
    End,
    GapReason,
    LogChunk,
    LogGap,
    LogStreamEnd,
    Notice,
    NoticeSeverity,
    Result,
    ResultSource,
    StateChanged,
)

if TYPE_CHECKING:
    from podbroker import Event


def test_one_event_of_each_kind_arrives_and_heartbeats_are_not_shown(client: Client) -> None:
    events = list(client.watch("everything"))
    kinds = [type(event) for event in events]
    assert kinds == [
        StateChanged,
        AttemptStarted,
        LogChunk,
        LogGap,
        LogStreamEnd,
        Notice,
        Result,
        AttemptEnded,
        End,
    ]
    _, _, chunk, gap, stream_end, notice, result, attempt_ended, end = events
    assert isinstance(chunk, LogChunk)
    first, second = chunk.lines
    assert (first.time_ns, first.content, first.partial, first.continues) == (
        1767323045000000006,
        b"\xff one",
        True,
        False,
    )
    assert (second.content, second.partial, second.continues) == (b"two", False, True)
    assert chunk.instance.role is ContainerRole.DECIDING
    assert isinstance(gap, LogGap)
    assert (gap.reason, gap.lines_at_least, gap.before) == (GapReason.ROTATED, 3, None)
    assert gap.after is not None
    assert isinstance(stream_end, LogStreamEnd)
    # The broker is newer than this client and says a role that it does not know.
    assert (stream_end.complete, stream_end.instance.role) == (True, ContainerRole.UNKNOWN)
    assert isinstance(notice, Notice)
    assert notice.severity is NoticeSeverity.WARNING
    assert isinstance(result, Result)
    assert (result.source, result.content, result.problem) == (ResultSource.SIDECAR, b"{}", "")
    assert result.not_json == "it is a word"
    assert isinstance(attempt_ended, AttemptEnded)
    assert attempt_ended.outcome is not None
    assert isinstance(end, End)
    assert end.execution.state.is_final


def test_a_watch_goes_on_after_its_cursor(client: Client) -> None:
    with client.watch("lines/4/3") as watch:
        assert watch.cursor == b""
        next(watch)
        chunk = next(watch)
        assert watch.cursor == chunk.cursor
    assert isinstance(chunk, LogChunk)
    assert texts(client.watch("lines/4/3", cursor=chunk.cursor)) == lines(12)[3:]
    assert texts(client.watch("lines/4/3", cursor=chunk.cursor_after(2))) == lines(12)[2:]
    for k in (0, 4):
        with pytest.raises(ValueError, match="1 to 3"):
            chunk.cursor_after(k)


def test_a_watch_over_a_restart_of_the_broker_shows_each_line_once() -> None:
    with broker_at("127.0.0.1:0", "3") as address, Client(address) as client:
        watch = client.watch("lines/10/5")
        before = [watch.poll(timeout=20) for _ in range(3)]
        # The first broker says nothing more.
        assert watch.poll(timeout=0.01) is None
        port = address.rpartition(":")[2]
    assert watch.poll(timeout=0.01) is None
    assert not watch.ended
    with broker_at(f"127.0.0.1:{port}"):
        after = list(watch)
    assert texts([event for event in before if event is not None] + after) == lines(50)
    assert isinstance(after[-1], End)


def test_after_the_end_a_watch_has_ended(client: Client) -> None:
    watch = client.watch("lines/0/0")
    polled = [(type(watch.poll()), watch.ended) for _ in range(4)]
    assert polled == [(StateChanged, False), (End, True), (type(None), True), (type(None), True)]
    assert list(watch) == []


def test_a_watch_that_does_not_follow_ends_without_an_end(client: Client) -> None:
    watch = client.watch("quiet", follow=False)
    assert [type(event) for event in watch] == [StateChanged]
    assert watch.ended


def test_poll_gives_nothing_when_its_time_is_over(client: Client) -> None:
    with client.watch("quiet") as watch:
        next(watch)
        begin = time.monotonic()
        assert watch.poll(timeout=0.25) is None
        assert time.monotonic() - begin >= 0.25
        assert watch.poll(timeout=0) is None
        assert not watch.ended


def test_a_timeout_of_zero_finds_what_has_come(client: Client) -> None:
    with client.watch("lines/1/1") as watch:
        events = []
        while not watch.ended:
            if (event := watch.poll(timeout=0)) is not None:
                events.append(event)
        assert texts(events) == ["line 0"]


def test_wake_ends_a_poll_that_waits(client: Client) -> None:
    with client.watch("quiet") as watch:
        next(watch)
        thread = threading.Timer(0.1, watch.wake)
        thread.start()
        assert watch.poll() is None
        thread.join()
        assert not watch.ended


def test_wake_ends_the_next_poll_when_none_waits_and_only_that_one(client: Client) -> None:
    with client.watch("lines/1/1") as watch:
        watch.wake()
        assert watch.poll() is None
        assert isinstance(watch.poll(), StateChanged)


def test_wake_does_not_end_an_iteration(client: Client) -> None:
    watch = client.watch("lines/2/1")
    watch.wake()
    assert texts(watch) == lines(2)


def test_close_ends_a_poll_that_waits(client: Client) -> None:
    watch = client.watch("quiet")
    next(watch)
    thread = threading.Timer(0.1, watch.close)
    thread.start()
    assert watch.poll() is None
    thread.join()
    assert watch.ended
    assert list(watch) == []


def test_two_threads_share_the_events_of_a_watch(client: Client) -> None:
    watch = client.watch("lines/200/1")
    parts: list[list[Event]] = [[], []]
    threads = [threading.Thread(target=lambda part=part: part.extend(watch)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(texts(parts[0] + parts[1])) == sorted(lines(200))


def test_an_error_ends_a_watch(client: Client) -> None:
    watch = client.watch("error/NOT_FOUND/EXPIRED")
    with pytest.raises(podbroker.ExpiredError):
        watch.poll()
    assert watch.ended
    assert watch.poll() is None


def test_a_watch_gives_up_only_when_it_was_told_to() -> None:
    client = Client("http://127.0.0.1:1", connect_timeout=1)
    begin = datetime.now(timezone.utc)
    with pytest.raises(podbroker.UnavailableError) as gave_up:
        next(client.watch("x", retry_for=0.3))
    since = gave_up.value.since
    assert since is not None
    assert begin - timedelta(milliseconds=1) <= since <= datetime.now(timezone.utc)
    assert pickle.loads(pickle.dumps(gave_up.value)).since == since  # noqa: S301 - made right here
    watch = client.watch("x")
    assert watch.poll(timeout=0.5) is None
    assert not watch.ended
