"""A caller that reads one watch all the time, in a thread of its own, while the row breaks things."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import podbroker
from e2e.following import Story, ended
from faults.ledger import Account, Marker, compare
from faults.witness import Instance, Line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

#: Seconds after which a row gives up waiting. The machine may be ten times busier than it is today.
LIMIT: Final = 300.0
#: Seconds between two looks at whether the reader shall pause or end.
_PATIENCE: Final = 0.5


class Reader:
    """Follows an execution from its first line, or from a cursor, until END, an error, or `stop`."""

    def __init__(self, client: podbroker.Client, name: str, *, cursor: bytes = b"") -> None:
        """Begins to read."""
        self.name = name
        self.client = client
        self.story = Story()
        self.error: Exception | None = None
        self.judged = True
        """Whether it is held to have received everything."""
        self._changed = threading.Condition()
        self._stopped = False
        self._flowing = threading.Event()
        self._flowing.set()
        self._watch = client.watch(name, cursor=cursor)
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)
        self._thread.start()

    @property
    def cursor(self) -> bytes:
        """The position after the last event."""
        return self._watch.cursor

    def until(self, condition: Callable[[Story], object], *, within: float = LIMIT) -> Story:
        """Waits until the story is so."""
        deadline = time.monotonic() + within
        with self._changed:
            while not condition(self.story):
                if self.error is not None:
                    raise self.error
                left = deadline - time.monotonic()
                if left <= 0 or ended(self.story):
                    seen = f"{self.story.states}, last {self.story.events[-1:]}"
                    raise AssertionError(f"not seen within {within:.0f} s, or before END: {seen[:600]}")
                self._changed.wait(left)
        return self.story

    def to_end(self, *, within: float = LIMIT) -> Story:
        """Waits for END."""
        return self.until(ended, within=within)

    def pause(self) -> None:
        """Reads nothing more; the connection stays open."""
        self._flowing.clear()

    def go_on(self) -> None:
        """Ends `pause`."""
        self._flowing.set()

    def stop(self) -> None:
        """Lets go of the watch, and is not held to what comes later."""
        self._stopped = True
        self.judged = False
        self._flowing.set()
        self._watch.wake()
        self._thread.join()

    @property
    def pods(self) -> set[str]:
        """The pods that it was told of, with their namespaces."""
        return set(_pods(self.story).values())

    def account(self, written: Mapping[Instance, Sequence[Line]]) -> Account:
        """Compares what it has received with what was written, over all container instances."""
        received = _received(self.story)
        total = Account()
        for instance in written.keys() | received.keys():
            total += compare(written.get(instance, ()), received.get(instance, ()))
        return total

    def _run(self) -> None:
        with self._watch as watch:
            while not self._stopped and not watch.ended:
                self._flowing.wait()
                try:
                    event = watch.poll(_PATIENCE)
                except podbroker.PodbrokerError as error:
                    with self._changed:
                        self.error = error
                        self._changed.notify_all()
                    return
                if event is not None:
                    with self._changed:
                        self.story.add(event)
                        self._changed.notify_all()


@dataclass(kw_only=True)
class _Items:
    items: list[Line | Marker] = field(default_factory=list)
    time: int = 0
    pieces: list[bytes] = field(default_factory=list)

    def add(self, line: podbroker.LogLine) -> None:
        if not line.continues:
            self.flush()
            self.time = line.time_ns
        self.pieces.append(line.content)
        if not line.partial:
            self.flush()

    def flush(self) -> None:
        if self.pieces:
            self.items.append(Line(time=self.time, content=b"".join(self.pieces)))
            self.pieces = []


def _pods(story: Story) -> dict[int, str]:
    """The pods by attempt. That of a job has its name late, and is not told of any more when it is gone."""
    pods: dict[int, str] = {}
    for event in story.events:
        if isinstance(event, podbroker.StateChanged | podbroker.End):
            named = [one for one in event.execution.attempts if one.pod_name]
            pods |= {one.number: f"{one.pod_namespace}/{one.pod_name}" for one in named}
    return pods


def _received(story: Story) -> dict[Instance, list[Line | Marker]]:
    """Lines and markers by the names that the files on disk have."""
    found: dict[tuple[int, str, int], _Items] = defaultdict(_Items)
    pods = _pods(story)
    for event in story.events:
        match event:
            case podbroker.LogChunk():
                for line in event.lines:
                    found[_key(event.instance)].add(line)
            case podbroker.LogGap():
                items = found[_key(event.instance)]
                items.flush()
                items.items.append(Marker(reason=event.reason.value))
            case _:
                pass
    answer = {}
    for (attempt, container, restart), items in found.items():
        items.flush()
        answer[Instance(pod=pods.get(attempt, ""), container=container, restart=restart)] = items.items
    return answer


def _key(instance: podbroker.ContainerInstance) -> tuple[int, str, int]:
    return instance.attempt, instance.container, instance.restart
