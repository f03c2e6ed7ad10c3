"""Scripts that print many lines from a container with nothing but busybox.

Every line begins with its number, from 1, so that whoever reads can say whether all are there. awk is the fastest that
busybox has; it keeps its rate by the machine's clock and not by counting pauses, which would add up.
"""

from __future__ import annotations

from typing import Final

#: Bytes of a line after its number and a space. With the number of a million lines that is 80 in all.
FILLER: Final = "the quick brown fox jumps over the lazy dog and runs on along the river."

#: Seconds between two bundles of lines of a paced script. A wake-up costs a process.
PAUSE: Final = 0.05

_PRINT: Final = f'print n, "{FILLER}"'


def burst(lines: int) -> str:
    """Prints so many lines as fast as it can."""
    return f"awk 'BEGIN {{ for (n = 1; n <= {lines}; n++) {_PRINT} }}'"


def paced(lines: int, *, rate: int, pause: float = PAUSE) -> str:
    """Prints so many lines at a rate per second, in bundles with a pause between."""
    clock = 'getline up < "/proc/uptime"; close("/proc/uptime"); split(up, part, " ")'
    return (
        f"awk 'BEGIN {{ {clock}; start = part[1]; n = 0; "
        f"while (n < {lines}) {{ {clock}; due = int((part[1] - start) * {rate}); if (due > {lines}) due = {lines}; "
        f'while (n < due) {{ n++; {_PRINT} }} fflush(); if (n < {lines}) system("sleep {pause}") }} }}\''
    )
