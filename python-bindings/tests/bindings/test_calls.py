"""What is asked for arrives at the broker, and what it answers arrives here."""

from __future__ import annotations

import base64
import copy
import json
import os
import pickle
import threading
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from certificates import Authority
from running import broker_at

import podbroker
from podbroker import (
    CheckStatus,
    Client,
    ContainerRole,
    Execution,
    ExecutionState,
    FailureClass,
    FinishAction,
    InfraRetry,
    PodbrokerError,
    Policies,
    ResultSource,
    TargetHealth,
    TargetKind,
    TargetPlace,
)

if TYPE_CHECKING:
    from enum import Enum
    from pathlib import Path

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=timezone.utc)


def seen(execution: Execution) -> Any:
    """Gives the request, which the scripted broker puts in the place of the pod."""
    assert execution.pod_json is not None
    return json.loads(execution.pod_json)


def unpickled(value: Any) -> Any:
    """Gives what another process would see."""
    return pickle.loads(pickle.dumps(value))  # noqa: S301 - made right here


def test_an_execution_arrives_with_every_field(client: Client) -> None:
    execution = client.get("ok")
    assert (execution.name, execution.execution_id, execution.target, execution.tenant) == (
        "ok",
        "id-1",
        "default",
        "team",
    )
    assert execution.labels == {"a": "b"}
    assert execution.state is ExecutionState.FAILED
    assert execution.state.is_final
    assert execution.create_time == execution.end_time == execution.release_time == MOMENT
    assert execution.create_time is not None
    assert execution.create_time.tzinfo is timezone.utc
    assert execution.start_time is None
    assert execution.pod_json is None
    assert execution.cancel is not None
    assert execution.cancel.failure_class is FailureClass.CANCELLED_BY_CALLER
    assert execution.attempts[0].pod_name == "p"
    assert execution.outcome is not None
    assert execution.outcome.failure_class is FailureClass.OUT_OF_MEMORY
    assert execution.outcome.exit_code == 137
    base, side = execution.outcome.containers
    assert (base.role, base.exit_code, base.signal, base.restart_count) == (ContainerRole.DECIDING, 137, 9, 2)
    assert (side.role, side.exit_code, side.signal, side.end_time) == (ContainerRole.SIDECAR, None, None, None)
    assert execution == client.get("ok")
    assert execution == unpickled(execution) == copy.deepcopy(execution)


def test_the_pod_comes_with_the_full_view_only(client: Client) -> None:
    assert client.get("ok").pod_json is None
    assert client.get("ok", full=True).pod_json == b'{"kind":"Pod"}'


def test_a_submit_says_all_that_it_was_given(client: Client) -> None:
    pod = {"metadata": {"name": "x"}, "spec": {"big": 2**53 + 1}}
    submission = client.submit(
        target=TargetPlace(cluster="c", role_arn="arn"),
        execution_id="e",
        pod=pod,
        submit_before=MOMENT,
        labels={"k": "v"},
        policies=Policies(
            start_deadline=timedelta(minutes=2),
            run_deadline=timedelta(days=1, microseconds=5),
            finish=FinishAction.DELETE_SUCCEEDED,
            ttl=timedelta(hours=1),
            result=ResultSource.SIDECAR,
            result_max_bytes=1000,
            deciding_containers=("base",),
            drain_deadline=timedelta(seconds=3),
            infra_retry=InfraRetry(
                failure_classes=(FailureClass.EVICTED,),
                max_attempts=3,
                max_free_attempts=4,
                backoff=timedelta(seconds=5),
            ),
            orphan_after=timedelta(minutes=6),
        ),
        required_features=["x"],
        validate_only=True,
        must_exist=True,
    )
    assert (submission.claim, submission.created) == ("claim-1", True)
    request = seen(submission.execution)
    manifest = request.pop("workload")["pod"]["json"]
    assert json.loads(base64.b64decode(manifest)) == pod
    assert request == {
        "target": {"place": {"cluster": "c", "roleArn": "arn"}},
        "executionId": "e",
        "submitBefore": "2026-01-02T03:04:05.000006Z",
        "labels": {"k": "v"},
        "policies": {
            "deadlines": {"start": "120s", "run": "86400.000005s"},
            "finish": {"action": "FINISH_ACTION_DELETE_SUCCEEDED", "ttl": "3600s"},
            "result": {"source": "RESULT_SOURCE_SIDECAR", "maxBytes": 1000},
            "decidingContainers": ["base"],
            "drainDeadline": "3s",
            "infraRetry": {
                "failureClasses": ["FAILURE_CLASS_EVICTED"],
                "maxAttempts": 3,
                "maxFreeAttempts": 4,
                "backoff": "5s",
            },
            "orphan": {"cancelAfter": "360s"},
        },
        "requiredFeatures": ["x"],
        "validateOnly": True,
        "mustExist": True,
    }


@pytest.mark.parametrize("pod", ['{"kind": "Pod"}', b'{"kind": "Pod"}'])
def test_a_manifest_may_be_json_text_and_is_not_changed(client: Client, pod: str | bytes) -> None:
    request = seen(client.submit(target="t", execution_id="e", pod=pod).execution)
    assert base64.b64decode(request["workload"]["pod"]["json"]) == b'{"kind": "Pod"}'
    assert request["target"] == {"name": "t"}


def test_what_is_not_json_is_no_manifest(client: Client) -> None:
    with pytest.raises(ValueError, match="JSON"):
        client.submit(target="t", execution_id="e", pod={"x": float("nan")})


def test_the_other_calls_say_all_that_they_were_given(client: Client) -> None:
    assert seen(client.cancel("n", claim="c", reason="r", grace=timedelta(seconds=9))) == {
        "name": "n",
        "claim": "c",
        "reason": "r",
        "grace": "9s",
    }
    assert seen(client.release("n", claim="c")) == {"name": "n", "claim": "c"}
    page = client.list("t", labels={"k": "v"}, states=[ExecutionState.RUNNING], page_size=7, page_token="p")
    assert page.next_page_token == "more"
    assert seen(page.executions[0]) == {
        "target": {"name": "t"},
        "labels": {"k": "v"},
        "states": ["EXECUTION_STATE_RUNNING"],
        "pageSize": 7,
        "pageToken": "p",
    }


def test_targets_and_checks_and_the_broker_itself_are_described(client: Client) -> None:
    one, two = client.targets()
    assert (one.kind, one.health, one.place.role_arn) == (TargetKind.EKS, TargetHealth.SERVING, "arn")
    assert (two.kind, two.health_reason) == (TargetKind.UNKNOWN, "gone")
    passed, failed = client.check("t")
    assert (passed.link, passed.status, passed.detail) == ("caller", CheckStatus.PASSED, "t")
    assert (failed.subject, failed.status, failed.fix) == ("create pods", CheckStatus.FAILED, "allow it")
    info = client.server_info()
    assert (info.version, info.features, info.max_manifest_bytes) == ("1.2.3", ("batch",), 256 << 10)


ERRORS = [
    ("INVALID_ARGUMENT", "INVALID_REQUEST", podbroker.InvalidRequestError),
    ("INVALID_ARGUMENT", "INVALID_SPEC", podbroker.InvalidSpecError),
    ("INVALID_ARGUMENT", "INVALID_CURSOR", podbroker.InvalidCursorError),
    ("UNAUTHENTICATED", "UNAUTHENTICATED", podbroker.NotAuthenticatedError),
    ("PERMISSION_DENIED", "TARGET_NOT_ALLOWED", podbroker.NotAllowedError),
    ("NOT_FOUND", "NO_SUCH_TARGET", podbroker.NotFoundError),
    ("NOT_FOUND", "NO_SUCH_EXECUTION", podbroker.NotFoundError),
    ("NOT_FOUND", "EXPIRED", podbroker.ExpiredError),
    ("ALREADY_EXISTS", "EXECUTION_ID_REUSED", podbroker.ConflictError),
    ("FAILED_PRECONDITION", "SUBMIT_WINDOW_CLOSED", podbroker.RefusedError),
    ("FAILED_PRECONDITION", "FORBIDDEN_BY_CLUSTER", podbroker.RefusedError),
    ("FAILED_PRECONDITION", "NAMESPACE_NOT_FOUND", podbroker.RefusedError),
    ("FAILED_PRECONDITION", "ADMISSION_DENIED", podbroker.RefusedError),
    ("FAILED_PRECONDITION", "CREDENTIALS_REFUSED", podbroker.CredentialsError),
    ("FAILED_PRECONDITION", "CLAIM_SUPERSEDED", podbroker.RefusedError),
    ("RESOURCE_EXHAUSTED", "QUOTA", podbroker.QuotaError),
    ("RESOURCE_EXHAUSTED", "OVERLOADED", podbroker.UnavailableError),
    ("UNIMPLEMENTED", "UNSUPPORTED_FEATURE", podbroker.UnsupportedError),
    ("UNAVAILABLE", "BACKEND_UNAVAILABLE", podbroker.UnavailableError),
    ("UNAVAILABLE", "CREDENTIALS_UNAVAILABLE", podbroker.UnavailableError),
    ("UNAVAILABLE", "DRAINING", podbroker.UnavailableError),
    ("INTERNAL", "INTERNAL", podbroker.BrokerError),
    # A reason of a newer broker, and none at all.
    ("FAILED_PRECONDITION", "SOMETHING_NEW", podbroker.RefusedError),
    ("NOT_FOUND", "", podbroker.NotFoundError),
    ("OUT_OF_RANGE", "", podbroker.InvalidRequestError),
    ("RESOURCE_EXHAUSTED", "", podbroker.InvalidRequestError),
]


@pytest.mark.parametrize(("code", "reason", "kind"), ERRORS)
def test_each_error_of_the_contract_has_its_exception(
    address: str, code: str, reason: str, kind: type[PodbrokerError]
) -> None:
    with Client(address, retry_for=0) as client, pytest.raises(PodbrokerError) as caught:
        client.get(f"error/{code}/{reason}")
    error = caught.value
    assert type(error) is kind
    assert (error.code, error.reason, error.request_id) == (code, reason, "request-1")
    assert error.retryable == (kind in {podbroker.UnavailableError, podbroker.QuotaError})
    assert str(error) == f"{code} because of {reason}"


def test_an_exception_keeps_its_attributes_in_a_pickle(client: Client) -> None:
    with pytest.raises(podbroker.InvalidSpecError) as caught:
        client.get("error/INVALID_ARGUMENT/INVALID_SPEC")
    error = unpickled(caught.value)
    assert type(error) is podbroker.InvalidSpecError
    assert error.field_violations == (
        podbroker.FieldViolation(field="spec.containers[0].imagee", description="unknown field"),
    )
    assert (error.code, error.reason, error.request_id) == ("INVALID_ARGUMENT", "INVALID_SPEC", "request-1")
    assert str(error) == str(caught.value)


def test_a_failure_that_may_pass_is_tried_again(client: Client) -> None:
    assert client.get("flaky/2/calls").execution_id == "id-1"


def test_a_broker_that_is_not_there_is_unavailable() -> None:
    with Client("http://127.0.0.1:1", retry_for=0.2) as client, pytest.raises(podbroker.UnavailableError) as caught:
        client.server_info()
    assert caught.value.retryable


def test_a_call_that_is_not_answered_ends_with_its_time() -> None:
    """Against a port that takes connections and says nothing."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with (
            Client(f"http://127.0.0.1:{port}", call_timeout=0.3, retry_for=0) as client,
            pytest.raises(podbroker.UnavailableError),
        ):
            client.server_info()


def test_a_token_travels_and_is_never_shown(address: str, tmp_path: Path) -> None:
    with Client(address, token="s3cret-value") as client:
        assert client.server_info().caller_subject == "Bearer s3cret-value"
        assert "s3cret" not in repr(client) + str(client) + repr(client._core)
    file = tmp_path / "token"
    file.write_text("from-file\n")
    with Client(address, token_file=file) as client:
        assert client.server_info().caller_subject == "Bearer from-file"


def test_a_broker_behind_a_unix_socket_is_reached(tmp_path: Path) -> None:
    with broker_at(f"unix:{tmp_path}/socket") as address, Client(address, token="t") as client:
        assert client.server_info().caller_subject == "Bearer t"


@pytest.mark.parametrize(
    "arguments",
    [
        {"address": "127.0.0.1:1"},
        {"address": "ftp://x"},
        {"address": "http://broker.example", "token": "t"},
        {"address": "http://127.0.0.1:1", "ca_file": "/x"},
        {"address": "https://127.0.0.1:1", "ca_file": "/there/is/none"},
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(arguments: dict[str, str]) -> None:
    with pytest.raises(podbroker.InvalidRequestError):
        Client(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "arguments",
    [
        {"token": "a", "token_file": "b"},
        {"client_certificate_file": "a"},
        {"connect_timeout": -1.0},
        {"retry_for": float("nan")},
    ],
)
def test_arguments_that_contradict_are_refused_at_once(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"token|client_certificate_file|connect_timeout|retry_for"):
        Client("http://127.0.0.1:1", **arguments)


def test_a_time_without_a_zone_is_refused(client: Client) -> None:
    with pytest.raises(ValueError, match="time zone"):
        client.submit(target="t", execution_id="e", pod={}, submit_before=datetime(2026, 1, 1))  # noqa: DTZ001
    with pytest.raises(ValueError, match="time zone"):
        client.watch("ok", since=datetime(2026, 1, 1))  # noqa: DTZ001


def test_an_unknown_word_cannot_be_asked_for(client: Client) -> None:
    with pytest.raises(ValueError, match="UNKNOWN"):
        client.list("t", states=[ExecutionState.UNKNOWN])


def test_clients_with_the_same_settings_share_a_connection(address: str) -> None:
    with Client(address) as one, Client(address) as two, Client(address, retry_for=1) as other:
        assert one.server_info().instance == two.server_info().instance
        assert one.server_info().instance != other.server_info().instance


def test_a_client_that_is_made_after_its_certificate_was_renewed_has_the_new_one(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.give("127.0.0.1", file="server")
    authority.give("one", file="client")
    files = {
        "ca_file": tmp_path / "ca.pem",
        "client_certificate_file": tmp_path / "client.pem",
        "client_key_file": tmp_path / "client.key",
    }
    with broker_at("127.0.0.1:0", str(tmp_path)) as address, Client(address, **files) as before:
        assert before.server_info().caller_subject == "one"
        authority.give("two", file="client")
        os.utime(tmp_path / "client.pem", ns=(0, 1))  # also where a clock ticks slowly
        with Client(address, **files) as after:
            assert after.server_info().caller_subject == "two"
        assert before.server_info().caller_subject == "one"


def test_a_closed_client_connects_again(address: str) -> None:
    client = Client(address, retry_for=17)
    before = client.server_info().instance
    client.close()
    assert client.server_info().instance != before


def test_many_threads_may_use_one_client(client: Client) -> None:
    names: list[str] = []
    threads = [threading.Thread(target=lambda n=n: names.append(client.get(f"ok/{n}").name)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(names) == sorted(f"ok/{n}" for n in range(20))


def test_every_word_of_the_contract_is_known_here() -> None:
    """A word that the contract has and Python lacks would be an exception in the middle of a watch."""
    from scripted_broker import POOL

    enums: dict[str, type[Enum]] = {
        "ExecutionState": podbroker.ExecutionState,
        "FailureClass": podbroker.FailureClass,
        "ContainerRole": podbroker.ContainerRole,
        "FinishAction": podbroker.FinishAction,
        "ResultSource": podbroker.ResultSource,
        "GapReason": podbroker.GapReason,
        "NoticeSeverity": podbroker.NoticeSeverity,
        "TargetKind": podbroker.TargetKind,
        "TargetHealth": podbroker.TargetHealth,
        "CheckStatus": podbroker.CheckStatus,
    }
    for name, enum in enums.items():
        values = [value.name for value in POOL.FindEnumTypeByName(f"podbroker.v1.{name}").values]
        prefix = values[0].removesuffix("UNSPECIFIED")
        words = {value.removeprefix(prefix) for value in values[1:]}
        assert words == {member.value for member in enum} - {"UNKNOWN"}, name
        for member in enum:
            assert str(member) == f"{member}" == member.value == member.name
