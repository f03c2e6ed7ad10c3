"""The main job, shown: an Airflow task that is a pod in a cluster for which Airflow holds no credential.

Run by `make demo`, which starts the cluster around it. Everything is real: the scheduler starts the task, the task asks
the broker, the broker creates the pod, the kubelet runs it, and its lines come back into the task log.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cluster.handle import Cluster
from e2e.airflow import FINAL, Airflow, Run
from e2e.broker import Brokers
from e2e.manifests import IMAGE
from e2e.site import Site

if TYPE_CHECKING:
    from e2e.broker import Broker
    from e2e.site import Namespace

ROOT: Final = Path(__file__).resolve().parents[2]
DAG: Final = "remote_kpo"
TASK: Final = "remote_pod"
#: Seconds for the run; the first pull of an image on a cluster of the user's own may be slow.
LIMIT: Final = 300.0

_BEGIN: Final = time.monotonic()


def say(text: str) -> None:
    """One line, with the seconds since the start."""
    print(f"[{time.monotonic() - _BEGIN:5.1f} s] {text}", flush=True)


def follow(run: Run) -> str:
    """Prints the task's log as it grows; returns how the run ended."""
    shown = 0
    deadline = time.monotonic() + LIMIT
    while True:
        state = run.state
        lines = run.log(TASK)
        for line in lines[shown:]:
            if not line.startswith("::"):
                print(f"    task log | {line}", flush=True)
        shown = len(lines)
        if state in FINAL:
            return state
        if time.monotonic() > deadline:
            return f"{state}, {LIMIT:.0f} s after its start"
        time.sleep(0.2)


def explain(run: Run, namespace: Namespace, broker: Broker, state: str) -> int:
    """Says what was shown, with what the cluster itself says about it."""
    pods = namespace.pods
    if state != "success" or len(pods) != 1:
        say(f"the run ended as {state} with {len(pods)} pod(s); the broker's log:")
        print(broker.log[-4000:])
        return 1
    (pod,) = pods
    say(f"the run ended as {state}; its XCom value is {run.value(TASK)}")
    print(f"""
What you have seen
  Airflow's scheduler ran the task {DAG}.{TASK} in a process of its own. That process asked the broker at
  {broker.address} for one pod at the target "demo" and followed it: the lines above came from the container
  as it wrote them, and the value came out of its file /airflow/xcom/return.json.
  The pod was {pod["metadata"]["name"]}
  in the namespace {namespace.name}, on the node {pod["spec"]["nodeName"]}.
  Airflow has no kubeconfig and no credential of that cluster; only the broker has.

  The DAG:   dags/remote_kpo.py
  By hand:   make cluster     (a shell with this cluster; `podbroker serve` there serves it)""")
    return 0


def main() -> int:
    """Sets everything up, runs the DAG, and takes everything down, whatever happened."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="podbroker-demo-")))
        (folder / "dags").mkdir()
        shutil.copy(ROOT / "dags/remote_kpo.py", folder / "dags")
        (folder / "airflow").mkdir()

        site = Site(cluster=Cluster.from_environment(), folder=folder)
        namespace = stack.enter_context(site.namespace(prefix="pb-demo"))
        say(f"the cluster is up; the pods of this demo go to the namespace {namespace.name}")

        brokers = Brokers(site=site, folder=folder)
        stack.callback(brokers.close)
        broker = brokers.start(namespace=namespace, instance="demo", target="demo")
        say(f"the broker serves the target demo at {broker.address}")

        say("starting Airflow: API server, scheduler, DAG processor")
        airflow = stack.enter_context(
            Airflow(folder=folder / "airflow", dags=folder / "dags", broker=broker.address, target="demo")
        )
        run = airflow.trigger(DAG, conf={"image": IMAGE})
        say(f"Airflow runs {DAG}; the log of its task {TASK}:")
        return explain(run, namespace, broker, follow(run))


if __name__ == "__main__":
    try:
        code = main()
    except KeyboardInterrupt:
        say("interrupted; everything is taken down")
        code = 130
    sys.exit(code)
