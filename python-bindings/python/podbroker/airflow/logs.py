"""Prints what a watch says into the task log, in the way the Kubernetes provider prints the lines of a pod.

``[base] line``, or the line alone, or what the user's formatter makes of it; the level is read from the line's own
prefix; markers of log groups stay raw, so that they fold; empty lines are left out. Which containers are shown is
decided here too. The last lines of the base container are kept for the message of a failure.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from podbroker import ContainerRole, GapReason, NoticeSeverity
from podbroker.airflow._compat import is_log_group_marker, level_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from podbroker import ContainerInstance, LogChunk, LogGap, LogLine, LogStreamEnd, Notice

__all__ = ["ContainerChoice", "LinePrinter"]

ContainerChoice: TypeAlias = "Iterable[str] | str | Literal[True] | None"
"""Names of containers, True for all, None for none."""

LAST_LINES = 10
"""How many lines a failure's message repeats: enough for the end of a traceback, short enough for a mail."""

LAST_CONTAINERS = 16
"""Of how many containers the last lines are kept where none is the base one: of those that printed last."""

MAX_LINE_BYTES = 1 << 20
"""Pieces of one line are joined up to this size; a longer line is printed in parts, so that memory stays bounded."""

_GAPS = {
    GapReason.ROTATED: "the kubelet had rotated them away",
    GapReason.POD_DELETED: "the pod was gone before they could be read",
    GapReason.RESUME_AMBIGUOUS: "the place to continue was not found again; lines may be missing or doubled",
    GapReason.BUDGET_EXCEEDED: "the byte budget of the watch is used up",
    GapReason.DRAIN_DEADLINE: "the rest did not arrive in time after the container's end",
    GapReason.REFUSED: "the cluster refused to give the log",
    GapReason.SLOW_READER: "this task read too slowly, and the broker had no room to keep them",
}
_STARTUP = frozenset(
    {
        "CONTAINER_WAITING",
        "EVENTS_NOT_READABLE",
        "IMAGE_PULL_FAILED",
        "INIT_CONTAINER",
        "PREEMPTING",
        "PULLING_IMAGE",
        "QUEUED",
        "SANDBOX_FAILED",
        "SCALING_UP",
        "UNSCHEDULABLE",
        "VOLUME_NOT_READY",
    }
)
"""Notices that say why a pod does not run yet."""

_InstanceKey: TypeAlias = "tuple[int, str, int]"


class LinePrinter:
    """Prints log chunks, gaps and notices of one execution."""

    def __init__(
        self,
        *,
        log: Any,  # noqa: ANN401 -- a logger of the standard library or of structlog, as the Airflow version has it
        base_container: str,
        containers: ContainerChoice,
        init_containers: ContainerChoice,
        prefix: bool,
        startup_notices: bool = True,
        formatter: Callable[[str, str], str] | None = None,
        on_line: Callable[[str, str, int], None] | None = None,
        on_marker: Callable[[str], None] = print,
    ) -> None:
        """``base_container`` is the one whose last lines are kept; empty: of each, as of a job with several.

        ``on_line`` is called before each line with its text, its container and its time in nanoseconds.

        ``on_marker`` prints the marker of a log group. As upstream, a worker prints it as it is: the log view folds
        only at lines that begin with it.
        """
        self._log = log
        self._base_container = base_container
        self._containers = _names(containers)
        self._init_containers = _names(init_containers)
        self._prefix = prefix
        self._startup_notices = startup_notices
        self._formatter = formatter
        self._on_line = on_line
        self._on_marker = on_marker
        self._pieces: dict[_InstanceKey, list[bytes]] = {}
        self._last_lines: OrderedDict[str, deque[str]] = OrderedDict()

    @property
    def wanted(self) -> tuple[str, ...] | None:
        """The containers to ask the broker for: empty for all of them, None when no line is wanted."""
        if self._containers is True or self._init_containers is True:
            return ()
        return tuple(sorted({*self._containers, *self._init_containers})) or None

    @property
    def last_lines(self) -> tuple[str, ...]:
        """The last lines of the base container, oldest first, as far as they were printed."""
        return self.last_lines_of(self._base_container)

    def last_lines_of(self, container: str) -> tuple[str, ...]:
        """Give the last lines of a container, oldest first, as far as they were printed and are kept."""
        return tuple(self._last_lines.get(container, ()))

    @property
    def is_between_lines(self) -> bool:
        """Whether no line is half read, in any container."""
        return not self._pieces

    def shows(self, instance: ContainerInstance) -> bool:
        """Tell whether the lines of a container are printed."""
        initial = instance.role in {ContainerRole.INIT, ContainerRole.SIDECAR}
        chosen = self._init_containers if initial else self._containers
        # Where several pods are told apart by names such as `7/main`, `main` means that of each.
        return chosen is True or instance.container in chosen or instance.container.rpartition("/")[2] in chosen

    def chunk(self, chunk: LogChunk) -> None:
        """Print the lines of a chunk, as far as their container is shown."""
        if self.shows(chunk.instance):
            for line in chunk.lines:
                self._piece(chunk.instance, line)

    def gap(self, gap: LogGap) -> None:
        """Warn that lines are missing here."""
        if not self.shows(gap.instance):
            return
        self._flush(gap.instance, time_ns=0)
        words = [f"[{gap.instance.container}] Log lines are missing here"]
        if gap.lines_at_least:
            words.append(f", at least {gap.lines_at_least}")
        if gap.after or gap.before:
            after = f"{gap.after:%Y-%m-%d %H:%M:%S}" if gap.after else "the beginning"
            before = f"{gap.before:%Y-%m-%d %H:%M:%S} UTC" if gap.before else "the end"
            words.append(f", between {after} and {before}")
        words.append(f": {gap.message or _GAPS.get(gap.reason, gap.reason.value)}")
        self._log.warning("%s", "".join(words))

    def end_of(self, end: LogStreamEnd) -> None:
        """Print what is left of a line that had no end."""
        if self.shows(end.instance):
            self._flush(end.instance, time_ns=0)

    def notice(self, notice: Notice) -> None:
        """Print a notice of the broker at the level that it deserves, unless it is one that is not wanted."""
        if notice.code in _STARTUP and not self._startup_notices:
            return
        level = logging.WARNING if notice.severity is NoticeSeverity.WARNING else logging.INFO
        self._log.log(level, "%s", f"{notice.message} ({notice.code})")

    def _piece(self, instance: ContainerInstance, line: LogLine) -> None:
        key = (instance.attempt, instance.container, instance.restart)
        pieces = self._pieces.setdefault(key, [])
        if pieces and not line.continues:
            self._flush(instance, time_ns=line.time_ns)
            pieces = self._pieces.setdefault(key, [])
        pieces.append(line.content)
        if not line.partial or sum(map(len, pieces)) >= MAX_LINE_BYTES:
            self._flush(instance, time_ns=line.time_ns)

    def _flush(self, instance: ContainerInstance, *, time_ns: int) -> None:
        pieces = self._pieces.pop((instance.attempt, instance.container, instance.restart), None)
        if pieces:
            text = b"".join(pieces).decode("utf-8", errors="backslashreplace").rstrip("\r")
            if text:
                self._print(instance.container, text, time_ns)

    def _print(self, container: str, text: str, time_ns: int) -> None:
        if self._base_container in {container, ""}:
            self._keep(container, text)
        if self._on_line is not None:
            self._on_line(text, container, time_ns)
        if is_log_group_marker(text):
            self._on_marker(text)
            return
        level = level_of(text)
        if self._formatter is not None:
            text = self._formatter(container, text)
        elif self._prefix:
            text = f"[{container}] {text}"
        self._log.log(level, "%s", text)

    def _keep(self, container: str, text: str) -> None:
        self._last_lines.setdefault(container, deque(maxlen=LAST_LINES)).append(text)
        self._last_lines.move_to_end(container)
        if len(self._last_lines) > LAST_CONTAINERS:
            self._last_lines.popitem(last=False)


def _names(choice: ContainerChoice) -> frozenset[str] | Literal[True]:
    if choice is True:
        return True
    if isinstance(choice, str):
        return frozenset({choice})
    return frozenset(choice or ())
