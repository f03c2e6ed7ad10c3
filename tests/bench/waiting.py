"""A trigger that does nothing, for what Airflow itself takes for each."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow.triggers.base import TriggerEvent


class Waiting(BaseTrigger):
    """Waits until it is cancelled."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Says how to make it anew."""
        return "bench.waiting.Waiting", {}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Has no event."""
        nothing: list[TriggerEvent] = []
        await asyncio.Event().wait()
        for event in nothing:
            yield event
