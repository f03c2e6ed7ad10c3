"""``RemotePodStartTrigger``: starts the pod of a task in the triggerer, follows it, and ends the task when it succeeds.

For the first start of a task instance's first try only: what earlier tries have left is looked for by a worker, since
a triggerer is not told whether a user has cleared the task. Whatever else goes another way than success is handed to a
worker too, which repeats it and so raises what is right. The pod is released when Airflow has stored the success: until
then another triggerer would find it again, and do the same.
"""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from podbroker.airflow.trigger import to_its_end

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from podbroker.airflow.submission import Submitting
    from podbroker.airflow.trigger import RemotePodTrigger

__all__ = ["RemotePodStartTrigger"]

STORED_SECONDS = 30.0
"""How long Airflow may take to store an event, which takes it a second or two. Not released in time, the pod has its
ttl."""

SETTLE_SECONDS = 10.0
"""How long a kill waits for the answer to a submit, of the 30 s that Airflow gives it."""


class RemotePodStartTrigger(BaseTrigger):
    """Starts a pod and waits for its end.

    Args:
        operator: The class of the operator, by its path.
        given: The operator's arguments that make the pod, as plain JSON, with their templates.
        settled_by_worker: Whether a worker is needed also for the end of a pod that succeeds.

    """

    def __init__(self, *, operator: str, given: dict[str, Any], settled_by_worker: bool = False) -> None:
        """Take the arguments; nothing is asked of anybody yet."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.operator = operator
        self.given = given
        self.settled_by_worker = settled_by_worker
        self._context: Any = None
        self._submitting: Submitting | None = None
        self._begun: asyncio.Task[RemotePodTrigger] | None = None
        self._fired = False
        self._ended_here = False
        self._killing: asyncio.Task[None] | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Say how to make it anew."""
        names = ("operator", "given", "settled_by_worker")
        return "podbroker.airflow.start_trigger.RemotePodStartTrigger", {name: getattr(self, name) for name in names}

    def render_template_fields(self, context: Any, jinja_env: Any = None) -> None:  # noqa: ANN401, ARG002 -- Airflow's
        """Keep the context. The templates are rendered in a thread: they may ask Airflow for something."""
        self._context = context

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Start the pod and follow it to its end."""
        event = await self._run()
        self._fired = True  # and nothing is waited for from here to the event
        yield event

    async def on_kill(self) -> None:
        """End the pod, because a user acted on the task."""
        if not self._fired and self._begun is not None:
            self._killing = asyncio.create_task(self._kill(self._begun))
            await to_its_end(self._killing, log=self.log)

    async def cleanup(self) -> None:
        """Release the pod of a task that has ended here; leave any other to whoever goes on with it."""
        if self._killing is not None:
            await to_its_end(self._killing, log=self.log)
        if self._begun is None:
            return
        if not self._begun.done() or self._begun.cancelled() or self._begun.exception() is not None:
            self._begun.cancel()
            return
        trigger = self._begun.result()
        if self._ended_here:
            await self._release(trigger)
        await trigger.cleanup()

    async def _run(self) -> TriggerEvent:
        ti: Any = self.task_instance
        if self._context is None:
            return _to_start("Airflow has given the triggerer no context")
        if ti.try_number > 1:
            # Airflow takes the XComs of earlier tries away when a worker is the first to have a try.
            position = await asyncio.to_thread(import_module, "podbroker.airflow.position")
            await position.forget(self, "return_value")
            return _to_start("a worker looks for what earlier tries have left")
        try:
            # In a thread: what it needs takes seconds to import.
            module = await asyncio.to_thread(import_module, "podbroker.airflow.submission")
            self._submitting = module.Submitting(self)
            await self._submitting.prepare(self._context)
            self._begun = asyncio.create_task(self._submitting.begin())
            trigger = await asyncio.shield(self._begun)
        except Exception as error:  # noqa: BLE001 -- a worker does the same, and says what is wrong
            # Its message may quote what a template has made.
            return _to_start(f"it failed in the triggerer ({type(error).__name__})")
        self._context = None
        if self._submitting.was_over:
            payload = await trigger.left_to_worker()
        else:
            payload = await trigger.follow()
            await trigger.done()
        if payload["status"] == "success" and payload["complete"] and not self.settled_by_worker:
            ended = await self._submitting.success(payload)
            if ended is not None:
                self._ended_here = True
                return ended
        payload |= {"execution": trigger.name, "claim": trigger.claim}
        return TriggerEvent(payload)  # type: ignore[no-untyped-call]

    async def _release(self, trigger: RemotePodTrigger) -> None:
        """Release the pod once Airflow has stored the event: then it takes the trigger away, by a cancel with a word.

        A cancel without one comes from a triggerer that stops.
        """
        is_over = False
        try:
            await asyncio.sleep(STORED_SECONDS)
        except asyncio.CancelledError as error:
            is_over = bool(error.args)
            if not is_over:
                return
        await to_its_end(asyncio.create_task(trigger.release(is_over=is_over)), log=self.log)

    async def _kill(self, begun: asyncio.Task[RemotePodTrigger]) -> None:
        done, _ = await asyncio.wait([begun], timeout=SETTLE_SECONDS)
        if not done:
            begun.cancel()
            self.log.warning("The broker did not answer: the pod may have been started, and may run on")
        elif not begun.cancelled() and begun.exception() is None:
            await begun.result().on_kill()


def _to_start(why: str) -> TriggerEvent:
    return TriggerEvent({"status": "start", "message": why})  # type: ignore[no-untyped-call]
