"""One DAG of pods and of jobs of AWS Batch, played once by a real Airflow on the real cluster; each test asks of it.

Every kind of task is there in a worker and deferred: `BatchOperator`, and `RemotePodOperator` at a target that makes
jobs of pods. The double of Batch tells what was really submitted, ended and made twice.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from cluster.identity import REGION, ROLE
from e2e.airflow import Airflow
from e2e.aws import Aws
from e2e.batch import ACCOUNT, ARN, ENVIRONMENT, QUEUE, Batch, container
from e2e.broker import TARGET, Brokers
from e2e.installation import DAGS
from e2e.manifests import IMAGE
from e2e.twin import REQUEST
from e2e.waiting import wait_for
from podbroker import ExecutionState, FailureClass

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from e2e.airflow import Run
    from e2e.broker import Broker
    from e2e.site import Namespace, Site
    from podbroker import Client, Execution

pytestmark = pytest.mark.timeout(1800)

JOBS: Final = "batch"
#: As the page has it, for its own example and for the DAG that users get.
PAGES: Final = "remote-batch"
NAMED: Final = "astro-remote-batch"
ROOT: Final = Path(__file__).resolve().parents[2]
ENDED: Final = ("SUCCEEDED", "FAILED")
BOTH: Final = ("", "_deferred")
ENDLESS: Final = [f"endless{kind}{suffix}" for suffix in BOTH for kind in ("", "_translated")]


def both(*tasks: str) -> list[str]:
    """The tasks in a worker, and deferred."""
    return [f"{task}{suffix}" for task in tasks for suffix in BOTH]


@dataclass(kw_only=True)
class Stage:
    """What runs together."""

    airflow: Airflow
    broker: Broker
    batch: Batch
    client: Client


@dataclass(kw_only=True)
class Played:
    """The run, and what was seen while it ran."""

    stage: Stage
    run: Run
    #: By task, when its line was in the log: the task's state, and that of its job.
    when_ready: dict[str, tuple[str, str]] = field(default_factory=dict)
    #: Tasks of which CANCELLED was told while their job was not over.
    told_early: list[str] = field(default_factory=list)

    def executions(self, task: str, *, target: str = JOBS) -> Sequence[Execution]:
        """What a task has started, oldest first."""
        labels = {"run_id": self.run.run, "task_id": task}
        found = self.stage.client.list(target, labels=labels, page_size=100).executions
        return sorted(found, key=lambda one: str(one.create_time))

    def execution(self, task: str) -> Execution:
        """The only one."""
        (found,) = self.executions(task)
        return found

    def job(self, execution: Execution) -> dict[str, Any]:
        """What the double knows of the execution's job."""
        known = {one["id"]: one for one in self.stage.batch.jobs()}
        found: dict[str, Any] = known[execution.attempts[-1].batch_job_id]
        return found

    def lines(self, task: str, attempt: int = 1) -> list[str]:
        """Lines of the task's containers, without the prefix that names them."""
        return self.run.pod_lines(task=task, attempt=attempt)

    def count(self, task: str, text: str, attempt: int = 1) -> int:
        """How often a line is in the task's log."""
        return self.lines(task, attempt).count(text)


@pytest.fixture(scope="module")
def stage(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """An Airflow, a broker with a target for pods and one for jobs, and the double of Batch, in one namespace."""
    if not site.is_own:
        pytest.skip("elsewhere: AWS Batch is a double")
    folder = tmp_path_factory.mktemp("jobs")
    for name in ("aws", "airflow", "dags"):
        (folder / name).mkdir()
    shutil.copy(DAGS / "jobs.py", folder / "dags")
    shutil.copy(ROOT / "dags/batch_on_eks.py", folder / "dags")
    (example,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/batch.md").read_text(), re.MULTILINE | re.DOTALL)
    (folder / "dags/page.py").write_text(example.replace("busybox:1.37", IMAGE))
    aws = Aws(site=site, folder=folder / "aws")
    brokers = Brokers(site=site, folder=folder)
    with site.namespace() as namespace:
        batch = _queues(aws, namespace)
        try:
            broker = _broker(aws, brokers, namespace)
            # What is read of pods that go at once is judged elsewhere: here a triggerer may take a minute to come.
            batch.behave({"delete_after": 300})
            with Airflow(
                folder=folder / "airflow", dags=folder / "dags", broker=broker.address, target=TARGET, triggerers=1
            ) as airflow:
                yield Stage(airflow=airflow, broker=broker, batch=batch, client=broker.client())
                for name in airflow.triggerer_names:
                    print(f"--- {name}\n{airflow.log(name)[-3000:]}")
            print(brokers.show())
        finally:
            brokers.close()
            violations = batch.violations()
            # Takes the pods away before the namespace goes.
            aws.call("POST", "/reset")
        assert not violations


def _queues(aws: Aws, namespace: Namespace) -> Batch:
    """Queues, of which one is shared fairly, and the definitions of the DAGs."""
    batch = Batch(aws=aws, namespace=namespace.name)
    queue = {"account": ACCOUNT, "compute_environments": [ENVIRONMENT]}
    shared = {**queue, "scheduling_policy": f"{ARN}:scheduling-policy/fair"}
    aws.config["batch"]["queues"] |= {f"{REGION}/shared": shared, f"{REGION}/{NAMED}": queue}
    aws.apply()
    for name, called in (("jobs", "main"), (NAMED, "main"), ("pods", "base")):
        pod = {"hostNetwork": False, "containers": [container("true", name=called)]}
        batch.client.register_job_definition(
            jobDefinitionName=name, type="container", eksProperties={"podProperties": pod}
        )
    return batch


def _broker(aws: Aws, brokers: Brokers, namespace: Namespace) -> Broker:
    broker = brokers.prepare(namespace=namespace, aws={"credentials": "irsa"})
    (target,) = broker.config["targets"]
    for name, table in (
        (JOBS, {"queue": QUEUE, "more_queues": ["shared"], "job_definition": "pods"}),
        (PAGES, {"queue": NAMED, "job_definition": NAMED}),
    ):
        more = {"name": name, "region": REGION, "role_arn": ROLE, "batch": {**table, "settle": "3s"}}
        broker.config["targets"].append({**target, **more})
    broker.environment |= aws.environment()
    return broker.start()


@pytest.fixture(scope="module")
def played(stage: Stage) -> Played:
    """The run of the DAG, from its start to its end."""
    played = Played(stage=stage, run=stage.airflow.trigger("jobs"))
    waiting = list(ENDLESS)

    def one_is_ready() -> str | None:
        return next((task for task in waiting if played.count(task, "ready")), None)

    while waiting:
        task = wait_for("a line of a task", one_is_ready, within=600, every=0.2, about=played.run.states) or ""
        waiting.remove(task)
        job = played.job(played.execution(task))
        played.when_ready[task] = (str(played.run.task(task)["state"]), job["status"])
        _kill(played, task)
    played.run.finish(within=900)
    return played


def _kill(played: Played, task: str) -> None:
    """Does what a person does who marks the task failed, and looks until its execution has ended."""
    played.run.set_state(task, "failed")

    def has_ended() -> bool:
        execution = played.execution(task)
        if execution.state.is_final and played.job(execution)["status"] not in ENDED:
            played.told_early.append(task)
        return execution.state.is_final

    wait_for(f"the job of {task} to end", has_ended, within=120)


@pytest.mark.parametrize("task", both("pod", "job", "translated", "retried", "retried_translated", "attempts"))
def test_a_task_succeeds(played: Played, task: str) -> None:
    assert played.run.task(task)["state"] == "success", played.run.printed(task)


@pytest.mark.parametrize("task", both("pod", "job", "translated"))
def test_a_task_has_each_line_once_and_hands_back_its_value(played: Played, task: str) -> None:
    assert [line for line in played.lines(task) if line in {"one", "two"}] == ["one", "two"]
    is_job = task.startswith("job")
    assert played.run.value(task, "result" if is_job else "return_value") == {"rows": 3, "run": played.run.run}
    if is_job:
        assert played.run.value(task) == played.execution(task).attempts[-1].batch_job_id


@pytest.mark.parametrize("task", both("pod", "translated"))
def test_the_name_of_the_pod_is_an_xcom(played: Played, task: str) -> None:
    is_job = task.startswith("translated")
    (execution,) = played.executions(task, target=JOBS if is_job else TARGET)
    name = played.run.value(task, "pod_name")
    assert name == execution.attempts[-1].pod_name
    assert name.startswith("aws-batch.") is is_job


@pytest.mark.parametrize("task", ENDLESS)
def test_a_line_is_in_the_log_before_the_job_has_ended(played: Played, task: str) -> None:
    state, status = played.when_ready[task]
    assert state == ("deferred" if task.endswith("_deferred") else "running")
    assert status not in ENDED


@pytest.mark.parametrize("task", ENDLESS)
def test_killing_a_task_ends_its_job_with_the_reason(played: Played, task: str) -> None:
    execution = played.execution(task)
    assert execution.state is ExecutionState.CANCELLED
    assert execution.outcome is not None
    assert execution.outcome.failure_class is FailureClass.CANCELLED_BY_CALLER
    assert execution.cancel is not None
    job = played.job(execution)
    assert job["is_terminated"]
    assert "The Airflow task was killed" in execution.cancel.reason
    assert execution.cancel.reason in job["reason"]
    assert task not in played.told_early, "CANCELLED was told before the job was over"
    assert played.run.task(task)["state"] == "failed"
    if task.endswith("_deferred"):
        assert [played.count(task, line) for line in ("ready", "told", "bye")] == [1, 1, 1]


@pytest.mark.parametrize("task", both("failing", "failing_translated"))
def test_a_task_that_fails_has_the_exit_code_and_the_last_lines_in_its_error(played: Played, task: str) -> None:
    assert played.run.task(task)["state"] == "failed"
    assert [played.count(task, line) for line in ("reading", "cannot read: no such table")] == [1, 1]
    printed = played.run.printed(task)
    assert "RemotePodFailed" in printed
    assert re.search("APPLICATION.* with exit code 3", printed)
    assert f"Last lines of container {'base' if 'translated' in task else 'main'}:" in printed
    outcome = played.execution(task).outcome
    assert outcome is not None
    assert outcome.exit_code == 3


@pytest.mark.parametrize("task", both("retried", "retried_translated"))
def test_a_task_that_airflow_tries_again_has_a_job_for_each_try(played: Played, task: str) -> None:
    assert [played.count(task, f"try {attempt}", attempt) for attempt in (1, 2)] == [1, 1]
    first, second = played.executions(task)
    assert [first.state, second.state] == [ExecutionState.FAILED, ExecutionState.SUCCEEDED]
    assert len({played.job(one)["id"] for one in (first, second)}) == 2


@pytest.mark.parametrize("task", both("attempts"))
def test_a_job_that_batch_tries_again_is_one_job_with_the_lines_of_both_attempts(played: Played, task: str) -> None:
    assert [line for line in played.lines(task) if line.startswith("attempt ")] == ["attempt 1", "attempt 2"]
    execution = played.execution(task)
    assert [attempt.number for attempt in execution.attempts] == [1, 2]
    assert len({attempt.batch_job_id for attempt in execution.attempts}) == 1
    assert played.run.task(task)["try_number"] == 1


def test_the_children_of_an_array_are_told_apart(played: Played) -> None:
    assert played.run.task("array")["state"] == "success", played.run.printed("array")
    found = [re.fullmatch(r"\[(\d+)/main\] line (\d) of part (\d+)", line) for line in played.run.log("array")]
    lines = [(int(one[1]), int(one[2])) for one in found if one and one[1] == one[3]]
    assert sorted(lines) == [(child, line) for child in range(20) for line in (1, 2, 3)]
    assert len(lines) == sum(one is not None for one in found), "no line has another child's prefix"
    for child in range(20):
        assert [line for of, line in lines if of == child] == [1, 2, 3]


@pytest.mark.parametrize("task", both("job"))
def test_the_links_of_a_job_lead_to_the_console(played: Played, task: str) -> None:
    path = f"dags/jobs/dagRuns/{played.run.run}/taskInstances/{task}/links"
    links = played.stage.airflow.call("GET", path)["extra_links"]
    console = f"https://console.aws.amazon.com/batch/home?region={REGION}#"
    job = played.execution(task).attempts[-1].batch_job_id
    assert links["Batch Job Details"] == f"{console}jobs/detail/{job}"
    assert links["Batch Job Queue"] == f"{console}queues/detail/{ARN}:job-queue/jobs"


def test_what_is_submitted_is_what_boto3_would_submit(played: Played) -> None:
    assert played.run.task("everything")["state"] == "success", played.run.printed("everything")
    batch = played.stage.batch
    theirs = batch.ends(batch.client.submit_job(**REQUEST)["jobId"])
    ours = batch.describe(played.execution("everything").attempts[-1].batch_job_id)
    assert _asked_for(ours) == _asked_for(theirs)
    assert theirs["tags"].items() <= ours["tags"].items()
    assert played.count("everything", "hello of reports") == 1


def _asked_for(job: dict[str, Any]) -> dict[str, Any]:
    """What a description says of the request, without what is the job's own and what the broker adds."""
    own = {"jobArn", "jobId", "jobName", "createdAt", "startedAt", "stoppedAt", "eksAttempts", "eksProperties", "tags"}
    pod = {name: value for name, value in job["eksProperties"]["podProperties"].items() if name not in _OF_THE_POD}
    labels = pod["metadata"]["labels"]
    kept = {name: value for name, value in labels.items() if not name.startswith("podbroker.io/")}
    metadata = {**pod["metadata"], "labels": kept}
    metadata.pop("namespace", None)
    return {**{name: value for name, value in job.items() if name not in own}, "pod": {**pod, "metadata": metadata}}


_OF_THE_POD: Final = {"podName", "nodeName"}


def test_no_job_was_made_twice_and_every_one_belongs_to_a_task(played: Played) -> None:
    executions = played.stage.client.list(JOBS, labels={"run_id": played.run.run}, page_size=1000).executions
    made = [one["id"] for one in played.stage.batch.jobs() if one["name"] != REQUEST["jobName"]]
    of_this_run = {attempt.batch_job_id for one in executions for attempt in one.attempts}
    assert len(executions) == len(of_this_run) == 24
    assert of_this_run <= set(made)
    names = [one["name"] for one in played.stage.batch.jobs()]
    assert len(names) == len(set(names))


def test_the_shipped_dag_runs(stage: Stage) -> None:
    run = stage.airflow.trigger("batch_on_eks", conf={"target": PAGES, "size": 3, "image": IMAGE})

    assert run.finish(within=600) == "success", [run.printed(task) for task in ("one", "array", "pod")]
    assert any(re.fullmatch(r"\[main\] hello from \S+", line) for line in run.log("one"))
    for child in range(3):
        assert run.log("array").count(f"[{child}/main] part {child} of 3") == 1
    assert run.value("pod") == {"parts": 3}


def test_the_example_of_the_page_runs(stage: Stage) -> None:
    run = stage.airflow.trigger("remote_batch")

    assert run.finish(within=600) == "success", [run.printed(task) for task in ("prepare", "report")]
    assert run.value("prepare", "result") == {"parts": 3}
    assert run.value("report") == 3
