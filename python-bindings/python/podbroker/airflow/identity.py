"""How a task instance is called at the broker: its execution id, its labels and its target.

On Airflow 3 the task instance's own id makes the name unique, together with the try's number: both stay over deferral,
reschedule and redelivery, and one of them is new after a retry or a clear. On 2.11 there is no such id; there the dag
run's database id takes its place, because a run id may be used again when a dag run was deleted. The readable part in
front is for people only.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from podbroker import Group, TargetPlace

if TYPE_CHECKING:
    from datetime import datetime

    from airflow.sdk import Context

    from podbroker import GroupAction


__all__ = [
    "MAX_ID_LENGTH",
    "execution_id",
    "execution_labels",
    "execution_name",
    "group_labels",
    "group_of",
    "label_value",
    "run_start",
    "target_selector",
]

MAX_ID_LENGTH = 200
"""Characters of an execution id; from the contract (SubmitExecutionRequest.execution_id)."""

_SLUG_LENGTH = 50
_DEPLOYMENT_LENGTH = 40
_LABEL_LENGTH = 63  # of a Kubernetes label's value
_HASH_LENGTH = 8
_PLACE_PARTS = ("cluster", "region", "role_arn", "namespace")


def execution_id(context: Context, *, deployment_id: str) -> str:
    """Name the execution of this try of the task instance; the same for each process that works on the try."""
    ti: Any = context["ti"]
    parts = [_slug(ti.dag_id, _SLUG_LENGTH), _slug(ti.task_id, _SLUG_LENGTH), _slug(deployment_id, _DEPLOYMENT_LENGTH)]
    unique = getattr(ti, "id", None)
    if unique is not None:
        parts.append(str(unique))
        if ti.try_number > 1:
            # The id stays when Airflow's scheduler fails a task that was queued, and then lets it try again.
            parts.append(str(ti.try_number))
    else:
        dag_run: Any = context["dag_run"]
        parts += [str(dag_run.id), str(ti.map_index), str(ti.try_number)]
    return ".".join(parts)


def execution_labels(context: Context, *, deployment_id: str) -> dict[str, str]:
    """Label the execution, so that a later try of the task instance finds it."""
    ti: Any = context["ti"]
    labels = group_labels(context, deployment_id=deployment_id)
    labels["try_number"] = str(ti.try_number)
    max_tries = getattr(ti, "max_tries", None)
    if max_tries is not None:
        labels["max_tries"] = str(max_tries)
    return labels


def group_labels(context: Context, *, deployment_id: str) -> dict[str, str]:
    """Give the labels that all tries of the task instance share."""
    ti: Any = context["ti"]
    values = {
        "deployment": deployment_id,
        "dag_id": ti.dag_id,
        "run_id": ti.run_id,
        "task_id": ti.task_id,
        "map_index": str(ti.map_index if ti.map_index is not None and ti.map_index >= 0 else "none"),
    }
    return {key: label_value(str(value)) for key, value in values.items()}


def label_value(text: str) -> str:
    """Make a label's value of any text; one that has to be cut ends with a hash of the whole."""
    return _slug(text, _LABEL_LENGTH)


def group_of(context: Context, *, deployment_id: str, action: GroupAction) -> Group:
    """Give the group of all tries of the task instance. A run id may come again; the dag run's start tells then."""
    values = group_labels(context, deployment_id=deployment_id)
    parts = ("dag_id", "task_id", "deployment", "run_id", "map_index")
    limits = (_SLUG_LENGTH, _SLUG_LENGTH, _DEPLOYMENT_LENGTH, _DEPLOYMENT_LENGTH, _LABEL_LENGTH)
    # No part has a colon, so that none can look like two.
    name = ":".join(_slug(values[part], limit) for part, limit in zip(parts, limits, strict=True))
    return Group(group_id=name, action=action, not_before=run_start(context))


def run_start(context: Context) -> datetime | None:
    """Give the start of the dag run in whole seconds, in which Kubernetes says when a pod was made.

    With its fraction, a pod that was made within the same second would be one of an earlier run.
    """
    start: datetime | None = getattr(context.get("dag_run"), "start_date", None)
    return start.replace(microsecond=0) if start is not None else None


def execution_name(target: str | TargetPlace, execution_id: str) -> str | None:
    """Address the execution without asking the broker; None when the target is known by its parts only."""
    return f"targets/{target}/executions/{execution_id}" if isinstance(target, str) else None


def target_selector(target: str | Mapping[str, str] | None) -> str | TargetPlace | None:
    """Read the operator's ``target``: a target's name, or its parts."""
    if isinstance(target, Mapping):
        unknown = sorted(set(target) - set(_PLACE_PARTS))
        if unknown or not any(target.values()):
            message = f"target must have some of the keys {', '.join(_PLACE_PARTS)}, and no other: {dict(target)}"
            raise ValueError(message)
        return TargetPlace(**{key: str(value) for key, value in target.items() if value})
    return target or None


def _slug(text: str, limit: int) -> str:
    """Reduce a text to the characters of a label and to a length; a hash tells apart what would look the same."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", str(text)).strip("._-")
    if slug == text and len(slug) <= limit:
        return slug
    mark = hashlib.sha256(str(text).encode()).hexdigest()[:_HASH_LENGTH]
    kept = slug[: limit - _HASH_LENGTH - 1]
    return f"{kept}-{mark}" if kept else mark
