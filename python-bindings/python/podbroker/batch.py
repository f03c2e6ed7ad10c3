"""A job of AWS Batch on EKS, as a caller asks for it.

In the shapes of AWS's own API, so that what a call of ``SubmitJob`` says can be taken over as it is. What is left out
is the job definition's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

__all__ = ["EVALUATE_ON_EXIT", "BatchWorkload"]

EVALUATE_ON_EXIT = "batch-evaluate-on-exit"
"""The feature of a broker that sends on ``BatchWorkload.evaluate_on_exit``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchWorkload:
    """An AWS Batch job on EKS. Its name is the broker's own, so that one request never makes two jobs."""

    job_definition: str
    """Name, name:revision or ARN."""
    job_queue: str = ""
    """Name or ARN. Empty: the target's."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """For the placeholders of the definition."""
    eks_properties_override: Mapping[str, Any] | None = None
    """``eksPropertiesOverride``: ``{"podProperties": {"containers": [{"name": "main", "args": ["x"]}]}}``."""
    array_size: int | None = None
    """2 to 10,000; None: no array. The container ``main`` of child 7 is called ``7/main`` everywhere."""
    depends_on_job_ids: Sequence[str] = ()
    """Ids of Batch jobs that must have succeeded before; at most 20."""
    share_identifier: str = ""
    """For queues with a scheduling policy."""
    scheduling_priority: int | None = None
    """``schedulingPriorityOverride``, 1 to 9,999. None: the definition's."""
    attempts: int | None = None
    """``retryStrategy.attempts``, 1 to 10. More than 1 excludes ``Policies.infra_retry``. None: the definition's."""
    evaluate_on_exit: Sequence[Mapping[str, str]] = ()
    """``retryStrategy.evaluateOnExit``, at most 5. Needs ``attempts``, and a broker with ``batch-evaluate-on-exit``:
    ask for it in ``required_features``, since an older broker does not know the field."""
    attempt_timeout: timedelta | None = None
    """``timeout.attemptDurationSeconds``, at least 60 s. None: the definition's."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Of the job, at most 50 with those of the broker."""

    def __post_init__(self) -> None:
        """Take what was given over, so that it stays what it is.

        Raises:
            ValueError: A number is 0, which the broker takes for none.

        """
        for name in ("array_size", "scheduling_priority", "attempts"):
            if getattr(self, name) == 0:
                message = f"{name} is 0, which stands for none: leave it out"
                raise ValueError(message)
        for name in ("parameters", "tags"):
            object.__setattr__(self, name, dict(getattr(self, name)))
        for name in ("depends_on_job_ids", "evaluate_on_exit"):
            object.__setattr__(self, name, tuple(getattr(self, name)))

    @property
    def eks_properties_override_json(self) -> bytes:
        """The override as it is sent; empty when there is none."""
        return b"" if self.eks_properties_override is None else _json(dict(self.eks_properties_override))

    @property
    def evaluate_on_exit_json(self) -> bytes:
        """The conditions as they are sent; empty when there are none."""
        return _json([dict(each) for each in self.evaluate_on_exit]) if self.evaluate_on_exit else b""


def _json(value: object) -> bytes:
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
