"""The operators for Kubernetes Jobs, from their arguments to the end of the Job, in one process and deferred."""

from __future__ import annotations

import inspect
import json
from datetime import timedelta

import pytest
import scripted as s
from kubernetes.client import models as k8s
from versions import TaskDeferred

from podbroker import FinishAction, InfraRetry, ResultSource
from podbroker.airflow import exceptions as ex
from podbroker.airflow._compat import AirflowException
from podbroker.airflow._compat_jobs import KubernetesJobOperator
from podbroker.airflow.job_manifest import lifetime_of
from podbroker.airflow.job_parameters import JOB_PARAMETERS
from podbroker.airflow.kube_job import RemoteJobOperator, RemoteStartKueueJobOperator

QUEUED, PENDING, RUNNING = s.S.QUEUED, s.S.PENDING, s.S.RUNNING
OWN = "targets/somewhere/executions/dag.task.airflow.0193f000-0000-7000-8000-000000000001"
NAME = "etl-6oqrakotsp5chg2g-1"
JOB = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": NAME, "namespace": "there"},
    "spec": {
        "template": {
            "spec": {"containers": [{"name": "base", "env": [{"name": "PASSWORD", "value": "swordfish"}]}]},
        }
    },
    "status": {"succeeded": 1},
}


def attempt(name: str = NAME):
    return s.attempt(pod_name="", pod_namespace="there", pod_uid="", batch_job_id="", job_name=name)


def made(name: str = NAME):
    """What a submit makes."""
    return {"attempts": (attempt(name),), "job_json": json.dumps(JOB).encode()}


def state(now, **kwargs):
    return s.state(now, attempts=(attempt(),), **kwargs)


def end(outcome=None):
    return s.end(outcome, attempts=(attempt(),))


@pytest.fixture
def job(client, log, monkeypatch):
    """Make an operator for Jobs over the scripted client."""
    monkeypatch.setattr(RemoteJobOperator, "log", log)
    client.made = made()

    def build(kind=RemoteJobOperator, **kwargs):
        given = {"task_id": "task", "target": "somewhere", "image": "busybox:1", "wait_until_job_complete": True}
        return kind(**given | kwargs)

    return build


def submitted(client):
    (request,) = client.submits
    return request


HAPPY = [state(PENDING), state(RUNNING), s.lines("hello", name="x7k2p/base")]


def test_a_job_that_succeeds_gives_its_lines_and_its_names(job, client, context, log):
    client.script = [*HAPPY, end()]
    assert job(name="etl").execute(context) is None
    assert "[x7k2p/base] hello" in log.lines
    xcom = context["ti"].xcom
    assert (xcom["job_name"], xcom["job_namespace"]) == (NAME, "there")
    assert xcom["job"]["status"]["succeeded"] == 1
    assert client.did("release")
    assert client.watched[0]["containers"] == ("base",)


def test_no_value_of_the_environment_becomes_an_xcom(job, client, context):
    client.script = [*HAPPY, end()]
    job().execute(context)
    assert "swordfish" not in str(context["ti"].xcom)
    container = context["ti"].xcom["job"]["spec"]["template"]["spec"]["containers"][0]
    assert container["env"][0]["name"] == "PASSWORD"


def test_the_manifest_is_upstreams(job, client, context):
    client.script = [end()]
    arguments = {
        "name": "etl",
        "cmds": ["sh", "-c", "true"],
        "backoff_limit": 2,
        "completions": 3,
        "parallelism": 2,
        "completion_mode": "Indexed",
        "suspend": True,
        "labels": {"team": "a"},
    }
    job(**arguments).execute(context)
    request = submitted(client)
    assert request["pod"] is None
    assert request["batch"] is None
    assert request["required_features"] == ("job",)
    manifest = request["job"]
    assert (manifest["apiVersion"], manifest["kind"]) == ("batch/v1", "Job")
    assert manifest["metadata"]["name"].startswith("job-etl")
    assert manifest["metadata"]["labels"] == {"team": "a"}
    assert "namespace" not in manifest["metadata"]
    spec = manifest["spec"]
    named = ("backoffLimit", "completions", "parallelism", "completionMode", "suspend")
    assert [spec[name] for name in named] == [2, 3, 2, "Indexed", True]
    pod = spec["template"]
    assert "namespace" not in pod["metadata"]
    assert pod["spec"]["containers"][0]["image"] == "busybox:1"
    assert "ttlSecondsAfterFinished" not in spec


def test_how_it_is_run(job, client, context):
    client.script = [end()]
    job(backoff_limit=0, infra_retry=InfraRetry(), orphan_after=timedelta(hours=1)).execute(context)
    policies = submitted(client)["policies"]
    assert policies.deciding_containers == ("base",)
    assert policies.finish is FinishAction.DELETE
    assert policies.result is ResultSource.NONE
    assert policies.start_deadline is None
    assert (policies.infra_retry, policies.orphan_after) == (InfraRetry(), timedelta(hours=1))


def test_a_spec_without_the_base_container_decides_by_all(job, client, context):
    client.script = [end()]
    pod = k8s.V1PodSpec(containers=[k8s.V1Container(name="other", image="a")])
    template = k8s.V1PodTemplateSpec(metadata=k8s.V1ObjectMeta(), spec=pod)
    spec = k8s.V1Job(metadata=k8s.V1ObjectMeta(name="full"), spec=k8s.V1JobSpec(template=template))
    job(full_job_spec=spec, base_container_name="other", image=None).execute(context)
    assert submitted(client)["policies"].deciding_containers == ("other",)


@pytest.mark.parametrize(
    ("seconds", "ttl", "kept", "sent"),
    [
        (None, None, None, None),
        (None, 300, 300, None),
        (5, None, 60, 60),
        (3600, None, 3600, 3600),
        (100, 300, 300, 300),
        (10**9, None, 30 * 86400, 10**9),
    ],
)
def test_the_cluster_deletes_a_job_no_earlier_than_the_broker_may(seconds, ttl, kept, sent):
    def span(number):
        return None if number is None else timedelta(seconds=number)

    lifetime = lifetime_of(seconds, span(ttl))
    assert (lifetime.ttl, lifetime.seconds) == (span(kept), sent)


def test_the_ttl_is_sent_with_its_policy(job, client, context):
    client.script = [end()]
    job(ttl_seconds_after_finished=10).execute(context)
    request = submitted(client)
    assert request["job"]["spec"]["ttlSecondsAfterFinished"] == 60
    assert request["policies"].ttl == timedelta(minutes=1)


def test_a_pod_that_fails_is_named_with_its_own_last_lines(job, client, context, log):
    containers = (
        s.container("bbbbb/base", exit_code=4, role=s.ContainerRole.DECIDING),
        s.container("aaaaa/base", exit_code=3, role=s.ContainerRole.DECIDING),
    )
    client.script = [
        state(RUNNING),
        s.lines("first try", name="aaaaa/base"),
        s.lines("no such table", name="bbbbb/base"),
        end(s.failed(containers=containers, exit_code=4)),
    ]
    with pytest.raises(ex.RemotePodFailed) as caught:
        job().execute(context)
    assert str(caught.value).startswith(f"Job {NAME} returned a failure.")
    assert "Last lines of container bbbbb/base:\n  no such table" in str(caught.value)
    assert caught.value.exit_code == 4
    assert "Container 'aaaaa/base': exit_code=3, reason='Error', message=''" in log.lines
    assert client.did("release")


def test_a_value_comes_back_from_a_job_of_one_pod(job, client, context):
    client.script = [state(RUNNING), s.result(b'{"rows": 3}'), end()]
    assert job(do_xcom_push=True).execute(context) == {"rows": 3}
    assert submitted(client)["policies"].result is ResultSource.TERMINATION_MESSAGE
    containers = submitted(client)["job"]["spec"]["template"]["spec"]["containers"]
    assert [container["name"] for container in containers] == ["base"]


def test_a_value_may_be_wrapped(job, client, context):
    if "unwrap_single" not in inspect.signature(KubernetesJobOperator.__init__).parameters:
        pytest.skip("the installed provider of Kubernetes has no unwrap_single")
    client.script = [state(RUNNING), s.result(b"3"), end()]
    assert job(do_xcom_push=True, unwrap_single=False).execute(context) == [3]


@pytest.mark.parametrize("more", [{"parallelism": 2}, {"completions": 2}])
def test_a_job_of_several_pods_hands_no_value_back(job, client, context, more):
    with pytest.raises(AirflowException, match="only a Job of one pod"):
        job(do_xcom_push=True, **more).execute(context)
    assert not client.submits


def test_a_task_that_does_not_wait_gives_the_names_as_soon_as_they_are_known(job, client, context, log):
    client.made = made("")
    client.script = [s.state(QUEUED, attempts=(attempt(""),)), state(PENDING)]
    # As the events of the script name it.
    client.known["targets/somewhere/executions/own"] = s.execution(**made())
    assert job(wait_until_job_complete=False).execute(context) is None
    assert context["ti"].xcom["job_name"] == NAME
    assert context["ti"].xcom["job"]["metadata"]["name"] == NAME
    assert not client.did("release")
    assert "Job etl-6oqrakotsp5chg2g-1 is not waited for" in log.text


def test_parallelism_0_is_refused(job, context):
    with pytest.raises(AirflowException, match="parallelism cannot be less than 1"):
        job(parallelism=0).execute(context)


def test_a_task_that_does_not_wait_is_no_orphan(job):
    with pytest.raises(AirflowException, match="orphan_after"):
        job(wait_until_job_complete=False, orphan_after=timedelta(hours=1))


def test_a_kill_ends_the_job(job):
    assert not job().keeps_on_kill


@pytest.mark.skipif(
    "on_kill_propagation_policy" not in inspect.signature(KubernetesJobOperator.__init__).parameters,
    reason="the installed provider of Kubernetes has no on_kill_propagation_policy",
)
def test_a_kill_ends_the_job_unless_its_pods_are_to_stay(job):
    assert not job(on_kill_propagation_policy="Background").keeps_on_kill
    assert job(on_kill_propagation_policy="Orphan").keeps_on_kill


def test_what_has_no_effect_is_said(job, client, context, log):
    client.script = [end()]
    job(job_poll_interval=3, startup_timeout_seconds=7).execute(context)
    (said,) = [line for line in log.lines if line.startswith("Without effect")]
    assert "job_poll_interval" in said
    assert "startup_timeout_seconds" in said
    assert "discover_pods_retry_number" not in said


def test_every_argument_of_upstream_is_in_the_table():
    signature = inspect.signature(KubernetesJobOperator.__init__).parameters.values()
    named = {each.name for each in signature if each.kind is inspect.Parameter.KEYWORD_ONLY}
    assert named <= set(JOB_PARAMETERS)


# Deferred.


def test_a_deferred_job_is_followed_in_the_triggerer_and_settled_by_a_worker(job, client, context, triggerer, log):
    with pytest.raises(TaskDeferred) as caught:
        job(deferrable=True).execute(context)
    deferred = caught.value
    assert context["ti"].xcom["job_name"] == NAME
    assert "swordfish" not in json.dumps(deferred.trigger.serialize()[1])
    assert deferred.trigger.noun == "job"
    client.script = [*HAPPY, end()]
    event = triggerer.run(deferred.trigger)
    client.known[OWN] = s.execution(s.S.SUCCEEDED, outcome=s.succeeded(), id=OWN.rpartition("/")[2], **made())
    client.script = [end()]
    kwargs = json.loads(json.dumps(deferred.kwargs))
    fresh = job(deferrable=True)
    assert fresh.resume_execution(deferred.method_name, {**kwargs, "event": event}, context) is None
    assert [line for line in log.lines if line.startswith("[")] == ["[x7k2p/base] hello"]
    assert context["ti"].xcom["job"]["status"]["succeeded"] == 1
    assert client.did("release") == [(OWN, "claim")]


def test_a_task_that_does_not_wait_does_not_defer(job, client, context):
    client.script = [state(PENDING)]
    assert job(deferrable=True, wait_until_job_complete=False).execute(context) is None


# Kueue.


def test_a_job_for_kueue_is_suspended_and_in_its_queue(job, client, context, log):
    reason = "suspended by Kueue, queue team-a"
    client.script = [state(QUEUED, state_reason=reason), *HAPPY, end()]
    job(RemoteStartKueueJobOperator, queue_name="team-a", labels={"a": "b"}).execute(context)
    manifest = submitted(client)["job"]
    assert manifest["spec"]["suspend"] is True
    assert manifest["metadata"]["labels"] == {"a": "b", "kueue.x-k8s.io/queue-name": "team-a"}
    assert manifest["metadata"]["annotations"] == {"kueue.x-k8s.io/queue-name": "team-a"}
    assert f"Job is QUEUED: {reason}" in log.lines


def test_kueue_decides_when_a_job_runs(job):
    with pytest.raises(AirflowException, match="suspend cannot be False"):
        job(RemoteStartKueueJobOperator, queue_name="team-a", suspend=False)
    assert "queue_name" in RemoteStartKueueJobOperator.template_fields
