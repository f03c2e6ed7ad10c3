"""What callers get wrong, and what breaks others: each is a clear error or exact bytes, never a panic or a hang."""

from __future__ import annotations

import json
import random
import struct
from typing import TYPE_CHECKING

import grpc
import pytest

import podbroker
from e2e.following import follow
from e2e.manifests import IMAGE, shell
from e2e.wire import Wire, reason_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from e2e.broker import Broker, Brokers
    from e2e.site import Namespace
    from podbroker import Client

TARGET = "local"
NOWHERE = {"nodeSelector": {"nowhere": "x"}}


@pytest.fixture
def broker(namespace: Namespace, brokers: Brokers) -> Iterator[Broker]:
    """A broker that must still answer, and must not have panicked, when the test is over."""
    broker = brokers.start(namespace=namespace)
    yield broker
    assert broker.client().server_info().instance == "e2e"
    assert "panicked" not in broker.log


@pytest.fixture
def client(broker: Broker) -> Client:
    return broker.client()


@pytest.fixture
def wire(broker: Broker) -> Iterator[Wire]:
    with Wire(broker.port) as wire:
        yield wire


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"spec": {"containers": [{"name": "main", "image": IMAGE, "comand": ["x"]}]}}, "spec.containers[0].comand"),
        ({"spec": {"containers": [{"name": "main", "image": IMAGE}], "restartPolcy": "Never"}}, "spec.restartPolcy"),
        ({"spec": {"containers": [{"name": "Not A Name", "image": IMAGE}]}}, "spec.containers[0].name"),
        ({"spec": {"containers": [{"name": "main", "image": IMAGE}], "restartPolicy": "Always"}}, "spec.restartPolicy"),
        ({"spec": {"containers": []}}, "spec.containers"),
        ({"metadata": {"namespace": "kube-system"}}, "metadata.namespace"),
        ({"metadata": {"labels": {"podbroker.io/instance": "x"}}}, "metadata.labels"),
        ({"status": {"phase": "Succeeded"}}, "status"),
        ({"kind": "Deployment"}, "kind"),
    ],
)
def test_a_manifest_that_is_wrong_is_refused_with_the_path_of_the_field(
    namespace: Namespace, client: Client, change: dict[str, object], path: str
) -> None:
    manifest = {**shell("true"), **change}

    with pytest.raises(podbroker.InvalidSpecError) as refused:
        client.submit(target=TARGET, execution_id="wrong", pod=manifest)

    assert refused.value.reason == "INVALID_SPEC"
    assert any(one.field.startswith(path) for one in refused.value.field_violations), refused.value.field_violations
    assert namespace.pods == []


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '"pod"', "null", "\x00", "{}", '{"spec": 1}', '{"spec": {"containers": 1}}']
)
def test_a_manifest_that_is_no_pod_is_refused(namespace: Namespace, client: Client, text: str) -> None:
    with pytest.raises(podbroker.InvalidRequestError):
        client.submit(target=TARGET, execution_id="no-pod", pod=text)
    assert namespace.pods == []


def test_a_manifest_of_depth_is_refused_and_kills_nobody(client: Client) -> None:
    with pytest.raises(podbroker.InvalidRequestError):
        client.submit(target=TARGET, execution_id="deep", pod="[" * 100_000 + "]" * 100_000)


def test_a_manifest_over_the_limit_is_refused_and_one_below_it_runs(namespace: Namespace, client: Client) -> None:
    limit = client.server_info().max_manifest_bytes
    big = shell("true")
    big["metadata"] = {"annotations": {"filler": "x" * limit}}
    with pytest.raises(podbroker.InvalidRequestError) as refused:
        client.submit(target=TARGET, execution_id="big", pod=big)
    assert str(limit) in str(refused.value).replace(",", "").replace("_", "")
    assert namespace.pods == []

    # Random, so that nothing makes it small again.
    source = random.Random(1)
    arguments = [f"{source.getrandbits(256):064x}" for _ in range(limit // 70)]
    fits = shell("echo $#")
    fits["spec"]["containers"][0]["args"] = arguments[: int(len(arguments) * 0.9)]
    submission = client.submit(target=TARGET, execution_id="fits", pod=fits)
    assert submission.created


@pytest.mark.parametrize("execution_id", ["", "-x", "a/b", "a b", "é", "x" * 201, "a\nb", "../x"])
def test_an_id_of_the_wrong_form_is_refused(client: Client, execution_id: str) -> None:
    with pytest.raises(podbroker.InvalidRequestError) as refused:
        client.submit(target=TARGET, execution_id=execution_id, pod=shell("true"))
    assert refused.value.reason == "INVALID_REQUEST"


@pytest.mark.parametrize("execution_id", ["x" * 200, "A.b_c:d@e=f+g~h-9", "0"])
def test_an_id_of_every_allowed_form_runs(client: Client, execution_id: str) -> None:
    name = client.submit(target=TARGET, execution_id=execution_id, pod=shell("echo hi")).execution.name

    story = follow(client, name)

    assert story.text() == ["hi"]
    assert story.end.execution_id == execution_id


@pytest.mark.parametrize("target", ["nowhere", "", "Not A Name", "x" * 300])
def test_an_unknown_target_is_not_found_or_invalid(client: Client, target: str) -> None:
    with pytest.raises((podbroker.NotFoundError, podbroker.InvalidRequestError)):
        client.submit(target=target, execution_id="x", pod=shell("true"))


@pytest.mark.parametrize(
    "name", ["", "x", "targets//executions/", "targets/local/executions/a/b", "\x00", "x" * 100_000]
)
def test_a_name_of_the_wrong_form_is_refused_by_every_call(client: Client, name: str) -> None:
    for call in (client.get, client.cancel, client.release, lambda name: list(client.watch(name))):
        with pytest.raises((podbroker.InvalidRequestError, podbroker.NotFoundError)):
            call(name)


def test_a_line_of_ten_megabytes_without_end_arrives_exactly(client: Client) -> None:
    size = 10_000_000
    script = f"head -c {size} /dev/zero | tr '\\0' 'z'; echo; echo after"
    name = client.submit(target=TARGET, execution_id="long", pod=shell(script)).execution.name

    story = follow(client, name, within=200)

    first, second = story.content()
    assert len(first) == size
    assert first == b"z" * size
    assert second == b"after"
    assert not story.gaps
    assert max(len(line.content) for line in story.lines["main"]) <= 65536


def test_lines_of_any_bytes_arrive_exactly(client: Client) -> None:
    octal = "".join(f"\\{value:03o}" for value in range(256) if value != 10)
    script = f"printf '{octal}\\n\\n\\r \\n  \\n'"
    name = client.submit(target=TARGET, execution_id="bytes", pod=shell(script)).execution.name

    story = follow(client, name)

    assert story.content() == [bytes(value for value in range(256) if value != 10), b"", b"\r ", b"  "]


def test_a_pod_that_says_nothing_ends(client: Client) -> None:
    name = client.submit(target=TARGET, execution_id="silent", pod=shell("")).execution.name

    story = follow(client, name)

    assert story.lines == {}
    assert story.outcome.exit_code == 0


def test_a_command_that_does_not_exist_is_a_failure_with_its_cause(client: Client) -> None:
    manifest = shell("true")
    manifest["spec"]["containers"][0]["command"] = ["/no/such/program"]
    name = client.submit(target=TARGET, execution_id="command", pod=manifest).execution.name

    story = follow(client, name)

    assert story.outcome.state is podbroker.ExecutionState.FAILED
    assert "/no/such/program" in story.outcome.message + story.outcome.containers[0].message


@pytest.mark.parametrize("cursor", [b"x", b"\x00" * 40, b"\xff" * 16384, b"\x01", b"{}"])
def test_a_forged_cursor_is_refused(client: Client, cursor: bytes) -> None:
    name = client.submit(target=TARGET, execution_id="forged", pod=shell("true", **NOWHERE)).execution.name

    with pytest.raises(podbroker.InvalidCursorError) as refused:
        follow(client, name, cursor=cursor)

    assert refused.value.reason == "INVALID_CURSOR"


def test_a_cursor_of_another_execution_or_with_a_flipped_bit_is_refused(client: Client) -> None:
    stories = {}
    for key in ("one", "two"):
        name = client.submit(target=TARGET, execution_id=key, pod=shell("echo hi")).execution.name
        stories[key] = follow(client, name)
    cursor = stories["one"].events[-1].cursor

    with pytest.raises(podbroker.InvalidCursorError):
        follow(client, stories["two"].end.name, cursor=cursor)
    for position in range(0, len(cursor), max(1, len(cursor) // 16)):
        flipped = bytearray(cursor)
        flipped[position] ^= 1
        with pytest.raises(podbroker.InvalidCursorError):
            follow(client, stories["one"].end.name, cursor=bytes(flipped))


def test_a_request_over_the_limit_is_refused_by_the_transport(broker: Broker, wire: Wire) -> None:
    request = {"target": {"name": TARGET}, "execution_id": "huge", "workload": {"pod": {"json": ""}}}
    small = _bytes_of(wire, request)
    # Field 5 of the request, `labels`, unknown to nobody and far too large.
    filler = b"x" * 20_000_000
    huge = small + _length_delimited(5, _length_delimited(1, b"key") + _length_delimited(2, filler))

    with pytest.raises(grpc.RpcError) as refused:
        wire.call("SubmitExecution", huge)

    assert refused.value.code() in {grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert broker.client().server_info().max_request_bytes < len(filler)


def test_fields_that_a_newer_client_sends_do_no_harm(wire: Wire, namespace: Namespace) -> None:
    manifest = json.dumps(shell("true", **NOWHERE)).encode()
    workload = _length_delimited(1, _length_delimited(1, manifest))
    request = _length_delimited(1, _length_delimited(1, TARGET.encode())) + _length_delimited(2, b"newer")
    request += _length_delimited(4, workload) + _length_delimited(999, b"a field of the future")

    wire.call("SubmitExecution", request)

    assert len(namespace.pods) == 1


def test_a_feature_that_the_broker_does_not_have_is_refused_and_never_ignored(
    client: Client, wire: Wire, namespace: Namespace
) -> None:
    with pytest.raises(podbroker.UnsupportedError):
        client.submit(target=TARGET, execution_id="f", pod=shell("true"), required_features=("time-travel",))
    base = {"target": {"name": TARGET}, "execution_id": "g", "workload": {"batch": {"job_definition": "x"}}}
    with pytest.raises(grpc.RpcError) as refused:
        wire.call("SubmitExecution", base)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert reason_of(refused.value) == "UNSUPPORTED_FEATURE"
    assert namespace.pods == []


@pytest.mark.parametrize(
    "request_bytes",
    [b"", b"\xff" * 100, b"\x0a\x05hello", b"\x12\x03\xff\xfe\xfd", bytes(range(256))],
)
def test_bytes_that_are_no_request_are_refused(wire: Wire, request_bytes: bytes) -> None:
    for method in ("SubmitExecution", "GetExecution", "CancelExecution", "ListExecutions", "ReleaseExecution"):
        with pytest.raises(grpc.RpcError) as refused:
            wire.call(method, request_bytes)
        assert refused.value.code() in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL}


def test_struct_manifests_keep_whole_numbers_whole(wire: Wire, namespace: Namespace) -> None:
    manifest = shell("true", **NOWHERE, terminationGracePeriodSeconds=7, activeDeadlineSeconds=3600)
    request = {"target": {"name": TARGET}, "execution_id": "struct", "workload": {"pod": {"struct": manifest}}}

    wire.call("SubmitExecution", request)

    assert namespace.only_pod["spec"]["terminationGracePeriodSeconds"] == 7
    assert namespace.only_pod["spec"]["activeDeadlineSeconds"] == 3600


def _bytes_of(wire: Wire, request: Mapping[str, object]) -> bytes:
    return wire._bytes("SubmitExecution", request)


def _length_delimited(field: int, content: bytes) -> bytes:
    """A protobuf field of wire type 2."""
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += struct.pack("B", value & 0x7F | 0x80)
        value >>= 7
    return out + struct.pack("B", value)
