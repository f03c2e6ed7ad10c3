"""The rows that run side by side: each has a namespace of its own, and breaks nothing that another one needs."""

from __future__ import annotations

from typing import Final

from faults.beside import api_server, broker, callers, files, pod

ROWS: Final = (*broker.ROWS, *api_server.ROWS, *pod.ROWS, *files.ROWS, *callers.ROWS)
