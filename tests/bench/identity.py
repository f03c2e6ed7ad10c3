"""What the identity chain costs: calls of AWS while executions run, and the time and memory of making a token.

The doubles of AWS count. Sessions live six minutes in place of an hour: the broker renews a session with a third of its
life left, so six minutes are an hour at a tenth of its length, and its intervals are multiplied by ten. What the broker
asks by its own clock, DescribeCluster, is not compressed and is counted as it is.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench.stage import Stage, say
from bench.tables import bullets, table
from cluster.identity import CLUSTER, REGION
from e2e.aws import NAMESPACE, TARGET, WORKLOAD, Aws, shipped_files
from e2e.following import follow
from e2e.manifests import shell
from e2e.site import Namespace
from e2e.waiting import wait_for

if TYPE_CHECKING:
    import argparse

    from e2e.broker import Brokers

#: Seconds that a session lives in place of an hour.
SESSION: Final = 360
COMPRESSION: Final = 3600 / SESSION
#: Seconds until the web identity's session was renewed too: with every second session of the role.
WINDOW: Final = 2 * SESSION * 2 / 3 + 20
#: Hours after which the broker describes a cluster anew without a reason (`TTL` in `identity/eks/cluster.rs`).
DESCRIBED_EVERY: Final = 4
#: The peer's package; unpacked beside the environment, since the tests need nothing of it.
PEER: Final = "apache-airflow-providers-amazon==9.39.0"
ACTIONS: Final = ("GetCallerIdentity", "AssumeRoleWithWebIdentity", "AssumeRole", "DescribeCluster")


def add_options(group: argparse._ArgumentGroup) -> None:
    """How many executions and tokens."""
    group.add_argument(
        "--aws-executions", type=int, default=200, help="pods while AWS's calls are counted (default 200)"
    )
    group.add_argument("--tokens", type=int, default=10, help="token processes of the peer (default 10)")


def measure(stage: Stage, options: argparse.Namespace) -> str:
    """Counts the calls of AWS under load, then makes tokens."""
    (stage.folder / "aws").mkdir()
    aws = Aws(site=stage.site, folder=stage.folder / "aws")
    stage.site.cluster.kubectl("apply", *(f"--filename={file}" for file in shipped_files()))
    namespace = Namespace(site=stage.site, name=NAMESPACE)
    wait_for("the default service account", lambda: stage.site.has_service_account(NAMESPACE))
    try:
        with stage.brokers() as brokers:
            calls = _count(aws, brokers, executions=options.aws_executions)
    finally:
        namespace.clear()
    peer = _peer(aws, stage.folder, times=options.tokens)
    ours = _mint()
    micros = {share: ours[f"{share}_ns"] / 1000 for share in ("p50", "p90", "p99")}
    parts = [
        "## Calls of AWS",
        table(["calls", "in the run", "an hour and target"], calls.rows()),
        "## Making a token",
        table(
            ["", "p50", "p90", "memory"],
            [
                ["the broker, in its own process", f"{micros['p50']:.0f} µs", f"{micros['p90']:.0f} µs", "-"],
                [
                    "eks_get_token, a process for each",
                    _seconds(peer, 0.5),
                    _seconds(peer, 0.9),
                    f"{_megabytes(peer)} MB",
                ],
            ],
        ),
        bullets(
            (
                "executions",
                f"{calls.executions} pods in {calls.seconds:.0f} s, sessions of {SESSION} s in place of an hour",
            ),
            (
                "token",
                f"{ours['tokens']} of 800-character sessions, {ours['build']} build, p99 {micros['p99']:.0f} µs",
            ),
            ("peer's calls", "a DescribeCluster and an AssumeRole for each task, by its source; not counted here"),
            ("peer", f"{PEER}, Python {sys.version.split()[0]}, {len(peer)} processes one after another"),
        ),
    ]
    return "\n\n".join(parts)


@dataclass(frozen=True, kw_only=True)
class _Calls:
    counted: Counter[str]
    times: dict[str, list[float]]
    executions: int
    seconds: float

    def rows(self) -> list[list[str]]:
        """One row for each action; an hour's by the intervals that were seen."""
        hourly = {action: self._hourly(action) for action in ACTIONS}
        rows = [[action, str(self.counted[action]), f"{hourly[action]:.2f}"] for action in ACTIONS]
        total = sum(hourly.values())
        rows.append(["together", str(self.counted.total()), f"{total:.2f}"])
        return rows

    def _hourly(self, action: str) -> float:
        if action == "DescribeCluster":
            return 1 / DESCRIBED_EVERY
        times = self.times[action]
        gaps = [after - before for before, after in itertools.pairwise(times)]
        return 3600 / (statistics.fmean(gaps) * COMPRESSION) if gaps else 0.0


def _count(aws: Aws, brokers: Brokers, *, executions: int) -> _Calls:
    aws.role["lifetime"] = SESSION
    aws.config["roles"][WORKLOAD]["lifetime"] = SESSION
    aws.apply()
    broker = brokers.prepare(namespace=NAMESPACE, instance="bench", targets=[aws.target()], aws={"credentials": "irsa"})
    broker.environment |= aws.environment()
    client = broker.start().client()
    begin = time.monotonic()
    say(f"calls of AWS: {executions} executions within {WINDOW:.0f} s")

    def one(number: int) -> None:
        # Spread over the window, so that each session has its share.
        at = begin + WINDOW * number / executions
        time.sleep(max(0.0, at - time.monotonic()))
        name = client.submit(target=TARGET, execution_id=f"aws-{number}", pod=shell("true")).execution.name
        follow(client, name)
        client.release(name)

    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(one, number) for number in range(executions)]
        for number, done in enumerate(running, start=1):
            done.result()
            if number % 50 == 0:
                say(f"{number} of {executions} executions")
    time.sleep(max(0.0, begin + WINDOW - time.monotonic()))
    # A request that is made now renews what was due.
    list(client.check(TARGET))
    seconds = time.monotonic() - begin
    times = {action: [one["time"] for one in aws.calls(action)] for action in ACTIONS}
    # The check has asked once more who the broker is; nobody else does.
    times["GetCallerIdentity"] = times["GetCallerIdentity"][:1]
    counted = Counter({action: len(found) for action, found in times.items()})
    return _Calls(counted=counted, times=times, executions=executions, seconds=seconds)


def _peer(aws: Aws, folder: Path, *, times: int) -> list[tuple[float, float]]:
    """Seconds and megabytes of each process that makes one token as the peer's kubeconfig does."""
    place = folder / "peer"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run([*pip, f"--target={place}", PEER], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        say(f"no peer: {done.stderr.strip()[-300:]}")
        return []
    session = aws.role_session()
    url = f"https://sts.{REGION}.amazonaws.com/?Action=GetCallerIdentity&Version=2011-06-15"
    command = [sys.executable, "-m", "airflow.providers.amazon.aws.utils.eks_get_token"]
    command += [f"--cluster-name={CLUSTER}", f"--sts-url={url}", f"--region-name={REGION}"]
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(place),
        # As the template of its kubeconfig sets it.
        "PYTHON_OPERATORS_VIRTUAL_ENV_MODE": "1",
        "AIRFLOW_HOME": str(folder),
        "AWS_ACCESS_KEY_ID": session["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": session["SecretAccessKey"],
        "AWS_SESSION_TOKEN": session["SessionToken"],
    }
    samples = []
    for number in range(times):
        begin = time.monotonic()
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            said = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - begin
        assert process.returncode == 0
        assert b"k8s-aws-v1." in said
        # Kibibytes.
        samples.append((seconds, usage.ru_maxrss * 1024 / 1e6))
        say(f"token process {number + 1} of {times}: {seconds:.2f} s")
    return samples


def _mint() -> dict[str, Any]:
    """What the broker's own function takes, by the example that `make bench` builds."""
    program = Path(os.environ["PODBROKER_OUT"]) / "bin/mint"
    answer: dict[str, Any] = json.loads(subprocess.run([program], capture_output=True, check=True).stdout)
    return answer


def _seconds(samples: list[tuple[float, float]], share: float) -> str:
    if not samples:
        return "not run"
    seconds = sorted(seconds for seconds, _ in samples)
    return f"{seconds[min(len(seconds) - 1, int(share * len(seconds)))]:.2f} s"


def _megabytes(samples: list[tuple[float, float]]) -> str:
    return f"{statistics.median(size for _, size in samples):.0f}" if samples else "-"
