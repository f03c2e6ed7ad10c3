"""The main job, shown: Airflow tasks that are pods in a cluster for which Airflow holds no credential.

Run by `make demo`, which starts the cluster around it. Airflow, the broker, the cluster and the verifier of EKS tokens
are real; STS and EKS are doubles that check signatures and trust. First `test_eks_connectivity` walks the chain and
draws it, then `remote_kpo` runs a pod, its lines in the task log. On a cluster of the user's own the broker uses the
kubeconfig that was given, and the chain is that much shorter.
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
from e2e.site import Namespace, Site
from e2e.waiting import wait_for

if TYPE_CHECKING:
    from e2e.broker import Broker

ROOT: Final = Path(__file__).resolve().parents[2]
#: What is run, in this order: the DAG, the tasks whose logs are shown, the last of them the pod's.
CONNECTIVITY: Final = ("test_eks_connectivity", ("walk_the_chain", "run_a_pod"))
REMOTE_KPO: Final = ("remote_kpo", ("remote_pod",))
TARGET: Final = "demo"
#: Seconds for the run; the first pull of an image on a cluster of the user's own may be slow.
LIMIT: Final = 300.0

_BEGIN: Final = time.monotonic()


def say(text: str) -> None:
    """One line, with the seconds since the start."""
    print(f"[{time.monotonic() - _BEGIN:5.1f} s] {text}", flush=True)


def follow(run: Run, tasks: tuple[str, ...]) -> str:
    """Prints the tasks' logs as they grow; returns how the run ended."""
    shown = dict.fromkeys(tasks, 0)
    deadline = time.monotonic() + LIMIT
    while True:
        state = run.state
        for task in tasks:
            lines = run.log(task)
            for line in lines[shown[task] :]:
                if not line.startswith("::"):
                    print(f"    {task} | {line}", flush=True)
            shown[task] = len(lines)
        if state in FINAL:
            return state
        if time.monotonic() > deadline:
            return f"{state}, {LIMIT:.0f} s after its start"
        time.sleep(0.2)


def show(airflow: Airflow, dag: str, tasks: tuple[str, ...], broker: Broker) -> Run | None:
    """Runs a DAG and shows what its tasks log; nothing when it failed."""
    run = airflow.trigger(dag, conf={"image": IMAGE})
    say(f"Airflow runs {dag}; the logs of its tasks:")
    state = follow(run, tasks)
    say(f"the run ended as {state}")
    if state == "success":
        return run
    print(broker.log[-4000:])
    return None


def explain(run: Run, namespace: Namespace, broker: Broker, way: str) -> None:
    """Says what was shown, with what the cluster itself says about it."""
    name = run.value(REMOTE_KPO[1][-1], key="pod_name")
    pod = next(pod for pod in namespace.pods if pod["metadata"]["name"] == name)
    say(f"its XCom value is {run.value(REMOTE_KPO[1][-1])}")
    print(f"""
What you have seen
  Airflow's scheduler ran each task in a process of its own. The tasks asked the broker at {broker.address}
  for pods at the target "{TARGET}" and followed them: the lines above came from the containers as they wrote them,
  and the value came out of the file /airflow/xcom/return.json.
  {way}
  The last pod was {name}
  in the namespace {namespace.name}, on the node {pod["spec"]["nodeName"]}.
  Airflow has no kubeconfig, no AWS key and no credential of that cluster; only the broker has.

  The DAGs:  dags/test_eks_connectivity.py, dags/remote_kpo.py
  By hand:   make cluster     (a shell with this cluster; `podbroker serve` there serves it)""")


def eks(site: Site, folder: Path, stack: contextlib.ExitStack, brokers: Brokers) -> tuple[Namespace, Broker, str]:
    """A broker that reaches the cluster over the whole chain: web identity, role, EKS token, Kubernetes user, role."""
    from e2e.aws import NAMESPACE, Aws, shipped_files

    (folder / "aws").mkdir()
    aws = Aws(site=site, folder=folder / "aws")
    site.cluster.kubectl("apply", *(f"--filename={file}" for file in shipped_files()))
    namespace = Namespace(site=site, name=NAMESPACE)
    wait_for("the default service account", lambda: site.has_service_account(NAMESPACE))
    stack.callback(namespace.clear)
    target = aws.target() | {"name": TARGET}
    broker = brokers.prepare(namespace=NAMESPACE, instance="demo", targets=[target], aws={"credentials": "irsa"})
    broker.environment |= aws.environment()
    way = (
        "The broker proved its web identity, assumed the role AstroRemoteKPO, signed EKS tokens, and was the\n"
        "  Kubernetes user of k8s/remote/role-binding.yaml, with the role beside it and no right more."
    )
    return namespace, broker.start(), way


def kubeconfig(site: Site, stack: contextlib.ExitStack, brokers: Brokers) -> tuple[Namespace, Broker, str]:
    """A broker that reaches the user's own cluster."""
    namespace = stack.enter_context(site.namespace(prefix="pb-demo"))
    broker = brokers.start(namespace=namespace, instance="demo", target=TARGET)
    return namespace, broker, "The broker used the kubeconfig that was given."


def main() -> int:
    """Sets everything up, runs the DAG, and takes everything down, whatever happened."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="podbroker-demo-")))
        (folder / "dags").mkdir()
        for dag, _ in (CONNECTIVITY, REMOTE_KPO):
            shutil.copy(ROOT / f"dags/{dag}.py", folder / "dags")
        (folder / "airflow").mkdir()

        site = Site(cluster=Cluster.from_environment(), folder=folder)
        brokers = Brokers(site=site, folder=folder)
        stack.callback(brokers.close)
        namespace, broker, way = eks(site, folder, stack, brokers) if site.is_own else kubeconfig(site, stack, brokers)
        say(f"the broker at {broker.address} serves the target {TARGET}: the namespace {namespace.name}")

        say("starting Airflow: API server, scheduler, DAG processor")
        airflow = stack.enter_context(
            Airflow(folder=folder / "airflow", dags=folder / "dags", broker=broker.address, target=TARGET)
        )
        if show(airflow, *CONNECTIVITY, broker) is None:
            return 1
        run = show(airflow, *REMOTE_KPO, broker)
        if run is None:
            return 1
        explain(run, namespace, broker, way)
        return 0


if __name__ == "__main__":
    try:
        code = main()
    except KeyboardInterrupt:
        say("interrupted; everything is taken down")
        code = 130
    sys.exit(code)
