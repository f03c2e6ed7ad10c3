"""The operator of Batch, from its arguments to the end of the job, in one process."""

from __future__ import annotations

import pytest
import scripted as s
from batches import JOB, LINKS, failing, job_attempt, job_end, job_state

from podbroker import FailureClass, InfraRetry, ResultSource
from podbroker.airflow import exceptions as ex
from podbroker.airflow._compat import AirflowException, AirflowRescheduleException, AirflowTaskTimeout
from podbroker.exceptions import UnavailableError

QUEUED, PENDING, RUNNING = s.S.QUEUED, s.S.PENDING, s.S.RUNNING
HAPPY = [
    job_state(QUEUED, state_reason="CLUSTER is at its limit"),
    job_state(PENDING, job_attempt(pod="aws-batch.x")),
    job_state(RUNNING, job_attempt(pod="aws-batch.x")),
    s.lines("hello", name="main"),
]


def test_a_job_that_succeeds_gives_its_lines_its_id_and_its_links(batch, client, context, log):
    client.script = [*HAPPY, job_end()]
    assert batch().execute(context) == JOB
    assert "[main] hello" in log.lines
    assert context["ti"].xcom == LINKS
    assert [verb for verb, _ in client.calls if verb != "targets"] == ["submit", "watch", "release"]
    assert client.watched[0]["containers"] == ()
    assert client.watched[0]["logs"] is True


def test_the_task_log_says_where_the_job_stands(batch, client, context, log):
    client.script = [*HAPPY, job_end(None, job_attempt(pod="aws-batch.x"))]
    batch().execute(context)
    said = [line for line in log.lines if line.startswith(("Job", "AWS Batch job", "Waiting", "::group"))]
    assert said == [
        f"::group::Waiting for job {JOB} to start",
        f"AWS Batch job {JOB}",
        "Job is QUEUED: CLUSTER is at its limit",
        f"AWS Batch job {JOB} runs in pod jobs/aws-batch.x",
        "Job is PENDING",
        "Job is RUNNING",
        "Job is SUCCEEDED",
        f"AWS Batch job ({JOB}) succeeded",
    ]
    assert "Pod " not in log.text


def test_the_lines_of_each_child_of_an_array_have_its_index(batch, client, context, log):
    client.script = [
        job_state(RUNNING),
        s.lines("zero", name="0/main"),
        s.lines("pulls", name="7/init", role=s.ContainerRole.INIT),
        s.lines("seven", name="7/main"),
        job_end(),
    ]
    assert batch(array_properties={"size": 8}).execute(context) == JOB
    assert [line for line in log.lines if line.startswith("[")] == ["[0/main] zero", "[7/init] pulls", "[7/main] seven"]


def test_a_child_that_fails_is_named_with_its_own_last_lines(batch, client, context, log):
    client.script = [
        job_state(RUNNING),
        s.lines("fine", name="0/main"),
        s.lines("no such table", name="7/main"),
        job_end(failing(("0/main", 0), ("7/main", 3))),
    ]
    with pytest.raises(ex.RemotePodFailed) as caught:
        batch(array_properties={"size": 8}).execute(context)
    said = str(caught.value)
    assert said.startswith(f"Job {JOB} returned a failure.\nAPPLICATION (Error) with exit code 3: It did not work.")
    assert "Last lines of container 7/main:\n  no such table" in said
    assert "fine" not in said
    assert caught.value.exit_code == 3
    assert "Container '7/main': exit_code=3, reason='Error', message=''" in log.lines
    assert client.did("release")


def test_an_init_container_that_fails_is_named_as_well(batch, client, context):
    role = s.ContainerRole.INIT
    outcome = s.failed(containers=(s.container("fetch", exit_code=4, role=role), s.container("main", exit_code=None)))
    client.script = [job_state(PENDING), s.lines("no such bucket", name="fetch", role=role), job_end(outcome)]
    with pytest.raises(ex.RemotePodFailed, match="Last lines of container fetch:\n  no such bucket"):
        batch().execute(context)


def test_of_a_large_array_only_so_many_failed_children_are_listed(batch, client, context, log):
    client.script = [job_end(failing(*((f"{n}/main", 1) for n in range(25))))]
    with pytest.raises(ex.RemotePodFailed):
        batch().execute(context)
    assert len([line for line in log.lines if line.startswith("Container '")]) == 20
    assert "and 5 containers more that failed" in log.lines


@pytest.mark.parametrize(
    ("failure_class", "raised"),
    [
        (FailureClass.OUT_OF_MEMORY, ex.RemotePodOutOfMemory),
        (FailureClass.SPOT_INTERRUPTED, ex.RemotePodSpotInterrupted),
        (FailureClass.DEADLINE, ex.RemotePodDeadlineExceeded),
        (FailureClass.CANCELLED_BY_CALLER, ex.RemotePodCancelled),
        (FailureClass.QUOTA, ex.RemotePodQuotaExceeded),
    ],
)
def test_each_failure_has_its_exception(batch, client, context, failure_class, raised):
    client.script = [job_end(s.failed(failure_class, exit_code=None))]
    with pytest.raises(raised, match=f"Job {JOB} returned a failure"):
        batch().execute(context)


def test_a_job_that_was_never_made_has_the_name_that_the_task_gave_it(batch, client, context):
    client.made = {"attempts": (job_attempt(""),)}
    client.script = [job_end(s.failed(FailureClass.INVALID_SPEC, exit_code=None, containers=()), job_attempt(""))]
    with pytest.raises(ex.RemotePodInvalidSpec, match="Job report returned a failure"):
        batch().execute(context)
    assert context["ti"].xcom == {}


def test_a_task_that_does_not_wait_gives_the_id_as_soon_as_there_is_one(batch, client, context, log):
    client.made = {"attempts": (job_attempt(""),)}
    client.script = [job_state(QUEUED, job_attempt("")), job_state(QUEUED)]
    assert batch(wait_for_completion=False).execute(context) == JOB
    assert client.watched[0]["logs"] is False
    assert client.watches[0].closed
    assert not client.did("release")
    assert not client.did("cancel")
    assert context["ti"].xcom == LINKS
    assert f"AWS Batch job {JOB} is not waited for" in log.lines


def test_a_task_that_does_not_wait_asks_nobody_for_an_id_that_is_known(batch, client, context):
    assert batch(wait_for_completion=False).execute(context) == JOB
    assert client.watches == []


def test_a_task_that_does_not_wait_fails_when_no_job_was_made(batch, client, context):
    client.made = {"attempts": (job_attempt(""),)}
    client.script = [job_end(s.failed(FailureClass.QUOTA, exit_code=None, containers=()), job_attempt(""))]
    with pytest.raises(ex.RemotePodQuotaExceeded):
        batch(wait_for_completion=False).execute(context)


def test_another_job_of_the_broker_takes_the_place_of_the_first(batch, client, context):
    client.script = [job_state(RUNNING), job_end(None, job_attempt(), job_attempt("second", number=2))]
    assert batch(infra_retry=InfraRetry()).execute(context) == "second"
    assert context["ti"].xcom["batch_job_details"]["job_id"] == "second"


def test_an_id_that_was_given_is_overwritten_by_the_jobs(batch, client, context):
    client.script = [job_end()]
    operator = batch(job_id="old")
    assert operator.execute(context) == JOB
    assert operator.job_id == JOB


def test_without_xcoms_no_link_is_kept_and_no_target_is_asked_for(batch, client, context):
    client.script = [job_end()]
    batch(do_xcom_push=False).execute(context)
    assert context["ti"].xcom == {}
    assert not client.did("targets")


@pytest.mark.parametrize("targets", [(), UnavailableError("gone")])
def test_links_without_a_target_are_made_of_the_arguments(batch, client, context, targets):
    def listed():
        if isinstance(targets, Exception):
            raise targets
        return targets

    client.targets = listed
    client.script = [job_end()]
    queue = "arn:aws-cn:batch:cn-north-1:1:job-queue/q"
    batch(job_queue=queue, job_definition="reports").execute(context)
    common = {"region_name": "cn-north-1", "aws_domain": "amazonaws.cn"}
    assert context["ti"].xcom == {
        "batch_job_details": {**common, "job_id": JOB},
        "batch_job_queue": {**common, "job_queue_arn": queue},
    }


def test_the_log_link_is_there_only_where_a_group_is_named(batch, client, context):
    client.script = [*HAPPY, job_end(None, job_attempt(pod="aws-batch.x"))]
    batch(cloudwatch_log_group="/aws/batch/pods", cloudwatch_log_stream="{pod_namespace}/{pod_name}").execute(context)
    assert context["ti"].xcom["cloudwatch_events"] == {
        "region_name": "us-east-1",
        "aws_domain": "aws.amazon.com",
        "awslogs_region": "us-east-1",
        "awslogs_group": "/aws/batch/pods",
        "awslogs_stream_name": "jobs/aws-batch.x",
    }


@pytest.mark.parametrize("pattern", ["{", "{0}", "{pod}", "{job_id.x}"])
def test_a_stream_that_cannot_be_named_costs_its_link_only(batch, client, context, pattern):
    client.script = [*HAPPY, job_end(None, job_attempt(pod="aws-batch.x"))]
    assert batch(cloudwatch_log_group="/aws", cloudwatch_log_stream=pattern).execute(context) == JOB
    assert context["ti"].xcom == LINKS


# What a job hands back.


@pytest.mark.parametrize("outcome", [None, s.failed()])
def test_what_a_job_hands_back_is_an_xcom_beside_its_id(batch, client, context, outcome):
    client.script = [job_state(RUNNING), s.result(b'{"rows": 3}'), job_end(outcome)]
    operator = batch(result_source=ResultSource.TERMINATION_MESSAGE)
    if outcome is None:
        assert operator.execute(context) == JOB
    else:
        with pytest.raises(ex.RemotePodFailed):
            operator.execute(context)
    assert client.submits[0]["policies"].result is ResultSource.TERMINATION_MESSAGE
    assert context["ti"].xcom == {**LINKS, "result": {"rows": 3}}
    assert client.did("release")


def test_a_job_that_hands_nothing_back_has_no_such_xcom(batch, client, context, log):
    client.script = [s.notice("RESULT_MISSING", "none"), s.result(problem="nothing was written"), job_end()]
    assert batch(result_source="TERMINATION_MESSAGE").execute(context) == JOB
    assert context["ti"].xcom == LINKS
    assert "The job wrote no result: nothing was written" in log.lines


def test_what_is_no_json_fails_a_job_that_succeeded_and_is_acknowledged(batch, client, context):
    client.script = [s.result(b"{not json"), job_end()]
    with pytest.raises(ex.RemotePodResultError, match="The job's result is not JSON"):
        batch(result_source=ResultSource.TERMINATION_MESSAGE).execute(context)
    assert client.did("release")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"result_source": ResultSource.SIDECAR}, "one of NONE, TERMINATION_MESSAGE, and not SIDECAR"),
        ({"result_source": "TERMINATION_MESSAGE", "array_properties": {"size": 2}}, "An array has many results"),
    ],
)
def test_what_a_job_cannot_hand_back_is_refused_where_the_task_is_defined(batch, arguments, said):
    with pytest.raises(AirflowException, match=said):
        batch(**arguments)


# Kill.


@pytest.fixture
def _short_budgets(monkeypatch):
    monkeypatch.setattr("podbroker.airflow.session.CANCEL_SECONDS", 0.0)
    monkeypatch.setattr("podbroker.airflow.ending.LAST_LINES_SECONDS", 0.5)


def killed(batch, client, context, state, **kwargs):
    context["ti"].states = {context["ti"].run_id: {"task": state}}
    operator = batch(**kwargs)
    client.script = [job_state(RUNNING), s.lines("working", name="main"), operator.on_kill]
    client.after_cancel = [s.lines("bye", name="main"), job_end(s.failed(FailureClass.CANCELLED_BY_CALLER))]
    operator.execute(context)


@pytest.mark.usefixtures("_short_budgets")
def test_a_task_that_was_killed_ends_its_job_and_shows_its_last_lines(batch, client, context, log):
    with pytest.raises(ex.RemotePodKilled, match="its job is being ended"):
        killed(batch, client, context, "failed")
    ((name, claim, _),) = client.did("cancel")
    assert (name, claim) == (client.watched[0]["name"], "claim")
    assert "[main] bye" in log.lines
    assert client.did("release")


@pytest.mark.usefixtures("_short_budgets")
def test_a_worker_that_goes_away_leaves_the_job(batch, client, context, log):
    with pytest.raises(AirflowRescheduleException):
        killed(batch, client, context, "running")
    assert not client.did("cancel")
    assert "The job runs on, and the task goes on with it soon." in log.text


@pytest.mark.usefixtures("_short_budgets")
def test_a_kill_while_the_id_is_waited_for_ends_the_job(batch, client, context):
    client.made = {"attempts": (job_attempt(""),)}
    context["ti"].states = {context["ti"].run_id: {"task": "failed"}}
    operator = batch(wait_for_completion=False)
    client.script = [job_state(QUEUED, job_attempt("")), operator.on_kill]
    client.after_cancel = [job_end(s.failed(FailureClass.CANCELLED_BY_CALLER), job_attempt(""))]
    with pytest.raises(ex.RemotePodKilled):
        operator.execute(context)
    assert client.did("cancel")


@pytest.mark.usefixtures("_short_budgets")
def test_a_task_that_takes_too_long_ends_its_job(batch, client, context):
    client.script = [job_state(RUNNING), AirflowTaskTimeout("too long")]
    with pytest.raises(AirflowTaskTimeout):
        batch().execute(context)
    assert client.did("cancel")[0][2] == "The execution_timeout of the Airflow task has passed"


def test_a_retry_goes_on_with_the_job_of_the_try_before(batch, client, log):
    earlier = s.execution(RUNNING, id="before", labels={"max_tries": "1"}, attempts=(job_attempt("first"),))
    client.known = {earlier.name: earlier}
    client.script = [job_end(None, job_attempt("first"))]
    assert batch().execute(s.make_context(try_number=2, max_tries=1)) == "first"
    assert client.submits == []
    assert "Adopting execution" in log.text


def test_a_retry_that_is_not_to_reattach_ends_the_job_of_the_try_before(batch, client, log):
    earlier = s.execution(RUNNING, id="before", labels={"max_tries": "1"}, attempts=(job_attempt("first"),))
    client.known = {earlier.name: earlier}
    cancelled = s.failed(FailureClass.CANCELLED_BY_CALLER)
    client.scripts[earlier.name] = [
        job_state(s.S.ENDING, job_attempt("first")),
        job_end(cancelled, job_attempt("first")),
    ]
    client.script = [job_end()]
    assert batch(reattach_on_restart=False).execute(s.make_context(try_number=2, max_tries=1)) == JOB
    assert client.did("cancel")[0][0] == earlier.name
    assert "Job is ENDING" in log.lines
    assert "Pod" not in log.text


# A pod operator at a target of Batch.


def test_a_pods_name_is_pushed_when_batch_has_made_it(make, client, context, log):
    client.made = {"attempts": (job_attempt(),)}
    client.script = [
        job_state(QUEUED),
        lambda: seen.update(context["ti"].xcom),
        job_state(PENDING, job_attempt(pod="aws-batch.x")),
        job_state(RUNNING, job_attempt(pod="aws-batch.x")),
        s.lines("hello"),
        job_end(None, job_attempt(pod="aws-batch.x")),
    ]
    seen: dict[str, str] = {}
    make().execute(context)
    assert seen == {}
    assert context["ti"].xcom == {"pod_name": "aws-batch.x", "pod_namespace": "jobs"}
    assert "Pod /" not in log.text
    assert f"AWS Batch job {JOB} runs in pod jobs/aws-batch.x" in log.lines


def test_an_array_or_a_job_without_a_pod_has_no_name_to_push(make, client, context):
    client.made = {"attempts": (job_attempt(),)}
    client.script = [job_end(s.failed(FailureClass.QUOTA, exit_code=None))]
    with pytest.raises(ex.RemotePodQuotaExceeded):
        make().execute(context)
    assert context["ti"].xcom == {}
