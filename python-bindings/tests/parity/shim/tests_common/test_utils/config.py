"""Options of ``airflow.cfg`` for the time of a block."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@contextmanager
def conf_vars(overrides: Mapping[tuple[str, str], str | None]) -> Iterator[None]:
    """Set options by (section, name). The environment wins over every file, so they are set there."""
    kept = {}
    for (section, name), value in overrides.items():
        variable = f"AIRFLOW__{section.upper().replace('.', '_').replace('-', '_')}__{name.upper()}"
        kept[variable] = os.environ.get(variable)
        _put(variable, value)
    try:
        yield
    finally:
        for variable, value in kept.items():
            _put(variable, value)


def _put(variable: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(variable, None)
    else:
        os.environ[variable] = value
