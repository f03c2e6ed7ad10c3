"""The names of Airflow and of the Kubernetes provider that this package uses, wherever a version keeps them.

Airflow 3 has its public names in ``airflow.sdk``, 2.11 all over ``airflow``; the Kubernetes provider moved some of its
exceptions. Every other module of this package imports them from here, so that a new version is met in one place.
"""

from __future__ import annotations

import logging

from airflow import __version__ as airflow_version
from airflow.providers.cncf.kubernetes.callbacks import ExecutionMode
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.cncf.kubernetes.utils.pod_manager import (
    PodLaunchTimeoutException,
    PodNotFoundException,
)

_VERSION = tuple(int(part) for part in airflow_version.split(".")[:2])

AIRFLOW_V_3_0_PLUS = _VERSION >= (3, 0)
AIRFLOW_V_3_2_PLUS = _VERSION >= (3, 2)

try:
    from airflow.sdk import BaseHook
except ImportError:  # Airflow 2.11 and 3.0
    from airflow.hooks.base import BaseHook  # type: ignore[no-redef,attr-defined,unused-ignore]

try:
    from airflow.sdk.exceptions import (
        AirflowException,
        AirflowNotFoundException,
        AirflowRescheduleException,
        AirflowSkipException,
        AirflowTaskTerminated,
        AirflowTaskTimeout,
    )
except ImportError:  # Airflow 2.11, 3.0 and 3.1 have them in the core package
    from airflow.exceptions import (  # type: ignore[no-redef,attr-defined,assignment,unused-ignore]
        AirflowException,
        AirflowNotFoundException,
        AirflowRescheduleException,
        AirflowSkipException,
        AirflowTaskTerminated,
        AirflowTaskTimeout,
    )

try:
    from airflow.providers.cncf.kubernetes.kubernetes_helper_functions import PodLaunchFailedException
except ImportError:  # older providers define it beside its sister
    from airflow.providers.cncf.kubernetes.utils.pod_manager import (  # type: ignore[no-redef,attr-defined,unused-ignore]
        PodLaunchFailedException,
    )

try:
    from airflow.sdk.configuration import conf
except ImportError:  # Airflow 2.11, 3.0 and 3.1 have it in the core package only
    from airflow.configuration import conf  # type: ignore[no-redef,assignment,unused-ignore]

try:
    from airflow.providers.cncf.kubernetes.utils.pod_manager import _parse_log_level as level_of
except ImportError:  # older providers print every line of a pod as INFO

    def level_of(message: str) -> int:  # noqa: ARG001
        """Read the level from a line's own prefix."""
        return logging.INFO


try:
    from airflow.providers.cncf.kubernetes.utils.pod_manager import is_log_group_marker
except ImportError:  # older providers know no marker

    def is_log_group_marker(line: str) -> bool:
        """Tell whether Airflow's log view folds at this line."""
        return line.startswith(("::group::", "::endgroup::"))


__all__ = [
    "AIRFLOW_V_3_0_PLUS",
    "AIRFLOW_V_3_2_PLUS",
    "AirflowException",
    "AirflowNotFoundException",
    "AirflowRescheduleException",
    "AirflowSkipException",
    "AirflowTaskTerminated",
    "AirflowTaskTimeout",
    "BaseHook",
    "ExecutionMode",
    "KubernetesPodOperator",
    "PodLaunchFailedException",
    "PodLaunchTimeoutException",
    "PodNotFoundException",
    "conf",
    "is_log_group_marker",
    "level_of",
]
