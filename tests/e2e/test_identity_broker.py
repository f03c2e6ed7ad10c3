"""The broker walks the identity chain: web identity, assumed role, EKS token, Kubernetes user, pod.

The token is judged by the authenticator's own verifier; AWS is a double that verifies signatures and trust.
"""

from __future__ import annotations

import base64
import itertools
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

import podbroker
from cluster.identity import ROLE, USER
from e2e.aws import NAMESPACE, TARGET
from e2e.following import Story, collect, ended, follow, follow_until, has_line
from e2e.manifests import UNTIL_TOLD, numbered, shell
from e2e.proxy import make_certificate
from e2e.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from e2e.aws import Aws
    from e2e.broker import Broker, Brokers
    from e2e.site import Namespace

#: Seconds of a session's life at which the broker assumes the role again for each token, and may still use it: it wants
#: two minutes.
SHORT = 125

#: The namespace and its role are there for each.
pytestmark = pytest.mark.usefixtures("remote")


def prepared(aws: Aws, brokers: Brokers, *, target: dict[str, Any] | None = None) -> Broker:
    """A broker that is the workload; not started yet."""
    broker = brokers.prepare(namespace=NAMESPACE, targets=[target or aws.target()], aws={"credentials": "irsa"})
    broker.environment |= aws.environment()
    return broker


@pytest.fixture
def broker(aws: Aws, brokers: Brokers) -> Broker:
    """A broker whose target is the remote cluster."""
    return prepared(aws, brokers).start()


def submit(client: podbroker.Client, execution_id: str, script: str) -> str:
    return client.submit(target=TARGET, execution_id=execution_id, pod=shell(script)).execution.name


def test_the_whole_chain_runs_a_pod(aws: Aws, broker: Broker) -> None:
    client = broker.client()
    name = submit(client, "chain", "echo over the whole chain")

    story = follow(client, name)

    assert story.text() == ["over the whole chain"]
    assert story.states[-1] == "SUCCEEDED"
    (assumed,) = aws.calls("AssumeRole")
    assert assumed["caller"].startswith("arn:aws:sts::444455556666:assumed-role/AirflowWorkload/")
    assert (assumed["role"], assumed["session_name"], assumed["outcome"]) == (ROLE, "podbroker-e2e", "OK")
    assert "eks:DescribeCluster" in assumed["policy"]
    (described,) = aws.calls("DescribeCluster")
    assert described["caller"] == "arn:aws:sts::111122223333:assumed-role/AstroRemoteKPO/podbroker-e2e"
    asked = [one for one in aws.site.cluster.requests(USER) if one["objectRef"].get("namespace") == NAMESPACE]
    assert {(one["verb"], one["objectRef"]["resource"]) for one in asked} >= {("create", "pods"), ("watch", "pods")}
    assert all(one["user"]["extra"]["sessionName"] == ["podbroker-e2e"] for one in asked[-1:])
    assert all(one["outcome"] == "OK" for one in aws.checks())


def test_another_namespace_is_refused(aws: Aws, brokers: Brokers) -> None:
    broker = prepared(aws, brokers, target=aws.target(namespace="default")).start()
    with pytest.raises(podbroker.RefusedError, match="cannot create resource") as refused:
        submit(broker.client(), "elsewhere", "true")
    assert USER in str(refused.value)


def test_sessions_that_end_during_a_run_are_not_noticed(aws: Aws, brokers: Brokers) -> None:
    aws.role["lifetime"] = SHORT
    aws.apply()
    client = prepared(aws, brokers).start().client()
    name = submit(client, "long", numbered(400, pause="0.05"))
    with client.watch(name) as watch:
        story = collect(watch, Story(), has_line("line 1"), within=90)
        assert len(aws.calls("AssumeRole")) == 1

        # The keys die before their time; the next request is answered with 401, once the API server's memory has faded.
        assert aws.expire() >= 1
        deadline = time.monotonic() + 60
        runs = 0
        while len(aws.calls("AssumeRole")) == 1:
            assert time.monotonic() < deadline
            runs += 1
            assert follow(client, submit(client, f"short-{runs}", "echo done")).text() == ["done"]
        collect(watch, story, ended, within=120)

    assert "ExpiredToken" in {one["outcome"] for one in aws.checks()}
    assert story.text() == [f"line {i}" for i in range(1, 401)]
    assert not story.gaps
    assert story.outcome.exit_code == 0


def test_an_outage_of_sts_of_a_minute_is_not_seen_by_live_streams(aws: Aws, broker: Broker) -> None:
    client = broker.client()
    name = submit(client, "outage", numbered(350, pause="0.2"))
    with client.watch(name) as watch:
        story = collect(watch, Story(), has_line("line 1"), within=90)
        aws.faults({"service": "sts", "kind": "reset"})
        begin = time.monotonic()
        collect(watch, story, lambda _: time.monotonic() > begin + 60, within=90)
        assert len(story.text()) > 200
        aws.faults()
        collect(watch, story, ended, within=120)

    assert story.text() == [f"line {i}" for i in range(1, 351)]
    assert not story.gaps
    assert story.outcome.state is podbroker.ExecutionState.SUCCEEDED


def test_throttling_of_sts_is_waited_out(aws: Aws, brokers: Brokers) -> None:
    aws.faults({"service": "sts", "action": "AssumeRole", "kind": "throttle", "times": 2})
    client = prepared(aws, brokers).start().client()

    story = follow(client, submit(client, "throttled", "echo done"))

    assert story.text() == ["done"]
    assert len(aws.calls("AssumeRole", outcome="Throttling")) == 2
    assert len(aws.calls("AssumeRole", outcome="OK")) == 1


def test_an_outage_on_a_cold_start_is_waited_out_by_the_client(aws: Aws, brokers: Brokers) -> None:
    aws.faults({"service": "*", "kind": "unavailable"})
    broker = prepared(aws, brokers).start()
    with pytest.raises(podbroker.UnavailableError):
        submit(broker.client(retry_for=0.0), "cold", "echo done")
    client = broker.client()
    with ThreadPoolExecutor(1) as pool:
        submitted = pool.submit(submit, client, "cold", "echo done")

        def tries() -> int:
            return len(aws.calls("AssumeRoleWithWebIdentity", outcome="ServiceUnavailable"))

        before = tries()
        wait_for("another try", lambda: tries() > before)
        aws.faults()
        assert follow(client, submitted.result(timeout=90)).text() == ["done"]


def test_an_outage_of_eks_is_not_noticed_once_the_cluster_is_known(aws: Aws, broker: Broker) -> None:
    client = broker.client()
    follow(client, submit(client, "warm", "true"))
    aws.faults({"service": "eks", "kind": "unavailable"})

    assert follow(client, submit(client, "during", "echo done")).text() == ["done"]


def test_a_new_authority_of_the_cluster_is_taken_over(aws: Aws, brokers: Brokers) -> None:
    with brokers.api_server_proxy() as proxy:
        aws.cluster["endpoint"] = f"https://127.0.0.1:{proxy.port}"
        aws.cluster["certificate_authority"] = _data(brokers.folder / "proxy/authority.crt")
        aws.apply()
        # A resumed TLS session would show no certificate.
        assert proxy.tls is not None
        proxy.tls.server.num_tickets = 0
        proxy.tls.server.options |= ssl.OP_NO_TICKET
        client = prepared(aws, brokers).start().client()
        name = submit(client, "rotated", UNTIL_TOLD)
        follow_until(client, name, has_line("ready"))
        assert len(aws.calls("DescribeCluster")) == 1

        folder = brokers.folder / "successor"
        folder.mkdir()
        files = make_certificate(folder)
        aws.cluster["certificate_authority"] = _data(brokers.folder / "proxy/authority.crt", files.authority)
        aws.apply()
        proxy.tls.server.load_cert_chain(files.chain, files.key)
        # The cluster was described seconds ago, which is as good as now to the broker; then it asks again.
        time_of_description = aws.calls("DescribeCluster")[0]["time"]
        wait_for("the description to be old", lambda: time.time() > time_of_description + 6, within=30)
        proxy.cut()

        client.cancel(name, reason="enough")
        assert follow(client, name).states[-1] == "CANCELLED"
        assert follow(client, submit(client, "after", "echo done")).text() == ["done"]
        assert len(aws.calls("DescribeCluster")) == 2


def _data(*files: Path) -> str:
    return base64.b64encode(b"".join(file.read_bytes() for file in files)).decode()


def test_five_hundred_submits_on_a_cold_broker_ask_aws_once(aws: Aws, brokers: Brokers, remote: Namespace) -> None:
    # Nobody gets anything from AWS before all have asked.
    aws.faults({"service": "*", "action": "AssumeRoleWithWebIdentity", "kind": "hang"})
    client = prepared(aws, brokers).start().client()
    # The pods are not to run: no node has that label.
    manifest = shell("true", nodeSelector={"podbroker.test/nowhere": "yes"})
    begun = threading.Barrier(500 + 1)

    def one(number: int) -> str:
        begun.wait()
        return client.submit(target=TARGET, execution_id=f"many-{number}", pod=manifest).execution.name

    with ThreadPoolExecutor(500) as pool:
        submitted = [pool.submit(one, number) for number in range(500)]
        begun.wait()
        wait_for("the first to ask", aws.held)
        aws.faults()
        names = {one.result(timeout=120) for one in submitted}

    assert len(names) == 500
    assert len(remote.pods) == 500
    assert len(aws.calls("AssumeRoleWithWebIdentity")) == 1
    assert len(aws.calls("AssumeRole")) == 1
    assert len(aws.calls("DescribeCluster")) == 1


def test_a_cluster_that_cannot_ask_sts_is_waited_for_by_who_was_taken_before(aws: Aws, broker: Broker) -> None:
    client, impatient, tries = broker.client(), broker.client(retry_for=0.0), itertools.count()
    follow(client, submit(client, "before", "true"))
    # The authenticator's call alone; the broker itself asks who it is only for a check.
    aws.faults({"service": "sts", "action": "GetCallerIdentity", "kind": "unavailable"})

    def refusal() -> podbroker.PodbrokerError | None:
        try:
            submit(impatient, f"during-{next(tries)}", "true")
        except podbroker.PodbrokerError as error:
            return error
        return None

    # The API server itself takes a token that was good for good for 10 seconds.
    error = wait_for("the outage to show", refusal, within=120)
    assert isinstance(error, podbroker.UnavailableError)
    assert error.reason == "CREDENTIALS_UNAVAILABLE"
    with ThreadPoolExecutor(1) as pool:
        submitted = pool.submit(submit, client, "during", "echo done")
        checks = len(aws.checks())
        wait_for("another try", lambda: len(aws.checks()) > checks, within=120)
        aws.faults()
        assert follow(client, submitted.result(timeout=120)).text() == ["done"]


def test_a_role_that_the_cluster_never_took_is_refused_at_once(aws: Aws, broker: Broker) -> None:
    aws.map_roles({})
    with pytest.raises(podbroker.CredentialsError) as refused:
        submit(broker.client(), "stranger", "true")
    assert refused.value.reason == "CREDENTIALS_REFUSED"
