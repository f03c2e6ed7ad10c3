"""The channel to a broker that all triggers of a process share.

One for each set of connection settings, over one stream, however many triggers there are. The connection is looked up
once a minute for all of them, since each look-up is a question to Airflow. Settings hold a token: they stay in memory.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from asgiref.sync import sync_to_async

from podbroker.airflow.hook import PodbrokerHook

if TYPE_CHECKING:
    from podbroker import Client
    from podbroker.watch_many import WatchMany

__all__ = ["Channel", "channel_of", "open_channel"]

LOOKED_UP_SECONDS = 60.0
"""How long a connection is taken to be what it was: a changed one is used by triggers that start a minute later."""


@dataclass(frozen=True, slots=True)
class Channel:
    """A client, and its shared stream."""

    client: Client
    many: WatchMany


_lock = threading.Lock()
_by_settings: dict[tuple[tuple[str, object], ...], Channel] = {}
_by_connection: dict[str, tuple[float, asyncio.Task[Channel]]] = {}


async def channel_of(podbroker_conn_id: str) -> Channel:
    """Give the channel of an Airflow connection. Asks Airflow in a thread, so the event loop goes on."""
    looked_up = _by_connection.get(podbroker_conn_id)
    now = time.monotonic()
    if looked_up is not None:
        since, task = looked_up
        failed = task.done() and (task.cancelled() or task.exception() is not None)
        if now - since < LOOKED_UP_SECONDS and task.get_loop() is asyncio.get_running_loop() and not failed:
            return await asyncio.shield(task)
    # Not asyncio.to_thread: before 3.3 Airflow finds its own loop from a thread only through asgiref. In a context of
    # its own: it is not the business of the trigger that happens to be the first.
    looking_up = sync_to_async(open_channel, thread_sensitive=False)(podbroker_conn_id)
    looking = contextvars.Context().run(asyncio.create_task, looking_up)
    _by_connection[podbroker_conn_id] = (now, looking)
    return await asyncio.shield(looking)


def open_channel(podbroker_conn_id: str) -> Channel:
    """Look the connection up and give the channel of its settings. Connects to nothing yet."""
    hook = PodbrokerHook(podbroker_conn_id)
    # A client reads the files of TLS once: triggers that start after a certificate was renewed get another one.
    key = (*sorted(hook.settings.items()), *((file, _changed(file)) for file in hook.tls_files))
    with _lock:
        channel = _by_settings.get(key)
        if channel is None:
            # Those of a token that was replaced are of no use once nobody follows anything there.
            for other in [other for other, made in _by_settings.items() if not len(made.many)]:
                del _by_settings[other]
            client = hook.conn
            channel = _by_settings[key] = Channel(client=client, many=client.watch_many())
        return channel


def _changed(file: str) -> int:
    """Say when a file was changed, in nanoseconds; 0 when it is not there, which the client then says."""
    try:
        return Path(file).stat().st_mtime_ns
    except OSError:
        return 0
