"""``RemotePodTrigger``: follows what a deferred task runs in the triggerer, and prints its lines there as they come.

All triggers of a process share one stream to the broker, and none of them blocks the event loop: lines are printed in
pieces between which the loop goes on, and what users have written runs in a thread. A broker that is away costs
silence and nothing else. The row of a trigger holds names and numbers, no credential; its event says that it has
ended, not what it handed back, since both are stored in Airflow's database.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from podbroker.airflow.loading import load, loaded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from podbroker.airflow.follower import Follower
    from podbroker.airflow.progress import Progress

__all__ = ["RemotePodTrigger", "to_its_end"]

FOLLOWER = "podbroker.airflow.follower"
"""What a trigger does; it takes seconds to import."""

HOLD_SECONDS = 10.0
"""How long after the deferral an event is said at the earliest. Airflow fails a task that comes back before its
scheduler has heard that the worker which deferred has ended (https://github.com/apache/airflow/issues/71580, open in
3.3), and a supervisor may take 5 s to notice that. May go with the last version that does so. No line is held up."""


class RemotePodTrigger(BaseTrigger):
    """Waits for the end of one execution.

    Args:
        name: The broker's address of the execution.
        claim: Says that this task instance holds the execution: a cancel by a later holder's predecessor is refused.
        podbroker_conn_id: The Airflow connection to the broker.
        pod_name: The pod, as far as it is known, for the event.
        pod_namespace: Its namespace.
        lines: How lines are printed, as ``Lines.to_json`` says it; None: they are not.
        began: When the task deferred, in seconds since 1970.
        cursor: Base64; what is before it was printed by the worker.
        deadline: When the task has taken too long, in seconds since 1970; None: never.
        keep_on_kill: Leave the execution alone when the task is killed.
        noun: What the execution is called in the log: ``pod`` or ``job``.

    """

    def __init__(
        self,
        *,
        name: str,
        claim: str,
        podbroker_conn_id: str,
        pod_name: str,
        pod_namespace: str,
        lines: dict[str, Any] | None,
        began: float,
        cursor: str = "",
        deadline: float | None = None,
        keep_on_kill: bool = False,
        noun: str = "pod",
    ) -> None:
        """Take the arguments; nothing is asked of anybody yet."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.name = name
        self.claim = claim
        self.podbroker_conn_id = podbroker_conn_id
        self.pod_name = pod_name
        self.pod_namespace = pod_namespace
        self.lines = lines
        self.began = began
        self.cursor = cursor
        self.deadline = deadline
        self.keep_on_kill = keep_on_kill
        self.noun = noun
        self._follower: Follower | None = None
        self._fired = False
        self._killed = False
        self._killing: asyncio.Task[None] | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Say how to make it anew."""
        names = ("name", "claim", "podbroker_conn_id", "pod_name", "pod_namespace", "lines", "began", "cursor")
        kwargs = {name: getattr(self, name) for name in (*names, "deadline", "keep_on_kill")}
        if self.noun != "pod":
            # Left out where it says nothing new, so that a triggerer of the version before can read the row.
            kwargs["noun"] = self.noun
        return "podbroker.airflow.trigger.RemotePodTrigger", kwargs

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Follow the execution to its end, then say so."""
        payload = await self.follow()
        await asyncio.sleep(max(0.0, self.began + HOLD_SECONDS - time.time()))
        await self.done()
        yield TriggerEvent(payload)  # type: ignore[no-untyped-call]

    async def follow(self) -> dict[str, Any]:
        """Follow the execution to its end, and give what the event says."""
        follower = await self._made()
        try:
            return await follower.follow()
        except Exception as error:  # noqa: BLE001 -- whatever it is, a worker can go on, and nothing is lost
            payload = follower.failure(error)
            what = "The task's own code failed" if payload.get("to_worker") else f"The {self.noun} cannot be followed"
            self.log.warning("%s here, a worker goes on with it: %s", what, error)
            return payload

    async def left_to_worker(self) -> dict[str, Any]:
        """Give what the event says of an execution that has ended before it was followed."""
        payload = await (await self._made()).left_to_worker()
        await self.done()
        return payload

    async def done(self) -> None:
        """See to it that all lines are in the task's log. The next thing is the event."""
        await (await self._made()).done()
        self._fired = True  # and nothing is waited for from here to the event

    async def release(self, *, is_over: bool) -> None:
        """Release the execution if its task has ended, which is asked for unless it is known."""
        await (await self._made()).release(is_over=is_over)

    @property
    def progress(self) -> Progress | None:
        """What is known of the execution; None while nothing is."""
        return self._follower.progress if self._follower is not None else None

    async def on_kill(self) -> None:
        """End the execution, because a user acted on the task (Airflow 3.3 and later)."""
        self._killed = True
        if not self._fired and not self.keep_on_kill:
            self._killing = asyncio.create_task(self._kill())
            await to_its_end(self._killing, log=self.log, noun=self.noun)

    async def cleanup(self) -> None:
        """Keep the place for the next triggerer. Below Airflow 3.3 also find out whether the task was killed."""
        if self._killing is not None:
            await to_its_end(self._killing, log=self.log, noun=self.noun)
        if self._follower is None:
            return
        try:
            if not self._fired and not self._killed:
                await to_its_end(asyncio.create_task(self._follower.leave()), log=self.log, noun=self.noun)
        finally:
            self._follower.close()

    async def _kill(self) -> None:
        await (await self._made()).kill()

    async def _made(self) -> Follower:
        if self._follower is None:
            # In a thread: the event loop goes on meanwhile.
            module: Any = loaded(FOLLOWER) or await asyncio.to_thread(load, FOLLOWER)
            self._follower = module.Follower(self)
        return self._follower


async def to_its_end(task: asyncio.Task[None], *, log: Any, noun: str = "pod") -> None:  # noqa: ANN401 -- a logger
    """Wait for a task that is bounded by itself: Airflow cancels again each second until a trigger has ended.

    ``noun`` is what the log calls the execution.
    """
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([task])
    if not task.cancelled() and (error := task.exception()) is not None:
        log.warning("What is left to do for the %s was not done: %s", noun, error)
