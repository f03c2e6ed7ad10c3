"""Rows that break what is between a broker and the API server."""

from __future__ import annotations

import json
import time
from functools import partial
from typing import TYPE_CHECKING, Final

from e2e.following import has_line
from e2e.manifests import shell
from e2e.waiting import wait_for
from faults.pods import LONG, MANY_BYTES, SLOW
from faults.row import Length, Row
from faults.stage import again_and_again

if TYPE_CHECKING:
    from collections.abc import Callable

    from faults.stage import Stage

WATCHES: Final = r"/pods\?.*watch="
LOGS: Final = r"/log\?"
#: Seconds. A watch whose connection is alive and carries nothing is given up after 305, or, once the API server has
#: sent a bookmark in it, after 190.
DEAD_WATCH: Final = 500.0


def watch_cut(stage: Stage) -> None:
    proxy = stage.proxy()
    client = stage.broker(api_server=proxy).client()
    with again_and_again(lambda: proxy.cut(WATCHES), every=2):
        stage.start(client, SLOW).to_end()


def log_cut(pattern: bytes, *, least: int) -> Callable[[Stage], None]:
    def play(stage: Stage) -> None:
        proxy = stage.proxy()
        cuts = proxy.cut_behind(LOGS, pattern)
        stage.start(stage.broker(api_server=proxy).client(), MANY_BYTES).to_end()
        stage.remarks.append(f"{len(cuts.texts)} cuts")
        assert len(cuts.texts) >= least, "the stream was hardly ever cut"

    return play


def equal_lines(stage: Stage) -> None:
    proxy = stage.proxy()
    script = "i=0; while [ $i -lt 100 ]; do i=$((i+1)); yes same | head -n 50; sleep 0.1; done"
    client = stage.broker(api_server=proxy).client()
    with again_and_again(lambda: proxy.cut(LOGS), every=0.7):
        stage.start(client, shell(script)).to_end()


def refused(status: str, *, seconds: float) -> Callable[[Stage], None]:
    def play(stage: Stage) -> None:
        proxy = stage.proxy()
        reader = stage.start(stage.broker(api_server=proxy).client(), LONG, until="line 50")
        code, _, reason = status.partition(" ")
        answer = proxy.answer("*", "", status=status, body=failure(int(code), reason))
        with again_and_again(proxy.cut, every=2):
            time.sleep(seconds)
        answer.stop()
        reader.to_end()
        stage.remarks.append(f"{answer.done} requests refused")

    return play


def watch_expired(stage: Stage) -> None:
    proxy = stage.proxy()
    reader = stage.start(stage.broker(api_server=proxy).client(), SLOW, until="line 50")
    # As an answer of its own, and within a stream that had begun.
    gone = failure(410, "Expired")
    event = json.dumps({"type": "ERROR", "object": json.loads(gone)}).encode() + b"\n"
    for line, (status, body) in (("line 120", ("410 Gone", gone)), ("line 250", ("200 OK", event))):
        answer = proxy.answer("GET", WATCHES, status=status, body=body)
        proxy.cut(WATCHES)
        wait_for("a watch that is refused", partial(getattr, answer, "done"), within=120)
        answer.stop()
        reader.until(has_line(line))
    reader.to_end()


def failure(code: int, reason: str) -> bytes:
    """A failure as the API server words it."""
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": f"{reason} (test)"}
    return json.dumps({**status, "reason": reason, "code": code}).encode()


def create_reply_lost(stage: Stage) -> None:
    proxy = stage.proxy()
    client = stage.broker(api_server=proxy).client()
    lost = proxy.swallow("POST", r"/pods(\?|$)", times=2)
    stage.start(client, SLOW).to_end()
    assert lost.done >= 1, "no reply was lost"


def delete_reply_lost(stage: Stage) -> None:
    proxy = stage.proxy()
    client = stage.broker(api_server=proxy).client()
    lost = proxy.swallow("DELETE", r"/pods/", times=2)
    reader = stage.start(client, shell("echo one"))
    reader.to_end()
    client.release(reader.name)
    wait_for("a lost reply", lambda: lost.done, within=240)
    wait_for("no pod", lambda: not stage.namespace.pods, within=240, every=0.5)


def ended_unseen(stage: Stage) -> None:
    proxy = stage.proxy()
    client = stage.broker(api_server=proxy).client()
    answer = proxy.answer("GET", WATCHES, status="503 Service Unavailable", body=failure(503, "ServiceUnavailable"))
    proxy.cut(WATCHES)
    reader = stage.start(client, shell("echo one; echo two"))
    stage.await_phase("Succeeded")
    answer.stop()
    reader.to_end()


def silent(stage: Stage) -> None:
    proxy = stage.proxy()
    reader = stage.start(stage.broker(api_server=proxy).client(), SLOW, until="line 50")
    # No reset and no end: what was open is dead, and nobody says so. The container writes on, and ends.
    count = proxy.silence()
    assert count, "no connection was open"
    stage.await_phase("Succeeded")
    reader.to_end(within=DEAD_WATCH)


def unreachable(stage: Stage, *, seconds: float) -> None:
    proxy = stage.proxy()
    reader = stage.start(stage.broker(api_server=proxy).client(), SLOW, until="line 50")
    proxy.silence()
    # New ones are taken, and carry nothing either, until the container has long ended.
    proxy.hold()
    stage.await_phase("Succeeded")
    time.sleep(seconds)
    proxy.release()
    reader.to_end(within=DEAD_WATCH)


ROWS: Final = (
    Row(fault="watch cut every 2 s", play=watch_cut, length=Length.CORE),
    Row(fault="log stream cut every 100 lines", play=log_cut(rb" \d*00 gr[^\n]*\n", least=5)),
    Row(fault="log stream cut in the middle of a line", play=log_cut(rb" \d*[05]0 gr", least=10)),
    Row(
        fault="log stream cut in the middle of a character",
        play=log_cut(rb" \d*25 gr\xc3| \d*50 gr\xc3\xbcn \xe2\x82| \d*75 [^\n]*\xf0\x9f", least=15),
        length=Length.CORE,
    ),
    Row(fault="lines that equal one another, and cuts", play=equal_lines, length=Length.CORE),
    Row(fault="401 storm of 20 s", play=refused("401 Unauthorized", seconds=20)),
    Row(fault="503 storm of 20 s", play=refused("503 ServiceUnavailable", seconds=20)),
    Row(fault="410 on watch, as an answer and as an event", play=watch_expired, length=Length.CORE),
    Row(fault="create reply lost, twice", play=create_reply_lost, length=Length.CORE),
    Row(fault="delete reply lost, twice", play=delete_reply_lost),
    Row(fault="connections to the API server silent for good as the container ends", play=silent),
    Row(
        fault="API server silent as the container ends, and for 40 s more",
        play=partial(unreachable, seconds=40),
    ),
    Row(fault="pod that ends before the watch sees it", play=ended_unseen, length=Length.CORE),
)
