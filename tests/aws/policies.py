"""What policies allow: Effect, Action and Resource with wildcards, and conditions of the kind StringLike."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from .refusals import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .signatures import Caller
    from .state import State


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
    """What no request tells does not hold."""
    if unknown := set(condition) - {"StringLike"}:
        raise ValueError(f"conditions of the kind {unknown} are not played here")
    wanted = condition.get("StringLike", {})
    return all(
        key in context and any(fnmatchcase(context[key], one) for one in _list(values))
        for key, values in wanted.items()
    )


def _list(value: Any) -> list[Any]:  # noqa: ANN401  JSON
    return value if isinstance(value, list) else [value]
