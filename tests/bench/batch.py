"""Many jobs of AWS Batch at once: calls of its API, and the delay from a job's end to the trigger of a deferred task.

kwok plays the nodes and the pods, and the double of AWS Batch makes the pods and counts the calls. Ours and the peer
run one after the other on the same double, each with as many jobs of its own, followed by the triggers that the
operators defer to, in a process as a triggerer is. Some pods are then ended at a fixed rate. A job's end is the moment
at which the double itself has seen that of the pod and would say SUCCEEDED.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import podbroker
from bench.batch_triggers import Job, Specification
from bench.identity import PEER
from bench.processes import LIMIT, Driver, Meter, memory
from bench.stage import Stage, say
from bench.tables import bullets, percentile, table
from cluster.identity import REGION, ROLE
from cluster.kwok import PODS, Kwok
from e2e.aws import Aws
from e2e.batch import DEFINITION, QUEUE, Batch
from e2e.waiting import wait_for

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from pathlib import Path

    from e2e.broker import Broker
    from podbroker import Client

TARGET: Final = "bench"
#: What the peer's trigger needs beside its own package; unpacked with it, since the tests need nothing of it.
PEER_NEEDS: Final = ("aiobotocore==3.10.0", "boto3")
#: Seconds between two questions of the peer's operator about a job, as it is by default.
POLL: Final = 30
#: Requests that are open at a time, while jobs are made.
AT_A_TIME: Final = 16


def add_options(group: argparse._ArgumentGroup) -> None:
    """How many."""
    group.add_argument("--batch-jobs", type=int, default=1000, help="live jobs of each kind (default 1000)")
    group.add_argument("--batch-idle-seconds", type=int, default=180, help="without a change (default 180)")
    group.add_argument(
        "--batch-new-seconds", type=int, default=75, help="until nothing is new any more, for the broker (default 75)"
    )
    group.add_argument("--batch-ends", type=int, default=300, help="jobs that end (default 300)")
    group.add_argument("--batch-end-rate", type=float, default=2.0, help="of them in a second (default 2)")
    group.add_argument("--batch-kinds", nargs="+", choices=("ours", "peer"), default=["ours", "peer"], help="of two")


@dataclass(frozen=True, kw_only=True)
class Lane:
    """What one kind has cost."""

    kind: str
    made: dict[str, int]
    """Calls while jobs were made, until nothing was new any more, by operation."""
    rest: dict[str, float]
    """Calls in a minute without a change, by operation."""
    ending: dict[str, int]
    """Calls from the first end until the last was told, by operation."""
    ends: int
    delays: list[float]
    """Seconds, of ends that were told."""
    memory: int
    """Bytes of the process with the triggers."""
    processor: float
    """Share of one processor that it took at rest."""
    broker: str
    """The same of the broker, in words."""
    errors: list[str]

    def row(self, jobs: int) -> list[str]:
        """Cells."""
        delays = [f"{percentile(self.delays, share):.2f}" for share in (0.5, 0.99, 1)] if self.delays else ["-"] * 3
        return [
            _NAMES[self.kind],
            f"{sum(self.rest.values()):.0f}",
            f"{sum(self.made.values()) / jobs:.2f}",
            f"{sum(self.ending.values()) / self.ends:.2f}",
            *delays,
            str(self.ends - len(self.delays)),
            f"{self.memory / 1e6:.0f}",
            f"{self.processor * 100:.1f} %",
        ]


_NAMES: Final = {"ours": "BatchOperator of podbroker", "peer": "BatchOperator of amazon"}


def measure(stage: Stage, options: argparse.Namespace) -> str:
    """Each kind in turn, on one double."""
    jobs, kinds = options.batch_jobs, list(dict.fromkeys(options.batch_kinds))
    (stage.folder / "aws").mkdir()
    aws = Aws(site=stage.site, folder=stage.folder / "aws")
    namespace = stage.namespace_that_stays()
    batch = Batch(aws=aws, namespace=namespace.name)
    batch.register()
    lanes: list[Lane] = []
    absent = ""
    with Kwok(cluster=stage.site.cluster, nodes=-(-jobs * len(kinds) // PODS), folder=stage.folder) as kwok:
        batch.environment["nodes"] = kwok.names
        aws.apply()
        try:
            if "ours" in kinds:
                lanes.append(_ours(stage, batch, options))
            if "peer" in kinds:
                place, absent = _install(stage.folder)
                if not absent:
                    lanes.append(_peer(stage, batch, place, options))
            violations = batch.violations()
        finally:
            aws.call("POST", "/reset")
    head = [
        *("", "calls/min at rest", "calls per job made", "calls per end"),
        *("delay p50 s", "p99 s", "max s", "not told", "memory, MB", "CPU at rest"),
    ]
    rate = options.batch_end_rate
    conditions = [
        ("jobs", f"{jobs:,} of each kind, live at once, in pods that kwok plays; followed by a trigger each"),
        (
            "rest",
            f"{options.batch_idle_seconds} s without a change, {options.batch_new_seconds} s after all were followed",
        ),
        ("calls", "of all operations of AWS Batch, counted by its double"),
        *((f"at rest, {_NAMES[lane.kind]}", _said(lane.rest)) for lane in lanes),
        ("delay", f"of {options.batch_ends} ends at {rate:g}/s: from the job's end in Batch to the trigger's event"),
        ("memory, CPU", "of the process with the triggers, not of the broker, which is:"),
        *(("broker", lane.broker) for lane in lanes if lane.broker),
        ("peer", absent or f"{PEER}, its BatchJobTrigger with the operator's poll_interval of {POLL} s"),
        ("said wrong to the double", "; ".join(violations) or "nothing"),
        *(("error", error) for lane in lanes for error in lane.errors),
    ]
    rows = [lane.row(jobs) for lane in lanes]
    return "\n\n".join(["## Many jobs of AWS Batch", table(head, rows), bullets(*conditions)])


# --- ours -------------------------------------------------------------------------------------------------------------


def _ours(stage: Stage, batch: Batch, options: argparse.Namespace) -> Lane:
    say(f"batch: {options.batch_jobs:,} jobs of ours")
    with stage.brokers() as brokers:
        broker = brokers.prepare(
            namespace=batch.namespace,
            instance="bench-batch",
            target=TARGET,
            kubeconfig=stage.site.user("bench-batch"),
            aws={"credentials": "irsa"},
            limits={"max_watches": 20_000},
        )
        (target,) = broker.config["targets"]
        target |= {"region": REGION, "role_arn": ROLE, "batch": {"queue": QUEUE, "job_definition": DEFINITION}}
        broker.environment |= batch.aws.environment()
        broker.start()
        client = broker.client()

        def make(number: int) -> Job:
            work = podbroker.BatchWorkload(job_definition=DEFINITION)
            made = client.submit(target=TARGET, execution_id=f"job-{number}", batch=work)
            return Job(id="", name=made.execution.name, claim=made.claim)

        def all_run(jobs: list[Job]) -> list[Job]:
            return [dataclasses.replace(job, id=_job_id(client, job.name)) for job in jobs]

        home = _home(stage, broker)
        return _play(stage, batch, options, "ours", make=make, known=all_run, broker=broker, environment=home)


def _job_id(client: Client, name: str) -> str:
    return client.get(name).attempts[-1].batch_job_id


def _home(stage: Stage, broker: Broker) -> dict[str, str]:
    connection = {"conn_type": "podbroker", "host": "127.0.0.1", "port": broker.port, "schema": "http"}
    return {**_surroundings(stage.folder), "AIRFLOW_CONN_PODBROKER_DEFAULT": json.dumps(connection)}


# --- the peer ---------------------------------------------------------------------------------------------------------


def _install(folder: Path) -> tuple[Path, str]:
    """Where the peer is, or why it is not."""
    place = folder / "peer"
    say("unpacking the peer")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"--target={place}"]
    for packages in (PEER_NEEDS, ("--no-deps", PEER)):
        done = subprocess.run([*pip, *packages], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            say(f"no peer: {done.stderr.strip()[-300:]}")
            return place, f"not run, since {' '.join(packages)} could not be installed"
    return place, ""


def _peer(stage: Stage, batch: Batch, place: Path, options: argparse.Namespace) -> Lane:
    say(f"batch: {options.batch_jobs:,} jobs of the peer")
    session = batch.aws.role_session()
    environment = {
        **_surroundings(stage.folder),
        **batch.aws.endpoints,
        "PYTHONPATH": os.pathsep.join([str(place), os.environ["PYTHONPATH"]]),
        "AWS_ACCESS_KEY_ID": session["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": session["SecretAccessKey"],
        "AWS_SESSION_TOKEN": session["SessionToken"],
    }
    client = batch.client

    def make(number: int) -> Job:
        # As its operator does: one call.
        made = client.submit_job(jobName=f"peer-{number}", jobQueue=QUEUE, jobDefinition=DEFINITION)
        return Job(id=made["jobId"])

    return _play(stage, batch, options, "peer", make=make, known=list, broker=None, environment=environment)


def _surroundings(folder: Path) -> dict[str, str]:
    kept = {key: os.environ[key] for key in ("PATH", "LANG", "PYTHONPATH") if key in os.environ}
    return {
        **kept,
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
        "NO_PROXY": "127.0.0.1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


# --- both -------------------------------------------------------------------------------------------------------------


def _play(
    stage: Stage,
    batch: Batch,
    options: argparse.Namespace,
    kind: str,
    *,
    make: Callable[[int], Job],
    known: Callable[[list[Job]], list[Job]],
    broker: Broker | None,
    environment: dict[str, str],
) -> Lane:
    count, ends = options.batch_jobs, min(options.batch_ends, options.batch_jobs)
    before = len(batch.jobs())
    batch.count_anew()
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        made = list(pool.map(make, range(count)))
    say("submitted; waiting for all to run")
    wait_for("all jobs to run", lambda: _running(batch, before) == count, within=LIMIT, every=2)
    jobs = known(made)
    listed = stage.folder / f"{kind}.jobs"
    listed.write_text(json.dumps([dataclasses.asdict(job) for job in jobs]))
    specification = Specification(kind=kind, jobs=str(listed), ends=ends, region=REGION, poll=POLL)
    with Driver(
        json.dumps(dataclasses.asdict(specification)),
        program=[sys.executable, "-m", "bench.batch_triggers"],
        environment=environment,
    ) as triggers:
        triggers.wait_ready()
        say("all are followed; waiting until nothing is new any more")
        time.sleep(options.batch_new_seconds)
        calls = _calls(batch)
        batch.count_anew()
        with Meter(pid=triggers.pid) as meter, Meter(pid=broker.pid if broker else triggers.pid) as ours:
            time.sleep(options.batch_idle_seconds)
        rest = {name: number / meter.seconds * 60 for name, number in _calls(batch).items()}
        used, served = memory(triggers.pid), memory(broker.pid) if broker else None
        say(f"{sum(rest.values()):.0f} calls a minute at rest; {ends} ends")
        batch.count_anew()
        _end(batch, jobs[:ends], rate=options.batch_end_rate)
        wait_for("the ends", lambda: _ended(batch, jobs[:ends]), within=LIMIT, every=1)
        say("all of them have ended; waiting until that is told")
        report = triggers.report()
        ending = _calls(batch)
    stopped = {one["id"]: one["stopped"] for one in batch.jobs() if one["stopped"] is not None}
    delays = [report["ends"][job.id] / 1e9 - stopped[job.id] for job in jobs[:ends] if job.id in report["ends"]]
    broker_words = f"{served['resident'] / 1e6:.0f} MB, {ours.share * 100:.1f} % of one CPU at rest" if served else ""
    return Lane(
        kind=kind,
        made=calls,
        rest=rest,
        ending=ending,
        ends=ends,
        delays=delays,
        memory=used["resident"],
        processor=meter.share,
        broker=broker_words,
        errors=report["errors"],
    )


def _end(batch: Batch, jobs: list[Job], *, rate: float) -> None:
    begin = time.monotonic()
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        asked = []
        for number, job in enumerate(jobs):
            time.sleep(max(0.0, begin + number / rate - time.monotonic()))
            asked.append(pool.submit(batch.aws.call, "POST", "/batch/finish", {"job": job.id}))
    for one in asked:
        one.result()


def _running(batch: Batch, before: int) -> int:
    return sum(one["status"] == "RUNNING" for one in batch.jobs()[before:])


def _ended(batch: Batch, jobs: list[Job]) -> bool:
    stopped = {one["id"] for one in batch.jobs() if one["stopped"] is not None}
    return all(job.id in stopped for job in jobs)


def _calls(batch: Batch) -> dict[str, int]:
    """Calls by operation, however they ended."""
    counted: dict[str, Any] = batch.counts()["operations"]
    return {name: sum(outcomes.values()) for name, outcomes in counted.items()}


def _said(calls: dict[str, float]) -> str:
    return ", ".join(f"{number:.1f} {name}" for name, number in sorted(calls.items())) or "none"
