"""What containers have written, read from the node's disk.

The kubelet renames, compresses and removes the files that it rotates, so each file gets a second name here as soon as
it appears: the content stays for as long as that name does, whatever the kubelet does with the first one.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

#: Seconds between two looks. The kubelet removes a file at its second rotation, which is seconds after the first.
_INTERVAL: Final = 0.05
#: The broker's own sidecar; its lines are the result, and no caller is to see them.
_RESULT: Final = "podbroker-result"


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One container between two restarts."""

    pod: str
    container: str
    restart: int


@dataclass(frozen=True, kw_only=True)
class Line:
    """One whole line: its time in nanoseconds, of the first piece, and its bytes."""

    time: int
    content: bytes


@dataclass(kw_only=True)
class Witness:
    """Keeps the log files of all pods of one node; a context manager."""

    logs: Path
    """Where the kubelet keeps them: a folder per pod, in it one per container."""
    kept: Path
    """An empty folder on the same file system."""
    _files: dict[Instance, list[Path]] = field(default_factory=lambda: defaultdict(list))
    _seen: set[tuple[int, int]] = field(default_factory=set)

    def __enter__(self) -> Self:
        """Begins to look."""
        self.kept.mkdir()
        self._number = itertools.count()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="witness")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Lets the files go."""
        self._stop.set()
        self._thread.join()
        for path in self.kept.iterdir():
            path.unlink()
        self.kept.rmdir()

    def lines(self, namespace: str) -> dict[Instance, list[Line]]:
        """Everything that the containers of a namespace have written so far, in order."""
        self._look()
        with self._lock:
            files = {one: list(paths) for one, paths in self._files.items() if one.pod.startswith(f"{namespace}/")}
        return {one: parse(b"".join(path.read_bytes() for path in paths)) for one, paths in files.items()}

    def files(self, namespace: str) -> int:
        """How many files they have written, rotated ones included."""
        with self._lock:
            return sum(len(paths) for one, paths in self._files.items() if one.pod.startswith(f"{namespace}/"))

    def _run(self) -> None:
        while not self._stop.wait(_INTERVAL):
            self._look()

    def _look(self) -> None:
        with self._lock:
            for folder in _folders(self.logs):
                namespace, pod, _ = folder.name.split("_", 2)
                for container in _folders(folder):
                    if container.name != _RESULT:
                        self._keep(f"{namespace}/{pod}", container)

    def _keep(self, pod: str, container: Path) -> None:
        # A rotated file is renamed between two looks; the older of two new ones is the one with the time in its name.
        with contextlib.suppress(FileNotFoundError):
            for file in sorted(os.scandir(container), key=lambda one: (not _is_rotated(one.name), one.name)):
                restart, _, rest = file.name.partition(".log")
                if not restart.isdigit() or rest.endswith((".gz", ".tmp")):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    status = Path(file.path).stat()
                    key = (status.st_dev, status.st_ino)
                    if key in self._seen:
                        continue
                    name = self.kept / str(next(self._number))
                    os.link(file.path, name)
                    self._seen.add(key)
                    instance = Instance(pod=pod, container=container.name, restart=int(restart))
                    self._files[instance].append(name)


def _folders(folder: Path) -> list[Path]:
    with contextlib.suppress(FileNotFoundError):
        return [Path(one.path) for one in os.scandir(folder) if one.is_dir()]
    return []


def _is_rotated(name: str) -> bool:
    return not name.endswith(".log")


def parse(data: bytes) -> list[Line]:
    """Lines in the format of the container runtime interface: time, stream, P or F, content."""
    lines: list[Line] = []
    begun: dict[bytes, tuple[int, list[bytes]]] = {}
    for record in data.split(b"\n"):
        if not record:
            continue
        stamp, stream, tags, *content = record.split(b" ", 3)
        time, pieces = begun.pop(stream, (nanoseconds(stamp.decode()), []))
        pieces.append(content[0] if content else b"")
        if tags.split(b":")[0] == b"P":
            begun[stream] = (time, pieces)
        else:
            lines.append(Line(time=time, content=b"".join(pieces)))
    # What ended without a newline.
    lines += [Line(time=time, content=b"".join(pieces)) for time, pieces in begun.values()]
    return lines


def nanoseconds(stamp: str) -> int:
    """RFC 3339 with up to nine digits of a second, as nanoseconds since 1970."""
    whole, _, rest = stamp.partition(".")
    digits = rest.rstrip("Z") if rest.endswith("Z") else rest[: max(rest.find("+"), rest.find("-"))]
    zone = "+00:00" if stamp.endswith("Z") else stamp[-6:]
    if not rest:
        whole = whole.removesuffix("Z").removesuffix(zone)
    seconds = int(datetime.fromisoformat(whole + zone).timestamp())
    return seconds * 1_000_000_000 + int(digits.ljust(9, "0") or 0)
