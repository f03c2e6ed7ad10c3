"""Analyses many files on all processors: building a syntax tree takes about a second for a thousand lines."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

from podbroker.migrate.analysis import Report, analyse, may_concern
from podbroker.migrate.source import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["analyse_files"]

FEW_FILES = 16
"""So many are done before other processes have started."""

STACK_BYTES = 256 * 2**20
"""The parser recurses natively, and a stack that is full ends the process. Only what is used of it takes memory."""


def analyse_files(paths: Sequence[Path]) -> Iterator[tuple[Path, Report | SourceError | OSError]]:
    """Give each path, in the same order, with its report or with what is wrong with the file."""
    contents = [_read(path) for path in paths]
    concerned = [content for content in contents if isinstance(content, bytes) and may_concern(content)]
    processes = min(os.cpu_count() or 1, len(concerned) // FEW_FILES + 1)
    if processes == 1:
        yield from _joined(paths, contents, map(_analyse, concerned))
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from _joined(paths, contents, pool.map(_analyse, concerned, chunksize=4))


def _joined(
    paths: Sequence[Path], contents: Sequence[bytes | OSError], answers: Iterator[Report | SourceError]
) -> Iterator[tuple[Path, Report | SourceError | OSError]]:
    for path, content in zip(paths, contents, strict=True):
        if isinstance(content, OSError):
            yield path, content
        elif may_concern(content):
            yield path, next(answers)
        else:
            yield path, Report(old=content, new=content)


def _read(path: Path) -> bytes | OSError:
    try:
        return path.read_bytes()
    except OSError as error:
        return error


def _analyse(content: bytes) -> Report | SourceError:
    """Analyse in a thread of its own, whose stack is larger than what a process has."""
    answers: list[Report | SourceError] = []
    threading.stack_size(STACK_BYTES)
    thread = threading.Thread(target=lambda: answers.append(_answer(content)))
    thread.start()
    threading.stack_size(0)
    thread.join()
    return answers[0]


def _answer(content: bytes) -> Report | SourceError:
    try:
        return analyse(content)
    except SourceError as error:
        return error
    except Exception as error:  # noqa: BLE001 -- one strange file must not keep the others from being handled
        return SourceError(f"could not be analysed ({type(error).__name__}: {error})")
