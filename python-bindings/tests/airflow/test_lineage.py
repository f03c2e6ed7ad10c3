"""What OpenLineage is told, and that nothing is spent where it is not installed."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import uuid

import pytest
import scripted as s
from kubernetes.client import models as k8s
from versions import TaskDeferred

from podbroker import FailureClass
from podbroker.airflow import exceptions as ex
from podbroker.airflow.eks import EksPodOperator
from podbroker.airflow.operator import RemotePodOperator

SECRET = "s3same"


@pytest.fixture
def told():
    """Ask as OpenLineage's provider does, and give the facets as it sends them."""
    if importlib.util.find_spec("airflow.providers.openlineage") is None:
        pytest.skip("the provider of OpenLineage is not installed beside this Airflow")
    from airflow.providers.openlineage.extractors.base import DefaultExtractor
    from openlineage.client.event_v2 import Job, Run
    from openlineage.client.serde import Serde

    def ask(operator, how="extract"):
        extractor = DefaultExtractor(operator)
        said = extractor.extract() if how == "extract" else getattr(extractor, how)(None)
        assert said.inputs == said.outputs == [], "those that the task declares count then"
        parts = {
            "run": Run(runId=str(uuid.uuid4()), facets=said.run_facets),
            "job": Job(namespace="airflow", name="dag.task", facets=said.job_facets),
        }
        # It leaves out what is null.
        return {name: json.loads(Serde.to_json(part)).get("facets", {}) for name, part in parts.items()}

    return ask


def said_of(facet):
    """What a facet says, without what all facets have."""
    return {name: value for name, value in facet.items() if not name.startswith("_")}


POD = {
    "target": "somewhere",
    "image": "busybox:1",
    "baseContainer": "base",
    "connection": "podbroker_default",
}


def test_at_the_start_it_is_told_where_and_with_what(make, client, told):
    facets = told(make())
    assert said_of(facets["job"]["podbroker_pod"]) == POD
    assert facets["run"] == {}
    assert not client.calls


@pytest.fixture(params=["worker", "triggerer"])
def ended(request, make, client, context, triggerer):
    """The operator of a task that has ended, as its last process has it."""
    operator = make(deferrable=request.param == "triggerer")
    client.script = [s.state(s.S.RUNNING), s.end()]
    if request.param == "worker":
        operator.execute(context)
        return operator
    with pytest.raises(TaskDeferred) as caught:
        operator.execute(context)
    event = triggerer.run(caught.value.trigger)
    client.script = [s.state(s.S.RUNNING), s.end()]
    operator = make(deferrable=True)
    operator.resume_execution(caught.value.method_name, {**caught.value.kwargs, "event": event}, context)
    return operator


def test_at_the_end_it_is_told_of_the_execution(client, told, ended):
    asked = len(client.calls)
    facets = told(ended, "extract_on_complete")
    assert len(client.calls) == asked, "it asks in a fork, and nobody is asked for it"
    name = "targets/somewhere/executions/own"
    assert said_of(facets["run"]["externalQuery"]) == {"externalQueryId": name, "source": "podbroker"}
    assert said_of(facets["run"]["podbroker_execution"]) == {
        "execution": name,
        "target": "somewhere",
        "state": "SUCCEEDED",
        "podName": "pod-1",
        "podNamespace": "there",
        "podUid": "u",
        "attempts": 1,
        "exitCode": 0,
    }
    assert said_of(facets["job"]["podbroker_pod"]) == POD


def test_of_a_failure_it_is_told_the_class_and_no_word_of_the_pod(make, client, context, told):
    client.script = [
        s.state(s.S.RUNNING),
        s.lines(f"the password is {SECRET}"),
        s.end(s.failed(FailureClass.OUT_OF_MEMORY, exit_code=137, message=SECRET)),
    ]
    operator = make(env_vars={"PASSWORD": SECRET}, arguments=[SECRET], labels={"a": SECRET}, annotations={"a": SECRET})
    with pytest.raises(ex.RemotePodOutOfMemory):
        operator.execute(context)
    facets = told(operator, "extract_on_failure")
    execution = facets["run"]["podbroker_execution"]
    assert (execution["state"], execution["failureClass"], execution["exitCode"]) == ("FAILED", "OUT_OF_MEMORY", 137)
    assert SECRET not in json.dumps(facets)


def test_what_ended_before_there_was_an_execution_is_told_too(make, told):
    assert told(make(), "extract_on_failure")["run"] == {}


def test_the_image_is_that_of_the_manifest(make, context, told):
    spec = k8s.V1Pod(spec=k8s.V1PodSpec(containers=[k8s.V1Container(name="base", image="trainer:2")]))
    operator = make(image=None, full_pod_spec=spec)
    operator.pod_request_obj = operator.build_pod_request_obj(context)
    assert told(operator)["job"]["podbroker_pod"]["image"] == "trainer:2"


def test_an_eks_cluster_is_named_without_asking_for_its_connection(told):
    operator = EksPodOperator(task_id="task", cluster_name="demo", region="us-east-1", namespace="team", image="i")
    pod = told(operator)["job"]["podbroker_pod"]
    assert pod["target"] == "cluster demo, region us-east-1, namespace team"


def test_the_facets_have_what_the_specification_asks_of_every_facet(make, client, context, told):
    client.script = [s.end()]
    operator = make()
    operator.execute(context)
    facets = told(operator, "extract_on_complete")
    for facet in (*facets["run"].values(), *facets["job"].values()):
        assert facet["_producer"].startswith("https://")
        assert facet["_schemaURL"].startswith("https://openlineage.io/spec/")


def test_where_it_is_not_installed_nothing_is_said_and_nothing_imported(monkeypatch):
    monkeypatch.setattr("podbroker.airflow.operator.find_spec", lambda _: None)
    operator = RemotePodOperator(task_id="task", target="somewhere")
    assert operator.get_openlineage_facets_on_start() is None
    assert operator.get_openlineage_facets_on_complete(None) is None
    assert operator.get_openlineage_facets_on_failure(None) is None


def test_a_dag_file_costs_no_import_of_it():
    program = "import sys; from podbroker.airflow import RemotePodOperator as R; R(task_id='t', target='x')"
    program += "; print('podbroker.airflow.lineage' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
