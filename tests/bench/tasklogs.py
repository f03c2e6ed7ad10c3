"""Lines of a pod in the log of its Airflow task: how fast they get there, and how many do not.

A whole Airflow runs the tasks as in production: the scheduler starts a supervised process for each, and what that logs
goes through the supervisor into the task's file. Each line of the pod begins with its number, so the file itself tells
what is missing. The operators take turns; each has the machine for itself.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.generators import FILLER, burst, paced
from bench.processes import Meter
from bench.rotation import NEVER, rotated_at
from bench.stage import Stage, say
from bench.tables import NAMES, bullets, table
from e2e.airflow import Airflow

if TYPE_CHECKING:
    import argparse

    from e2e.broker import Broker

TARGET: Final = "bench"
#: Seconds until a task must have ended; the peer takes minutes for millions of lines.
LIMIT: Final = 3600.0
ROTATED_AT: Final = "1Mi"
#: A line of the pod in the task's file, with or without the container's name before it.
LINE: Final = re.compile(rb'"event":"(?:\[\w+\] )?(\d+) ' + FILLER.encode())
TIME: Final = re.compile(rb'"timestamp":"([^"]+)"')
WARNING: Final = re.compile(rb'"level":"warning"')
KINDS: Final = ("peer", "ours")


def add_options(group: argparse._ArgumentGroup) -> None:
    """How many lines."""
    group.add_argument(
        "--task-lines",
        type=int,
        nargs="*",
        default=[1_000_000, 4_000_000],
        help="lines as fast as the pod can, not rotated (default 1000000 4000000)",
    )
    group.add_argument("--rotated-lines", type=int, default=600_000, help="lines under rotation (default 600,000)")
    group.add_argument("--rotated-rate", type=int, default=15_000, help="of them in a second (default 15,000)")


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a task's log holds."""

    state: str
    lines: int
    lost: int
    doubled: int
    warnings: int
    seconds: float
    """From the first line of the pod to the last, by the task's own clock."""


def measure(stage: Stage, options: argparse.Namespace) -> str:
    """Each log by each operator."""
    rows: list[list[str]] = []
    with stage.namespace() as namespace, stage.brokers() as brokers:
        broker = brokers.start(namespace=namespace, instance="bench-tasklogs", target=TARGET)
        environment = {
            "BENCH_NAMESPACE": namespace.name,
            "BENCH_KUBECONFIG": str(stage.site.user("bench-tasklogs-peer")),
            "AIRFLOW_CONN_KUBERNETES_DEFAULT": json.dumps({"conn_type": "kubernetes"}),
        }
        airflow = Airflow(
            folder=stage.folder / "airflow",
            dags=Path(__file__).with_name("dags"),
            broker=broker.address,
            target=TARGET,
            environment=environment,
        )
        airflow.folder.mkdir()
        say("starting Airflow")
        with airflow:
            with rotated_at(stage.site.cluster, NEVER):
                for lines in options.task_lines:
                    rows += _both(airflow, broker, f"{lines:,}, as fast as it goes", lines, burst(lines))
            lines, rate = options.rotated_lines, options.rotated_rate
            if lines:
                with rotated_at(stage.site.cluster, ROTATED_AT):
                    what = f"{lines:,} at {rate:,}/s, rotated at {ROTATED_AT}B"
                    rows += _both(airflow, broker, what, lines, paced(lines, rate=rate))
    head = [
        *("lines of the pod", "operator", "task", "in the log", "lost", "doubled", "warnings", "lines/s"),
        *("/ peer", "broker's CPU, µs/line"),
    ]
    return "\n\n".join(
        [
            "## Lines in the log of an Airflow task",
            table(head, rows),
            bullets(
                ("task", f"Airflow {version('apache-airflow')}, LocalExecutor, SQLite; not deferred"),
                (
                    "peer",
                    f"apache-airflow-providers-cncf-kubernetes {version('apache-airflow-providers-cncf-kubernetes')}",
                ),
                ("lines/s", "of what is in the log, from its first line to its last"),
                ("warnings", "of the whole task; ours has one for each place where lines are missing"),
            ),
        ]
    )


def _both(airflow: Airflow, broker: Broker, what: str, lines: int, script: str) -> list[list[str]]:
    rows = []
    usual = 0.0
    for kind in KINDS:
        say(f"task logs: {what}, {NAMES[kind]}")
        with Meter(pid=broker.pid) as meter:
            run = airflow.trigger(kind, conf={"script": script})
            state = run.finish(within=LIMIT)
        file = airflow.folder / f"logs/dag_id={kind}/run_id={run.run}/task_id=pod/attempt=1.log"
        found = read(file, lines=lines, state=state)
        rate = (found.lines - 1) / max(found.seconds, 0.001)
        usual = usual or rate
        cost = f"{meter.processors / lines * 1e6:.2f}" if kind == "ours" else ""
        counted = [f"{number:,}" for number in (found.lines, found.lost, found.doubled, found.warnings)]
        rows.append([what, NAMES[kind], state, *counted, f"{rate:,.0f}", f"{rate / usual:.1f}", cost])
        say(f"{state}: {found.lost:,} lost, {found.doubled:,} doubled, {rate:,.0f} lines/s")
        # Half a gigabyte for the largest.
        file.unlink()
    return rows


def read(file: Path, *, lines: int, state: str) -> Found:
    """Counts the pod's lines in a task's log."""
    seen = bytearray(lines + 1)
    total, doubled, warnings = 0, 0, 0
    first, last = b"", b""
    with file.open("rb") as log:
        for line in log:
            found = LINE.search(line)
            if found is None:
                warnings += WARNING.search(line) is not None
                continue
            total += 1
            number = int(found[1])
            doubled += seen[number]
            seen[number] = 1
            first, last = first or line, line
    return Found(
        state=state,
        lines=total,
        lost=lines - sum(seen),
        doubled=doubled,
        warnings=warnings,
        seconds=_moment(last) - _moment(first) if total else 0.0,
    )


def _moment(line: bytes) -> float:
    found = TIME.search(line)
    assert found is not None, line
    return datetime.fromisoformat(found[1].decode()).timestamp()
