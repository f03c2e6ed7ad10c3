"""The double of AWS Batch refuses, forgets and lags on command, and keeps the truth for the test that asks."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any, Final

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError

from aws.server import Doubles
from aws.state import State
from cluster.identity import REGION
from e2e.aws import WORKLOAD
from e2e.batch import DEFINITION, QUEUE, USER, container
from e2e.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from e2e.batch import Batch
    from e2e.site import Namespace

#: Seconds that answers lag behind: longer than any single call takes, short enough to wait for.
LAG: Final = 4.0


def code(error: pytest.ExceptionInfo[ClientError]) -> tuple[str, int]:
    answer = error.value.response
    return answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]


def listed(batch: Batch, name: str, **more: Any) -> list[str]:  # noqa: ANN401  parameters of ListJobs
    filters = [{"name": "JOB_NAME", "values": [name]}]
    found = batch.client.list_jobs(jobQueue=QUEUE, filters=filters, **more)["jobSummaryList"]
    return [one["jobId"] for one in found]


def test_calls_are_throttled_all_or_above_a_rate(batch: Batch) -> None:
    batch.throttle(action="DescribeJobs", times=1)
    with pytest.raises(ClientError) as error:
        batch.client.describe_jobs(jobs=["x"])
    assert code(error) == ("TooManyRequestsException", 429)
    batch.client.describe_jobs(jobs=["x"])

    batch.throttle(rate=5)
    batch.count_anew()
    begin = time.monotonic()
    refused = 0
    for _ in range(20):
        try:
            batch.client.describe_jobs(jobs=["x"])
        except ClientError:
            refused += 1
    passed, seconds = 20 - refused, time.monotonic() - begin
    assert 5 <= passed <= 5 + 5 * seconds + 1
    counts = batch.counts()
    assert counts["operations"] == {"DescribeJobs": {"OK": passed, "Throttling": refused}}
    assert counts["total"] == sum(found["DescribeJobs"] for found in counts["seconds"].values()) == 20


def test_a_lost_answer_leaves_a_job_behind_and_a_lost_request_none(batch: Batch) -> None:
    batch.behave({"hold": {"state": "RUNNABLE"}})
    batch.register()
    for kind, jobs in (("reset", 0), ("lost_answer", 1)):
        batch.aws.faults({"service": "batch", "action": "SubmitJob", "kind": kind, "times": 1})
        with pytest.raises(ConnectionClosedError):
            batch.submit(kind)
        assert len(batch.jobs(kind)) == len(listed(batch, kind)) == jobs
    batch.submit("lost_answer")
    assert [one["status"] for one in batch.jobs("lost_*")] == ["RUNNABLE", "RUNNABLE"]
    assert batch.counts()["operations"]["SubmitJob"] == {"reset": 1, "lost_answer": 1, "OK": 1}


def test_a_new_job_is_not_described_at_once(batch: Batch) -> None:
    batch.behave({"invisible": LAG})
    batch.register("sleep 100")
    job = batch.submit("new")
    assert batch.client.describe_jobs(jobs=[job])["jobs"] == []
    assert [one["id"] for one in batch.jobs("new")] == [job]
    wait_for("the job to be seen", lambda: batch.client.describe_jobs(jobs=[job])["jobs"])


def test_lists_lag_behind(batch: Batch) -> None:
    batch.behave({"list_delay": LAG})
    batch.register("sleep 100")
    job = batch.submit("stale")
    assert listed(batch, "stale") == []
    batch.reaches(job, "RUNNING")
    wait_for("the job to be listed", lambda: listed(batch, "stale") == [job])
    wait_for("it to be listed as running", lambda: batch.client.list_jobs(jobQueue=QUEUE)["jobSummaryList"])
    batch.client.terminate_job(jobId=job, reason="done")
    assert batch.describe(job)["isTerminated"]
    (one,) = batch.client.list_jobs(jobQueue=QUEUE)["jobSummaryList"]
    assert (one["status"], one["isTerminated"]) == ("RUNNING", False)


def test_descriptions_lag_behind_the_pod(batch: Batch, namespace: Namespace) -> None:
    batch.behave({"describe_delay": LAG, "delete_after": None})
    job = batch.run("true")
    wait_for("the pod's end", lambda: [pod["status"]["phase"] for pod in namespace.pods] == ["Succeeded"])
    (truth,) = wait_for("the truth", lambda: [one for one in batch.jobs() if one["status"] == "SUCCEEDED"])
    if time.time() < truth["created"] + LAG:
        assert batch.describe(job)["status"] == "SUBMITTED"
    assert batch.ends(job)["status"] == "SUCCEEDED"
    assert time.time() >= truth["stopped"] + LAG


def test_lists_are_filtered_and_come_in_pages(batch: Batch) -> None:
    batch.behave({"hold": {"state": "RUNNABLE"}})
    batch.register()
    names = ["nightly-1", "Nightly-2", "nightly-3", "other"]
    jobs = {name: batch.submit(name) for name in names}
    assert listed(batch, "NIGHTLY-1") == [jobs["nightly-1"]]
    assert listed(batch, "nightly") == []
    newest_first = [jobs[name] for name in ("nightly-3", "Nightly-2", "nightly-1")]
    assert listed(batch, "nightly*") == newest_first
    # What is submitted meanwhile does not shift the pages.
    filters = [{"name": "JOB_NAME", "values": ["nightly*"]}]
    first = batch.client.list_jobs(jobQueue=QUEUE, filters=filters, maxResults=2)
    batch.submit("nightly-4")
    more = batch.client.list_jobs(jobQueue=QUEUE, filters=filters, maxResults=2, nextToken=first["nextToken"])
    assert [one["jobId"] for page in (first, more) for one in page["jobSummaryList"]] == newest_first
    assert "nextToken" not in more
    # Without a filter only what runs; and a status is for those without a filter.
    assert batch.client.list_jobs(jobQueue=QUEUE)["jobSummaryList"] == []
    assert len(batch.client.list_jobs(jobQueue=QUEUE, jobStatus="RUNNABLE")["jobSummaryList"]) == 5
    assert listed(batch, "other", jobStatus="RUNNING") == [jobs["other"]]


def test_only_who_may_gets_an_answer(batch: Batch) -> None:
    batch.register()
    workload = batch.aws.client("batch", batch.aws.workload_session())
    with pytest.raises(ClientError) as error:
        workload.describe_job_queues()
    assert code(error) == ("AccessDeniedException", 403)
    assert WORKLOAD.rpartition("/")[2] in str(error.value)
    keys = batch.aws.role_session()
    with pytest.raises(ClientError) as error:
        batch.aws.client("batch", {**keys, "SecretAccessKey": "x" * 40}).describe_job_queues()
    assert code(error)[0] == "InvalidSignatureException"
    batch.aws.expire()
    with pytest.raises(ClientError) as error:
        batch.client.describe_job_queues()
    assert code(error)[0] == "ExpiredTokenException"
    # One may be allowed to submit without tags, or to one queue alone.
    narrow = [{"Effect": "Allow", "Action": "batch:SubmitJob", "Resource": "*"}]
    client = batch.aws.client("batch", batch.aws.role_session(Policy=_policy(narrow)))
    request = {"jobName": "n", "jobQueue": QUEUE, "jobDefinition": DEFINITION}
    client.submit_job(**request)
    with pytest.raises(ClientError, match="batch:TagResource"):
        client.submit_job(**request, tags={"a": "b"})


def test_policies_ask_for_tags_and_namespaces(batch: Batch) -> None:
    batch.behave({"hold": {"state": "RUNNABLE"}})
    batch.register()
    mine = {"aws:RequestTag/owner": "me"}
    statements = [
        {
            "Effect": "Allow",
            "Action": ["batch:SubmitJob", "batch:TagResource"],
            "Resource": "*",
            "Condition": {"StringEquals": mine, "StringEqualsIfExists": {"batch:EKSNamespace": "mine"}},
        },
        {
            "Effect": "Allow",
            "Action": "batch:TerminateJob",
            "Resource": "*",
            "Condition": {"StringEquals": {"aws:ResourceTag/owner": "me"}},
        },
    ]
    client = batch.aws.client("batch", batch.aws.role_session(Policy=_policy(statements)))
    request = {"jobName": "n", "jobQueue": QUEUE, "jobDefinition": DEFINITION}
    for denied in (
        request,
        {**request, "tags": {"owner": "you"}},
        {
            **request,
            "tags": {"owner": "me"},
            "eksPropertiesOverride": {"podProperties": {"metadata": {"namespace": "yours"}}},
        },
    ):
        with pytest.raises(ClientError) as error:
            client.submit_job(**denied)
        assert code(error)[0] == "AccessDeniedException"
    client.terminate_job(jobId=client.submit_job(**request, tags={"owner": "me"})["jobId"], reason="mine")
    with pytest.raises(ClientError) as error:
        client.terminate_job(jobId=batch.submit("yours", tags={"owner": "you"}), reason="not mine")
    assert code(error)[0] == "AccessDeniedException"


def test_what_is_wrong_is_refused_and_remembered(batch: Batch) -> None:
    batch.register()
    with pytest.raises(ClientError) as error:
        batch.submit("-wrong")
    assert code(error) == ("ClientException", 400)
    (violation,) = batch.violations()
    assert "jobName" in violation
    with pytest.raises(ClientError, match="not among"):
        batch.submit("n", eksPropertiesOverride={"podProperties": {"containers": [{"name": "other"}]}})
    with pytest.raises(ClientError, match="at most 100"):
        batch.client.describe_jobs(jobs=[str(number) for number in range(101)])
    assert len(batch.violations()) == 2
    assert batch.jobs() == []


def test_pods_of_played_nodes_end_when_the_test_says_so(batch: Batch, namespace: Namespace) -> None:
    core, node = namespace.site.core, f"played-{secrets.token_hex(4)}"
    taint = {"key": "example.com/played", "effect": "NoSchedule"}
    core.create_node({"metadata": {"name": node}, "spec": {"taints": [taint]}})
    try:
        batch.environment["nodes"] = [node]
        batch.aws.apply()
        batch.register()
        good, bad = batch.submit("good"), batch.submit("bad")
        wait_for("both pods", lambda: len(namespace.pods) == 2)
        assert {pod["spec"]["nodeName"] for pod in namespace.pods} == {node}
        # The answer to the double may come after the pod is seen here.
        wait_for("one to be ended", lambda: batch.finish("good") and batch.describe(good)["status"] == "SUCCEEDED")
        wait_for("the other", lambda: batch.finish("b*", exit_code=2) and batch.describe(bad)["status"] == "FAILED")
        assert batch.describe(bad)["eksAttempts"][0]["containers"][0]["exitCode"] == 2
    finally:
        core.delete_node(node)


def test_a_double_inside_of_a_process_leaves_no_pod_behind(namespace: Namespace, tmp_path: Path) -> None:
    import botocore.session

    state = State(tmp_path)
    key, secret = "AKIAEXAMPLE", "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"
    environment = {
        "cluster": "any",
        "namespace": namespace.name,
        "kubeconfig": str(namespace.site.user(USER)),
    }
    batch = {
        "queues": {f"{REGION}/{QUEUE}": {"compute_environments": ["eks"]}},
        "compute_environments": {f"{REGION}/eks": environment},
    }
    user = {"secret": secret, "arn": "arn:aws:iam::111122223333:user/test"}
    state.configure({"users": {key: user}, "batch": batch})
    with Doubles(state) as doubles:
        client = botocore.session.Session().create_client(
            "batch",
            region_name=REGION,
            endpoint_url=doubles.urls["batch"],
            aws_access_key_id=key,
            aws_secret_access_key=secret,
        )
        pod = {"containers": [container("sleep 100")]}
        client.register_job_definition(
            jobDefinitionName=DEFINITION, type="container", eksProperties={"podProperties": pod}
        )
        job = client.submit_job(jobName="n", jobQueue=QUEUE, jobDefinition=DEFINITION)["jobId"]
        wait_for("it to run", lambda: client.describe_jobs(jobs=[job])["jobs"][0]["status"] == "RUNNING")
        # Batch's default.
        assert namespace.only_pod["spec"]["hostNetwork"]
        assert not state.batch.violations()
    assert not namespace.pods


def _policy(statements: list[dict[str, Any]]) -> str:
    import json

    return json.dumps({"Version": "2012-10-17", "Statement": statements})
