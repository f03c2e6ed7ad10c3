"""Rows about the log files on the node."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, Final

from e2e.following import has_line
from e2e.manifests import numbered
from e2e.waiting import wait_for
from faults.beside.api_server import LOGS
from faults.pods import ROTATING, waiting
from faults.row import Row

if TYPE_CHECKING:
    from faults.stage import Stage


def slept_over_rotations(stage: Stage) -> None:
    broker = stage.broker()
    reader = stage.start(broker.client(), ROTATING)
    reader.until(lambda story: len(story.lines.get("main", ())) > 100)
    files = stage.witness.files(stage.namespace.name)
    broker.signal(signal.SIGSTOP)
    wait_for("two rotations", lambda: stage.witness.files(stage.namespace.name) >= files + 2, within=120)
    broker.signal(signal.SIGCONT)
    reader.to_end()


def away_over_rotations(stage: Stage) -> None:
    broker = stage.broker()
    reader = stage.start(broker.client(), ROTATING)
    reader.until(lambda story: len(story.lines.get("main", ())) > 100)
    broker.kill()
    files = stage.witness.files(stage.namespace.name)
    wait_for("two rotations", lambda: stage.witness.files(stage.namespace.name) >= files + 2, within=120)
    broker.start()
    reader.to_end()


def read_over_rotations(stage: Stage) -> None:
    stage.start(stage.broker().client(), ROTATING).to_end()
    stage.remarks.append(f"{stage.witness.files(stage.namespace.name)} files")


def within_a_millisecond(stage: Stage) -> None:
    proxy = stage.proxy()
    cuts = proxy.cut_behind(LOGS, rb"burst \d*(?:250|500) half")
    client = stage.broker(api_server=proxy).client()
    reader = stage.start(client, waiting("echo begin", "echo end"), until="begin")
    now = time.time_ns() // 1_000_000 * 1_000_000
    # Ten to a stamp, all within one millisecond.
    stage.write_behind([(now + number // 10 * 1000, f"burst {number} half and half") for number in range(1, 1001)])
    reader.until(has_line("burst 1000 half and half"))
    stage.tell("go")
    reader.to_end()
    stage.remarks.append(f"{len(cuts.texts)} cuts")


def clock_steps_back(stage: Stage) -> None:
    proxy = stage.proxy()
    client = stage.broker(api_server=proxy).client()
    pauses = numbered(100, prefix="after", pause="0.02")
    reader = stage.start(client, waiting(numbered(100), pauses), until="line 100")
    now = time.time_ns()
    hour = 3_600_000_000_000
    for number in range(10):
        step = range(number * 20, number * 20 + 20)
        stage.write_behind([(now - hour + one * 10_000_000, f"earlier {one}") for one in step])
        reader.until(has_line(f"earlier {step[-1]}"))
        if number % 3 == 2:
            proxy.cut(LOGS)
    stage.tell("go")
    reader.to_end()


ROWS: Final = (
    Row(fault="1,000 lines within one millisecond, and cuts", play=within_a_millisecond),
    Row(fault="rotations while it is read", play=read_over_rotations),
    Row(fault="rotated twice while the reader sleeps", play=slept_over_rotations),
    Row(fault="rotated twice while no broker runs", play=away_over_rotations),
    Row(fault="clock of the node steps back an hour, and cuts", play=clock_steps_back),
)
