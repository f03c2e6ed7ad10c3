"""A channel that plays a script, an Airflow that keeps XComs, and code of a user that a triggerer can import."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from airflow.providers.cncf.kubernetes.callbacks import KubernetesPodOperatorCallback

from podbroker import End
from podbroker.airflow import follower, trigger_end
from podbroker.airflow.channel import Channel
from podbroker.airflow.trigger import RemotePodTrigger

if TYPE_CHECKING:
    import pytest
    from airflow.triggers.base import BaseTrigger
    from scripted import FakeClient, RecordingLog


class FakeFollow:
    """Plays one script; at its end it waits for ever, as a quiet stream does."""

    def __init__(self, script: list[Any]) -> None:
        self.script = script
        self.closed = False

    def __aiter__(self) -> FakeFollow:
        return self

    async def __anext__(self) -> Any:
        while True:
            await asyncio.sleep(0)
            if not self.script:
                await asyncio.Event().wait()
            step = self.script.pop(0)
            if isinstance(step, Exception):
                raise step
            if not isinstance(step, Callable):
                return step
            step()

    def close(self) -> None:
        self.closed = True


class FakeMany:
    """The shared stream of a client."""

    def __init__(self, client: FakeClient) -> None:
        self.client = client
        self.followed: list[dict[str, Any]] = []
        self.follows: list[FakeFollow] = []

    def follow(self, name: str, **kwargs: Any) -> FakeFollow:
        self.followed.append({"name": name, **kwargs})
        self.follows.append(FakeFollow(self.client.script))
        return self.follows[-1]


class FakeTriggerer:
    """Runs triggers as a triggerer does: made anew from what was stored, and told apart by an id."""

    def __init__(self, client: FakeClient, log: RecordingLog, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log = log
        self.xcoms: dict[str, Any] = {}
        self.kept: list[bool] = []
        self.asked: list[str] = []
        self.many = FakeMany(client)
        self.channel = Channel(client=client, many=self.many)
        self.error: Exception | None = None
        for module in (follower, trigger_end):
            monkeypatch.setattr(module, "channel_of", self._channel_of)
        monkeypatch.setattr("podbroker.airflow.submission.channel_of", self._channel_of)
        self.state: str | None = "failed"
        monkeypatch.setattr(trigger_end, "state_from_server", lambda _: self.state)
        monkeypatch.setattr("podbroker.airflow.trigger.HOLD_SECONDS", 0.0)
        monkeypatch.setattr("podbroker.airflow.position.FIRST_SECONDS", 0.0)
        monkeypatch.setattr("podbroker.airflow.position._process.has_asked", True)
        monkeypatch.setattr("podbroker.airflow.position._ask", self._ask)
        monkeypatch.setattr(RemotePodTrigger, "log", log)

    def make(self, trigger: RemotePodTrigger, *, trigger_id: int = 1) -> RemotePodTrigger:
        """Makes it anew from its row."""
        path, kwargs = trigger.serialize()
        assert path == f"{RemotePodTrigger.__module__}.{RemotePodTrigger.__qualname__}"
        made = RemotePodTrigger(**json.loads(json.dumps(kwargs)))
        made.trigger_id = trigger_id
        made.task_instance = SimpleNamespace(
            id="ti", dag_id="dag", task_id="task", run_id="run", map_index=-1, try_number=1
        )
        return made

    def run(self, trigger: RemotePodTrigger, *, trigger_id: int = 1) -> dict[str, Any]:
        """Runs it to its event."""

        async def main() -> dict[str, Any]:
            made = self.make(trigger, trigger_id=trigger_id)
            try:
                (event,) = [event async for event in made.run()]
            finally:
                await made.cleanup()
            return dict(event.payload)

        payload = asyncio.run(main())
        return json.loads(json.dumps(payload))

    def stop(self, trigger: RemotePodTrigger, *, kill: bool = False, trigger_id: int = 1) -> RemotePodTrigger:
        """Runs it until the script is played, then stops it as a triggerer does that ends, or as a user's kill does."""

        async def main() -> RemotePodTrigger:
            made = self.make(trigger, trigger_id=trigger_id)
            running = asyncio.create_task(drive(made, kill=kill))
            async with asyncio.timeout(10):
                while not (self.many.follows and not self.many.follows[-1].script):  # noqa: ASYNC110
                    await asyncio.sleep(0)
            for _ in range(10):
                await asyncio.sleep(0)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            return made

        return asyncio.run(main())

    async def _channel_of(self, podbroker_conn_id: str) -> Channel:
        self.asked.append(podbroker_conn_id)
        if self.error is not None:
            raise self.error
        return self.channel

    async def _ask(self, what: str, trigger: Any, **more: Any) -> Any:
        del trigger
        if what == "SetXCom":
            self.kept.append(more["value"]["exact"])
            self.xcoms["place"] = json.loads(json.dumps(more["value"]))
        if what == "DeleteXCom":
            self.xcoms.pop(more.get("key", "place"), None)
        return SimpleNamespace(value=self.xcoms.get("place"))


async def drive(trigger: BaseTrigger, *, kill: bool, events: list[Any] | None = None) -> None:
    """Runs it as a triggerer does, until it ends or is cancelled; keeps its events if they are wanted."""
    try:
        async for event in trigger.run():
            if events is not None:
                events.append(event)
    except asyncio.CancelledError:
        if kill:
            await trigger.on_kill()
        raise
    finally:
        await trigger.cleanup()


def is_end(event: object) -> bool:
    """Whether nothing comes after it."""
    return isinstance(event, End)


def shout(container: str, text: str) -> str:
    """A formatter."""
    return f"{container}: {text.upper()}"


class Listener(KubernetesPodOperatorCallback):
    """Callbacks that remember."""

    heard: list[dict[str, Any]] = []  # noqa: RUF012 -- upstream's callbacks are static

    @staticmethod
    def progress_callback(**kwargs: Any) -> None:
        Listener.heard.append(kwargs)


def hear(line: str) -> None:
    """A progress callback."""
    Listener.heard.append({"line": line})


def stumble(container: str, text: str) -> str:
    """A formatter that fails at one line."""
    if text == "stone":
        raise ValueError(f"{container} stumbled")
    return f"{container}: {text}"
