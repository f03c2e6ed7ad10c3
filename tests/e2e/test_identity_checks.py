"""Every link of the identity chain broken once, and what `podbroker check` says of it, word by word.

`PODBROKER_GOLDEN=write` writes the files of `golden/check` anew; the change is then read as a diff.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from cluster.identity import CLUSTER, REGION, ROLE, USER
from cluster.network import free_port
from e2e.aws import NAMESPACE, TARGET
from e2e.broker import program
from e2e.proxy import make_certificate

if TYPE_CHECKING:
    from collections.abc import Callable

    from e2e.aws import Aws
    from e2e.broker import Brokers

GOLDEN: Final = Path(__file__).parent / "golden/check"
#: The unique id of the role, from before it was made anew.
FIRST_ID: Final = "AROAMADETHEFIRSTTIME"

#: What differs between two runs.
VARYING: Final = [
    (re.compile(r"127\.0\.0\.1:\d+"), "127.0.0.1:PORT"),
    (re.compile(r"for \d+ more minutes"), "for N more minutes"),
    (re.compile(r"web-identity-token-\d+"), "web-identity-token-TIME"),
    (re.compile(r"\d{8}T\d{6}Z"), "TIME"),
    (re.compile(r"\d{4}-\d\d-\d\d(T[\d:.]+Z)?"), "DAY"),
    (re.compile(r'(request_id": ")[0-9a-f]+'), r"\1REQUEST"),
    (re.compile(r"\b[0-9a-f]{32}\b"), "REQUEST"),
    (re.compile(r"the token has \d+ bytes"), "the token has N bytes"),
]

#: The namespace and its role are there for each.
pytestmark = pytest.mark.usefixtures("remote")


def check(aws: Aws, brokers: Brokers, *, target: dict[str, Any], environment: dict[str, str]) -> str:
    """What the command prints."""
    mode = "irsa" if "AWS_WEB_IDENTITY_TOKEN_FILE" in environment else "env"
    broker = brokers.prepare(namespace=NAMESPACE, targets=[target], aws={"credentials": mode})
    broker.environment |= environment
    broker.start()
    done = subprocess.run(
        [program(), "check", TARGET],
        env={"PATH": os.environ["PATH"], "PODBROKER_ADDRESS": broker.address},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode in (0, 1), done.stderr
    assert not any(secret in done.stdout for secret in aws.secrets())
    text = done.stdout
    for pattern, replacement in VARYING:
        text = pattern.sub(replacement, text)
    return text


def compare(name: str, text: str) -> None:
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("PODBROKER_GOLDEN") == "write":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert text == path.read_text(), f"{path}; PODBROKER_GOLDEN=write writes it anew"


def failed(text: str) -> list[str]:
    """The links that are broken."""
    return [" ".join(line.split()[1:3]) for line in text.splitlines() if line.startswith("FAIL")]


class Chain:
    """What a case may break."""

    def __init__(self, aws: Aws, folder: Path) -> None:
        self.aws, self.folder = aws, folder
        self.target: dict[str, Any] = aws.target()
        self.environment = aws.environment()

    def kubectl(self, *arguments: str) -> None:
        self.aws.site.cluster.kubectl(*arguments)


def no_trust(chain: Chain) -> None:
    chain.aws.role["trust"]["principals"] = ["arn:aws:iam::444455556666:role/SomebodyElse"]


def wrong_external_id(chain: Chain) -> None:
    chain.aws.role["trust"]["external_id"] = "tenant-7"
    chain.target["eks"] = {"external_id": "tenant-8"}


def missing_tag_session(chain: Chain) -> None:
    chain.target["eks"] = {"session_tags": {"team": "data"}}


def missing_source_identity(chain: Chain) -> None:
    chain.target["eks"] = {"source_identity": "airflow"}


def session_longer_than_chaining_allows(chain: Chain) -> None:
    chain.aws.role["max_seconds"] = 12 * 3600
    chain.target["eks"] = {"session_duration": "2h"}


def session_policy_too_narrow(chain: Chain) -> None:
    nothing = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    session = chain.aws.role_session(Policy=json.dumps(nothing))
    del chain.target["role_arn"]
    chain.environment = {
        **chain.aws.endpoints,
        "AWS_ACCESS_KEY_ID": session["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": session["SecretAccessKey"],
        "AWS_SESSION_TOKEN": session["SessionToken"],
    }


def role_may_not_describe(chain: Chain) -> None:
    chain.aws.role["policy"] = {"Version": "2012-10-17", "Statement": []}


def no_workload_identity(chain: Chain) -> None:
    chain.environment = chain.aws.endpoints


def web_identity_not_trusted(chain: Chain) -> None:
    chain.aws.config["web_identities"][chain.aws.web_identity] = "system:serviceaccount:other:other"


def cluster_being_made(chain: Chain) -> None:
    chain.aws.cluster.update(status="CREATING", endpoint="", certificate_authority="")


def no_such_cluster(chain: Chain) -> None:
    del chain.aws.config["clusters"][f"{REGION}/{CLUSTER}"]


def wrong_cluster_name_in_the_token(chain: Chain) -> None:
    chain.target["eks"] = {"cluster_id": "another-cluster"}


def no_access_entry(chain: Chain) -> None:
    chain.aws.map_roles({})


def recreated_role(chain: Chain) -> None:
    """Deleted and made anew: the name is the old one, the id that the access entry holds is not."""
    chain.aws.map_roles({ROLE: {"username": USER, "groups": [], "role_id": FIRST_ID}})
    chain.aws.role["id"] = "AROAMADEANOTHERTIME0"


def token_too_long(chain: Chain) -> None:
    chain.aws.role["token_size"] = 3000


def clock_skew(chain: Chain) -> None:
    chain.aws.config["clock_offset"] = 20 * 60


def role_binding_missing(chain: Chain) -> None:
    chain.kubectl("delete", "rolebinding", "--namespace", NAMESPACE, "--all")


def one_verb_missing(chain: Chain) -> None:
    rules = [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["create", "get", "list", "watch", "delete"]},
        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["events"], "verbs": ["list", "watch"]},
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "verbs": ["create", "list", "patch", "delete"],
        },
    ]
    patch = json.dumps({"rules": rules})
    chain.kubectl("patch", "role", "astro-remote-kpo-role", "--namespace", NAMESPACE, "--patch", patch)


def endpoint_unreachable(chain: Chain) -> None:
    chain.aws.cluster["endpoint"] = f"https://127.0.0.1:{free_port()}"


def authority_changed(chain: Chain) -> None:
    other = make_certificate(chain.folder).authority.read_bytes()
    chain.aws.cluster["certificate_authority"] = base64.b64encode(other).decode()


def region_without_sts(chain: Chain) -> None:
    chain.aws.config["regions_without_sts"] = [REGION]


def sts_away(chain: Chain) -> None:
    chain.aws.faults({"service": "sts", "action": "AssumeRole", "kind": "unavailable"})


def eks_throttles(chain: Chain) -> None:
    chain.aws.faults({"service": "eks", "kind": "throttle"})


#: What is broken, and the link where it shows.
CASES: Final[list[tuple[Callable[[Chain], None], str]]] = [
    (no_workload_identity, "workload-identity"),
    (web_identity_not_trusted, "workload-identity"),
    (region_without_sts, "workload-identity"),
    # The SDK takes AWS's time from its answers for its own requests, so nothing else would show it before the token.
    (clock_skew, "workload-identity"),
    (no_trust, "role"),
    (wrong_external_id, "role"),
    (missing_tag_session, "role"),
    (missing_source_identity, "role"),
    (session_longer_than_chaining_allows, "role"),
    (sts_away, "role"),
    (session_policy_too_narrow, "cluster"),
    (role_may_not_describe, "cluster"),
    (cluster_being_made, "cluster"),
    (no_such_cluster, "cluster"),
    (eks_throttles, "cluster"),
    (endpoint_unreachable, "connect"),
    (authority_changed, "connect"),
    (wrong_cluster_name_in_the_token, "token"),
    (no_access_entry, "token"),
    (recreated_role, "token"),
    (token_too_long, "token"),
    (role_binding_missing, "permission"),
    (one_verb_missing, "permission"),
]


def test_a_chain_that_holds_says_who_we_are_at_each_link(aws: Aws, brokers: Brokers) -> None:
    text = check(aws, brokers, target=aws.target(), environment=aws.environment())
    assert not failed(text)
    assert "skip" not in text
    compare("holds", text)


def test_an_access_entry_lets_in_the_role_that_it_was_made_for(aws: Aws, brokers: Brokers) -> None:
    aws.role["id"] = FIRST_ID
    aws.apply()
    aws.map_roles({ROLE: {"username": USER, "groups": [], "role_id": FIRST_ID}})
    compare("holds", check(aws, brokers, target=aws.target(), environment=aws.environment()))


@pytest.mark.parametrize(("broken", "link"), CASES, ids=[case.__name__ for case, _ in CASES])
def test_a_broken_link_is_named_with_its_fix(
    aws: Aws, brokers: Brokers, tmp_path: Path, broken: Callable[[Chain], None], link: str
) -> None:
    chain = Chain(aws, tmp_path)
    broken(chain)
    aws.apply()

    text = check(aws, brokers, target=chain.target, environment=chain.environment)

    assert {one.split()[0] for one in failed(text)} == {link}, text
    assert "to mend it: " in text
    compare(broken.__name__, text)
