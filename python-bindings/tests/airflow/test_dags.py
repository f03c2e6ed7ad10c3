"""Every DAG of the project is read as Airflow reads it."""

from __future__ import annotations

import json
import logging

import pytest
import scripted as s
from batches import JOB, job_attempt, job_end, job_target
from chains import PLACE, ChainBroker, checks
from repository import place
from versions import DagBag, on_airflow_3, set_current_context

from podbroker import ResultSource, TargetPlace
from podbroker.airflow import BatchOperator, EksPodOperator, RemotePodOperator
from podbroker.airflow import exceptions as ex
from podbroker.airflow._compat import AirflowException
from podbroker.airflow.hook import PodbrokerHook

DAGS = sorted(place("dags").glob("*.py"))


pytestmark = on_airflow_3


@pytest.mark.parametrize("path", DAGS, ids=lambda path: path.stem)
def test_airflow_reads_the_dag_and_it_says_how_to_run_it(path):
    bag = DagBag(dag_folder=str(path))
    assert bag.import_errors == {}
    (dag,) = bag.dags.values()
    assert dag.dag_id == path.stem
    assert dag.tasks
    assert f"airflow dags test {path.stem}" in path.read_text()


def test_the_smallest_dag_differs_from_upstreams_by_its_operator_and_its_target():
    dag = dag_of("remote_kpo")
    (task,) = dag.tasks
    assert isinstance(task, RemotePodOperator)
    assert task.do_xcom_push
    assert set(dag.params) == {"image", "target"}


def dag_of(name):
    (path,) = [path for path in DAGS if path.stem == name]
    (dag,) = DagBag(dag_folder=str(path)).dags.values()
    return dag


def test_the_eks_dag_has_the_operator_with_the_constructor_of_amazons():
    (task,) = dag_of("eks_pod").tasks
    assert isinstance(task, EksPodOperator)
    assert task.name == "eks-pod"
    assert task.aws_conn_id == "aws_eks"


def test_the_batch_dag_runs_a_job_an_array_and_a_pod(client, monkeypatch):
    monkeypatch.setenv(
        "AIRFLOW_CONN_PODBROKER_DEFAULT", '{"conn_type": "podbroker", "host": "h", "extra": {"target": "batch"}}'
    )
    client.places, client.made = (job_target(),), {"attempts": (job_attempt(),)}
    dag = dag_of("batch_on_eks")
    assert [task.task_id for task in dag.tasks] == ["one", "array", "pod"]
    params = {name: dag.params[name] for name in dag.params} | {"image": "busybox:1"}
    for at, task in enumerate(dag.tasks):
        is_job = isinstance(task, BatchOperator)
        assert task.deferrable is (task.task_id == "array")
        task.deferrable = False
        task.render_template_fields({"params": params})
        client.script = [job_end()] if is_job else [s.result(b'{"parts": 4}'), job_end()]
        assert task.execute(s.make_context(id=str(at))) == (JOB if is_job else {"parts": 4})
    one, array = (submit["batch"] for submit in client.submits[:2])
    assert {submit["target"] for submit in client.submits} == {"batch"}
    assert (one.job_definition, one.job_queue, one.array_size) == ("astro-remote-batch", "", None)
    assert (array.array_size, array.attempts) == (4, 2)
    (container,) = array.eks_properties_override["podProperties"]["containers"]
    assert container["args"] == ["echo part $AWS_BATCH_JOB_ARRAY_INDEX of 4"]
    pod = client.submits[2]
    assert pod["policies"].result is ResultSource.TERMINATION_MESSAGE
    (base,) = pod["pod"]["spec"]["containers"]
    assert (base["name"], base["image"]) == ("main", "busybox:1")
    assert '{"parts": 4}' in base["args"][0]


@pytest.fixture
def walk(monkeypatch, caplog):
    """Run the first task of the connectivity DAG over a chain; give its value and its log."""
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("AIRFLOW_CONN_PODBROKER_DEFAULT", '{"conn_type": "podbroker", "host": "h"}')
    extra = {"region_name": PLACE.region, "role_arn": PLACE.role_arn}
    monkeypatch.setenv("AIRFLOW_CONN_AWS_EKS", json.dumps({"conn_type": "aws", "password": "s3cr3t", "extra": extra}))
    task = dag_of("test_eks_connectivity").get_task("walk_the_chain")

    def run(broker, **params):
        monkeypatch.setattr(PodbrokerHook, "conn", broker)
        defaults = {name: task.dag.params[name] for name in task.dag.params}
        with set_current_context(s.make_context() | {"params": defaults | params}):
            return task.python_callable(), caplog.messages

    return run


def test_the_connectivity_dag_shows_the_chain_and_hands_on_the_target(walk):
    broker = ChainBroker(*checks())
    target, lines = walk(broker, target="remote-kpo")
    assert target == "remote-kpo"
    assert broker.checked == ["remote-kpo"]
    assert [line.split(" ok ")[0].strip("┌─ ") for line in lines if line.startswith("┌")] == [
        "Airflow task",
        "podbroker",
        "workload identity",
        "role",
        "cluster",
        "Kubernetes user",
        "permissions",
        "pod",
    ]
    assert any("task dag.task, connection podbroker_default: https://h:50051" in line for line in lines)
    assert lines[-1] == "A pod can run at remote-kpo"


def test_the_connectivity_dag_takes_a_cluster_and_the_role_of_the_connection(walk):
    broker = ChainBroker(*checks())
    target, lines = walk(broker, cluster=PLACE.cluster, namespace=PLACE.namespace)
    assert broker.checked == [PLACE]
    assert TargetPlace(**target) == PLACE
    assert "s3cr3t" not in "\n".join(lines)


def test_the_connectivity_dag_fails_at_the_first_broken_link_after_the_picture(walk, caplog):
    with pytest.raises(ex.RemotePodChainBroken, match=r"^role failed: .* Fix: let the trust policy"):
        walk(ChainBroker(*checks("role")), target="remote-kpo")
    assert any(line.startswith("┌─ role ") and " FAILED " in line for line in caplog.messages)


def test_the_connectivity_dag_fails_without_a_target(walk):
    with pytest.raises(AirflowException, match="No target"):
        walk(ChainBroker())


def test_the_pod_of_the_connectivity_dag_runs_after_the_walk_at_its_target():
    dag = dag_of("test_eks_connectivity")
    pod = dag.get_task("run_a_pod")
    assert isinstance(pod, RemotePodOperator)
    assert pod.upstream_task_ids == {"walk_the_chain"}
