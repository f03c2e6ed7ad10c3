"""Tells what users have written of each line: upstream's callbacks, and the progress callback."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pendulum

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kubernetes.client import models as k8s

__all__ = ["tell"]


def tell(
    line: str,
    container: str,
    time_ns: int,
    *,
    callbacks: Sequence[type[Any]],
    progress: Callable[[str], None] | None,
    mode: str,
    client: Callable[[], Any],
    pod: Callable[[], k8s.V1Pod | None],
) -> None:
    """Call all of them with one line.

    Args:
        line: The line's text.
        container: The container's name.
        time_ns: When it was written, in nanoseconds since 1970; 0 when that is not known.
        callbacks: Classes of upstream's callbacks.
        progress: The progress callback.
        mode: Upstream's ``ExecutionMode``: whether a worker or a triggerer prints.
        client: Gives what callbacks get for a Kubernetes client; asked only if there are some.
        pod: Gives the pod, likewise.

    """
    if progress is not None:
        progress(line)
    for callback in callbacks:
        callback.progress_callback(
            line=line,
            client=client(),
            mode=mode,
            container_name=container,
            timestamp=pendulum.from_timestamp(time_ns / 1e9) if time_ns else None,
            pod=pod(),
        )
