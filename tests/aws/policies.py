"""What a policy allows: Effect, Action and Resource with wildcards; conditions are taken as met."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from typing import Any


def allows(policy: str | dict[str, Any], action: str, resource: str) -> bool:
    """Whether some statement allows and none denies."""
    document = json.loads(policy) if isinstance(policy, str) else policy
    effects = {
        statement["Effect"]
        for statement in _list(document["Statement"])
        if any(fnmatchcase(action.lower(), one.lower()) for one in _list(statement["Action"]))
        and any(fnmatchcase(resource, one) for one in _list(statement["Resource"]))
    }
    return effects == {"Allow"}


def _list(value: Any) -> list[Any]:  # noqa: ANN401  JSON
    return value if isinstance(value, list) else [value]
