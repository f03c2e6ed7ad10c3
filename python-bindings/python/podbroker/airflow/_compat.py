"""The names of Airflow and of the Kubernetes provider that this package uses, wherever a version keeps them.

Airflow 3 has its public names in ``airflow.sdk``, 2.11 all over ``airflow``; the Kubernetes provider moved some of its
exceptions. Every other module of this package imports them from here, so that a new version is met in one place.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

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
AIRFLOW_V_3_3_PLUS = _VERSION >= (3, 3)

REDACT_DEPTH = 64
"""Deeper than any manifest; Airflow itself looks 5 levels deep."""

try:
    from airflow.sdk import BaseOperator
except ImportError:  # Airflow 2.11
    from airflow.models.baseoperator import BaseOperator  # type: ignore[no-redef,import-not-found,unused-ignore]

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
        TaskDeferralError,
        TaskDeferralTimeout,
    )
except ImportError:  # Airflow 2.11, 3.0 and 3.1 have them in the core package
    from airflow.exceptions import (  # type: ignore[no-redef,attr-defined,assignment,unused-ignore]
        AirflowException,
        AirflowNotFoundException,
        AirflowRescheduleException,
        AirflowSkipException,
        AirflowTaskTerminated,
        AirflowTaskTimeout,
        TaskDeferralError,
    )

    try:
        from airflow.exceptions import TaskDeferralTimeout  # type: ignore[attr-defined,assignment,no-redef,unused-ignore]
    except ImportError:

        class TaskDeferralTimeout(AirflowException):  # type: ignore[no-redef]
            """Airflow 2.11 never raises it."""


try:
    from airflow.providers.cncf.kubernetes.kubernetes_helper_functions import PodLaunchFailedException
except ImportError:  # older providers define it beside its sister
    from airflow.providers.cncf.kubernetes.utils.pod_manager import (  # type: ignore[no-redef,attr-defined,unused-ignore]
        PodLaunchFailedException,
    )

try:
    from airflow.triggers.base import StartTriggerArgs
except ImportError:  # wherever it goes, it is of no use there
    StartTriggerArgs = None  # type: ignore[assignment,misc]

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


def changes_pods() -> bool:
    """Tell whether this installation of Airflow changes pods by a ``pod_mutation_hook``."""
    from airflow import settings

    # Airflow takes it from a plugin for policies, and from local settings in one of two ways.
    policies = settings.get_policy_plugin_manager().hook.pod_mutation_hook.get_hookimpls()
    return bool(policies) or settings.pod_mutation_hook.__module__ != settings.__name__


def given_arguments(operator: Any) -> dict[str, Any]:  # noqa: ANN401 -- a BaseOperator
    """Give the arguments of an operator (Airflow 3) as Airflow keeps them: given, of default_args, or set later."""
    return dict(vars(operator).get("_BaseOperator__init_kwargs", {}))


def push_xcom(ti: Any, key: str, value: Any) -> None:  # noqa: ANN401 -- JSON
    """Push an XCom of a trigger's task into the deployment's XCom backend (Airflow 3).

    ``ti.xcom_push`` needs what a task that is read from Airflow's database does not have
    (``returns_dag_result``, in 3.3.2).
    """
    from airflow.sdk.execution_time.xcom import XCom  # too much for a DAG file's import

    XCom.set(key=key, value=value, dag_id=ti.dag_id, task_id=ti.task_id, run_id=ti.run_id, map_index=ti.map_index)


def redact(value: Any) -> Any:  # noqa: ANN401 -- JSON
    """Mask what Airflow 3 would mask in a log, by the names of members and by what it knows to be a secret."""
    from airflow.sdk._shared.secrets_masker import redact as masked  # no other place has it

    return masked(value, max_depth=REDACT_DEPTH)


def get_task_states(**which: Any) -> dict[str, Any]:  # noqa: ANN401 -- those of Airflow 3
    """Ask for the states of task instances, where the asker's own task instance has no method for it."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance  # too much for a DAG file's import

    return RuntimeTaskInstance.get_task_states(**which)


def trigger_comms() -> Any:  # noqa: ANN401 -- none is typed
    """Give the way from a trigger to its supervisor (Airflow 3); None where there is none."""
    runner = sys.modules.get("airflow.sdk.execution_time.task_runner")
    comms = getattr(runner, "SUPERVISOR_COMMS", None)
    return comms if hasattr(comms, "asend") else None


__all__ = [
    "AIRFLOW_V_3_0_PLUS",
    "AIRFLOW_V_3_2_PLUS",
    "AIRFLOW_V_3_3_PLUS",
    "AirflowException",
    "AirflowNotFoundException",
    "AirflowRescheduleException",
    "AirflowSkipException",
    "AirflowTaskTerminated",
    "AirflowTaskTimeout",
    "BaseHook",
    "BaseOperator",
    "ExecutionMode",
    "KubernetesPodOperator",
    "PodLaunchFailedException",
    "PodLaunchTimeoutException",
    "PodNotFoundException",
    "StartTriggerArgs",
    "TaskDeferralError",
    "TaskDeferralTimeout",
    "changes_pods",
    "conf",
    "get_task_states",
    "given_arguments",
    "is_log_group_marker",
    "level_of",
    "push_xcom",
    "redact",
    "trigger_comms",
]
