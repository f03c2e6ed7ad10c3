"""The pages of the operators, whose examples run, and the page of permissions, which says what the role has."""

from __future__ import annotations

import re

import pytest
import scripted as s
import yaml
from batches import JOB, job_attempt, job_end, job_target
from repository import page, place
from versions import DagBag, OutletEventAccessors, TaskDeferred, on_airflow_3

from podbroker import ResultSource
from podbroker.airflow import BatchOperator, RemotePodOperator
from podbroker.airflow.eks import EksPodOperator

PAGES = [place("docs", "operators", name) for name in ("remote-pod.md", "eks-pod.md")]


def examples(pages):
    return [
        pytest.param(text, id=f"{page.stem}-{at}")
        for page in pages
        for at, text in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE))
    ]


EXAMPLES = examples(PAGES)
JOBS = examples([place("docs", "operators", "batch.md"), place("docs", "batch.md")])
KUBERNETES_JOBS = examples([place("docs", "operators", "remote-job.md")])


def read_dag(text, folder):
    path = folder / "dag.py"
    path.write_text(text)
    bag = DagBag(dag_folder=str(path))
    assert bag.import_errors == {}
    (dag,) = bag.dags.values()
    return dag


@on_airflow_3
@pytest.mark.parametrize("text", KUBERNETES_JOBS)
def test_the_kubernetes_jobs_of_an_example_are_submitted(text, tmp_path, client, context, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_PODBROKER_DEFAULT", '{"conn_type": "podbroker", "host": "h"}')
    made = s.attempt(pod_name="", job_name="made-by-the-broker")
    client.made = {"attempts": (made,), "job_json": b'{"metadata": {"name": "made-by-the-broker"}}'}
    dag = read_dag(text, tmp_path)
    for task in dag.tasks:
        if task.deferrable:
            with pytest.raises(TaskDeferred):
                task.execute(context)
        else:
            client.script = [s.end(attempts=(made,))]
            task.execute(context)
        client.known.clear()
    parts, queued = (submit["job"] for submit in client.submits)
    assert parts["spec"]["completionMode"] == "Indexed"
    assert queued["spec"]["suspend"] is True
    assert queued["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-a"


def written_by(operator):
    """What the pod's command writes into the file of its value."""
    (written,) = re.findall(r"echo '([^']*)' > /airflow/xcom/return\.json", " ".join(operator.arguments))
    return written.encode()


@on_airflow_3
@pytest.mark.parametrize("text", EXAMPLES)
def test_the_pods_of_an_example_run(text, tmp_path, client, context, monkeypatch):
    monkeypatch.setenv(
        "AIRFLOW_CONN_PODBROKER_DEFAULT", '{"conn_type": "podbroker", "host": "h", "extra": {"target": "d"}}'
    )
    monkeypatch.setenv("AIRFLOW_CONN_AWS_EKS", '{"conn_type": "aws", "extra": {"role_arn": "arn:aws:iam::1:role/r"}}')
    dag = read_dag(text, tmp_path)
    assert dag.tasks
    for task in dag.tasks:
        mapped = not isinstance(task, RemotePodOperator)
        operator = task.unmap({"arguments": ["a.csv"]}) if mapped else task
        context["outlet_events"] = OutletEventAccessors()
        client.script = [*([s.result(written_by(operator))] if operator.do_xcom_push else []), s.end()]
        expected = {"rows": 3} if operator.do_xcom_push else None
        assert operator.execute(context) == expected
        for asset in operator.outlets:
            assert context["outlet_events"][asset].extra == {"rows": 3}
        submit = client.submits[-1]
        wanted = "remote-kpo-demo" if isinstance(operator, EksPodOperator) else operator.target or "d"
        assert wanted in str(submit["target"])
        containers = submit["pod"]["spec"]["containers"]
        assert {"image": "busybox:1.37"}.items() <= containers[0].items()
        if "beside" in text:
            assert [each["name"] for each in containers] == ["base", "beside"]
            assert containers[0]["resources"] == {"limits": {"memory": "64Mi"}}


@on_airflow_3
@pytest.mark.parametrize("text", JOBS)
def test_the_jobs_of_an_example_run(text, tmp_path, client, monkeypatch):
    monkeypatch.setenv(
        "AIRFLOW_CONN_PODBROKER_DEFAULT", '{"conn_type": "podbroker", "host": "h", "extra": {"target": "d"}}'
    )
    client.places, client.made = (job_target(),), {"attempts": (job_attempt(),)}
    dag = read_dag(text, tmp_path)
    for at, task in enumerate(dag.tasks):
        is_job = isinstance(task, BatchOperator)
        hands_back = task.result_source is ResultSource.TERMINATION_MESSAGE
        client.script = [*([s.result(b'{"rows": 3}')] if hands_back else []), job_end()]
        task.deferrable = False  # how it defers, is tested elsewhere
        if is_job and task.depends_on:
            task.depends_on = [{"jobId": JOB}]  # Airflow would resolve the other task's value
        context = s.make_context(id=str(at))
        assert task.execute(context) == (JOB if is_job else {"rows": 3} if hands_back else None)
        assert ("result" in context["ti"].xcom) is (is_job and hands_back)
        assert client.submits[-1]["target"] == (task.target or "d")
    jobs = {submit["batch"].job_definition: submit["batch"] for submit in client.submits if submit["batch"]}
    assert jobs
    assert set(jobs) <= {"reports:3", "prepare", "parts", "astro-remote-batch"}
    assert "parts" not in jobs or jobs["parts"].array_size == 20


def test_there_are_examples_on_every_page():
    assert all("```python" in page.read_text() for page in PAGES)
    assert len(EXAMPLES) > 3
    assert len(JOBS) > 3


@pytest.mark.parametrize("folder", ["remote", "batch", "jobs"])
def test_the_page_of_permissions_has_every_verb_of_the_role_and_no_other(folder):
    of_pods, _, others = page("rbac.md").partition("\nAt [a Batch target]")
    of_batch, _, of_jobs = others.partition("\nAt [a target that runs Jobs]")
    table = {"remote": of_pods, "batch": of_batch, "jobs": of_jobs}[folder]
    said = set(re.findall(r"^\| `([a-z/]+)` \| `([a-z]+)` \|", table, re.MULTILINE))
    role = yaml.safe_load(place("k8s", folder, "role.yaml").read_text())
    given = {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}
    assert said == given
