"""What a watch said, collected, with the questions that tests ask of it."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import podbroker

if TYPE_CHECKING:
    from collections.abc import Callable

    from podbroker import Client, Event, Execution, LogLine, Watch


@dataclass(kw_only=True)
class Story:
    """Everything that one or several watches of one execution handed out, in order."""

    events: list[Event] = field(default_factory=list)

    def add(self, event: Event) -> None:
        """Notes one more event."""
        self.events.append(event)

    def of(self, kind: type[Event]) -> list[Event]:
        """The events of one class."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def lines(self) -> dict[str, list[LogLine]]:
        """The lines of each container, in the order of arrival."""
        found: dict[str, list[LogLine]] = defaultdict(list)
        for event in self.events:
            if isinstance(event, podbroker.LogChunk):
                found[event.instance.container].extend(event.lines)
        return dict(found)

    def text(self, container: str = "main") -> list[str]:
        """The lines of a container as text, pieces of long lines joined."""
        return [line.decode(errors="backslashreplace") for line in self.content(container)]

    def content(self, container: str = "main") -> list[bytes]:
        """The lines of a container as bytes, pieces of long lines joined."""
        whole: list[bytes] = []
        pieces: list[bytes] = []
        for line in self.lines.get(container, []):
            assert line.continues == bool(pieces), "a piece continues exactly when the piece before it was not the last"
            pieces.append(line.content)
            if not line.partial:
                whole.append(b"".join(pieces))
                pieces = []
        return whole + ([b"".join(pieces)] if pieces else [])

    @property
    def states(self) -> list[str]:
        """The states, each once while it lasted."""
        found: list[str] = []
        for event in self.events:
            if isinstance(event, podbroker.StateChanged | podbroker.End):
                state = event.execution.state.value
                if found[-1:] != [state]:
                    found.append(state)
        return found

    @property
    def gaps(self) -> list[podbroker.LogGap]:
        """Where lines are missing."""
        return [event for event in self.events if isinstance(event, podbroker.LogGap)]

    @property
    def notices(self) -> list[str]:
        """The codes of the notices."""
        return [event.code for event in self.events if isinstance(event, podbroker.Notice)]

    @property
    def result(self) -> podbroker.Result | None:
        """The value handed back; at most one."""
        found = [event for event in self.events if isinstance(event, podbroker.Result)]
        assert len(found) <= 1, "a result arrives at most once"
        return found[0] if found else None

    @property
    def end(self) -> Execution:
        """The execution as END tells it; END must be there, once and last."""
        ends = [index for index, event in enumerate(self.events) if isinstance(event, podbroker.End)]
        assert ends == [len(self.events) - 1], f"END must be the last event: {self.events[-3:]}"
        last = self.events[-1]
        assert isinstance(last, podbroker.End)
        return last.execution

    @property
    def outcome(self) -> podbroker.Outcome:
        """How it ended."""
        assert self.end.outcome is not None
        return self.end.outcome


def collect(watch: Watch, story: Story, until: Callable[[Story], object], *, within: float) -> Story:
    """Reads a watch into the story until the condition holds or END came; fails after `within` seconds."""
    deadline = time.monotonic() + within
    while not until(story):
        left = deadline - time.monotonic()
        if left <= 0:
            raise AssertionError(f"after {within:.0f} s: {story.states}, {story.lines.keys()}, {story.events[-3:]}")
        event = watch.poll(left)
        if event is not None:
            story.add(event)
        elif watch.ended:
            raise AssertionError(f"the watch ended first: {story.states}, {story.events[-3:]}")
    return story


def check_lines(found: list[bytes], expected: list[bytes], gaps: list[podbroker.LogGap]) -> None:
    """Fails in one line when many lines are not those that were written; a comparison of all would take minutes."""
    if found == expected and not gaps:
        return
    places = (place for place, (one, other) in enumerate(zip(found, expected, strict=False)) if one != other)
    place = next(places, min(len(found), len(expected)))
    around = slice(max(place - 1, 0), place + 2)
    raise AssertionError(
        f"{len(found)} lines of {len(expected)}, the first difference is at {place}: found {found[around]}, "
        f"expected {expected[around]}; gaps: {gaps}"
    )


def ended(story: Story) -> bool:
    """END has come."""
    return bool(story.events) and isinstance(story.events[-1], podbroker.End)


def follow(client: Client, name: str, *, within: float = 120.0, cursor: bytes = b"") -> Story:
    """Follows an execution to its end."""
    with client.watch(name, cursor=cursor) as watch:
        return collect(watch, Story(), ended, within=within)


def follow_until(
    client: Client, name: str, until: Callable[[Story], object], *, within: float = 120.0, cursor: bytes = b""
) -> Story:
    """Follows an execution until the condition holds, then lets go of it."""
    with client.watch(name, cursor=cursor) as watch:
        return collect(watch, Story(), until, within=within)


def has_line(text: str, container: str = "main") -> Callable[[Story], bool]:
    """A condition: the line has come."""
    return lambda story: text in story.text(container)
