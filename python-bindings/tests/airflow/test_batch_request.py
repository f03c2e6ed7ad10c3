"""What the operator of Batch makes of its arguments: the request, what is refused, and what is said of the rest."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta

import pytest
import scripted as s
from batches import job_end, job_state
from versions import DAG

from podbroker import BatchWorkload, InfraRetry, Policies, ResultSource, TargetPlace
from podbroker.airflow import exceptions as ex
from podbroker.airflow._compat import AirflowException
from podbroker.exceptions import FieldViolation, InvalidSpecError, UnsupportedError


def test_the_request_has_all_that_the_arguments_say(batch, client, context):
    client.script = [job_end()]
    override = {"podProperties": {"containers": [{"name": "main", "args": ["x"]}]}}
    batch(
        array_properties={"size": "20"},
        eks_properties_override=override,
        share_identifier="team",
        scheduling_priority_override=7,
        parameters={"day": "2026-11-21"},
        retry_strategy={"attempts": 3, "evaluateOnExit": [{"onReason": "Host EC2*", "action": "RETRY"}]},
        depends_on=[{"jobId": "before"}],
        tags={"team": "x"},
        submit_job_timeout=90,
        ttl=timedelta(hours=2),
        orphan_after=timedelta(hours=1),
        infra_retry=InfraRetry(),
    ).execute(context)
    (request,) = client.submits
    assert request["pod"] is None
    assert request["batch"] == BatchWorkload(
        job_definition="reports:3",
        job_queue="nightly",
        parameters={"day": "2026-11-21"},
        eks_properties_override=override,
        array_size=20,
        depends_on_job_ids=("before",),
        share_identifier="team",
        scheduling_priority=7,
        attempts=3,
        evaluate_on_exit=({"onReason": "Host EC2*", "action": "RETRY"},),
        attempt_timeout=timedelta(seconds=90),
        tags={"team": "x"},
    )
    assert request["required_features"] == ("batch-evaluate-on-exit",)
    assert request["policies"] == Policies(
        result=ResultSource.NONE,
        ttl=timedelta(hours=2),
        orphan_after=timedelta(hours=1),
        infra_retry=InfraRetry(),
    )
    assert request["labels"]["job_name"] == "report"
    assert request["labels"]["dag_id"] == "dag"
    assert request["target"] == "somewhere"


def test_what_is_not_said_is_left_to_the_job_definition(batch, client, context):
    client.script = [job_end()]
    batch(job_queue="").execute(context)
    assert client.submits[0]["batch"] == BatchWorkload(job_definition="reports:3")
    assert client.submits[0]["required_features"] == ()


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("container_overrides", {"command": ["x"]}),
        ("ecs_properties_override", {"taskProperties": []}),
        ("node_overrides", {"numNodes": 2}),
        ("waiters", object()),
        ("verify", False),
        ("botocore_config", {"retries": {}}),
        ("region", "us-east-1"),
    ],
)
def test_what_makes_no_sense_here_is_refused_where_the_task_is_defined(batch, argument, value):
    with pytest.raises(AirflowException, match=f"BatchOperator takes no {argument}: "):
        batch(**{argument: value})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"array_properties": {"count": 2}}, r"array_properties\.count: it is not sent"),
        ({"array_properties": {"size": "many"}}, r"array_properties\.size: it must be a whole number and is 'many'"),
        ({"array_properties": {"size": 0}}, "array_size is 0"),
        ({"retry_strategy": [1]}, "retry_strategy: it must be a dictionary and is a list"),
        ({"retry_strategy": {"evaluateOnExit": [{"action": "EXIT"}]}}, "together with attempts only"),
        ({"parameters": {"n": 3}}, r"parameters\.n: AWS Batch takes text, and this is a int"),
        ({"submit_job_timeout": "a day"}, "submit_job_timeout: it must be a whole number and is 'a day'"),
        ({"tags": {"n": None}}, r"tags\.n: AWS Batch takes text"),
        ({"eks_properties_override": "{}"}, "eks_properties_override: it must be a dictionary and is a str"),
        ({"depends_on": [{"jobId": "x", "type": "N_TO_N"}]}, r"depends_on\[0\]\.type: the job waits for whole jobs"),
        ({"depends_on": [{}]}, r"depends_on\[0\]\.jobId: it is missing"),
        ({"scheduling_priority_override": 0, "share_identifier": "x"}, "scheduling_priority is 0"),
    ],
)
def test_what_cannot_be_sent_is_named_and_nothing_is_submitted(batch, client, context, arguments, said):
    with pytest.raises(ex.RemotePodInvalidSpec, match=said):
        batch(**arguments).execute(context)
    assert client.submits == []


def test_a_refusal_names_the_fields(batch, client, context):
    violation = FieldViolation(field="workload.batch.array_size", description="must be 2 to 10,000")
    client.refusals = [InvalidSpecError("invalid", reason="INVALID_SPEC", field_violations=(violation,))]
    with pytest.raises(ex.RemotePodInvalidSpec) as caught:
        batch(array_properties={"size": 1}).execute(context)
    assert "The job was not started: " in str(caught.value)
    assert "workload.batch.array_size: must be 2 to 10,000" in str(caught.value)


def test_a_broker_without_batch_is_told_as_such(batch, client, context):
    client.refusals = [UnsupportedError("no `batch` here", reason="UNSUPPORTED_FEATURE")]
    with pytest.raises(ex.RemotePodInvalidSpec, match="The job was not started: no `batch` here"):
        batch().execute(context)


def test_a_job_that_nobody_waits_for_is_no_orphan(batch):
    with pytest.raises(AirflowException, match="orphan_after would end the job"):
        batch(wait_for_completion=False, orphan_after=timedelta(minutes=5))


def test_what_has_no_effect_is_said_once_and_only_where_it_was_given(batch, client, context, log):
    client.script = [job_end()]
    batch(max_retries=10, status_retries=3, poll_interval=5, awslogs_fetch_interval=timedelta(seconds=1)).execute(
        context
    )
    said = "Without effect, because nothing is polled: max_retries, status_retries, poll_interval,"
    assert f"{said} awslogs_fetch_interval" in log.lines
    log.records.clear()
    client.script = [job_end()]
    batch().execute(s.make_context(id="other"))
    assert "Without effect" not in log.text


def test_awslogs_means_the_brokers_own_stream(batch, client, context, log):
    client.script = [job_state(s.S.RUNNING), s.lines("hello", name="main"), job_end()]
    batch(awslogs_enabled=True).execute(context)
    assert "awslogs_enabled: the lines come from the broker's own stream, and not from CloudWatch Logs" in log.lines
    assert "[main] hello" in log.lines


def test_lines_are_left_out_on_request(batch, client, context):
    client.script = [job_end()]
    batch(get_logs=False).execute(context)
    assert client.watched[0]["logs"] is False


@pytest.mark.parametrize(
    ("arguments", "target"),
    [
        ({"target": None}, "default"),
        ({"target": {"cluster": "c"}, "region_name": "eu-west-1"}, TargetPlace(cluster="c")),
        ({"target": None, "region_name": "eu-west-1"}, TargetPlace(region="eu-west-1", role_arn="arn:r")),
        ({"target": None, "aws_conn_id": "aws_x"}, TargetPlace(region="us-west-2", role_arn="arn:x")),
    ],
)
def test_the_target_is_the_one_named_else_that_of_region_and_role_or_the_default(
    batch, client, monkeypatch, arguments, target
):
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.setenv(
        "AIRFLOW_CONN_PODBROKER_DEFAULT", '{"conn_type": "podbroker", "host": "h", "extra": {"target": "default"}}'
    )
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", '{"conn_type": "aws", "extra": {"role_arn": "arn:r"}}')
    extra = '{"role_arn": "arn:x", "region_name": "us-west-2"}'
    monkeypatch.setenv("AIRFLOW_CONN_AWS_X", f'{{"conn_type": "aws", "password": "s3cr3t", "extra": {extra}}}')
    client.script = [job_end()]
    batch(**arguments).execute(s.make_context())
    assert client.submits[0]["target"] == target
    assert "s3cr3t" not in str(client.submits)


def test_the_arguments_are_rendered(batch, client, context):
    client.script = [job_end()]
    with DAG("dag", schedule=None):
        operator = batch(
            job_name="{{ p }}-name",
            job_definition="{{ p }}-definition",
            job_queue="{{ p }}-queue",
            parameters={"a": "{{ p }}"},
            array_properties={"size": "{{ n }}"},
            depends_on=[{"jobId": "{{ p }}-job"}],
            target="{{ p }}-target",
        )
    operator.render_template_fields({"p": "x", "n": 4})
    operator.execute(context)
    (request,) = client.submits
    job = request["batch"]
    assert (job.job_definition, job.job_queue, job.parameters, job.array_size, job.depends_on_job_ids) == (
        "x-definition",
        "x-queue",
        {"a": "x"},
        4,
        ("x-job",),
    )
    assert request["target"] == "x-target"
    assert request["labels"]["job_name"] == "x-name"


def test_neither_boto3_nor_the_amazon_provider_is_imported(tmp_path):
    code = (
        "import sys, podbroker.airflow.batch, podbroker.airflow.follower; "
        "bad = [n for n in sys.modules if n.startswith(('boto', 'airflow.providers.amazon.aws'))]; assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"AIRFLOW_HOME": str(tmp_path), **_path()})


def _path():
    return {"PYTHONPATH": ":".join(path for path in sys.path if path)}


def test_links_import_no_operator(tmp_path):
    code = (
        "import sys, podbroker.airflow.links; "
        "bad = [n for n in sys.modules if n.startswith('airflow.providers.cncf.kubernetes.operators')]; "
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"AIRFLOW_HOME": str(tmp_path), **_path()})
