"""Every argument of upstream does what it does there, or what is published; none is dropped in silence."""

from __future__ import annotations

import inspect
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import scripted as s
from kubernetes.client import models as k8s
from parity.sources import SOURCE, installed_version
from repository import page

from podbroker import NoticeSeverity
from podbroker.airflow._compat import KubernetesPodOperator
from podbroker.airflow.eks import EksPodOperator
from podbroker.airflow.operator import RemotePodOperator
from podbroker.airflow.parameters import EKS_PARAMETERS, PARAMETERS, Verdict, upstream_defaults

NO_EFFECT = [name for name, parameter in PARAMETERS.items() if parameter.verdict is Verdict.NO_EFFECT]

GIVEN = {
    "in_cluster": True,
    "cluster_context": "context",
    "config_file": "/kube/config",
    "startup_check_interval_seconds": 1,
    "logging_interval": 10,
    "base_container_status_polling_interval": 5,
    "poll_interval": 9,
    "trigger_kwargs": {"a": "b"},
    "xcom_sidecar_container_security_context": {"runAsUser": 1},
}
"""An argument that is not the default, for each that has no effect."""


def submitted(client):
    return client.submits[0]["pod"]


def test_every_argument_of_upstream_is_in_the_table():
    # An older provider has fewer.
    assert set(upstream_defaults()) <= set(PARAMETERS)
    if installed_version() == SOURCE.version:
        assert set(PARAMETERS) == set(upstream_defaults())
        assert len(PARAMETERS) == 73


def test_our_constructor_takes_no_argument_of_upstream_away():
    ours = inspect.signature(RemotePodOperator.__init__).parameters
    for name, parameter in ours.items():
        if name in upstream_defaults() and parameter.default != upstream_defaults()[name]:
            assert PARAMETERS[name].verdict in {Verdict.DIFFERS, Verdict.REFUSED}, name


def test_the_defaults_are_upstreams():
    theirs = KubernetesPodOperator(task_id="task")
    ours = RemotePodOperator(task_id="task")
    for name in PARAMETERS:
        if PARAMETERS[name].verdict in {Verdict.SAME, Verdict.BETTER, Verdict.NO_EFFECT}:
            assert getattr(ours, name, None) == getattr(theirs, name, None), name


@pytest.mark.parametrize("kind", [RemotePodOperator, EksPodOperator])
def test_what_upstream_renders_is_rendered(kind):
    theirs = tuple(KubernetesPodOperator.template_fields)
    assert kind.template_fields[: len(theirs)] == theirs
    assert len(set(kind.template_fields)) == len(kind.template_fields)


def test_every_argument_of_the_eks_operator_is_in_its_table():
    ours = {name for name in inspect.signature(EksPodOperator.__init__).parameters if name not in {"self", "kwargs"}}
    assert ours <= set(EKS_PARAMETERS)
    rest = set(EKS_PARAMETERS) - ours
    assert {name for name in rest if EKS_PARAMETERS[name].verdict is not Verdict.REFUSED} == {"trigger_kwargs"}


def test_what_differs_says_how():
    for name, parameter in {**PARAMETERS, **EKS_PARAMETERS}.items():
        assert parameter.how or parameter.verdict is Verdict.SAME, name


def test_there_is_a_value_for_each_argument_without_effect():
    assert set(GIVEN) == set(NO_EFFECT)


@pytest.mark.parametrize("name", NO_EFFECT)
def test_an_argument_without_effect_is_named(make, client, context, log, name):
    client.script = [s.end()]
    make(**{name: GIVEN[name]}).execute(context)
    assert f"Without effect, because the broker reaches and watches the cluster: {name}" in log.lines


def test_nothing_is_said_of_what_nobody_gave(make, client, context, log):
    client.script = [s.end()]
    make().execute(context)
    assert "Without effect" not in log.text
    assert "overrides" not in log.text


def test_what_nobody_gave_asks_for_nothing(make, client, context):
    client.script = [s.end()]
    make().execute(context)
    # A target of AWS Batch refuses every field that it cannot have, unless it is empty or Kubernetes' own default.
    spec = submitted(client)["spec"]
    assert {name: value for name, value in spec.items() if value} == {
        "containers": spec["containers"],
        "restartPolicy": "Never",
    }
    (container,) = spec["containers"]
    said = {name for name, value in container.items() if value}
    assert said <= {"name", "image", "command", "terminationMessagePolicy"}
    assert container.get("terminationMessagePolicy", "File") == "File"
    assert set(submitted(client)["metadata"]) <= {"annotations", "labels", "name"}


def test_a_subclass_that_overrides_a_step_of_upstream_is_told(client, context, log, monkeypatch):
    class Own(RemotePodOperator):
        def await_pod_start(self, pod):
            raise AssertionError(pod)

        def find_pod(self, namespace, context, **_):
            return super().find_pod(namespace, context)

    monkeypatch.setattr(Own, "log", log)
    client.script = [s.end()]
    Own(task_id="task", target="somewhere").execute(context)
    assert (logging.WARNING, "Own overrides what is never called here: await_pod_start") in log.records


@pytest.mark.parametrize(
    ("arguments", "unknown"),
    [
        ({"container_logs": ["base", "nobody"]}, "nobody"),
        ({"container_logs": "nobody"}, "nobody"),
        ({"init_container_logs": ["nobody"]}, "nobody"),
        ({"container_logs": True, "init_container_logs": True}, None),
        ({"container_logs": "nobody", "get_logs": False}, None),
        ({"init_container_logs": "first", "init_containers": [k8s.V1Container(name="first")]}, None),
    ],
)
def test_a_container_that_the_pod_does_not_have_is_named(make, context, log, arguments, unknown):
    make(**arguments).build_pod_request_obj(context)
    said = [text for level, text in log.records if level == logging.ERROR]
    expected = f"The lines of container {unknown} are asked for, and the pod has no such container"
    assert said == ([expected] if unknown else [])


@pytest.mark.parametrize("wanted", [True, False])
def test_why_a_pod_does_not_run_yet_is_left_out_on_request(make, client, context, log, wanted):
    client.script = [
        s.notice("UNSCHEDULABLE", "0/3 nodes fit", NoticeSeverity.WARNING),
        s.notice("NODE_NOT_READY", "node a does not answer", NoticeSeverity.WARNING),
        s.end(),
    ]
    make(log_events_on_startup=wanted).execute(context)
    assert ("0/3 nodes fit (UNSCHEDULABLE)" in log.lines) is wanted
    assert "node a does not answer (NODE_NOT_READY)" in log.lines


@pytest.mark.parametrize("field", ["namespace", "extra__kubernetes__namespace"])
def test_a_connection_of_kubernetes_says_the_namespace_and_nothing_else(make, client, context, monkeypatch, field):
    extra = {field: "team-a", "kube_config": "secret"}
    monkeypatch.setenv("AIRFLOW_CONN_CLUSTER", json.dumps({"conn_type": "kubernetes", "extra": extra}))
    client.script = [s.end()]
    make(kubernetes_conn_id="cluster").execute(context)
    assert submitted(client)["metadata"]["namespace"] == "team-a"
    assert "secret" not in json.dumps(submitted(client))


def test_an_argument_and_a_spec_win_over_the_connection(make, client, context, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_CLUSTER", '{"conn_type": "kubernetes", "extra": {"namespace": "team-a"}}')
    client.script = [s.end()]
    make(kubernetes_conn_id="cluster", namespace="team-b").execute(context)
    assert submitted(client)["metadata"]["namespace"] == "team-b"
    spec = k8s.V1Pod(metadata=k8s.V1ObjectMeta(namespace="team-c"))
    pod = make(kubernetes_conn_id="cluster", full_pod_spec=spec).build_pod_request_obj(context)
    assert pod.metadata.namespace == "team-c"


@pytest.mark.parametrize("conn_id", ["nowhere", None])
def test_without_a_connection_the_namespace_is_the_targets(make, client, context, conn_id):
    client.script = [s.end()]
    make(kubernetes_conn_id=conn_id).execute(context)
    assert "namespace" not in submitted(client)["metadata"]


def test_the_default_connection_is_not_asked(make, client, context, monkeypatch):
    monkeypatch.setenv(
        "AIRFLOW_CONN_KUBERNETES_DEFAULT", '{"conn_type": "kubernetes", "extra": {"namespace": "other"}}'
    )
    client.script = [s.end()]
    make().execute(context)
    assert "namespace" not in submitted(client)["metadata"]


def test_the_page_is_what_the_table_says(tmp_path):
    if installed_version() != SOURCE.version:
        pytest.skip(f"elsewhere: the page is of {SOURCE.version}")
    expected, written = page("parameters.md"), tmp_path / "parameters.md"
    command = [sys.executable, "-m", "parity.parameters", str(written)]
    paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "AIRFLOW_HOME": str(tmp_path)}
    subprocess.run(command, check=True, env=environment)
    assert expected == written.read_text(), "python -m parity.parameters writes it anew"
