"""The callbacks of upstream over our stream, and the client that they get."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone

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


@pytest.fixture
def pods(make, client, context):
    """The client of a task that has ended."""
    client.script = [s.end()]
    operator = make()
    operator.execute(context)
    return operator.client


def test_the_client_reads_the_log_so_far(pods, client):
    client.log = [
        s.state(s.S.RUNNING),
        s.lines("one", s.line("tw", partial=True), s.line("o", continues=True)),
        s.lines("of another", name="side"),
        s.gap(message="rotated away"),
        s.lines("three"),
    ]
    log = pods.read_namespaced_pod_log("pod-1", "there")
    assert log == "one\ntwo\n[podbroker: lines are missing here: rotated away]\nthree\n"
    asked = client.watched[-1]
    assert (asked["containers"], asked["follow"], asked["since"]) == (("base",), False, None)
    assert pods.read_namespaced_pod_log("pod-1", "there", container="side") == "of another\n"


def test_the_log_may_be_cut(pods, client):
    client.log = [s.lines("one", "two")]
    pods.read_namespaced_pod_log("pod-1", "there", tail_lines=2, since_seconds=60)
    asked = client.watched[-1]
    assert asked["tail_lines"] == 2
    assert 59 < (datetime.now(tz=timezone.utc) - asked["since"]).total_seconds() < 70
    assert pods.read_namespaced_pod_log("pod-1", "there", limit_bytes=5) == "one\nt"
    dated = pods.read_namespaced_pod_log("pod-1", "there", timestamps=True)
    assert dated.splitlines()[0] == "1970-01-01T00:00:01+00:00 one"


def test_the_log_is_of_the_containers_latest_start(pods, client):
    again = replace(s.lines("second start"), instance=replace(s.instance(), restart=1))
    client.log = [s.lines("first start"), again]
    assert pods.read_namespaced_pod_log("pod-1", "there") == "second start\n"


@pytest.mark.parametrize("what", [{"follow": True}, {"previous": True}, {"_preload_content": False}])
def test_what_a_log_cannot_be_read_with_is_refused(pods, what):
    with pytest.raises(AirflowException, match=f"takes no {next(iter(what))}"):
        pods.read_namespaced_pod_log("pod-1", "there", **what)


def test_the_log_of_another_pod_is_not_read(pods):
    with pytest.raises(PodNotFoundException):
        pods.read_namespaced_pod_log("another", "there")


def test_lines_that_do_not_arrive_are_not_waited_for_without_end(pods, client, monkeypatch):
    monkeypatch.setattr("podbroker.airflow.pods.LOG_SECONDS", 0.05)
    monkeypatch.setattr(client, "watch", lambda *_, **__: s.FakeWatch([s.lines("one")]))
    with pytest.raises(AirflowException, match="did not arrive within"):
        pods.read_namespaced_pod_log("pod-1", "there")


def test_labels_are_said_to_be_fixed(pods):
    with pytest.raises(AirflowException, match="on_pod_manifest_created"):
        pods.patch_namespaced_pod("pod-1", "there", {"metadata": {"labels": {"a": "b"}}})


def test_before_there_is_an_execution_there_is_no_pod(make):
    assert make().client.list_namespaced_pod("there").items == []
    with pytest.raises(PodNotFoundException):
        make().client.read_namespaced_pod_log("pod-1", "there")
