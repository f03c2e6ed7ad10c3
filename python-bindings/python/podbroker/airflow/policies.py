"""Says in the broker's words how the arguments of upstream want a pod to be run.

Pure. What upstream leaves to its own polling (how long a start may take, which container counts, what becomes of the
pod) is a policy here, and the broker keeps it also while no worker looks.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from podbroker import FinishAction, Policies, ResultSource

if TYPE_CHECKING:
    from podbroker.airflow.pod_lifecycle import PodLifeCycle

__all__ = ["FINISH", "policies_of"]

FINISH = {
    "delete_pod": FinishAction.DELETE,
    "delete_succeeded_pod": FinishAction.DELETE_SUCCEEDED,
    "keep_pod": FinishAction.KEEP,
    # It deletes pods that are still active at the end, and with us none is.
    "delete_active_pod": FinishAction.KEEP,
}


def policies_of(operator: PodLifeCycle) -> Policies:
    """Translate the arguments of an operator."""
    # Upstream gives a pod one time to be scheduled and then another one to start; the broker knows one for both.
    start = (operator.schedule_timeout_seconds or 0) + (operator.startup_timeout_seconds or 0)
    return Policies(
        start_deadline=timedelta(seconds=start) if start else None,
        finish=FINISH[operator.on_finish_action.value],
        ttl=operator.ttl,
        result=operator.result_source if operator.wants_result else ResultSource.NONE,
        # A user's own sidecar that never ends keeps nothing waiting.
        deciding_containers=(operator.base_container_name,),
        infra_retry=operator.infra_retry,
        orphan_after=operator.orphan_after,
    )
