"""Imports what takes seconds to import, in a process that has other work meanwhile.

Such an import makes hundreds of thousands of objects. On their account Python's garbage collector would go over all
objects of the process, with the interpreter's lock held: an event loop in another thread then stands still for some
tenths of a second on a quiet machine, and for longer on a busy one.
"""

from __future__ import annotations

import gc
import threading
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["load", "loaded"]

_lock = threading.Lock()
_loaded: dict[str, ModuleType] = {}


def loaded(name: str) -> ModuleType | None:
    """Give a module that ``load`` has imported as a whole; None if it has not."""
    return _loaded.get(name)


def load(name: str) -> ModuleType:
    """Import a module without a pass of the garbage collector; for a thread beside an event loop.

    The collector rests meanwhile, in the whole process. What is there afterwards counts as old: it is collected like
    everything else, at the next pass over all objects. A process that has taken the collector into its own hands, by
    turning it off or by freezing objects, is left as it is.

    Raises:
        ImportError: It cannot be imported.

    """
    with _lock:
        module = _loaded.get(name)
        if module is None:
            module = _loaded[name] = _import(name)
        return module


def _import(name: str) -> ModuleType:
    if not gc.isenabled() or gc.get_freeze_count():
        return import_module(name)
    gc.disable()
    try:
        return import_module(name)
    finally:
        # Moves all objects to the oldest generation, and looks at none of them.
        gc.freeze()
        gc.unfreeze()
        gc.enable()
