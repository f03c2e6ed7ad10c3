"""The callbacks of upstream over our stream, and the client that they get."""

from __future__ import annotations

import pytest
import scripted as s
from airflow.providers.cncf.kubernetes.callbacks import KubernetesPodOperatorCallback

from podbroker.airflow._compat import AirflowException, PodNotFoundException
from podbroker.airflow.pods import PodClient


@pytest.fixture
def heard():
    return []


@pytest.fixture
def listener(heard):
    names = [name for name in vars(KubernetesPodOperatorCallback) if name.startswith("on_")]

    def hear(name):
        return staticmethod(lambda **kwargs: heard.append((name, kwargs)))

    methods = {name: hear(name) for name in [*names, "progress_callback"]}
    return type("Listener", (KubernetesPodOperatorCallback,), methods)


def test_the_callbacks_come_in_upstreams_order(make, client, context, listener, heard):
    client.script = [s.state(s.S.PENDING), s.state(s.S.RUNNING), s.lines("hello"), s.end()]
    make(callbacks=listener).execute(context)
    assert [name for name, _ in heard] == [
        "on_sync_client_creation",
        "on_pod_manifest_created",
        "on_pod_creation",
        "on_pod_starting",
        "progress_callback",
        "on_pod_completion",
        "on_pod_teardown",
        "on_pod_cleanup",
    ]
    by_name = dict(heard)
    assert by_name["on_pod_creation"]["pod"].metadata.name == "pod-1"
    progress = by_name["progress_callback"]
    assert (progress["line"], progress["container_name"]) == ("hello", "base")
    assert progress["timestamp"].timestamp() == 1.0


def test_a_pod_that_never_started_has_no_start(make, client, context, listener, heard):
    client.script = [s.end(s.failed(s.FailureClass.IMAGE_PULL, exit_code=None), start_time=None)]
    with pytest.raises(AirflowException):
        make(callbacks=[listener]).execute(context)
    assert "on_pod_starting" not in [name for name, _ in heard]


def test_progress_callback_gets_each_line(make, client, context):
    seen = []
    client.script = [s.lines("a", "b"), s.end()]
    make(progress_callback=seen.append).execute(context)
    assert seen == ["a", "b"]


def test_without_callbacks_the_pod_is_not_read(make, client, context):
    client.script = [s.end()]
    make().execute(context)
    assert not client.did("get")


def test_the_client_reads_lists_and_deletes_the_pod_and_refuses_the_rest(make, client, context):
    client.script = [s.end()]
    operator = make()
    operator.execute(context)
    pods = operator.client
    assert isinstance(pods, PodClient)
    assert pods.read_namespaced_pod("pod-1", "there").metadata.name == "pod-1"
    assert [pod.metadata.name for pod in pods.list_namespaced_pod("there", label_selector="x").items] == ["pod-1"]
    assert operator.find_pod("there", context, exclude_checked=False).metadata.uid == "u"
    with pytest.raises(PodNotFoundException):
        pods.read_namespaced_pod("another", "there")
    with pytest.raises(AirflowException, match="create_namespaced_pod is not available"):
        pods.create_namespaced_pod(body={})
    pods.delete_namespaced_pod("pod-1", "there")
    assert client.did("cancel")
