"""EKS: DescribeCluster. A cluster in the configuration is found by `REGION/NAME` and belongs to an account."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from .policies import authorize
from .refusals import Answer, Refused, json_answer
from .signatures import Request, identify

if TYPE_CHECKING:
    from .state import State

_PATH: Final = re.compile(r"/clusters/([^/]+)")

#: Seconds since the epoch; any time will do.
_CREATED: Final = 1_750_000_000.0


def action_of(request: Request) -> str:
    """What is asked for."""
    found = request.method == "GET" and _PATH.fullmatch(urlsplit(request.target).path)
    return "DescribeCluster" if found else ""


def answer(request: Request, state: State, call: dict[str, Any]) -> Answer:
    """Answers one request; what happened is added to `call`."""
    caller = identify(request, service="eks", state=state)
    call |= {"caller": caller.arn, "region": caller.region}
    found = _PATH.fullmatch(urlsplit(request.target).path)
    if found is None or request.method != "GET":
        raise Refused("ResourceNotFoundException", "only DescribeCluster is played here", status=404)
    name = unquote(found[1])
    call["cluster"] = name
    arn = f"arn:aws:eks:{caller.region}:{caller.account}:cluster/{name}"
    authorize(caller, "eks:DescribeCluster", arn, state)
    cluster = state.config.get("clusters", {}).get(f"{caller.region}/{name}")
    if cluster is None or cluster["account"] != caller.account:
        raise Refused("ResourceNotFoundException", f"No cluster found for name: {name}.", status=404)
    return json_answer({"cluster": _describe(name, arn, cluster)})


def _describe(name: str, arn: str, cluster: dict[str, Any]) -> dict[str, Any]:
    described = {
        "name": name,
        "arn": arn,
        "createdAt": _CREATED,
        "version": cluster.get("version", "1.34"),
        "roleArn": f"arn:aws:iam::{cluster['account']}:role/eks-cluster",
        "resourcesVpcConfig": {
            "subnetIds": [],
            "securityGroupIds": [],
            "endpointPublicAccess": True,
            "endpointPrivateAccess": False,
        },
        "kubernetesNetworkConfig": {"serviceIpv4Cidr": "10.96.0.0/16", "ipFamily": "ipv4"},
        "status": cluster.get("status", "ACTIVE"),
        "certificateAuthority": {},
        "platformVersion": "eks.1",
        "tags": {},
        "accessConfig": {"authenticationMode": "API_AND_CONFIG_MAP"},
    }
    # A cluster that is being made has neither.
    if cluster.get("endpoint"):
        described["endpoint"] = cluster["endpoint"]
    if cluster.get("certificate_authority"):
        described["certificateAuthority"] = {"data": cluster["certificate_authority"]}
    return described
