"""What becomes of each argument of ``KubernetesJobOperator`` that is not one of a pod, or is another thing of a Job.

For the same readers as ``parameters``.
"""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from podbroker.airflow import parameters
from podbroker.airflow._compat_jobs import KubernetesJobOperator
from podbroker.airflow.parameters import Parameter, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["JOB_PARAMETERS", "without_effect"]

_MANIFEST = Parameter(Verdict.SAME, "a field of the manifest")
_RATE = Parameter(Verdict.NO_EFFECT, "nothing is polled; accepted, and the task log says so")
_OF_PODS = Parameter(Verdict.NO_EFFECT, "as upstream's operator for Jobs, which does not look at it")

JOB_PARAMETERS: Mapping[str, Parameter] = {
    # Of Jobs only.
    "job_template_file": Parameter(Verdict.SAME, "read on the worker"),
    "full_job_spec": _MANIFEST,
    "backoff_limit": Parameter(
        Verdict.BETTER, "a field of the manifest; the lines of all pods come, and 0 goes with `infra_retry`"
    ),
    "completion_mode": _MANIFEST,
    "completions": _MANIFEST,
    "manual_selector": Parameter(Verdict.REFUSED, "`True` is refused by the broker: the Job would count strange pods"),
    "parallelism": Parameter(Verdict.SAME, "at least 1, also without `wait_until_job_complete`"),
    "selector": Parameter(Verdict.REFUSED, "by the broker: the cluster makes it"),
    "suspend": Parameter(Verdict.SAME, "the task waits while the Job is suspended"),
    "ttl_seconds_after_finished": Parameter(
        Verdict.DIFFERS,
        "at least 60, and what `ttl` is unless that is given; a Job whose end was acknowledged goes by"
        " `on_finish_action`, which may be earlier",
    ),
    "wait_until_job_complete": Parameter(Verdict.SAME, "`False` waits until the Job is made"),
    "job_poll_interval": _RATE,
    "deferrable": Parameter(
        Verdict.BETTER, "only with `wait_until_job_complete`; lines as they are written, in the triggerer's log"
    ),
    "on_kill_propagation_policy": Parameter(
        Verdict.DIFFERS,
        "`Foreground` and `Background` end the Job and its pods with their grace; `Orphan` leaves both running",
    ),
    "discover_pods_retry_number": _RATE,
    "unwrap_single": Parameter(Verdict.SAME, "`False` gives a list of one value"),
    # Of pods too, and different here.
    "do_xcom_push": Parameter(
        Verdict.DIFFERS, "only of a Job of one pod, and at most 4 KiB; no container is added to the pods"
    ),
    "on_finish_action": Parameter(
        Verdict.DIFFERS, "of the Job with its pods; upstream deletes the pods and leaves the Job"
    ),
    "get_logs": Parameter(
        Verdict.BETTER,
        "while the Job runs, of every pod that it ever has, as `[x7k2p/base]` or, with an index, `[7-x7k2p/base]`",
    ),
    "startup_timeout_seconds": _OF_PODS,
    "schedule_timeout_seconds": _OF_PODS,
    "callbacks": _OF_PODS,
    "progress_callback": _OF_PODS,
    "skip_on_exit_code": _OF_PODS,
}


@lru_cache(maxsize=1)
def _defaults() -> Mapping[str, Any]:
    signature = inspect.signature(KubernetesJobOperator.__init__)
    named = (each for each in signature.parameters.values() if each.kind is inspect.Parameter.KEYWORD_ONLY)
    return {**parameters.upstream_defaults(), **{each.name: each.default for each in named}}


def without_effect(operator: KubernetesJobOperator) -> list[str]:
    """Name the arguments that the author gave and that do nothing here."""
    table = {**parameters.PARAMETERS, **JOB_PARAMETERS}
    ignored = (name for name, parameter in table.items() if parameter.verdict is Verdict.NO_EFFECT)
    defaults = _defaults()
    usual: tuple[Any, ...] = (None, False, [], {})
    return [
        name
        for name in ignored
        if getattr(operator, name, None) not in (*usual, defaults.get(name)) and name in defaults
    ]
