"""Fluent Bit as far as the doubles need it: reads the files of containers, and puts their lines into a log group, late.

`ship` in the configuration of a group: `{"folder": where the kubelet keeps the logs of pods, "namespace": NAME, "node":
NAME, "delay": SECONDS, "shape": "record" or "bare", "skip": how many lines at the beginning of each log are left out}`.
A record is what Container Insights sends: the line in `log`, the runtime's time in `time`, `_p` P or F for a piece or
the end of a line; bare is the line alone, as `log_key log` makes it. Names of streams are those of Container Insights.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from .logs import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .logs import LogGroups

#: Seconds between two looks; files of pods that are deleted soon are gone after a second.
_INTERVAL: Final = 0.05


@dataclass(kw_only=True)
class _Tail:
    """A file that is read as it grows, also after it was removed."""

    file: BinaryIO
    stream: str
    rest: bytes = b""
    lines: int = 0
    #: What was read and is to arrive later: when, by the monotonic clock, and what.
    waiting: list[tuple[float, Event]] = field(default_factory=list)

    def read(self) -> list[bytes]:
        """Whole lines that are new."""
        *lines, self.rest = (self.rest + self.file.read()).split(b"\n")
        return lines


class Shipper:
    """Ships for all groups that say so; `config` tells the configuration. Its thread begins when it is told to."""

    def __init__(self, groups: LogGroups, config: Callable[[], Mapping[str, Any]]) -> None:
        self._groups, self._config = groups, config
        self._tails: dict[tuple[str, str], _Tail] = {}
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins to look, if it has not."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="shipper", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            time.sleep(_INTERVAL)
            groups = {
                key: facts["ship"]
                for key, facts in self._config().get("logs", {}).get("groups", {}).items()
                if facts.get("ship")
            }
            for gone in [one for one in self._tails if one[0] not in groups]:
                self._tails.pop(gone).file.close()
            for key, ship in groups.items():
                self._look(key, ship)

    def _look(self, key: str, ship: Mapping[str, Any]) -> None:
        # A folder may go while it is looked into; the next look finds the rest.
        with contextlib.suppress(FileNotFoundError):
            for path in Path(ship["folder"]).glob(f"{ship['namespace']}_*/*/*.log"):
                if (key, str(path)) not in self._tails:
                    self._tails[key, str(path)] = _Tail(file=path.open("rb"), stream=_stream(path, ship))
        now = time.monotonic()
        for (of, _), tail in self._tails.items():
            if of != key:
                continue
            for line in tail.read():
                tail.lines += 1
                if tail.lines > ship.get("skip", 0):
                    tail.waiting.append((now + ship["delay"], _event(line, ship["shape"])))
            arrived = [event for due, event in tail.waiting if due <= now]
            if arrived:
                del tail.waiting[: len(arrived)]
                self._groups.put(key, tail.stream, arrived)


def _stream(path: Path, ship: Mapping[str, Any]) -> str:
    namespace, pod, _ = path.parent.parent.name.split("_", 2)
    # The container's id, which is nowhere in these paths; it only has to be one.
    identity = hashlib.sha256(str(path).encode()).hexdigest()
    return f"{ship['node']}-application.var.log.containers.{pod}_{namespace}_{path.parent.name}-{identity}.log"


def _event(line: bytes, shape: str) -> Event:
    """A line of the runtime's file: time, stream, P or F, content."""
    stamp, stream, tags, *content = line.decode(errors="replace").split(" ", 3)
    log = content[0] if content else ""
    seconds, _, fraction = stamp.removesuffix("Z").partition(".")
    # Of the seconds alone: a float would round the milliseconds.
    millis = int(datetime.fromisoformat(f"{seconds}+00:00").timestamp()) * 1000 + int(fraction.ljust(9, "0")[:3])
    told = {"time": stamp, "stream": stream, "_p": tags.split(":")[0], "log": log}
    record = {**told, "kubernetes": {"container_name": "main"}}
    message = log if shape == "bare" else json.dumps(record)
    return Event(timestamp=millis, ingested=int(time.time() * 1000), message=message)
