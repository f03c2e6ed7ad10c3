"""How the lines of a pod are printed, in words that can be stored, and the printer that a trigger makes of them.

A formatter and callbacks are code: they travel by the name under which the triggerer can import them. Where it cannot,
for example because they stand in the DAG file, the worker prints the lines when the pod has ended.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from podbroker import LogChunk
from podbroker.airflow._compat import ExecutionMode
from podbroker.airflow.imported import imported, path_of
from podbroker.airflow.listeners import tell
from podbroker.airflow.logs import LinePrinter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kubernetes.client import models as k8s

    from podbroker import Event
    from podbroker.airflow.pods import PodClient
    from podbroker.airflow.progress import Progress

__all__ = ["AuthorsCodeError", "LineSpec", "Lines", "LinesAway", "Printed", "print_each"]


class LinesAway(Exception):  # noqa: N818 -- no fault of anybody
    """The lines cannot be printed in this process; the message says why."""


class AuthorsCodeError(Exception):
    """A formatter or a callback raised in a triggerer; the cause is what it raised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineSpec:
    """What a trigger's row says of its lines: only what JSON has."""

    base_container: str
    containers: list[str] | bool | None
    init_containers: list[str] | bool | None
    prefix: bool
    startup_notices: bool
    formatter: str | None
    """``module:name``."""
    callbacks: list[str]
    progress: str | None

    @staticmethod
    def of(
        *,
        base_container: str,
        containers: Any,  # noqa: ANN401 -- as upstream takes it
        init_containers: Any,  # noqa: ANN401
        prefix: bool,
        startup_notices: bool = True,
        formatter: Callable[[str, str], str] | None,
        callbacks: Sequence[type[Any]],
        progress: Callable[[str], None] | None,
    ) -> LineSpec:
        """Make one of an operator's arguments.

        Raises:
            LinesAway: A function or a class cannot be imported elsewhere.

        """
        return LineSpec(
            base_container=base_container,
            containers=_choice(containers),
            init_containers=_choice(init_containers),
            prefix=prefix,
            startup_notices=startup_notices,
            formatter=_path("log_formatter", formatter) if formatter is not None else None,
            callbacks=[_path("callback", callback) for callback in callbacks],
            progress=_path("progress_callback", progress) if progress is not None else None,
        )

    def to_json(self) -> dict[str, Any]:
        """Give what ``Lines.from_json`` takes."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """A printer, and whether it calls what users have written."""

    printer: LinePrinter
    has_user_code: bool

    @staticmethod
    def from_json(
        spec: dict[str, Any] | None,
        *,
        log: Any,  # noqa: ANN401 -- a logger
        client: PodClient,
    ) -> Lines | None:
        """Make the printer of a trigger; None where no lines are wanted. Imports the users' code; it gets ``client``.

        Raises:
            LinesAway: Something cannot be imported here.

        """
        if spec is None:
            return None
        if not spec:
            message = "they are left to it"
            raise LinesAway(message)
        made = LineSpec(**spec)
        try:
            formatter = imported(made.formatter) if made.formatter else None
            callbacks = [imported(path) for path in made.callbacks]
            progress = imported(made.progress) if made.progress else None
        except Exception as error:
            message = f"its code cannot be imported: {error}"
            raise LinesAway(message) from error
        on_line = _Listeners(callbacks, progress, client) if callbacks or progress else None
        printer = LinePrinter(
            log=log,
            base_container=made.base_container,
            containers=made.containers or None,
            init_containers=made.init_containers or None,
            prefix=made.prefix,
            startup_notices=made.startup_notices,
            formatter=formatter,
            on_line=on_line,
            on_marker=partial(log.info, "%s"),
        )
        return Lines(printer=printer, has_user_code=bool(formatter or on_line))

    @staticmethod
    def silent(*, base_container: str = "", containers: Any = None) -> Lines:  # noqa: ANN401 -- as LinePrinter takes it
        """Make a printer that prints nothing, and keeps the last lines of the base container."""
        printer = LinePrinter(
            log=SILENT,
            base_container=base_container,
            containers=containers,
            init_containers=containers,
            prefix=False,
            on_marker=SILENT.info,
        )
        return Lines(printer=printer, has_user_code=False)


@dataclass(frozen=True, slots=True)
class Printed:
    """How far printing came with a chunk of lines."""

    done: int
    """How many of the chunk's lines were printed."""
    whole: int
    """The same, up to the last one after which another process may go on; 0 if there is none."""
    error: Exception | None = None


def print_each(progress: Progress, event: Event, begin: int, end: int) -> Printed:
    """Handle an event, of a chunk the lines from ``begin`` to ``end`` one after another.

    So it is known how far that came when code of users raises. Raises nothing itself.
    """
    done, whole = begin, 0
    try:
        if not isinstance(event, LogChunk):
            progress.handle(event)
        else:
            for line in event.lines[begin:end]:
                progress.handle(replace(event, lines=(line,)))
                done += 1
                whole = done if progress.may_resume_after(event) else whole
    except Exception as error:  # noqa: BLE001 -- whatever users' code raises
        return Printed(done, whole, error)
    return Printed(done, whole)


def _silent() -> logging.Logger:
    log = logging.Logger("podbroker.silent")  # noqa: LOG001 -- of nobody's tree, so that no handler hears it
    log.addHandler(logging.NullHandler())
    log.propagate = False
    return log


SILENT: Any = _silent()


class _Listeners:
    """Calls the callbacks of upstream with each line, in the mode in which they are told that this is a triggerer."""

    def __init__(
        self, callbacks: Sequence[type[Any]], progress: Callable[[str], None] | None, client: PodClient
    ) -> None:
        self._callbacks = callbacks
        self._progress = progress
        self._client = client

    @cached_property
    def _pod(self) -> k8s.V1Pod | None:
        return self._client.read()

    def __call__(self, line: str, container: str, time_ns: int) -> None:
        tell(
            line,
            container,
            time_ns,
            callbacks=self._callbacks,
            progress=self._progress,
            mode=ExecutionMode.ASYNC,
            client=lambda: self._client,
            pod=lambda: self._pod,
        )


def _choice(choice: Any) -> list[str] | bool | None:  # noqa: ANN401 -- as upstream takes it
    if choice is True or choice is None:
        return choice
    return [choice] if isinstance(choice, str) else sorted(choice)


def _path(what: str, thing: Any) -> str:  # noqa: ANN401 -- a function or a class
    path = path_of(thing)
    if path is None:
        message = f"{what} {getattr(thing, '__qualname__', thing)!r} cannot be imported elsewhere"
        raise LinesAway(message)
    return path
