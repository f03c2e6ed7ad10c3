"""The pods that rows are played with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from e2e.manifests import container, numbered, pod, shell
from faults.stage import SIGNALS, SIGNALS_MOUNT, until_told

if TYPE_CHECKING:
    from e2e.manifests import Manifest

#: About 12 seconds of lines.
SLOW: Final = shell(numbered(400, pause="0.03"))
#: About 90 seconds of lines.
LONG: Final = shell(numbered(900, pause="0.1"))
#: With characters of two, three and four bytes.
MANY_BYTES: Final = shell('i=0; while [ $i -lt 600 ]; do i=$((i+1)); echo "$i grün € 😀 und mehr"; sleep 0.02; done')
#: 400 kB/s for about 30 seconds: the kubelet rotates at half a megabyte, and looks every 3 seconds.
ROTATING: Final = shell(
    "filler=$(head -c 1000 /dev/zero | tr '\\0' x); i=0; "
    "while [ $i -lt 12000 ]; do i=$((i+1)); echo $i $filler; [ $((i % 40)) = 0 ] && sleep 0.1; done"
)
#: As `UNTIL_TOLD`, but not within the second in which it is told: times in a pod have whole seconds, and an end with
#: code 0 in the second of a deletion is believed to be the program's own.
TAKES_TIME: Final = "trap 'sleep 2; echo bye; exit 0' TERM; echo ready; while :; do sleep 0.1; done"


def waiting(before: str, after: str) -> Manifest:
    """A pod that prints, waits for `tell("go")`, and prints again."""
    script = f"{before}; {until_told('go')}; {after}"
    return pod(container("main", script, volumeMounts=[SIGNALS_MOUNT]), volumes=[SIGNALS])
