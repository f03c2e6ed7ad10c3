"""Lets a test begin where a deferred task comes back.

Upstream's tests call ``trigger_reentry`` with no more than the event of its trigger. In a real deferral ours is also
given the name of the execution, which Airflow has kept meanwhile. So a play is made for the pod that the test has
prepared, and its name is given along; ours knows from the broker, and not from the event, how the pod ended.
"""

from __future__ import annotations

import functools
import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

from airflow.providers.cncf.kubernetes.operators import pod as upstream
from kubernetes.client.exceptions import ApiException

from parity.broker import Play, outcome_of
from podbroker import ResultSource
from podbroker.airflow.policies import policies_of
from podbroker.exceptions import NotFoundError, UnavailableError

if TYPE_CHECKING:
    from podbroker.airflow.operator import RemotePodOperator


def begin_at_reentry(operator: type[RemotePodOperator]) -> None:
    """Give a re-entry what Airflow has kept."""
    original = operator.trigger_reentry

    @functools.wraps(original)
    def reentry(self: RemotePodOperator, context: Any, event: dict[str, Any], **kwargs: Any) -> Any:
        if "execution" in kwargs or not isinstance(upstream.KubernetesHook, Mock):
            return original(self, context, event, **kwargs)
        play = _play_of(self, event)
        ended = event | {"complete": True, "cursor": ""}
        return original(self, context, ended, execution=self.hook.conn.add(play), claim="claim")

    operator.trigger_reentry = reentry


def _play_of(operator: RemotePodOperator, event: dict[str, Any]) -> Play:
    """Make the play of a pod that has ended as the test says."""
    name, namespace = event["name"], event["namespace"]
    manifest = {"metadata": {"name": name, "namespace": namespace}, "spec": {"containers": []}}
    play = Play(execution_id="deferred", manifest=manifest, policies=policies_of(operator), labels={})
    try:
        play.remote = upstream.KubernetesHook().get_pod(name, namespace)
    except ApiException as error:
        gone = error.status == HTTPStatus.NOT_FOUND
        play.away = (NotFoundError if gone else UnavailableError)(
            str(error), reason="NO_SUCH_EXECUTION" if gone else ""
        )
        return play
    read = type(operator).extract_xcom
    if play.policies.result is ResultSource.SIDECAR and isinstance(read, Mock):
        value = read()
        play.value = None if isinstance(value, Mock) else json.dumps(value)
    # Nothing but the end is left to be said.
    (base,) = play.policies.deciding_containers
    play.conclude(outcome_of(play.remote, base))
    return play
