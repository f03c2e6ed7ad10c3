"""Names a function or a class so that another process can import it, and imports it there."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

__all__ = ["imported", "path_of"]


def path_of(thing: Any) -> str | None:  # noqa: ANN401 -- a function or a class
    """Give ``module:name``; None for what only this process has, such as a function of a DAG file or a lambda."""
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if not module or not name or "<" in name or module == "__main__":
        return None
    # Airflow loads a DAG file under a name of its own, which no other process knows.
    if module.startswith("unusual_prefix_") or getattr(sys.modules.get(module), "__spec__", None) is None:
        return None
    try:
        return f"{module}:{name}" if imported(f"{module}:{name}") is thing else None
    except (ImportError, AttributeError):
        return None


def imported(path: str) -> Any:  # noqa: ANN401 -- a function or a class
    """Import what ``path_of`` has named."""
    module, _, name = path.partition(":")
    found: Any = import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found
