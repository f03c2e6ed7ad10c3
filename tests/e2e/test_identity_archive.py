"""The archive's bucket reached by a target's role or by the broker's own, as the shipped policy allows it.

S3 is a double that verifies signatures and evaluates policies, before a store that keeps the objects.
"""

from __future__ import annotations

import json
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from cluster.identity import REGION, ROLE
from e2e.archiving import LINES, LONG, SLOW, SLOW_LINES, WORDS, archived, gone
from e2e.aws import NAMESPACE, TARGET, WORKLOAD
from e2e.following import follow
from e2e.manifests import shell
from e2e.proxy import Proxy
from e2e.stores import BUCKET, Bucket
from e2e.waiting import wait_for
from podbroker import CheckStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.aws import Aws
    from e2e.broker import Broker, Brokers
    from e2e.site import Namespace
    from podbroker import Client

POLICY: Final = json.loads((Path(__file__).parents[2] / "k8s/aws/archive-policy.json").read_text())
#: The shipped policy is for this folder.
FOLDER: Final = "podbroker"
SESSION: Final = "arn:aws:sts::111122223333:assumed-role/AstroRemoteKPO/podbroker-e2e"
#: Seconds. A session that was just made is not to blame for a refusal.
BLAMELESS: Final = 60.0


@pytest.fixture
def bucket(s3: tuple[str, int], aws: Aws) -> Iterator[Bucket]:
    """The bucket of the shipped policy, behind the double."""
    host, port = s3
    aws.config["s3"] = {"upstream": f"{host}:{port}"}
    aws.apply()
    with Proxy(upstream=s3) as proxy:
        bucket = Bucket(server=s3, prefix=f"{FOLDER}/{secrets.token_hex(4)}", proxy=proxy)
        bucket.make()
        yield bucket


def prepared(aws: Aws, brokers: Brokers, bucket: Bucket, **more: Any) -> Broker:  # noqa: ANN401  keys of [archive]
    """A broker that is the workload; not started yet."""
    archive = {"url": f"s3://{BUCKET}/{bucket.prefix}", "region": REGION, "flush": "1s", **more}
    broker = brokers.prepare(namespace=NAMESPACE, targets=[aws.target()], aws={"credentials": "irsa"}, archive=archive)
    broker.environment |= aws.environment() | {"AWS_ENDPOINT_URL_S3": aws.site.cluster.facts["aws"]["s3"]}
    return broker


def run(client: Client, name: str, script: str) -> str:
    return client.submit(target=TARGET, execution_id=name, pod=shell(script)).execution.name


def asked_of_s3(aws: Aws) -> list[dict[str, Any]]:
    """The calls of the broker."""
    actions = ("PutObject", "GetObject", "DeleteObject", "ListBucket")
    return [call for action in actions for call in aws.calls(action)]


def told_of_archive(client: Client) -> tuple[CheckStatus, set[CheckStatus]]:
    """What a check says of the archive, and of all that is before it."""
    *chain, archive = client.check(TARGET)
    assert archive.link == "archive"
    return archive.status, {check.status for check in chain}


def no_secret_is_in(log: str, aws: Aws) -> bool:
    return not any(secret in log for secret in aws.secrets())


def test_the_role_of_a_target_reaches_the_archive_in_a_session_of_its_own(
    aws: Aws, brokers: Brokers, bucket: Bucket, remote: Namespace
) -> None:
    aws.role["policy"] = {"Statement": [*aws.role["policy"]["Statement"], *POLICY["Statement"]]}
    aws.apply()
    broker = prepared(aws, brokers, bucket, credentials_of=TARGET).start()
    client = broker.client()
    name = run(client, "role", WORDS)
    archived(bucket)
    gone(client, remote, name, target=TARGET)
    assert follow(client, name).text() == LINES

    calls = asked_of_s3(aws)
    assert {(call["caller"], call["outcome"]) for call in calls} == {(SESSION, "OK")}
    root = f"arn:aws:s3:::{BUCKET}/{bucket.prefix}/e2e/"
    assert all(call["resource"].startswith(root) for call in calls if call["action"] != "ListBucket")
    # One session for the cluster, one for the folder, and neither can do what the other is for.
    policies = sorted(call["policy"] for call in aws.calls("AssumeRole", outcome="OK"))
    assert len(policies) == 2
    (cluster,) = [policy for policy in policies if "eks:" in policy]
    (folder,) = [policy for policy in policies if "s3:" in policy]
    assert "s3:" not in cluster
    assert "eks:" not in folder
    assert f"{root}*" in folder
    assert no_secret_is_in(broker.log, aws)


def test_the_shipped_policy_is_enough_for_the_brokers_own_role(
    aws: Aws, brokers: Brokers, bucket: Bucket, remote: Namespace
) -> None:
    aws.config["roles"][WORKLOAD]["policy"] = POLICY
    aws.apply()
    broker = prepared(aws, brokers, bucket).start()
    client = broker.client()
    name = run(client, "own", WORDS)
    archived(bucket)
    gone(client, remote, name, target=TARGET)
    assert follow(client, name).text() == LINES

    callers = {(call["caller"].rpartition("/")[0], call["outcome"]) for call in asked_of_s3(aws)}
    assert callers == {("arn:aws:sts::444455556666:assumed-role/AirflowWorkload", "OK")}
    assert no_secret_is_in(broker.log, aws)


@pytest.mark.usefixtures("remote")
def test_a_role_that_may_not_write_yet_keeps_no_broker_from_its_work(
    aws: Aws, brokers: Brokers, bucket: Bucket
) -> None:
    aws.config["roles"][WORKLOAD]["policy"] = POLICY
    aws.apply()
    broker = prepared(aws, brokers, bucket, credentials_of=TARGET).start()
    assert "the archive cannot be used" in broker.log
    assert "AccessDenied" in broker.log
    client = broker.client()
    name = run(client, "early", WORDS)
    assert follow(client, name).text() == LINES
    assert told_of_archive(client) == (CheckStatus.WARNING, {CheckStatus.PASSED})
    assert {call["caller"] for call in asked_of_s3(aws)} == {SESSION}

    aws.role["policy"] = {"Statement": [*aws.role["policy"]["Statement"], *POLICY["Statement"]]}
    aws.apply()
    archived(bucket)
    assert no_secret_is_in(broker.log, aws)


@pytest.mark.usefixtures("remote")
def test_a_role_that_does_not_let_the_broker_in_is_named_for_the_archive_too(
    aws: Aws, brokers: Brokers, bucket: Bucket
) -> None:
    aws.role["trust"] = {"principals": []}
    aws.apply()
    broker = prepared(aws, brokers, bucket, credentials_of=TARGET).start()
    assert f"not allowed to assume {ROLE}" in broker.log
    archive, chain = told_of_archive(broker.client())
    assert archive is CheckStatus.WARNING
    assert CheckStatus.FAILED in chain
    assert not asked_of_s3(aws)
    assert no_secret_is_in(broker.log, aws)


def test_a_session_that_is_withdrawn_is_replaced_and_nothing_is_missing(
    aws: Aws, brokers: Brokers, bucket: Bucket, remote: Namespace
) -> None:
    aws.role["policy"] = {"Statement": [*aws.role["policy"]["Statement"], *POLICY["Statement"]]}
    aws.apply()
    broker = prepared(aws, brokers, bucket, credentials_of=TARGET).start()
    begin = time.monotonic()
    client = broker.client()
    name = run(client, "first", WORDS)
    archived(bucket)
    wait_for("the session to be old enough", lambda: time.monotonic() > begin + BLAMELESS, within=LONG)
    assert aws.expire() >= 1
    second = run(client, "second", SLOW)
    archived(bucket, count=2)
    outcomes = {call["outcome"] for call in asked_of_s3(aws)}
    assert outcomes == {"OK", "ExpiredToken"}
    gone(client, remote, name, second, target=TARGET)
    story = follow(client, second)
    assert story.text() == SLOW_LINES
    assert not story.gaps
    assert no_secret_is_in(broker.log, aws)
