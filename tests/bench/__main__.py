"""`python -m bench [--rounds N]`: measures and prints; started by `make bench`."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from kubernetes import client as kubernetes

from bench.lanes import Lanes, Sample
from bench.observer import Observer
from bench.tables import NAMES, conditions, delay_table, memory_table, requests_table
from cluster.handle import Cluster
from e2e.broker import Brokers
from e2e.site import Site

#: Seconds. The second one shows what grows with the pod's life.
LENGTHS: Final = (5, 30)
COUNTED: Final = ("ours", "peer", "peer-without-logs", "peer-deferred")
TIMED: Final = ("ours", "client", "peer")
#: Seconds of a timed pod, and what is added from round to round, so that nobody's interval hits the end each time.
SHORTEST: Final = 8.0
STEP: Final = 0.17

_BEGIN: Final = time.monotonic()


def say(text: str) -> None:
    """Progress, with the seconds since the start."""
    print(f"[{time.monotonic() - _BEGIN:5.0f} s] {text}", file=sys.stderr, flush=True)


def use_release_build(folder: Path) -> None:
    """Lets the brokers be those with optimisations: `PODBROKER_OUT` says where the build is."""
    release = Path(os.environ["PODBROKER_OUT"]) / "bin/podbroker-release"
    if not release.exists():
        sys.exit(f"bench: {release} is missing: use `make bench`")
    (folder / "bin").mkdir()
    (folder / "bin/podbroker").symlink_to(release)
    os.environ["PODBROKER_OUT"] = str(folder)


def measure_delays(lanes: Lanes, *, rounds: int) -> dict[str, list[Sample]]:
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


def main() -> int:
    """Measures everything on the cluster of this run and prints the tables."""
    parser = argparse.ArgumentParser(prog="bench", description="Measure ours beside the provider's operator.")
    parser.add_argument("--rounds", type=int, default=10, help="pods of each kind for delays and memory (default 10)")
    rounds: int = parser.parse_args().rounds
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    cluster = Cluster.from_environment()
    if not cluster.facts["started"]:
        print("bench: needs the cluster of the harness: requests are counted in its audit log, and times are compared")
        print("bench: with the node's clock. Unset PODBROKER_KUBECONFIG.")
        return 2
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="podbroker-bench-")))
        use_release_build(folder)
        site = Site(cluster=cluster, folder=folder)
        namespace = stack.enter_context(site.namespace(prefix="pb-bench"))
        brokers = Brokers(site=site, folder=folder)
        stack.callback(brokers.close)
        observer = Observer(kubeconfig=site.user("bench-observer"), namespace=namespace.name)
        stack.enter_context(observer)
        lanes = Lanes(namespace=namespace, brokers=brokers, folder=folder, observer=observer)
        load = os.getloadavg()
        say(f"requests: pods of {' and '.join(map(str, LENGTHS))} s; about two minutes")
        lanes.run_counted(COUNTED, lengths=LENGTHS)
        say(f"delays and memory: {rounds} rounds of {len(TIMED)} pods, one at a time; about {rounds} times 45 s")
        samples = measure_delays(lanes, rounds=rounds)
        costs = lanes.costs(COUNTED, lengths=LENGTHS)
        kubernetes_version = kubernetes.VersionApi(site.api).get_code().git_version

    print("\n## Requests to the API server\n")
    print(requests_table(costs, kinds=COUNTED, lengths=LENGTHS))
    print("\n## Delay at the end\n")
    print(delay_table(samples))
    print("\n## Memory of a task's process\n")
    print(memory_table(samples))
    print("\n## Conditions\n")
    print(conditions(kubernetes=kubernetes_version, rounds=rounds, load=load))
    return 0


if __name__ == "__main__":
    try:
        code = main()
    except KeyboardInterrupt:
        say("interrupted; everything is taken down")
        code = 130
    sys.exit(code)
