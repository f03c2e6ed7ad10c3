"""Lines of containers through the broker: how fast, how late, at what price, beside `kubectl logs -f`.

The throughput is that of a log that is there already, read to its end by one reader after another: the same bytes for
all, and no writer that takes a processor. The lag is that of lines as they are written, at a fixed rate.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import podbroker
from bench.generators import burst, paced
from bench.processes import Driver, Meter, drive, memory, pipe
from bench.rotation import NEVER, rotated_at
from bench.stage import Stage, say
from bench.tables import bullets, percentile, table
from e2e.manifests import shell

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from e2e.broker import Broker
    from e2e.site import Namespace

TARGET: Final = "bench"
#: Seconds until pods run or have written everything, on a machine that is busy with them.
LIMIT: Final = 600.0
#: Seconds before the first line of a paced pod: its reader is there by then.
AHEAD: Final = 5

READERS: Final = {"kubectl": "kubectl logs -f", "rust": "broker, Rust client", "python": "broker, Python client"}


def add_options(group: argparse._ArgumentGroup) -> None:
    """How many of everything."""
    group.add_argument("--lines", type=int, default=1_000_000, help="lines of the one large log (default 1,000,000)")
    group.add_argument("--reads", type=int, default=3, help="times that each reader reads it (default 3)")
    group.add_argument("--lag-rate", type=int, default=20_000, help="lines/s for the lag (default 20,000)")
    group.add_argument("--lag-seconds", type=int, default=15, help="how long they come (default 15)")
    group.add_argument("--pods", type=int, default=50, help="pods that write at the same time (default 50)")
    group.add_argument("--pod-rate", type=int, default=200, help="lines/s of each of them (default 200)")
    group.add_argument("--pod-seconds", type=int, default=20, help="how long the broker is looked at (default 20)")


def measure(stage: Stage, options: argparse.Namespace) -> str:
    """One large log, one fast one, many slow ones."""
    with rotated_at(stage.site.cluster, NEVER), stage.namespace() as namespace, stage.brokers() as brokers:
        broker = brokers.start(namespace=namespace, instance="bench-logs", target=TARGET)
        place = Place(stage=stage, namespace=namespace, broker=broker, client=broker.client())
        parts = [
            _throughput(place, lines=options.lines, reads=options.reads),
            _lag(place, rate=options.lag_rate, seconds=options.lag_seconds),
            _many(place, pods=options.pods, rate=options.pod_rate, seconds=options.pod_seconds),
        ]
    return "\n\n".join(parts)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the pods run and who is measured."""

    stage: Stage
    namespace: Namespace
    broker: Broker
    client: podbroker.Client

    def submit(self, name: str, script: str) -> Execution:
        """Starts a pod."""
        submission = self.client.submit(target=TARGET, execution_id=name, pod=shell(script))
        execution = submission.execution
        return Execution(name=execution.name, pod=execution.attempts[0].pod_name)

    def kubectl(self, pod: str, *more: str) -> list[str]:
        """Follows the log of a pod as a user of its own."""
        program = self.stage.site.cluster.kubectl_command()[0]
        kubeconfig = self.stage.site.user("bench-kubectl")
        return [program, f"--kubeconfig={kubeconfig}", f"--namespace={self.namespace.name}", "logs", "-f", *more, pod]

    def wait_for(self, state: podbroker.ExecutionState, *executions: Execution) -> None:
        """Waits until each has come to a state, or past it."""
        for execution in executions:
            for event in self.client.watch(execution.name, logs=False):
                if isinstance(event, podbroker.StateChanged) and event.execution.state == state:
                    break


@dataclass(frozen=True, kw_only=True)
class Execution:
    """The two names of one."""

    name: str
    pod: str


def _throughput(place: Place, *, lines: int, reads: int) -> str:
    say(f"throughput: a pod writes {lines:,} lines")
    begin = time.monotonic()
    execution = place.submit("large", burst(lines))
    for _ in place.client.watch(execution.name, logs=False):
        pass
    say(f"written after {time.monotonic() - begin:.0f} s; {reads} times {len(READERS)} readers, one after another")
    readers: dict[str, Callable[[], dict[str, Any]]] = {
        "kubectl": lambda: pipe(place.kubectl(execution.pod)),
        "rust": lambda: drive("lines", f"--address={place.broker.address}", execution.name),
        "python": lambda: _read_in_python(place.broker.address, execution.name),
    }
    rates: dict[str, list[float]] = {reader: [] for reader in READERS}
    costs: dict[str, list[float]] = {reader: [] for reader in READERS}
    wrong: dict[str, int] = dict.fromkeys(READERS, 0)
    for number in range(reads):
        turn = number % len(READERS)
        for reader in [*READERS][turn:] + [*READERS][:turn]:
            with Meter(pid=place.broker.pid) as meter:
                report = readers[reader]()
            rates[reader].append(report["lines"] / max(1, report["last"] - report["first"]) * 1e9)
            costs[reader].append(meter.processors / max(1, report["lines"]) * 1e6)
            wrong[reader] += abs(lines - report["lines"]) + report.get("missing", 0) + report.get("doubled", 0)
            say(f"{READERS[reader]}: {rates[reader][-1]:,.0f} lines/s")
    usual = percentile(rates["kubectl"], 0.5)
    rows = []
    for reader, name in READERS.items():
        rate = percentile(rates[reader], 0.5)
        cost = f"{percentile(costs[reader], 0.5):.2f}" if reader != "kubectl" else ""
        span = f"{min(rates[reader]):,.0f} to {max(rates[reader]):,.0f}"
        rows.append([name, f"{rate:,.0f}", span, f"{rate / usual:.2f}", cost, str(wrong[reader])])
    head = [
        "one log, from its first line",
        "lines/s",
        "lowest to highest",
        "/ kubectl",
        "broker's CPU, µs/line",
        "wrong",
    ]
    peak = f"{memory(place.broker.pid)['largest'] / 1e6:.0f} MB"
    return "\n\n".join(
        [
            "## Throughput of one log",
            table(head, rows),
            bullets(
                ("log", f"{lines:,} lines of about 80 bytes, written before it is read, not rotated"),
                ("reads", f"{reads} of each reader, in turn; the median. From a reader's first line to its last"),
                ("wrong", "lines too few or too many, and numbers out of order, over all reads; Python counts only"),
                ("largest memory of the broker so far", peak),
            ),
        ]
    )


def _read_in_python(address: str, name: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.reader", address, name]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=LIMIT, check=True)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def _lag(place: Place, *, rate: int, seconds: int) -> str:
    say(f"lag: {rate:,} lines/s for {seconds} s, twice")
    lines = rate * seconds
    script = f"sleep {AHEAD}; {paced(lines, rate=rate)}"
    rows = []

    def row(name: str, report: dict[str, Any], cost: str) -> None:
        delay = report["delay"]
        reached = (report["lines"] - 1) / max(1, report["last"] - report["first"]) * 1e9
        wrong = abs(lines - report["lines"]) + report["missing"] + report["doubled"]
        delays = [f"{delay[key]:.0f}" for key in ("p50", "p99", "max")]
        rows.append([name, f"{reached:,.0f}", *delays, cost, str(wrong)])
        say(f"{name}: p50 {delays[0]} ms, p99 {delays[1]} ms")

    execution = place.submit("fast-1", script)
    place.wait_for(podbroker.ExecutionState.RUNNING, execution)
    row(READERS["kubectl"], pipe(place.kubectl(execution.pod, "--timestamps"), "--delays"), "")
    execution = place.submit("fast-2", script)
    place.wait_for(podbroker.ExecutionState.RUNNING, execution)
    with Meter(pid=place.broker.pid) as meter:
        report = drive("lines", "--delays", f"--address={place.broker.address}", execution.name)
    row(READERS["rust"], report, f"{meter.processors / max(1, report['lines']) * 1e6:.2f}")
    head = ["lines as they are written", "lines/s", "p50 ms", "p99 ms", "max ms", "broker's CPU, µs/line", "wrong"]
    return "\n\n".join(
        [
            "## Lag of one log",
            table(head, rows),
            bullets(
                ("log", f"{rate:,} lines/s for {seconds} s, in bundles with pauses of 50 ms, a pod for each reader"),
                ("lag", "from the container runtime's time of a line to the reader's"),
            ),
        ]
    )


def _many(place: Place, *, pods: int, rate: int, seconds: int) -> str:
    say(f"many: {pods} pods with {rate} lines/s each; about {pods + seconds} s")
    idle = memory(place.broker.pid)
    # More than will be read: they write until they are taken away.
    script = paced(1_000_000_000, rate=rate, pause=0.25)
    executions = [place.submit(f"slow-{number}", script) for number in range(pods)]
    names = [execution.name for execution in executions]
    place.wait_for(podbroker.ExecutionState.RUNNING, *executions)
    say("all run")
    with Driver("lines", "--delays", "--announce", f"--address={place.broker.address}", *names) as driver:
        # What was written while the others started is read first.
        driver.wait_ready()
        with Meter(pid=place.broker.pid) as meter:
            time.sleep(seconds)
        used = memory(place.broker.pid)
        driver.end()
        report = driver.report()
    for execution in executions:
        place.client.cancel(execution.name, reason="the measurement is over")
    delay = report["delay"]
    rows = [
        [
            f"{pods} pods, {rate} lines/s each",
            f"{meter.share * 100:.0f} %",
            f"{meter.processors / (pods * rate * seconds) * 1e6:.1f}",
            f"{used['resident'] / 1e6:.0f}",
            f"{(used['anonymous'] - idle['anonymous']) / 1e6:+.0f}",
            *(f"{delay[key]:.0f}" for key in ("p50", "p99")),
            str(report["missing"] + report["doubled"]),
        ]
    ]
    head = ["", "CPU of one", "µs/line", "memory, MB", "added, MB", "lag p50 ms", "p99 ms", "wrong"]
    return "\n\n".join(
        [
            "## Many logs at once: the broker",
            table(head, rows),
            bullets(
                ("pods", f"they write in bundles, 4 a second; {seconds} s, after what they had written was read"),
                ("memory", "resident; added since before these pods, of what is no file's"),
                (
                    "lag",
                    "from the container runtime's time; lines that were written before the reader came are left out",
                ),
            ),
        ]
    )
