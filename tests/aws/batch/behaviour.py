"""How the double behaves to which jobs: rules that tests set and change while jobs run.

A rule is `{"name": "nightly*", "queue": "*", "tags": {"key": "value"}, SETTING: VALUE, ...}`; without name, queue and
tags it is for all jobs. The first rule that is for a job and has a setting decides about that setting. Seconds may be
fractions. The settings, with what counts without a rule:

- `delete_after`: seconds from a pod's end to its deletion (1.0; 0 deletes it at once; null never).
- `invisible`: seconds from the submit until DescribeJobs knows the job (0).
- `describe_delay`: seconds by which DescribeJobs lags behind (0).
- `list_delay`: seconds by which ListJobs lags behind: what was submitted later is not in it (0).
- `pace`: `{STATUS: seconds}` that a job stays in SUBMITTED, PENDING or RUNNABLE at least ({}).
- `hold`: `{"state": SUBMITTED, PENDING, RUNNABLE or STARTING, "reason": statusReason}` until the rule is gone (null).
  In STARTING the pod is there and has a scheduling gate.
- `spot_loss`: `{"attempts": [1], "after": seconds in RUNNING, "grace": seconds, "reason": text}`: the pod is deleted as
  if its node went away (null).
- `timeout_factor`: what `attemptDurationSeconds`, which is a minute at least, is multiplied by (1.0).
- `terminate`: `{"state": STATUS, "after": seconds, "reason": text}`: somebody else calls TerminateJob (null).
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

from .job import STATES

if TYPE_CHECKING:
    from .job import Job

_DEFAULTS: Final[dict[str, Any]] = {
    "delete_after": 1.0,
    "invisible": 0.0,
    "describe_delay": 0.0,
    "list_delay": 0.0,
    "pace": {},
    "hold": None,
    "spot_loss": None,
    "terminate": None,
    "timeout_factor": 1.0,
}
_WHOM: Final = frozenset({"name", "queue", "tags"})


class Behaviour:
    """The rules in force."""

    def __init__(self) -> None:
        self.rules: list[dict[str, Any]] = []

    def set(self, rules: list[dict[str, Any]]) -> None:
        """Replaces all rules; raises ValueError for a setting that does not exist."""
        for rule in rules:
            if unknown := rule.keys() - _DEFAULTS.keys() - _WHOM:
                raise ValueError(f"there are no settings {sorted(unknown)}")
            for setting in ("hold", "terminate"):
                if rule.get(setting) is not None and rule[setting].get("state") not in STATES:
                    raise ValueError(f"{setting} needs a state, one of {STATES}")
        self.rules = rules

    def of(self, job: Job, setting: str) -> Any:  # noqa: ANN401  each setting has its own type
        """The value for a job."""
        found = (rule[setting] for rule in self.rules if setting in rule and _concerns(rule, job))
        return next(found, _DEFAULTS[setting])


def _concerns(rule: dict[str, Any], job: Job) -> bool:
    return (
        fnmatchcase(job.name, rule.get("name", "*"))
        and fnmatchcase(job.queue.name, rule.get("queue", "*"))
        and all(job.tags.get(key) == value for key, value in rule.get("tags", {}).items())
    )
