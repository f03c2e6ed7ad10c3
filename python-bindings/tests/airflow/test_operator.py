"""The way of one task: submit, lines, result, end; and what each outcome becomes."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest
import scripted as s

from podbroker import (
    ContainerRole,
    FailureClass,
    FinishAction,
    InfraRetry,
    NoticeSeverity,
    ResultSource,
    TargetPlace,
)
from podbroker.airflow import exceptions as ex
from podbroker.airflow._compat import AirflowException, AirflowSkipException, KubernetesPodOperator
from podbroker.exceptions import (
    ConflictError,
    FieldViolation,
    InvalidSpecError,
    NotFoundError,
    UnavailableError,
)

HAPPY = [
    s.state(s.S.PENDING),
    s.started(),
    s.state(s.S.RUNNING),
    s.lines("hello", "world"),
    s.stream_end(),
]


def test_a_pod_that_succeeds_gives_its_lines_and_its_value(make, client, context, log):
    client.script = [*HAPPY, s.result(b'{"answer": 42}'), s.end()]
    assert make(do_xcom_push=True).execute(context) == {"answer": 42}
    assert [line for line in log.lines if line.startswith("[base]")] == ["[base] hello", "[base] world"]
    assert context["ti"].xcom == {"pod_name": "pod-1", "pod_namespace": "there"}
    assert [verb for verb, _ in client.calls] == ["submit", "watch", "release"]
    assert client.did("release") == [(client.watched[0]["name"], "claim")]


def test_the_pods_place_is_pushed_before_anything_is_waited_for(make, client, context):
    client.script = [lambda: seen.update(context["ti"].xcom), s.end()]
    seen: dict[str, str] = {}
    make().execute(context)
    assert seen == {"pod_name": "pod-1", "pod_namespace": "there"}


def test_the_request_says_what_the_task_wants(make, client, context):
    client.script = [s.result(), s.end()]
    retry = InfraRetry(max_attempts=2)
    make(
        do_xcom_push=True,
        on_finish_action="keep_pod",
        startup_timeout_seconds=60,
        schedule_timeout_seconds=30,
        infra_retry=retry,
        orphan_after=timedelta(minutes=10),
    ).execute(context)
    (request,) = client.submits
    assert request["target"] == "somewhere"
    assert request["execution_id"] == f"dag.task.airflow.{context['ti'].id}"
    policies = request["policies"]
    assert (policies.finish, policies.result) == (FinishAction.KEEP, ResultSource.SIDECAR)
    assert policies.start_deadline.total_seconds() == 90
    assert (policies.infra_retry, policies.orphan_after) == (retry, timedelta(minutes=10))
    assert policies.deciding_containers == ("base",)
    assert request["labels"] == {
        "deployment": "airflow",
        "dag_id": "dag",
        "run_id": "manual__2026-11-21",
        "task_id": "task",
        "map_index": "none",
        "try_number": "1",
        "max_tries": "0",
    }


def test_the_manifest_is_upstreams_without_its_sidecar_and_without_a_namespace_of_the_worker(make, client, context):
    client.script = [s.result(), s.end()]
    make(do_xcom_push=True, env_vars={"A": "b"}, labels={"team": "x"}, active_deadline_seconds=9).execute(context)
    pod = client.submits[0]["pod"]
    assert pod["apiVersion"] == "v1"
    assert pod["kind"] == "Pod"
    assert "namespace" not in pod["metadata"]
    (base,) = pod["spec"]["containers"]
    assert base["name"] == "base"
    assert base["env"] == [{"name": "A", "value": "b"}]
    assert pod["spec"]["activeDeadlineSeconds"] == 9
    assert pod["metadata"]["labels"]["dag_id"] == "dag"
    assert pod["metadata"]["labels"]["team"] == "x"
    assert pod["metadata"]["labels"]["airflow_kpo_in_cluster"] == "False"


def test_a_namespace_that_the_user_gave_is_sent(make, client, context):
    client.script = [s.end()]
    make(namespace="mine").execute(context)
    assert client.submits[0]["pod"]["metadata"]["namespace"] == "mine"


def test_a_target_may_be_given_by_its_parts(make, client, context):
    client.script = [s.end()]
    make(target={"cluster": "c", "namespace": "n"}).execute(context)
    assert client.submits[0]["target"] == TargetPlace(cluster="c", namespace="n")


def test_it_is_a_kubernetes_pod_operator(make):
    operator = make()
    assert isinstance(operator, KubernetesPodOperator)
    assert set(KubernetesPodOperator.template_fields) < set(operator.template_fields)
    assert {"target", "podbroker_conn_id", "deployment_id"} <= set(operator.template_fields)


def test_a_failure_says_why_with_the_containers_last_words(make, client, context):
    client.script = [s.state(s.S.RUNNING), s.lines(*(f"line {n}" for n in range(20))), s.end(s.failed(message="oh no"))]
    with pytest.raises(ex.RemotePodFailed) as caught:
        make().execute(context)
    text = str(caught.value)
    assert text.startswith("Pod pod-1 returned a failure.\nAPPLICATION (Error) with exit code 7: It did not work.")
    assert "oh no" in text
    assert "line 19" in text
    assert "line 10" in text
    assert "line 9\n" not in text
    assert "remote_pod" not in text
    assert caught.value.exit_code == 7
    assert caught.value.outcome.failure_class is FailureClass.APPLICATION
    assert caught.value.execution_name == client.watched[0]["name"]
    assert client.did("release")


def test_the_whole_pod_is_in_the_message_only_when_asked_for(make, client, context):
    client.script = [s.end(s.failed())]
    with pytest.raises(ex.RemotePodFailed, match="remote_pod: "):
        make(log_pod_spec_on_failure=True).execute(context)
    assert client.did("get")


def test_a_value_is_pushed_also_when_the_pod_failed(make, client, context):
    client.script = [s.result(b'{"partial": true}'), s.end(s.failed())]
    with pytest.raises(ex.RemotePodFailed):
        make(do_xcom_push=True).execute(context)
    assert context["ti"].xcom["return_value"] == {"partial": True}


def test_an_exit_code_may_mean_skip(make, client, context):
    client.script = [s.end(s.failed(exit_code=99))]
    with pytest.raises(AirflowSkipException, match="exit code 99"):
        make(skip_on_exit_code=[99, 100]).execute(context)
    assert client.did("release")


def test_without_do_xcom_push_nothing_is_asked_for_and_nothing_given(make, client, context):
    client.script = [s.end()]
    assert make().execute(context) is None
    assert client.submits[0]["policies"].result is ResultSource.NONE


@pytest.mark.parametrize("source", [ResultSource.TERMINATION_MESSAGE, "TERMINATION_MESSAGE"])
def test_a_value_may_come_as_the_termination_message(make, client, context, source):
    client.script = [s.result(b"3"), s.end()]
    assert make(do_xcom_push=True, result_source=source).execute(context) == 3
    assert client.submits[0]["policies"].result is ResultSource.TERMINATION_MESSAGE


@pytest.mark.parametrize("source", [ResultSource.NONE, "a file"])
def test_a_value_from_nowhere_is_refused_where_the_task_is_defined(make, source):
    with pytest.raises(AirflowException, match=f"one of SIDECAR, TERMINATION_MESSAGE, and not {source}"):
        make(do_xcom_push=True, result_source=source)


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ([s.result(b"{not json")], "not JSON"),
        ([s.result(problem="larger than 262144 bytes")], "larger than 262144 bytes"),
        ([], "sent no result"),
    ],
)
def test_a_value_that_did_not_arrive_whole_fails_a_pod_that_succeeded(make, client, context, events, words):
    client.script = [*events, s.end()]
    with pytest.raises(ex.RemotePodResultError, match=words):
        make(do_xcom_push=True).execute(context)
    assert client.did("release")


def test_a_broken_value_does_not_hide_a_failure(make, client, context):
    client.script = [s.result(b"{not json"), s.end(s.failed())]
    with pytest.raises(ex.RemotePodFailed):
        make(do_xcom_push=True).execute(context)


@pytest.mark.parametrize("content", [b"", b" \n", b"null"])
def test_an_empty_value_is_none(make, client, context, content):
    client.script = [s.result(content), s.end()]
    assert make(do_xcom_push=True).execute(context) is None


def test_a_value_that_was_never_written_is_none(make, client, context, log):
    client.script = [s.notice("RESULT_MISSING", "There is no file."), s.result(problem="no such file"), s.end()]
    assert make(do_xcom_push=True).execute(context) is None
    assert "wrote no result: no such file" in log.text


def test_notices_and_gaps_are_said_at_their_level(make, client, context, log):
    client.script = [
        s.notice("PULLING_IMAGE", "Pulling busybox."),
        s.notice("UNSCHEDULABLE", "No node.", NoticeSeverity.WARNING),
        s.gap(lines_at_least=3),
        s.end(),
    ]
    make().execute(context)
    assert (logging.INFO, "Pulling busybox. (PULLING_IMAGE)") in log.records
    assert (logging.WARNING, "No node. (UNSCHEDULABLE)") in log.records
    gap = next(text for level, text in log.records if level == logging.WARNING and "missing here" in text)
    assert gap == "[base] Log lines are missing here, at least 3: the kubelet had rotated them away"


def test_waiting_for_the_start_folds_and_the_fold_is_closed_before_the_first_line(make, client, context, log):
    client.script = [*HAPPY, s.end()]
    make().execute(context)
    opened = next(n for n, text in enumerate(log.lines) if text.startswith("::group::"))
    closed = log.lines.index("::endgroup::")
    assert opened < closed < log.lines.index("[base] hello")


def test_the_fold_is_closed_also_when_the_start_fails(make, client, context, log):
    client.script = [s.state(s.S.PENDING), NotFoundError("gone", reason="EXPIRED")]
    with pytest.raises(ex.RemotePodError):
        make().execute(context)
    assert "::endgroup::" in log.lines


@pytest.mark.parametrize(
    ("arguments", "asked", "shown"),
    [
        ({}, ("base",), ["[base] b"]),
        ({"container_logs": True}, (), ["[base] b", "[other] o"]),
        ({"container_logs": ["other"]}, ("other",), ["[other] o"]),
        ({"init_container_logs": True}, (), ["[init] i", "[base] b"]),
        ({"init_container_logs": "init"}, ("base", "init"), ["[init] i", "[base] b"]),
        ({"get_logs": False, "init_container_logs": ["init"]}, ("init",), ["[init] i"]),
        ({"container_name_log_prefix_enabled": False}, ("base",), ["b"]),
        ({"log_formatter": lambda name, text: f"{name}={text}"}, ("base",), ["base=b"]),
    ],
)
def test_the_lines_of_the_wanted_containers_are_shown_as_upstream_shows_them(  # noqa: PLR0917 -- fixtures and a table
    make, client, context, log, arguments, asked, shown
):
    client.script = [
        s.lines("i", name="init", role=ContainerRole.INIT),
        s.lines("b"),
        s.lines("o", name="other", role=ContainerRole.OTHER),
        s.end(),
    ]
    make(**arguments).execute(context)
    assert client.watched[0]["logs"] is True
    assert client.watched[0]["containers"] == asked
    said = {"[init] i", "[base] b", "[other] o", "b", "i", "o", "base=b"}
    assert [text for text in log.lines if text in said] == shown


def test_without_get_logs_no_lines_are_asked_for(make, client, context):
    client.script = [s.end()]
    make(get_logs=False).execute(context)
    assert client.watched[0]["logs"] is False


def test_the_stream_that_breaks_off_is_never_a_success(make, client, context):
    client.script = [s.state(s.S.RUNNING), NotFoundError("gone", reason="NO_SUCH_EXECUTION")]
    with pytest.raises(ex.RemotePodLost):
        make().execute(context)
    assert not client.did("release")
    assert not client.did("cancel")


def test_an_outcome_that_is_not_the_end_is_waited_out(make, client, context, log):
    client.script = [
        s.state(s.S.ENDING, outcome=s.succeeded()),
        s.lines("the last line"),
        s.end(),
    ]
    make().execute(context)
    assert "[base] the last line" in log.lines


def test_a_process_that_finds_the_pod_of_an_earlier_one_says_that_lines_may_come_again(make, client, context, log):
    said = "Lines that an earlier process of the task has printed may come again below"
    client.script = [*HAPPY, s.end()]
    make().execute(context)
    assert said not in log.lines
    client.script = [*HAPPY, s.end()]
    make(get_logs=False).execute(context)
    assert said not in log.lines, "it prints none"
    client.script = [*HAPPY, s.end()]
    make().execute(context)
    assert log.lines.count(said) == 1


def test_an_error_in_the_middle_leaves_the_pod_alone(make, client, context):
    def formatter(_: str, __: str) -> str:
        raise RuntimeError("the user's own fault")

    client.script = [*HAPPY, s.end()]
    with pytest.raises(RuntimeError):
        make(log_formatter=formatter).execute(context)
    assert not client.did("cancel")
    assert not client.did("release")
    assert client.watches[0].closed


def test_a_release_that_fails_does_not_fail_the_task(make, client, context, log):
    client.release_error = UnavailableError("away")
    client.script = [s.end()]
    make_quick = make()
    make_quick.execute(context)
    assert "was not released" in log.text


@pytest.fixture(autouse=True)
def _short_budgets(monkeypatch):
    monkeypatch.setattr("podbroker.airflow.session.RELEASE_SECONDS", 0.0)
    monkeypatch.setattr("podbroker.airflow.session.CANCEL_SECONDS", 0.0)


def test_a_submit_is_repeated_unchanged_while_the_broker_is_away(make, client, context):
    client.refusals = [UnavailableError("away"), UnavailableError("away")]
    client.script = [s.end()]
    make().execute(context)
    first, second, third = client.submits
    assert first == second == third
    assert first["submit_before"] is not None


def test_a_broker_that_stays_away_fails_the_task_with_its_own_class(make, client, context, monkeypatch):
    monkeypatch.setattr("podbroker.airflow.session.ANSWER_SECONDS", 0.0)
    client.refusals = [UnavailableError("nobody there", retryable=True)]
    with pytest.raises(ex.RemotePodBrokerUnavailable, match="nobody there") as caught:
        make().execute(context)
    assert isinstance(caught.value.__cause__, UnavailableError)


def test_a_refused_manifest_names_its_fields(make, client, context):
    client.refusals = [
        InvalidSpecError(
            "the manifest is refused",
            reason="INVALID_SPEC",
            field_violations=(FieldViolation(field="spec.containers[0].imagee", description="unknown field"),),
            request_id="r1",
        )
    ]
    with pytest.raises(ex.RemotePodInvalidSpec, match=r"spec.containers\[0\].imagee: unknown field") as caught:
        make().execute(context)
    assert "r1" in str(caught.value)
    assert isinstance(caught.value, AirflowException)


def test_an_own_execution_with_another_request_is_followed_with_a_warning(make, client, context, log):
    own = f"dag.task.airflow.{context['ti'].id}"
    client.known = {f"targets/somewhere/executions/{own}": s.execution(id=own)}
    client.refusals = [ConflictError("another request", reason="EXECUTION_ID_REUSED")]
    client.script = [s.end()]
    make().execute(context)
    assert client.watched[0]["name"] == f"targets/somewhere/executions/{own}"
    assert any(level == logging.WARNING and "differs" in text for level, text in log.records)


def test_cleanup_without_an_outcome_touches_nothing(make, client, context):
    operator = make()
    operator.cleanup(pod=None, remote_pod=None, context=context)
    assert client.calls == []
