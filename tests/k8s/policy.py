"""Decides a call by IAM policies: the part of AWS's rules that the shipped policies use, and an error for the rest.

A call is allowed when a statement allows it and none denies it. Between accounts both sides must allow it: the
caller's own policy and the resource's
(https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html). A condition on a key that
a call does not carry does not hold. Which keys a call can carry is not known here but looked up in the data that AWS
publishes (policy_sentry), since that is what a condition in the wrong statement stumbles over.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from policy_sentry.querying.actions import get_action_data
from policy_sentry.shared.iam_data import get_service_prefix_data

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Policy = dict[str, Any]

KNOWN: Final = {"Sid", "Effect", "Principal", "Action", "Resource", "Condition"}
#: What a request can carry whatever it asks for.
GLOBAL_KEYS: Final = {"aws:SourceArn"}
#: A key in AWS's data that stands for one with any tag.
ANY_TAG: Final = "${TagKey}"


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call as IAM sees it; `principal` is `kind:name` as in a policy's principal, such as `AWS:arn:...`."""

    action: str
    resource: str = "*"
    principal: str = ""
    context: Mapping[str, str] = field(default_factory=dict)


def allows(policy: Policy, call: Call) -> bool:
    """Whether one policy allows the call; a policy with principals is asked on behalf of the resource that it is on."""
    effects = {one["Effect"] for one in policy["Statement"] if _applies(one, call)}
    assert effects <= {"Allow", "Deny"}
    return effects == {"Allow"}


def refused(
    *,
    own: Policy | None,
    trust: Policy,
    role: str,
    principal: str,
    external_id: str = "",
    tags: tuple[str, ...] = (),
    source_identity: str = "",
    action: str = "sts:AssumeRole",
    context: Mapping[str, str] | None = None,
) -> list[str]:
    """What of taking on a role is refused: STS asks for each thing that a request carries, on both sides.

    `own` is the policy of the principal; without one the trust policy decides alone, as for AWS's own services and for
    web identities. Tags that a session inherits count as `tags`.
    """
    wanted = {action: dict(context or {})}
    if external_id:
        wanted[action]["sts:ExternalId"] = external_id
    if tags:
        wanted["sts:TagSession"] = {"sts:ExternalId": external_id} if external_id else {}
    if source_identity:
        wanted["sts:SetSourceIdentity"] = {"sts:SourceIdentity": source_identity}
    calls = [Call(action=it, resource=role, principal=principal, context=keys) for it, keys in wanted.items()]
    return [it.action for it in calls if not (allows(trust, it) and (own is None or allows(own, it)))]


def _applies(statement: Mapping[str, Any], call: Call) -> bool:
    assert set(statement) <= KNOWN, f"not understood: {set(statement) - KNOWN}"
    return (
        any(_matches(one, call.action, re.IGNORECASE) for one in _several(statement["Action"]))
        # A trust policy is on its role and names no resource.
        and any(_matches(one, call.resource) for one in _several(statement.get("Resource", "*")))
        and _is_for(statement.get("Principal"), call.principal)
        and all(_holds(operator, keys, call) for operator, keys in statement.get("Condition", {}).items())
    )


def _is_for(principal: Mapping[str, str | list[str]] | None, caller: str) -> bool:
    if principal is None:
        return True
    return any(caller == f"{kind}:{name}" for kind, names in principal.items() for name in _several(names))


def _holds(operator: str, keys: Mapping[str, str | list[str]], call: Call) -> bool:
    kind = operator.removesuffix("IfExists")
    assert kind in OPERATORS, f"not understood: {operator}"
    carried = {key: value for key, value in call.context.items() if can_carry(call.action, key)}
    same = OPERATORS[kind]
    return all(
        any(same(one, carried[key]) for one in _several(values)) if key in carried else operator != kind
        for key, values in keys.items()
    )


def can_carry(action: str, key: str) -> bool:
    """Whether calls of an action can carry a condition key."""
    name, _, tag = key.partition("/")
    known = known_keys(action) | GLOBAL_KEYS
    return key in known or (tag != "" and f"{name}/{ANY_TAG}" in known)


def known_keys(action: str) -> set[str]:
    """The condition keys that calls of an action can carry, those of tags as AWS's data has them."""
    service, _, name = action.partition(":")
    data = get_action_data(service, name)
    assert data, f"AWS has no action {action}"
    keys = {key for row in data[service] for key in row["condition_keys"]}
    # Some are of the action for one type of resource only, and the query leaves them out.
    everything = get_service_prefix_data(service)
    types = everything["privileges"][everything["privileges_lower_name"][name.lower()]]["resource_types"]
    keys |= {key for one in types.values() for key in one["condition_keys"]}
    provider = "oidc.eks.us-east-1.amazonaws.com/id/EXAMPLED539D4633E53DE1B71EXAMPLE"
    web = {f"{provider}:aud", f"{provider}:sub"} if name == "AssumeRoleWithWebIdentity" else set()
    return keys | web


def _several(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _matches(pattern: str, value: str, flags: re.RegexFlag = re.NOFLAG) -> bool:
    expression = "".join({"*": ".*", "?": "."}.get(one, re.escape(one)) for one in pattern)
    return re.fullmatch(expression, value, flags | re.DOTALL) is not None


#: The operators of conditions that are understood; each also with `IfExists` behind it, which holds without the key.
OPERATORS: Final[Mapping[str, Callable[[str, str], bool]]] = {
    "StringEquals": str.__eq__,
    "StringLike": _matches,
    "ArnEquals": _matches,
    "Bool": lambda one, other: one.lower() == other.lower(),
}
