"""How a trigger ends its execution: what it asks Airflow before, the cancel, and the release after it.

Every call is bounded, since whoever stops a triggerer waits for it. A broker or an Airflow that does not answer leaves
the execution as it is: its next follower, or its ttl, does the rest.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async

from podbroker import NotFoundError, PodbrokerError, UnavailableError
from podbroker.airflow._compat import AIRFLOW_V_3_3_PLUS
from podbroker.airflow.channel import channel_of
from podbroker.airflow.kill import NO_ANSWER, Verdict, state_from_server, verdict_of
from podbroker.airflow.session import SUPERSEDED

if TYPE_CHECKING:
    from podbroker.airflow.channel import Channel
    from podbroker.airflow.trigger import RemotePodTrigger

__all__ = ["TriggerEnd"]

CANCEL_SECONDS = 20.0
"""How long a cancel is tried, of the time of a kill."""

STATE_SECONDS = 5.0
"""How long Airflow is asked for the task's state."""

PAUSE_SECONDS = 1.0
"""Between two calls to a broker that is away; the client itself has backed off before."""


class TriggerEnd:
    """The end of one trigger's execution."""

    def __init__(self, trigger: RemotePodTrigger) -> None:
        """Nothing is asked of anybody yet."""
        self._trigger = trigger
        self._name = trigger.name
        self._log: Any = trigger.log

    async def cancel(self, reason: str, *, channel: Channel | None) -> bool:
        """Ask for the execution's end, over the channel if there is one already. True when the broker has it."""
        until = time.monotonic() + CANCEL_SECONDS
        while True:
            try:
                channel = channel or await channel_of(self._trigger.podbroker_conn_id)
                await channel.client.cancel_async(self._name, claim=self._trigger.claim, reason=reason)
            except NotFoundError:
                return True
            except PodbrokerError as error:
                if isinstance(error, UnavailableError) and time.monotonic() + PAUSE_SECONDS < until:
                    await asyncio.sleep(PAUSE_SECONDS)
                    continue
                if error.reason == SUPERSEDED:
                    self._log.info("Execution %s belongs to a later try now: it is not cancelled", self._name)
                    return True
                self._log.warning("Execution %s could not be cancelled and may run on: %s", self._name, error)
                return False
            self._log.info("Execution %s is being cancelled: %s", self._name, reason)
            return True

    async def release(self, *, is_over: bool, channel: Channel) -> None:
        """Release the execution of a task that has ended, which is asked for unless it is known.

        The first question has a triggerer start an API server within itself, and nothing else goes on meanwhile. The
        execution's ttl does the same later.
        """
        try:
            if is_over or verdict_of(await self.state()) is Verdict.CANCEL:
                await channel.client.release_async(self._name, claim=self._trigger.claim)
        except PodbrokerError as error:
            self._log.info("Execution %s was not released; its ttl will do: %s", self._name, error)

    async def was_killed(self, *, channel: Channel | None) -> bool:
        """Below Airflow 3.3: ask whether a user acted on the task, and end its execution if so."""
        trigger = self._trigger
        if AIRFLOW_V_3_3_PLUS or trigger.keep_on_kill or trigger.task_instance is None:
            return False
        state = await self.state()
        if state == NO_ANSWER:
            self._log.info("The task's state is not known, its %s is left running", trigger.noun)
            return False
        # Of a task that is deferred still, another triggerer goes on with it. One that has taken too long comes back to
        # a worker, which 2.11 does not let end it.
        is_late = trigger.deadline is not None and time.time() >= trigger.deadline
        if verdict_of(state) is not Verdict.CANCEL and not (is_late and state != "deferred"):
            return False
        why = f"The Airflow task was killed while it was deferred; its state is {state or 'none'}"
        await self.cancel(why, channel=channel)
        return True

    async def state(self) -> str | None:
        """Ask for the task's state; ``NO_ANSWER`` when none comes in time."""
        asking = sync_to_async(state_from_server, thread_sensitive=False)(self._trigger.task_instance)
        try:
            return await asyncio.wait_for(asyncio.shield(asking), STATE_SECONDS)
        except Exception as error:  # noqa: BLE001 -- whatever went wrong, there is no answer
            self._log.debug("The task's state is not known: %r", error)
            return NO_ANSWER
