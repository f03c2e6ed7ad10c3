"""A formatter of lines that a triggerer can import."""

from __future__ import annotations


def stumble(container: str, line: str) -> str:
    """Fails at one line."""
    if line.endswith(" 61"):
        raise ValueError(f"{container} stumbled")
    return f"formatted {line}"
