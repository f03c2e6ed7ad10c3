"""Decides whether a task may start in the triggerer, and with which arguments (``start_from_trigger`` of Airflow 3.3).

Airflow stores those arguments in the serialized DAG and in the row of the trigger, so they are plain JSON, and hold
neither what Airflow would mask in a log nor values of variables for the container. What a template makes of them is
known in the triggerer only, and stored nowhere. Whatever cannot be so is started by a worker; the reason is given in
words for the task's log.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from functools import lru_cache
from inspect import signature
from typing import TYPE_CHECKING, Any

from podbroker.airflow._compat import (
    AIRFLOW_V_3_3_PLUS,
    KubernetesPodOperator,
    StartTriggerArgs,
    changes_pods,
    given_arguments,
    redact,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from podbroker.airflow.pod_lifecycle import PodLifeCycle

__all__ = ["Start", "StartFromTrigger", "StartTrigger", "decide", "revived"]

TRIGGER = "podbroker.airflow.start_trigger.RemotePodStartTrigger"
NEXT_METHOD = "trigger_reentry"

OPERATORS = ("podbroker.airflow.operator.RemotePodOperator", "podbroker.airflow.eks.EksPodOperator")
"""A subclass may do in the worker what a triggerer does not know of."""

_DERIVED = {"EksPodOperator": frozenset({"name", "target", "config_file"})}
"""What an operator gives to its base class, and does not take itself."""

_OF_THE_WORKER = frozenset({"start_from_trigger", "deferrable", "durable", "reattach_on_restart"})
"""They say nothing about the first start of a pod."""

_CODE = ("callbacks", "progress_callback", "log_formatter")
_HOOKS = {"_pre_execute_hook": "pre_execute", "_post_execute_hook": "post_execute"}
_TIMES = ("ttl", "orphan_after")

_VARIABLES = frozenset(
    {
        *("conn", "dag_run", "macros", "params", "run_id", "task_instance", "task_instance_key_str", "ti", "var"),
        *("data_interval_end", "data_interval_start", "ds", "ds_nodash", "logical_date"),
        *("ts", "ts_nodash", "ts_nodash_with_tz"),
    }
)
"""The variables of templates that are in a triggerer what they are in a worker."""

_OF_TI = frozenset({"dag_id", "map_index", "run_id", "task_id", "try_number", "xcom_pull"})
"""The same for the members of ``ti``: Airflow gives a trigger no others, or other values."""

_ONE_TEMPLATE = re.compile(r"\s*\{\{[^{}]*\}\}\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What was decided."""

    arguments: Mapping[str, Any] | None
    """Those that the triggerer makes the operator of; None: a worker starts the pod."""
    why_not: str = ""
    settled_by_worker: bool = False
    """Whether a worker is needed also for the end of a pod that succeeds."""


class StartFromTrigger:
    """The attribute that Airflow's scheduler reads. Of the class it is False: a mapped task has no arguments yet."""

    def __get__(self, operator: PodLifeCycle | None, owner: type | None = None) -> bool:
        """Say whether the task starts in the triggerer."""
        return operator is not None and operator.start.arguments is not None


class StartTrigger:
    """The trigger that Airflow's scheduler makes for a task that starts there."""

    def __get__(
        self,
        operator: PodLifeCycle | None,
        owner: type | None = None,
    ) -> StartTriggerArgs | None:
        """Give its class and arguments; None where a worker starts the pod."""
        start = operator.start if operator is not None else None
        if operator is None or start is None or start.arguments is None:
            return None
        return StartTriggerArgs(
            trigger_cls=TRIGGER,
            trigger_kwargs={
                "operator": _path(operator),
                "given": dict(start.arguments),
                "settled_by_worker": start.settled_by_worker,
            },
            next_method=NEXT_METHOD,
        )


def decide(operator: PodLifeCycle) -> Start:
    """Decide for a task that asks for it. To be asked before its templates are rendered."""
    if not AIRFLOW_V_3_3_PLUS:
        return Start(arguments=None, why_not="Airflow can do it from 3.3 on")
    arguments: dict[str, Any] = {}
    reasons: list[str] = []
    for name, given in _given(operator).items():
        try:
            arguments[name] = _plain(given.total_seconds() if name in _TIMES and given is not None else given)
        except TypeError:
            reasons += [f"{name} is no plain JSON"] * (name not in _CODE)
    reasons += _obstacles(operator, arguments)
    if reasons:
        return Start(arguments=None, why_not="; ".join(reasons))
    return Start(arguments=arguments, settled_by_worker=_needs_worker_at_the_end(operator))


def revived(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Give the operator's arguments as they were before they were stored."""
    made = dict(arguments)
    for name in _TIMES:
        if made.get(name) is not None:
            made[name] = timedelta(seconds=made[name])
    return made


def _path(operator: PodLifeCycle) -> str:
    return f"{type(operator).__module__}.{type(operator).__qualname__}"


def _given(operator: PodLifeCycle) -> dict[str, Any]:
    """Give what the DAG's author has given of the arguments that make a pod."""
    left = _OF_THE_WORKER | _DERIVED.get(type(operator).__name__, frozenset())
    return {name: value for name, value in given_arguments(operator).items() if name in _names(type(operator)) - left}


@lru_cache
def _names(kind: type) -> frozenset[str]:
    """Give the arguments of a class of ours, without those that all operators of Airflow have."""
    classes = [each for each in kind.__mro__ if issubclass(each, KubernetesPodOperator)]
    names: set[str] = set()
    for each in classes:
        names |= {name for name, one in signature(each.__init__).parameters.items() if one.kind is one.KEYWORD_ONLY}
    return frozenset(names)


def _plain(value: Any) -> Any:  # noqa: ANN401 -- JSON
    """Copy what JSON has.

    Raises:
        TypeError: It is something else.

    """
    if isinstance(value, Enum):
        value = value.value
    if value is None or type(value) in {bool, int, float, str}:
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, dict) and all(type(key) is str for key in value):
        return {key: _plain(each) for key, each in value.items()}
    message = f"not plain: {type(value).__name__}"
    raise TypeError(message)


def _obstacles(operator: PodLifeCycle, arguments: dict[str, Any]) -> Iterator[str]:
    if _path(operator) not in OPERATORS:
        yield f"{type(operator).__name__} is a class of its own"
    given = given_arguments(operator)
    code = [name for name in _CODE if given.get(name)]
    code += [name for attribute, name in _HOOKS.items() if getattr(operator, attribute, None) is not None]
    code += ["on_execute_callback"] if getattr(operator, "on_execute_callback", None) else []
    yield from (f"{name} runs in a worker" for name in code)
    if changes_pods():
        yield "pod_mutation_hook runs in a worker"
    if arguments.get("pod_template_file"):
        yield "pod_template_file is a file of the worker"
    yield from (f"{name} may hold a secret" for name, value in arguments.items() if _is_masked(value))
    yield from _values_of_variables(arguments)
    yield from _late(operator)
    yield from _templates(operator, arguments)


def _is_masked(value: object) -> bool:
    """Tell whether Airflow would mask something. A template is none, whatever it is the value of."""
    named = _without_templates(value)
    return bool(redact(named) != named) or any(redact(text) != text for text in _texts(value))


def _without_templates(value: Any) -> Any:  # noqa: ANN401 -- JSON
    if isinstance(value, str):
        return None if _ONE_TEMPLATE.fullmatch(value) else value
    if isinstance(value, list):
        return [_without_templates(each) for each in value]
    if isinstance(value, dict):
        return {key: _without_templates(each) for key, each in value.items()}
    return value


def _values_of_variables(arguments: dict[str, Any]) -> Iterator[str]:
    """Find values of environment variables that are more than one template."""
    variables = arguments.get("env_vars") or {}
    if isinstance(variables, dict) and any(_is_value(value) for value in variables.values()):
        yield "env_vars holds values"
    if any(_is_value(value) for value in _env_values(arguments.get("pod_template_dict"))):
        yield "pod_template_dict holds values of variables"


def _is_value(value: object) -> bool:
    return bool(value) and _ONE_TEMPLATE.fullmatch(str(value)) is None


def _env_values(spec: object) -> Iterator[object]:
    if isinstance(spec, list):
        for each in spec:
            yield from _env_values(each)
    elif isinstance(spec, dict):
        for key, each in spec.items():
            if key == "env" and isinstance(each, list):
                yield from (one.get("value") for one in each if isinstance(one, dict))
            else:
                yield from _env_values(each)


def _late(operator: PodLifeCycle) -> Iterator[str]:
    """The pod's own deadline has to end it: a triggerer is not told of the execution_timeout in time."""
    if operator.execution_timeout is None:
        return
    run = operator.active_deadline_seconds
    start = (operator.schedule_timeout_seconds or 0) + (operator.startup_timeout_seconds or 0)
    if not run or not start or start + run >= operator.execution_timeout.total_seconds():
        longer = "schedule_timeout_seconds, startup_timeout_seconds and active_deadline_seconds together"
        yield f"execution_timeout is not longer than {longer}"


def _templates(operator: PodLifeCycle, arguments: dict[str, Any]) -> Iterator[str]:
    texts = [text for name in operator.template_fields for text in _texts(arguments.get(name)) if _is_template(text)]
    if not texts:
        return
    dag = operator.get_dag()
    if dag is not None and (dag.user_defined_macros or dag.user_defined_filters or dag.jinja_environment_kwargs):
        yield "its templates may need the macros and filters of the DAG"
    if getattr(dag, "render_template_as_native_obj", False):
        yield "its templates are rendered as objects"
    names = sorted({name for text in texts for name in _foreign(text)})
    if names:
        yield f"its templates use {', '.join(names)}"


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)


def _is_template(text: str) -> bool:
    return any(mark in text for mark in ("{{", "{%", "{#"))


def _foreign(text: str) -> Iterator[str]:
    """Give the names in a template that a triggerer does not know, or knows differently."""
    from jinja2 import Environment, TemplateError, meta, nodes

    try:
        tree = Environment(autoescape=False).parse(text)  # noqa: S701 -- it is read and not rendered
    except TemplateError:
        yield "what cannot be read"
        return
    yield from meta.find_undeclared_variables(tree) - _VARIABLES
    known = 0
    for node in tree.find_all(nodes.Getattr):
        if isinstance(node.node, nodes.Name) and node.node.name in {"ti", "task_instance"}:
            known += 1
            if node.attr not in _OF_TI:
                yield f"ti.{node.attr}"
    if known < sum(1 for name in tree.find_all(nodes.Name) if name.name in {"ti", "task_instance"}):
        yield "ti"


def _needs_worker_at_the_end(operator: PodLifeCycle) -> bool:
    """Assets are registered, and callbacks called as ever, for a worker's success only."""
    skips = operator.skip_on_exit_code
    return bool(
        operator.outlets
        or operator.assets_from_result
        or operator.multiple_outputs
        or getattr(operator, "returns_dag_result", False)
        or getattr(operator, "on_success_callback", None)
        or 0 in skips
    )
