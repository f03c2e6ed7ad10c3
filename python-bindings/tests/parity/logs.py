"""What stands in the place of ``PodManager`` in the tests on log lines: it prints them as our operator does.

The tests prepare raw rows of the kubelet, a time and a text each. The rows are handed to the operator's own printer in
the form in which the broker sends them. Nothing else of ``PodManager`` is here, so its other tests fail and are waived.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pendulum
import structlog
from airflow.providers.cncf.kubernetes.callbacks import ExecutionMode
from airflow.providers.cncf.kubernetes.utils import pod_manager
from scripted import line, lines, stream_end

from podbroker import LogLine
from podbroker.airflow.logs import LinePrinter

if TYPE_CHECKING:
    from collections.abc import Callable

NOTHING = None
"""In the place of what reads a cluster by itself."""


class PrintedLogs:
    """Prints the rows of one container."""

    def __init__(self, *, kube_client: Any, callbacks: list[Any] | None = None) -> None:
        """Take what ``PodManager`` takes."""
        self._client = kube_client
        self._callbacks = callbacks or []
        self.log = structlog.get_logger("podbroker.airflow.logs")

    def fetch_container_logs(
        self,
        pod: Any,
        container_name: str,
        *,
        follow: bool = False,
        container_name_log_prefix_enabled: bool = True,
        log_formatter: Callable[[str, str], str] | None = None,
    ) -> None:
        """Print what a test has prepared for ``PodManager.read_pod_logs``."""

        def tell(text: str, container: str, time_ns: int) -> None:
            for callback in self._callbacks:
                callback.progress_callback(
                    line=text,
                    client=self._client,
                    mode=ExecutionMode.SYNC,
                    container_name=container,
                    timestamp=pendulum.from_timestamp(time_ns / 1e9),
                    pod=pod,
                )

        # Some tests give a mock as the name.
        container_name = str(container_name)
        printer = self._printer(container_name, container_name_log_prefix_enabled, log_formatter, tell)
        manager = pod_manager.PodManager(kube_client=self._client)
        for row in manager.read_pod_logs(pod=pod, container_name=container_name, timestamps=True, follow=follow):
            time, _, text = row.rstrip(b"\n").partition(b" ")
            printer.chunk(lines(_line_of(time, text, row), name=container_name))
        printer.end_of(stream_end())

    def _log_message(
        self,
        message: str,
        container_name: str,
        container_name_log_prefix_enabled: bool,
        log_formatter: Callable[[str, str], str] | None,
    ) -> None:
        printer = self._printer(container_name, container_name_log_prefix_enabled, log_formatter)
        printer.chunk(lines(message, name=container_name))

    def _printer(
        self,
        container: str,
        prefix: bool,
        formatter: Callable[[str, str], str] | None,
        tell: Callable[[str, str, int], None] | None = None,
    ) -> LinePrinter:
        return LinePrinter(
            log=self.log,
            base_container=container,
            containers=container,
            init_containers=None,
            prefix=prefix,
            formatter=formatter,
            on_line=tell,
        )


def _line_of(time: bytes, text: bytes, row: bytes) -> LogLine:
    try:
        moment = pendulum.parse(time.decode())
    except ValueError:
        # No row of the kubelet is without its time; a test's is printed as it stands.
        return line(row)
    return LogLine(time_ns=int(moment.timestamp() * 1e9), content=text, continues=False, partial=False)
