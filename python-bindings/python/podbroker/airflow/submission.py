"""What a trigger does that starts a pod: it makes the operator and its manifest, submits, and says how the task ended.

Apart from the trigger for the reason that ``follower`` has.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import datetime, timezone
from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import TaskSuccessEvent
from asgiref.sync import sync_to_async
from jinja2 import StrictUndefined

from podbroker import GroupAction, UnavailableError
from podbroker.airflow._compat import changes_pods, push_xcom
from podbroker.airflow.channel import channel_of
from podbroker.airflow.identity import group_of
from podbroker.airflow.request import in_group
from podbroker.airflow.result import read_result
from podbroker.airflow.starting import revived
from podbroker.airflow.trigger import RemotePodTrigger

if TYPE_CHECKING:
    from podbroker import Submission
    from podbroker.airflow.pod_lifecycle import PodLifeCycle
    from podbroker.airflow.request import Request
    from podbroker.airflow.start_trigger import RemotePodStartTrigger

__all__ = ["Submitting"]

PAUSE_SECONDS = 1.0
"""Between two calls to a broker that is away; the client itself has backed off before."""


class NeedsWorkerError(Exception):
    """Something is otherwise in this triggerer than where the DAG was read."""


class Submitting:
    """The start of one trigger's pod, and the end of its task."""

    def __init__(self, trigger: RemotePodStartTrigger) -> None:
        """Nothing is asked of anybody yet."""
        self._trigger = trigger
        self._operator: PodLifeCycle | None = None
        self._request: Request | None = None
        self._lines: dict[str, Any] | None = None
        self._following: RemotePodTrigger | None = None
        self.was_over = False
        """Whether the pod had ended already: an earlier process has shown an unknown part of its lines."""

    async def prepare(self, context: Any) -> None:  # noqa: ANN401 -- Airflow's context
        """Make the request, in a thread: code of Airflow and of templates runs that may ask Airflow for something."""
        await sync_to_async(self._prepare, thread_sensitive=False)(context)

    def _prepare(self, context: Any) -> None:  # noqa: ANN401
        if changes_pods():
            message = "pod_mutation_hook runs in a worker"
            raise NeedsWorkerError(message)
        module, _, name = self._trigger.operator.rpartition(".")
        ti = context["ti"]
        operator: Any = getattr(import_module(module), name)(task_id=ti.task_id, **revived(self._trigger.given))
        # The environment that Airflow makes without a DAG takes a name that it does not know for an empty text.
        environment = operator.get_template_env()
        environment.undefined = StrictUndefined
        operator.render_template_fields(context, environment)
        request = operator.request_of(context)
        # Of a first try nobody has cleared anything. Airflow gives a trigger 0 here.
        self._request = replace(request, labels={**request.labels, "max_tries": str(context["task"].retries)})
        self._lines = operator.lines_of_trigger()
        self._operator = operator
        self._group = group_of(context, deployment_id=operator.deployment, action=GroupAction.ATTACH)
        self._mapped_over = next(context["task"].iter_mapped_dependants(), None) is not None

    async def begin(self) -> RemotePodTrigger:
        """Submit, and give the trigger that follows what was started or found."""
        operator, request = self._operator, self._request
        if operator is None or request is None:
            message = "prepare comes first"
            raise RuntimeError(message)
        submission = await self._submit(operator.podbroker_conn_id, request)
        execution = submission.execution
        self._trigger.log.info("Execution: %s", execution.name)
        attempt = execution.attempts[-1] if execution.attempts else None
        pod: Any = request.pod
        asked_for = pod["metadata"]
        self.was_over = not submission.created and execution.state.is_final
        began = time.time()
        if not submission.created and execution.create_time is not None:
            self._trigger.log.info("Going on with execution %s, which exists already", execution.name)
            began = min(began, execution.create_time.timestamp())
        following = self._following = RemotePodTrigger(
            name=execution.name,
            claim=submission.claim,
            podbroker_conn_id=operator.podbroker_conn_id,
            pod_name=attempt.pod_name if attempt is not None else asked_for["name"],
            pod_namespace=attempt.pod_namespace if attempt is not None else asked_for.get("namespace", ""),
            lines=self._lines,
            began=began,
            keep_on_kill=operator.keeps_on_kill,
        )
        following.trigger_id = self._trigger.trigger_id
        following.task_instance = self._trigger.task_instance
        return following

    async def _submit(self, podbroker_conn_id: str, request: Request) -> Submission:
        """Submit until there is an answer, but not after the moment from which on nothing is created any more."""
        while True:
            try:
                client = (await channel_of(podbroker_conn_id)).client
                has_groups = "group" in (await client.server_info_async()).features
                joined = in_group(request, self._group) if has_groups else request
                return await client.submit_async(
                    target=joined.target,
                    execution_id=joined.execution_id,
                    pod=joined.pod,
                    submit_before=joined.submit_before,
                    labels=joined.labels,
                    policies=joined.policies,
                    group=joined.group,
                    required_features=joined.required_features,
                )
            except UnavailableError:
                if datetime.now(tz=timezone.utc) >= request.submit_before:
                    raise
                await asyncio.sleep(PAUSE_SECONDS)

    async def success(self, payload: dict[str, Any]) -> TaskSuccessEvent | None:
        """Hand the pod's value over, and give the event that ends the task; None where a worker has to do it."""
        operator, following = self._operator, self._following
        progress = following.progress if following is not None else None
        # A task that is mapped over fails without a value, and stores its length: a worker knows how.
        if operator is None or progress is None or self._mapped_over:
            return None
        values: dict[str, Any] = {}
        if payload["name"]:  # on Batch a job may end before its pod's name is known
            values = {"pod_name": payload["name"], "pod_namespace": payload["namespace"]}
        if operator.wants_result:
            value, problem = read_result(progress, log=self._trigger.log)
            if problem is not None:
                return None
            if value is not None:
                values["return_value"] = value
        try:
            # Not by the event: Airflow writes that into the log, and (3.3.2) makes JSON of its values twice. Into the
            # deployment's XCom backend, which is somebody else's code, and so in a thread.
            for key, value in values.items():
                await sync_to_async(push_xcom, thread_sensitive=False)(self._trigger.task_instance, key, value)
        except Exception as error:  # noqa: BLE001 -- a worker tries the same, and says what is wrong
            self._trigger.log.warning("The pod's values were not pushed here: %s", type(error).__name__)
            return None
        return TaskSuccessEvent()
