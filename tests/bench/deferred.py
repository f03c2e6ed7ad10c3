"""Deferred tasks in one triggerer: what they cost its process, its event loop and the API server, beside the peer.

The triggers are the real ones, run by the process in which Airflow runs them (`triggerer.py`). kwok plays the pods,
which a broker has submitted, so that both triggers follow pods of one kind; the peer's broker is gone before anything
is measured. All triggers begin at once, wait for a while, and then the pods are ended at a fixed rate by writing their
status; a watch of the API server tells when each end could be known. A trigger that does nothing shows what Airflow
itself takes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench.played import submit
from bench.processes import Driver, Meter, access, drive, memory, processor_seconds
from bench.stage import Stage, say
from bench.tables import bullets, percentile, table
from bench.triggers import LOGGING_INTERVAL, MEASURED, PID, Specification
from cluster.kwok import PODS, Kwok
from e2e.airflow import connection

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from e2e.broker import Broker

TARGET: Final = "bench"
NAMES: Final = {
    "waiting": "one that does nothing",
    "ours": "RemotePodTrigger",
    "ours-lines": "RemotePodTrigger, lines",
    "peer": "KubernetesPodTrigger",
    "peer-lines": "KubernetesPodTrigger, lines",
}
WITHOUT_LINES: Final = ("waiting", "ours", "peer")
WITH_LINES: Final = ("ours-lines", "peer-lines")
#: What kwok can follow at a time; see there.
MOST_WITH_LINES: Final = 100
#: Lines of each pod.
LINES: Final = 20
#: A line of a pod in the log of its trigger.
LINE: Final = re.compile(r'"event":"(?:\[\w+\] )?line (\d+)"')


def add_options(group: argparse._ArgumentGroup) -> None:
    """How many, and how long."""
    group.add_argument(
        "--deferred", type=int, nargs="+", default=[10, 100, 1000], help="deferred tasks (default 10 100 1000)"
    )
    group.add_argument("--deferred-kinds", nargs="+", choices=NAMES, default=list(NAMES), help="triggers (default all)")
    group.add_argument("--deferred-start", type=int, default=15, help="seconds from the last start on (default 15)")
    group.add_argument("--deferred-idle", type=int, default=30, help="seconds without a change after that (default 30)")
    group.add_argument("--deferred-rate", type=int, default=50, help="ends in a second (default 50)")


@dataclass(kw_only=True)
class Turns:
    """How late a coroutine had its turn in the event loop, in seconds."""

    late: Sequence[float]
    own: Sequence[float]
    """How much of it the loop's own work can have caused."""


@dataclass(kw_only=True)
class Found:
    """One triggerer with so many tasks."""

    kind: str
    tasks: int
    start: float = 0.0
    """Seconds of a processor until the first idle second; `ends` likewise from the first end to the last event."""
    idle: float = 0.0
    """Of a processor."""
    ends: float = 0.0
    broker: float | None = None
    """Of a processor, idle."""
    memory: dict[str, int] = field(default_factory=dict)
    """Bytes, idle; the largest is from the end."""
    requests_idle: float = 0.0
    """A minute."""
    requests: int = 0
    starting: Turns | None = None
    running: Turns | None = None
    delays: list[float] = field(default_factory=list)
    """From the API server's word to the event, in milliseconds."""
    wrong: int = 0
    """Triggers without exactly one event, a success."""
    lost: int = 0
    doubled: int = 0
    asked: int = 0
    """Questions to Airflow."""


def measure(stage: Stage, options: argparse.Namespace) -> str:
    """Each kind with each number, in a triggerer and a namespace of its own."""
    runs = [(kind, size) for kind in WITHOUT_LINES for size in sorted(options.deferred)]
    runs += [(kind, size) for kind in WITH_LINES for size in sorted(options.deferred) if size <= MOST_WITH_LINES]
    runs = [(kind, size) for kind, size in runs if kind in options.deferred_kinds]
    log = stage.folder / "pod.log"
    moment = datetime.now(UTC) - timedelta(minutes=1)
    stamps = [f"{moment + timedelta(milliseconds=number):%Y-%m-%dT%H:%M:%S.%f}000Z" for number in range(LINES)]
    log.write_text("".join(f"{stamp} stdout F line {number}\n" for number, stamp in enumerate(stamps)))
    nodes = -(-sum(size for kind, size in runs if kind != "waiting") // PODS)
    with Kwok(cluster=stage.site.cluster, nodes=nodes, folder=stage.folder, prefix="deferred", log=log) as kwok:
        found = [_measure(stage, kwok, kind, size, options) for kind, size in runs]
    return _text(found, options)


def _measure(stage: Stage, kwok: Kwok, kind: str, tasks: int, options: argparse.Namespace) -> Found:
    say(f"deferred: {tasks:,} tasks, {NAMES[kind]}")
    name = f"bench-deferred-{kind}-{tasks}"
    folder = stage.folder / name
    folder.mkdir()
    found = Found(kind=kind, tasks=tasks)
    with stage.brokers() as brokers:
        broker = None
        specification = Specification(kind=kind, folder=str(folder), tasks=[{"name": "", "pod": ""}] * tasks)
        if kind != "waiting":
            namespace = stage.namespace_that_stays()
            broker = brokers.start(
                namespace=namespace, instance=name, target=TARGET, kubeconfig=stage.site.user(f"{name}-broker")
            )
            names = submit(stage, kwok, broker, target=TARGET, namespace=namespace, count=tasks, name=name)
            specification = dataclasses.replace(
                specification,
                tasks=[json.loads(line) for line in names.read_text().splitlines()],
                namespace=namespace.name,
                kubeconfig=str(stage.site.user(f"{name}-peer")),
            )
            if not kind.startswith("ours"):
                broker.close()
                broker = None
        user = f"{name}-broker" if kind.startswith("ours") else f"{name}-peer"
        _run(stage, specification, found, user=user, broker=broker, options=options)
    return found


def _run(
    stage: Stage,
    specification: Specification,
    found: Found,
    *,
    user: str,
    broker: Broker | None,
    options: argparse.Namespace,
) -> None:
    folder = Path(specification.folder)
    (folder / "specification.json").write_text(json.dumps(dataclasses.asdict(specification)))
    begin = datetime.now(UTC)
    ended: dict[str, int] = {}
    command = (sys.executable, "-m", "bench.triggerer")
    where = str(folder / "specification.json")
    with Driver(where, program=command, environment=_environment(folder, broker)) as triggerer:
        triggerer.wait_ready()
        pid = int((folder / PID).read_text())
        time.sleep(options.deferred_start)
        started, idle_from = time.monotonic(), datetime.now(UTC)
        found.start = processor_seconds(pid)
        used = processor_seconds(broker.pid) if broker is not None else 0.0
        with Meter(pid=pid) as idle:
            time.sleep(options.deferred_idle)
        found.idle = idle.share
        if broker is not None:
            found.broker = (processor_seconds(broker.pid) - used) / idle.seconds
        found.requests_idle = stage.requests(user, since=idle_from) / idle.seconds * 60
        found.memory = memory(pid)
        if specification.kind != "waiting":
            with Meter(pid=pid) as meter:
                ended = _end(stage, specification, triggerer, rate=options.deferred_rate)
            found.ends = meter.processors
        found.memory["largest"] = memory(pid)["largest"]
        found.requests = stage.requests(user, since=begin)
        over = time.monotonic()
        triggerer.end()
        report = triggerer.report()
    measured = json.loads((folder / MEASURED).read_text())
    found.starting = _turns(measured, since=0, until=started)
    found.running = _turns(measured, since=started, until=over)
    found.asked = sum(count for what, count in report["asked"].items() if what != "TriggerStateChanges")
    _compare(specification, found, ended, measured["told"], report["told"])
    say(f"{len(found.delays)} ends compared, {found.wrong} wrong, {report['failed']} failed, {found.requests} requests")
    say(f"{found.memory['anonymous'] / 1e6:.1f} MB, a turn at most {max(found.running.late) * 1000:.0f} ms late")


def _end(stage: Stage, specification: Specification, triggerer: Driver, *, rate: int) -> dict[str, int]:
    """Ends all pods; returns when the API server told each end, by pod, once the last event is said."""
    names = Path(specification.folder) / "names"
    names.write_text("\n".join(map(json.dumps, specification.tasks)))
    place = f"--namespace={specification.namespace}"
    with Driver("observe", *access(stage, "bench-observer"), place) as observer:
        observer.wait_ready()
        writer = [*access(stage, "bench-writer"), place, f"--names={names}"]
        drive("end", *writer, f"--count={len(specification.tasks)}", f"--rate={rate}")
        triggerer.wait_ready("over")
        observer.end()
        ends: dict[str, int] = observer.report()["ends"]
    return ends


def _compare(
    specification: Specification,
    found: Found,
    ended: dict[str, int],
    moments: dict[str, int],
    told: list[tuple[int, str, int]],
) -> None:
    if specification.kind == "waiting":
        return
    said: dict[int, Counter[str]] = {}
    for trigger, status, count in told:
        said.setdefault(trigger, Counter())[status] += count
    for trigger, task in enumerate(specification.tasks, start=1):
        found.wrong += said.get(trigger) != Counter({"success": 1})
        if str(trigger) in moments and task["pod"] in ended:
            found.delays.append((moments[str(trigger)] - ended[task["pod"]]) / 1e6)
        if specification.kind in WITH_LINES:
            log = Path(specification.folder) / f"logs/{trigger}.log"
            text = log.read_text(errors="replace") if log.exists() else ""
            counted = Counter(map(int, LINE.findall(text)))
            found.lost += sum(counted[number] == 0 for number in range(LINES))
            found.doubled += sum(count - 1 for count in counted.values())


def _turns(measured: dict[str, Any], *, since: float, until: float) -> Turns:
    inside = [at for at, moment in enumerate(measured["moments"]) if since <= moment < until]
    return Turns(late=[measured["late"][at] for at in inside], own=[measured["own"][at] for at in inside])


def _environment(folder: Path, broker: Broker | None) -> dict[str, str]:
    kept = {key: os.environ[key] for key in ("PATH", "LANG", "PYTHONPATH") if key in os.environ}
    with contextlib.suppress(FileExistsError):
        (folder / "logs").mkdir()
    settings = {
        "CORE__LOAD_EXAMPLES": "False",
        "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder}/airflow.db",
        "LOGGING__BASE_LOG_FOLDER": str(folder / "logs"),
    }
    connections = {"KUBERNETES_DEFAULT": json.dumps({"conn_type": "kubernetes"})}
    if broker is not None:
        connections["PODBROKER_DEFAULT"] = connection(broker.address, target=TARGET)
    return {
        **kept,
        **{f"AIRFLOW__{key}": value for key, value in settings.items()},
        **{f"AIRFLOW_CONN_{key}": value for key, value in connections.items()},
        "AIRFLOW_HOME": str(folder),
        "NO_PROXY": "127.0.0.1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _text(found: Sequence[Found], options: argparse.Namespace) -> str:
    smallest = {one.kind: one for one in reversed(found)}
    process = [
        *("trigger", "tasks", "CPU start, s", "CPU idle", "CPU ends, s", "memory, MB", "largest, MB", "KB each"),
        "questions to Airflow",
    ]
    loop = [
        *("trigger", "tasks", "start: longest ms", "own work ms", "then: longest ms", "own work ms", "p99 ms"),
        "own work over 50 ms",
    ]
    cluster = [
        *("trigger", "tasks", "requests/min, idle", "requests in all", "broker's CPU idle"),
        *("delay p50 ms", "p99 ms", "max ms", "not once or wrong", "lines not here", "doubled"),
    ]
    return "\n\n".join(
        [
            "## Deferred tasks in one triggerer",
            "The process:",
            table(process, [_process(one, smallest[one.kind]) for one in found]),
            "Its event loop, how late a coroutine has its turn that wants one each 10 ms:",
            table(loop, [_loop(one) for one in found]),
            "The API server, and the events:",
            table(cluster, [_cluster(one) for one in found]),
            _conditions(options),
        ]
    )


def _conditions(options: argparse.Namespace) -> str:
    provider = f"apache-airflow-providers-cncf-kubernetes {version('apache-airflow-providers-cncf-kubernetes')}"
    return bullets(
        ("triggerer", f"the process that Airflow {version('apache-airflow')} forks for its triggers (TriggerRunner)"),
        ("its supervisor", "Airflow's, without a database: triggers and XComs come from memory"),
        ("peer", f"{provider}, as its operator makes it by default, with poll_interval=2"),
        (
            "lines",
            f"{LINES} of each pod, of a file that does not grow; at most {MOST_WITH_LINES} pods, kwok follows no more",
        ),
        (
            "lines of the peer",
            f"logging_interval={LOGGING_INTERVAL}; without it, all are left to the worker at the end",
        ),
        ("pods", "played by kwok, running before their triggers begin; submitted by a broker, for the peer too"),
        (
            "start",
            f"all triggers at once, and {options.deferred_start} s more; idle: the next {options.deferred_idle} s",
        ),
        ("KB each", "of what is no file's, idle, beside the smallest number of tasks of that trigger"),
        ("own work", "as much of the lateness as the loop's own thread has worked; the rest is others on the machine"),
        ("then", "idle, and while the pods end"),
        ("requests", "to the API server, by the audit log: the broker's or the peer's; in all: from the start on"),
        (
            "delay",
            f"of ends at {options.deferred_rate}/s: from a watch of the API server to the event in the process",
        ),
    )


def _process(one: Found, smallest: Found) -> list[str]:
    more = one.tasks - smallest.tasks
    grown = (one.memory["anonymous"] - smallest.memory["anonymous"]) / 1e3 / more if more else None
    return [
        NAMES[one.kind],
        f"{one.tasks:,}",
        f"{one.start:.1f}",
        f"{one.idle * 100:.1f} %",
        f"{one.ends:.1f}" if one.kind != "waiting" else "",
        f"{one.memory['resident'] / 1e6:.0f}",
        f"{one.memory['largest'] / 1e6:.0f}",
        f"{grown:.1f}" if grown is not None else "",
        f"{one.asked:,}",
    ]


def _loop(one: Found) -> list[str]:
    assert one.starting is not None
    assert one.running is not None
    return [
        NAMES[one.kind],
        f"{one.tasks:,}",
        *(f"{max(turns) * 1000:.0f}" for turns in (one.starting.late, one.starting.own)),
        *(f"{max(turns) * 1000:.0f}" for turns in (one.running.late, one.running.own)),
        f"{percentile(one.running.late, 0.99) * 1000:.0f}",
        str(sum(own > 0.05 for own in (*one.starting.own, *one.running.own))),
    ]


def _cluster(one: Found) -> list[str]:
    shown = [NAMES[one.kind], f"{one.tasks:,}"]
    if one.kind == "waiting":
        return [*shown, *[""] * 9]
    delays = [f"{value:,.0f}" for value in (percentile(one.delays, 0.5), percentile(one.delays, 0.99), max(one.delays))]
    lines = [str(one.lost), str(one.doubled)] if one.kind in WITH_LINES else ["", ""]
    return [
        *shown,
        f"{one.requests_idle:,.0f}",
        f"{one.requests:,}",
        f"{one.broker * 100:.1f} %" if one.broker is not None else "",
        *delays,
        str(one.wrong),
        *lines,
    ]
