"""Finds the Python files of a folder, and writes one of them in one step."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["find", "write"]

_LEFT_OUT = frozenset({"__pycache__", "node_modules"})


def find(
    paths: Iterable[Path], *, problem: Callable[[Path, str], None], note: Callable[[Path, str], None]
) -> Iterator[Path]:
    """Give every Python file once, in the order of the names.

    A path that was named is followed also if it is a link. Inside of a folder, links to folders are left alone, and so
    are links to files: what they point to is found by itself if it lies in the folder, and told to ``note`` if not.
    Hidden folders, virtual environments and what does not end in ``.py`` are left out.
    """
    seen: set[Path] = set()
    for named in paths:
        try:
            root = named.resolve(strict=True)
        except (OSError, RuntimeError) as error:
            problem(named, _reason(error))
            continue
        for path in _below(named, root, problem=problem, note=note) if root.is_dir() else (named,):
            real = path.resolve()
            if real not in seen:
                seen.add(real)
                yield path


def write(path: Path, content: bytes) -> None:
    """Replace a file's content, so that nobody ever reads a half of it; its mode, and a link to it, stay."""
    real = path.resolve(strict=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{real.name}.", dir=real.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        shutil.copystat(real, name)
        owner = real.stat()
        if (owner.st_uid, owner.st_gid) != (os.getuid(), os.getgid()):
            os.chown(name, owner.st_uid, owner.st_gid)
        # A new content has a new time: Airflow reads a file again when that changes.
        os.utime(name)
        os.replace(name, real)  # noqa: PTH105 -- of two names that are at hand as they are
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _below(
    named: Path, root: Path, *, problem: Callable[[Path, str], None], note: Callable[[Path, str], None]
) -> Iterator[Path]:
    def unreadable(error: OSError) -> None:
        problem(Path(error.filename), _reason(error))

    for folder, folders, names in os.walk(named, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not _is_left_out(Path(folder, name)))
        for name in sorted(names):
            path = Path(folder, name)
            if path.suffix != ".py":
                continue
            if path.is_symlink():
                target = path.resolve()
                if not target.is_relative_to(root):
                    note(path, f"is a link to {target}, which is not in this folder; name it to have it looked at")
            elif path.is_file():
                yield path


def _is_left_out(folder: Path) -> bool:
    return folder.name in _LEFT_OUT or folder.name.startswith(".") or (folder / "pyvenv.cfg").exists()


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
