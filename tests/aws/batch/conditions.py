"""Whether an attempt that failed is followed by another one.

https://docs.aws.amazon.com/batch/latest/userguide/job_retries.html: the first rule all of whose conditions match
decides; without one that matches, the job is retried.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .job import Attempt


def is_retried(strategy: Mapping[str, Any], attempt: Attempt) -> bool:
    """Whether there is to be another one after this."""
    if attempt.number >= strategy.get("attempts", 1):
        return False
    failed = attempt.failed_container
    facts = {
        "onStatusReason": attempt.reason,
        "onReason": "" if failed is None else failed.reason,
        "onExitCode": "" if failed is None or failed.exit_code is None else str(failed.exit_code),
    }
    for rule in strategy.get("evaluateOnExit", []):
        conditions = {key: value for key, value in rule.items() if key != "action"}
        if all(_matches(pattern, facts[key]) for key, pattern in conditions.items()):
            return bool(rule["action"] == "RETRY")
    return True


def _matches(pattern: str, text: str) -> bool:
    pattern, text = pattern.lower(), text.lower()
    return text.startswith(pattern[:-1]) if pattern.endswith("*") else text == pattern
