"""What policies allow: Effect, Action and Resource with wildcards, and conditions on strings and truths.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html
"""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

from .refusals import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .signatures import Caller
    from .state import State


#: Whether a value of the request is one of the policy's.
_OPERATORS: Final[dict[str, Callable[[str, str], bool]]] = {
    "StringEquals": lambda value, wanted: value == wanted,
    "StringLike": fnmatchcase,
    "Bool": lambda value, wanted: value.lower() == wanted.lower(),
}


def allows(
    policy: str | dict[str, Any], action: str, resource: str, *, context: Mapping[str, str] | None = None
) -> bool:
    """Whether some statement allows and none denies."""
    document = json.loads(policy) if isinstance(policy, str) else policy
    effects = {
        statement["Effect"]
        for statement in _list(document["Statement"])
        if any(fnmatchcase(action.lower(), one.lower()) for one in _list(statement["Action"]))
        and any(fnmatchcase(resource, one) for one in _list(statement["Resource"]))
        and _holds(statement.get("Condition", {}), context or {})
    }
    return effects == {"Allow"}


def authorize(
    caller: Caller, action: str, resource: str, state: State, *, context: Mapping[str, str] | None = None
) -> None:
    """The policy of a session's role and that of the session must both allow; a user may do everything."""
    session = caller.session
    if session is None:
        return
    text = f"User: {caller.arn} is not authorized to perform: {action} on resource: {resource}"
    policy = state.config.get("roles", {}).get(session.role, {}).get("policy")
    if policy is None or not allows(policy, action, resource, context=context):
        raise Refused("AccessDenied", f"{text} because no identity-based policy allows the {action} action")
    if session.policy is not None and not allows(session.policy, action, resource, context=context):
        raise Refused("AccessDenied", f"{text} because no session policy allows the {action} action")


def _holds(condition: Mapping[str, Any], context: Mapping[str, str]) -> bool:
    """What a request does not tell does not hold, but for the operators that say so; names of keys have no case."""
    told = {key.lower(): value for key, value in context.items()}
    for kind, wanted in condition.items():
        name = kind.removesuffix("IfExists")
        if name not in _OPERATORS:
            raise ValueError(f"conditions of the kind {kind} are not played here")
        for key, values in wanted.items():
            value = told.get(key.lower())
            if value is None and name == kind:
                return False
            if value is not None and not any(_OPERATORS[name](value, one) for one in _list(values)):
                return False
    return True


def _list(value: Any) -> list[Any]:  # noqa: ANN401  JSON
    return value if isinstance(value, list) else [value]
