"""Short pods by the operators: requests to the API server, the delay at the end, memory of a task's process."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from bench.lanes import Lanes, Sample
from bench.observer import Observer
from bench.stage import Stage, say
from bench.tables import NAMES, bullets, delay_table, memory_table, requests_table
from bench.task import IMPORTS

if TYPE_CHECKING:
    import argparse

#: Seconds. The second one shows what grows with the pod's life.
LENGTHS: Final = (5, 30)
COUNTED: Final = ("ours", "peer", "peer-without-logs", "peer-deferred")
TIMED: Final = ("ours", "client", "peer")
#: Seconds of a timed pod, and what is added from round to round, so that nobody's interval hits the end each time.
SHORTEST: Final = 8.0
STEP: Final = 0.17


def add_options(group: argparse._ArgumentGroup) -> None:
    """How many rounds."""
    group.add_argument("--rounds", type=int, default=10, help="pods of each kind for delays and memory (default 10)")


def measure(stage: Stage, options: argparse.Namespace) -> str:
    """Runs the counted pods side by side, then the timed ones in turn."""
    rounds: int = options.rounds
    with stage.namespace() as namespace, stage.brokers() as brokers:
        observer = Observer(kubeconfig=stage.site.user("bench-observer"), namespace=namespace.name)
        with observer:
            lanes = Lanes(namespace=namespace, brokers=brokers, folder=stage.folder, observer=observer)
            say(f"requests: pods of {' and '.join(map(str, LENGTHS))} s; about two minutes")
            lanes.run_counted(COUNTED, lengths=LENGTHS)
            say(f"delays and memory: {rounds} rounds of {len(TIMED)} pods, one at a time; about {rounds} times 45 s")
            samples = _measure_delays(lanes, rounds=rounds)
            costs = lanes.costs(COUNTED, lengths=LENGTHS)
    parts = [
        "## Requests to the API server",
        requests_table(costs, kinds=COUNTED, lengths=LENGTHS),
        "## Delay at the end",
        delay_table(samples),
        "## Memory of a task's process",
        memory_table(samples),
        bullets(
            ("peer", f"apache-airflow-providers-cncf-kubernetes {version('apache-airflow-providers-cncf-kubernetes')}"),
            ("task", f"Airflow {version('apache-airflow')}, a process for each task"),
            ("imports", ", ".join(IMPORTS)),
            ("delays, memory", f"{rounds} rounds, one pod at a time, kinds in turn"),
        ),
    ]
    return "\n\n".join(parts)


def _measure_delays(lanes: Lanes, *, rounds: int) -> dict[str, list[Sample]]:
    """Runs the timed kinds in turn; the first of a round is another one each time."""
    broker = lanes.broker("bench-delays")
    samples: dict[str, list[Sample]] = {kind: [] for kind in TIMED}
    for number in range(rounds):
        turn = number % len(TIMED)
        for kind in (*TIMED[turn:], *TIMED[:turn]):
            seconds = SHORTEST + number * STEP
            sample = lanes.run(kind, seconds=seconds, user="bench-delays-peer", broker=broker)
            samples[kind].append(sample)
            say(f"round {number + 1} of {rounds}: {NAMES[kind]} returned {sample.to_return:.3f} s after the end")
    return samples
