"""Who may do what on an EKS cluster, judged by the authenticator's own verifier, without the broker.

The tokens are made as the AWS command line makes them. These tests prove the doubles and the cluster, so that the tests
of the broker (`test_identity_broker.py`) can lean on them.
"""

from __future__ import annotations

import base64
import subprocess
from typing import TYPE_CHECKING, Any

import boto3
import botocore.exceptions
import moto
import pytest

from cluster.identity import CLUSTER, REGION, ROLE
from e2e.aws import NAMESPACE, WORKLOAD, Aws
from e2e.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from e2e.site import Site

#: The namespace and its role are there for each.
pytestmark = pytest.mark.usefixtures("remote")


def can_i(site: Site, kubeconfig: Path, *question: str) -> tuple[bool, str]:
    """Asks the API server; the text tells a refusal of the request from a no."""
    command = [*site.cluster.kubectl_command(), f"--kubeconfig={kubeconfig}", "auth", "can-i", *question]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() == "yes", done.stdout + done.stderr


def is_refused(site: Site, kubeconfig: Path) -> bool:
    """Whether the token is not even looked at: 401."""
    _, text = can_i(site, kubeconfig, "create", "pods", "-n", NAMESPACE)
    return "must be logged in" in text or "Unauthorized" in text


def code_of(error: pytest.ExceptionInfo[botocore.exceptions.ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


def message_of(error: pytest.ExceptionInfo[botocore.exceptions.ClientError]) -> str:
    return str(error.value.response["Error"]["Message"])


def test_the_role_may_create_pods_in_its_namespace_and_nowhere_else(aws: Aws) -> None:
    credentials = aws.role_session()
    assert aws.describe(credentials)["endpoint"] == aws.site.cluster.facts["server"]

    kubeconfig = aws.kubeconfig(aws.token(credentials))

    assert can_i(aws.site, kubeconfig, "create", "pods", "-n", NAMESPACE)[0]
    assert not can_i(aws.site, kubeconfig, "create", "pods", "-n", "default")[0]
    assert not can_i(aws.site, kubeconfig, "get", "secrets", "-n", NAMESPACE)[0]
    who = subprocess.run(
        [*aws.site.cluster.kubectl_command(), f"--kubeconfig={kubeconfig}", "auth", "whoami", "-o", "json"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert '"username": "AstroRemoteKPO"' in who
    assert "assumed-role/AstroRemoteKPO/test" in who


def test_a_token_for_another_cluster_is_refused(aws: Aws) -> None:
    token = aws.token(aws.role_session(), cluster="other")
    assert is_refused(aws.site, aws.kubeconfig(token))
    assert aws.checks()[-1]["outcome"] == "SignatureDoesNotMatch"


def test_a_token_with_a_wrong_signature_is_refused(aws: Aws) -> None:
    credentials = aws.role_session()
    credentials["SecretAccessKey"] = "x" + credentials["SecretAccessKey"][1:]
    assert is_refused(aws.site, aws.kubeconfig(aws.token(credentials)))
    assert aws.checks()[-1]["outcome"] == "SignatureDoesNotMatch"


def test_a_token_with_another_session_token_is_refused(aws: Aws) -> None:
    credentials, other = aws.role_session(), aws.role_session()
    credentials["SessionToken"] = other["SessionToken"]
    assert is_refused(aws.site, aws.kubeconfig(aws.token(credentials)))
    assert aws.checks()[-1]["outcome"] == "InvalidClientTokenId"


def test_a_token_of_more_than_4096_bytes_is_refused_without_asking(aws: Aws) -> None:
    aws.role["token_size"] = 2300
    aws.apply()
    token = aws.token(aws.role_session())
    assert len(token) <= 4096
    assert can_i(aws.site, aws.kubeconfig(token), "create", "pods", "-n", NAMESPACE)[0]
    before = len(aws.checks())

    aws.role["token_size"] = 3000
    aws.apply()
    token = aws.token(aws.role_session())

    assert len(token) > 4096
    assert is_refused(aws.site, aws.kubeconfig(token))
    assert len(aws.checks()) == before


def test_a_token_ends_with_its_session(aws: Aws) -> None:
    kubeconfig = aws.kubeconfig(aws.token(aws.role_session()))
    assert can_i(aws.site, kubeconfig, "create", "pods", "-n", NAMESPACE)[0]

    assert aws.expire() == 1

    # The API server itself takes a token that was good for good for 10 seconds.
    wait_for("the token to be refused", lambda: is_refused(aws.site, kubeconfig), within=30)
    assert aws.checks()[-1]["outcome"] == "ExpiredToken"


def test_a_token_with_a_clock_that_is_wrong_is_refused(aws: Aws) -> None:
    kubeconfig = aws.kubeconfig(aws.token(aws.role_session()))
    for offset in (20 * 60, -20 * 60):
        aws.config["clock_offset"] = offset
        aws.apply()
        assert is_refused(aws.site, kubeconfig)
        assert aws.checks()[-1]["outcome"] == "SignatureDoesNotMatch"
    aws.config["clock_offset"] = 0
    aws.apply()
    assert can_i(aws.site, kubeconfig, "create", "pods", "-n", NAMESPACE)[0]


def test_a_role_that_nobody_is_mapped_from_is_refused(aws: Aws) -> None:
    kubeconfig = aws.kubeconfig(aws.token(aws.role_session()))
    aws.map_roles({})
    assert is_refused(aws.site, kubeconfig)
    aws.map_roles({ROLE: {"username": "somebody-else", "groups": []}})
    allowed, text = can_i(aws.site, kubeconfig, "create", "pods", "-n", NAMESPACE)
    assert not allowed
    assert text.startswith("no")


def test_a_token_is_refused_with_padding_port_or_another_host(aws: Aws) -> None:
    token = aws.token(aws.role_session())
    url = base64.urlsafe_b64decode(token.removeprefix("k8s-aws-v1.") + "==").decode()
    before = len(aws.checks())
    for other in (
        url.replace("amazonaws.com/", "amazonaws.com:443/"),
        url.replace("sts.us-east-1.amazonaws.com", "sts.us-east-1.example.com"),
        url.replace("https:", "http:"),
        url + "&x-id=GetCallerIdentity",
        url.replace("&X-Amz-Expires=60", ""),
    ):
        assert other != url
        forged = "k8s-aws-v1." + base64.urlsafe_b64encode(other.encode()).decode().rstrip("=")
        assert is_refused(aws.site, aws.kubeconfig(forged)), other
    assert is_refused(aws.site, aws.kubeconfig(token + "="))
    assert len(aws.checks()) == before


@pytest.mark.parametrize(
    ("trust", "asked", "code", "words"),
    [
        ({"principals": []}, {}, "AccessDenied", "sts:AssumeRole"),
        ({"external_id": "right"}, {"ExternalId": "wrong"}, "AccessDenied", "sts:AssumeRole"),
        ({"external_id": "right"}, {}, "AccessDenied", "sts:AssumeRole"),
        ({}, {"Tags": [{"Key": "team", "Value": "data"}]}, "AccessDenied", "sts:TagSession"),
        ({}, {"SourceIdentity": "podbroker"}, "AccessDenied", "sts:SetSourceIdentity"),
        ({}, {"DurationSeconds": 7200}, "ValidationError", "1 hour session limit"),
        ({}, {"Policy": "{"}, "MalformedPolicyDocument", "JSON"),
    ],
)
def test_a_role_is_assumed_only_as_its_trust_allows(
    aws: Aws, trust: dict[str, Any], asked: dict[str, Any], code: str, words: str
) -> None:
    aws.role["trust"] |= trust
    aws.apply()
    with pytest.raises(botocore.exceptions.ClientError) as error:
        aws.role_session(**asked)
    assert code_of(error) == code
    assert words in message_of(error)


def test_a_role_is_assumed_with_all_that_its_trust_allows(aws: Aws) -> None:
    aws.role["trust"] |= {"external_id": "right", "tag_session": True, "set_source_identity": True}
    aws.apply()

    aws.role_session(ExternalId="right", Tags=[{"Key": "team", "Value": "data"}], SourceIdentity="podbroker")

    (call,) = aws.calls("AssumeRole")
    assert call["tags"] == {"team": "data"}
    assert call["source_identity"] == "podbroker"


def test_a_session_may_only_do_what_its_policy_and_its_role_allow(aws: Aws) -> None:
    nothing = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}'
    with pytest.raises(botocore.exceptions.ClientError) as error:
        aws.describe(aws.role_session(Policy=nothing))
    assert code_of(error) == "AccessDeniedException"
    assert "no session policy allows" in message_of(error)
    with pytest.raises(botocore.exceptions.ClientError) as error:
        aws.describe(aws.workload_session())
    assert "no identity-based policy allows" in message_of(error)
    with pytest.raises(botocore.exceptions.ClientError) as error:
        aws.describe(aws.role_session(), name="missing")
    assert code_of(error) == "AccessDeniedException"
    assert aws.describe(aws.role_session())["name"] == CLUSTER


def test_faults_are_told_as_aws_tells_them(aws: Aws) -> None:
    credentials = aws.role_session()
    aws.faults({"service": "sts", "kind": "throttle", "times": 1}, {"service": "eks", "kind": "throttle", "times": 1})
    with pytest.raises(botocore.exceptions.ClientError) as error:
        aws.workload_session()
    assert code_of(error) == "Throttling"
    with pytest.raises(botocore.exceptions.ClientError) as error:
        aws.describe(credentials)
    assert code_of(error) == "ThrottlingException"
    aws.describe(credentials)
    aws.faults({"service": "eks", "kind": "reset"})
    with pytest.raises(botocore.exceptions.ConnectionClosedError):
        aws.describe(credentials)


def shape(value: Any) -> Any:  # noqa: ANN401  what botocore has parsed
    """Names and types, without values."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items() if key != "ResponseMetadata"}
    return type(value).__name__


def test_answers_have_the_shape_of_another_implementation(aws: Aws) -> None:
    ours = {
        "AssumeRole": aws.call_sts("assume_role", aws.workload_session(), RoleArn=ROLE, RoleSessionName="test"),
        "AssumeRoleWithWebIdentity": aws.call_sts(
            "assume_role_with_web_identity",
            None,
            RoleArn=WORKLOAD,
            RoleSessionName="test",
            WebIdentityToken=aws.web_identity,
        ),
        "GetCallerIdentity": aws.call_sts("get_caller_identity", aws.role_session()),
    }
    cluster = aws.describe(aws.role_session())
    keys = {"region_name": REGION, "aws_access_key_id": "AKIAEXAMPLE", "aws_secret_access_key": "secret"}
    with moto.mock_aws():
        sts, eks = boto3.client("sts", **keys), boto3.client("eks", **keys)
        theirs = {
            "AssumeRole": sts.assume_role(RoleArn=ROLE, RoleSessionName="test"),
            "AssumeRoleWithWebIdentity": sts.assume_role_with_web_identity(
                RoleArn=WORKLOAD, RoleSessionName="test", WebIdentityToken="a.b.c"
            ),
            "GetCallerIdentity": sts.get_caller_identity(),
        }
        role = "arn:aws:iam::123456789012:role/eks"
        eks.create_cluster(name=CLUSTER, roleArn=role, resourcesVpcConfig={})
        their_cluster = eks.describe_cluster(name=CLUSTER)["cluster"]

    for action, answer in ours.items():
        mine, other = shape(answer), shape(theirs[action])
        assert (
            mine["Credentials" if "Credentials" in mine else "Arn"]
            == other["Credentials" if "Credentials" in other else "Arn"]
        )
        assert mine.get("AssumedRoleUser") == other.get("AssumedRoleUser")
    for key in ("name", "arn", "createdAt", "version", "endpoint", "roleArn", "status", "certificateAuthority"):
        assert shape(cluster[key]) == shape(their_cluster[key]), key
