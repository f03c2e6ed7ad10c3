"""Who may call, and what each caller sees."""

from __future__ import annotations

import hashlib
import secrets
import subprocess
from typing import TYPE_CHECKING, Any

import grpc
import pytest

import podbroker
from e2e.broker import program, toml
from e2e.following import follow, follow_until, has_line
from e2e.manifests import UNTIL_TOLD, shell
from e2e.proxy import make_certificate
from e2e.waiting import wait_for
from e2e.wire import Wire, reason_of
from podbroker import Client

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from e2e.broker import Broker, Brokers
    from e2e.site import Namespace

TARGET = "local"
TOKENS = {key: secrets.token_hex(32) for key in ("blue", "green", "red")}


def _entry(token: str, *, tenant: str, targets: list[str]) -> dict[str, Any]:
    digest = hashlib.sha256(token.encode()).hexdigest()
    return {"sha256": digest, "subject": f"caller-{tenant}", "tenant": tenant, "targets": targets}


@pytest.fixture
def broker(namespace: Namespace, brokers: Brokers) -> Broker:
    """A broker with two tenants and a caller that may use nothing."""
    entries = [
        _entry(TOKENS["blue"], tenant="blue", targets=[TARGET]),
        _entry(TOKENS["green"], tenant="green", targets=["*"]),
        _entry(TOKENS["red"], tenant="red", targets=[]),
    ]
    return brokers.start(namespace=namespace, tokens=entries)


def test_a_call_without_a_token_or_with_another_is_not_authenticated(broker: Broker) -> None:
    for token in (None, "", "garbage", "x" * 10_000, TOKENS["blue"][:-1], TOKENS["blue"] + " "):
        with pytest.raises((podbroker.NotAuthenticatedError, podbroker.InvalidRequestError, ValueError)):
            broker.client(token=token).targets()
    for metadata in ("Bearer", "Bearer ", "Basic abc", TOKENS["blue"], "Bearer \x01"):
        with Wire(broker.port) as wire:
            wire._metadata = [("authorization", metadata)]
            with pytest.raises((grpc.RpcError, ValueError)) as refused:
                wire.call("ListTargets", {})
        if isinstance(refused.value, grpc.RpcError) and refused.value.code() is not grpc.StatusCode.INTERNAL:
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
            assert reason_of(refused.value) == "UNAUTHENTICATED"
    assert not any(token in broker.log for token in TOKENS.values())


def test_a_tenant_neither_sees_nor_touches_what_is_another_tenants(broker: Broker, namespace: Namespace) -> None:
    blue, green = broker.client(token=TOKENS["blue"]), broker.client(token=TOKENS["green"])
    name = blue.submit(target=TARGET, execution_id="mine", pod=shell(UNTIL_TOLD)).execution.name
    story = follow_until(blue, name, has_line("ready"))

    for call in (green.get, green.cancel, green.release, lambda name: list(green.watch(name))):
        with pytest.raises(podbroker.NotFoundError) as refused:
            call(name)
        assert refused.value.reason == "NO_SUCH_EXECUTION"
    with pytest.raises((podbroker.NotFoundError, podbroker.InvalidCursorError)):
        list(green.watch(name, cursor=story.events[-1].cursor))
    assert green.list(TARGET).executions == ()
    assert [execution.execution_id for execution in blue.list(TARGET).executions] == ["mine"]

    # The same id is another execution for another tenant.
    other = green.submit(target=TARGET, execution_id="mine", pod=shell("echo green"))
    assert other.created
    assert follow(green, other.execution.name).text() == ["green"]
    assert len(namespace.pods) == 2
    blue.cancel(name)
    assert blue.server_info().caller_tenant == "blue"
    assert blue.server_info().caller_subject == "caller-blue"


def test_a_target_that_is_not_allowed_is_not_allowed(broker: Broker, namespace: Namespace) -> None:
    red = broker.client(token=TOKENS["red"])

    with pytest.raises(podbroker.NotAllowedError) as refused:
        red.submit(target=TARGET, execution_id="x", pod=shell("true"))

    assert refused.value.reason == "TARGET_NOT_ALLOWED"
    with pytest.raises(podbroker.NotAllowedError):
        red.list(TARGET)
    assert red.targets() == ()
    assert namespace.pods == []
    assert [target.name for target in broker.client(token=TOKENS["green"]).targets()] == [TARGET]


def test_a_token_is_read_again_from_its_file(broker: Broker, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKENS["blue"] + "\n")
    with Client(broker.address, token_file=file) as client:
        assert client.server_info().caller_tenant == "blue"
        file.write_text(TOKENS["green"])
        assert client.server_info().caller_tenant == "green"
        assert TOKENS["green"] not in repr(client)


def test_a_listener_with_tls_serves_who_trusts_its_certificate(
    namespace: Namespace, brokers: Brokers, tmp_path: Path
) -> None:
    files = make_certificate(tmp_path)
    entry = _entry(TOKENS["blue"], tenant="blue", targets=["*"])
    tls = {"certificate": str(files.chain), "key": str(files.key)}
    broker = brokers.start(namespace=namespace, tokens=[entry], tls=tls)
    address = f"https://localhost:{broker.port}"

    with Client(address, token=TOKENS["blue"], ca_file=files.authority) as client:
        name = client.submit(target=TARGET, execution_id="tls", pod=shell("echo secret")).execution.name
        assert follow(client, name).text() == ["secret"]
    with (
        Client(address, token=TOKENS["blue"], retry_for=1, connect_timeout=2) as stranger,
        pytest.raises(podbroker.PodbrokerError),
    ):
        stranger.targets()
    with (
        Client(broker.address, token=TOKENS["blue"], retry_for=1, connect_timeout=2) as plain,
        pytest.raises(podbroker.PodbrokerError),
    ):
        plain.targets()


def test_a_certificate_that_was_replaced_is_served_without_a_restart(
    namespace: Namespace, brokers: Brokers, tmp_path: Path
) -> None:
    first, second = (tmp_path / name for name in ("first", "second"))
    for folder in (first, second):
        folder.mkdir()
    files, others = make_certificate(first), make_certificate(second)
    entry = _entry(TOKENS["blue"], tenant="blue", targets=["*"])
    tls = {"certificate": str(files.chain), "key": str(files.key)}
    broker = brokers.start(namespace=namespace, tokens=[entry], tls=tls)

    def is_trusted(authority: Path) -> bool:
        address = f"https://localhost:{broker.port}"
        with Client(address, token=TOKENS["blue"], ca_file=authority, retry_for=1, connect_timeout=5) as client:
            try:
                return client.server_info().caller_tenant == "blue"
            except podbroker.PodbrokerError:
                return False

    assert is_trusted(files.authority)
    assert not is_trusted(others.authority)
    # In the middle of a replacement the files do not belong together; what was there before serves on.
    others.key.replace(files.key)
    wait_for("the broker to look", lambda: is_trusted(files.authority) and "left aside" in broker.log, within=120)
    others.chain.replace(files.chain)
    wait_for("the new certificate", lambda: is_trusted(others.authority), within=120)


@pytest.mark.parametrize(("missing", "word"), [("tokens", "token"), ("tls", "tls")])
def test_a_listener_for_other_machines_without_tokens_or_tls_is_refused_at_the_start(
    namespace: Namespace, brokers: Brokers, tmp_path: Path, missing: str, word: str
) -> None:
    files = make_certificate(tmp_path)
    sections: dict[str, Any] = {
        "tokens": [_entry(TOKENS["blue"], tenant="blue", targets=["*"])],
        "tls": {"certificate": str(files.chain), "key": str(files.key)},
    }
    del sections[missing]
    config = brokers.prepare(namespace=namespace, **sections).config

    refusal = _refusal({**config, "listen": "0.0.0.0:0"}, tmp_path)

    assert "0.0.0.0:0" in refusal or "listen" in refusal
    assert word in refusal


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"listn": "127.0.0.1:1"}, ["listn"]),
        ({"instance": "Not A Label"}, ["instance"]),
        ({"listen": "nowhere"}, ["listen"]),
        ({"targets": []}, ["targets"]),
        ({"targets": [{"name": "a", "kind": "kubeconfig", "kubeconfig": "/not/there"}]}, ["/not/there"]),
        ({"targets": [{"name": "a", "kind": "kubeconfg"}]}, ["kubeconfg"]),
        ({"targets": [{"name": "a", "kind": "kubeconfig", "namspace": "x"}]}, ["namspace"]),
        ({"limits": {"drain": "soon"}}, ["drain"]),
        ({"tokens": [{"sha256": "abc", "subject": "x"}]}, ["sha256"]),
    ],
)
def test_a_configuration_that_is_wrong_is_refused_with_the_key(
    namespace: Namespace, brokers: Brokers, tmp_path: Path, change: Mapping[str, Any], words: list[str]
) -> None:
    config = brokers.prepare(namespace=namespace).config

    refusal = _refusal({**config, **change}, tmp_path)

    assert all(word in refusal for word in words), refusal


def test_a_configuration_that_cannot_be_read_is_refused_with_its_path(tmp_path: Path) -> None:
    for file, content in (("not-there.toml", None), ("broken.toml", b"listen = ["), ("binary.toml", b"\xff\xfe\x00")):
        path = tmp_path / file
        if content is not None:
            path.write_bytes(content)
        done = _serve(path)
        assert done.returncode != 0
        assert str(path) in done.stderr
        assert "panicked" not in done.stderr


def _refusal(config: Mapping[str, Any], folder: Path) -> str:
    file = folder / "wrong.toml"
    file.write_text(toml(config))
    done = _serve(file)
    assert done.returncode != 0, "it must not start"
    assert "panicked" not in done.stderr
    return done.stderr


def _serve(file: Path) -> subprocess.CompletedProcess[str]:
    """Runs a broker that is expected to refuse; one that starts is ended by the time limit and fails the test."""
    return subprocess.run(
        [program(), "serve", "--config", file], capture_output=True, text=True, check=False, timeout=30
    )
