"""``@task.remote_pod`` and ``@task.remote_pod_cmd``, in the place of ``@task.kubernetes`` and ``@task.kubernetes_cmd``.

The first runs a Python function in a pod: its source and its arguments go along as environment variables, its value
comes back by the broker's result transport. The image needs a ``python`` and nothing else: neither a shell nor a place
to write to. The second calls the function in the worker, and the list that it returns is the pod's command.
"""

from __future__ import annotations

import pickle
import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow.providers.cncf.kubernetes.backcompat.backwards_compat_converters import convert_env_vars
from kubernetes.client import models as k8s

from podbroker import ResultSource
from podbroker.airflow._compat_decorators import DecoratedOperator, determine_kwargs, task_decorator_factory
from podbroker.airflow.operator import RemotePodOperator
from podbroker.airflow.script import BOOTSTRAP, INPUT_VARIABLE, SCRIPT_VARIABLE, packed, script_of, source_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow.sdk import Context
    from airflow.sdk.bases.decorator import TaskDecorator

__all__ = ["remote_pod_cmd_task", "remote_pod_task"]

RESULT_FILES = {
    ResultSource.SIDECAR: ("/airflow/xcom/return.json",),
    ResultSource.TERMINATION_MESSAGE: ("/airflow/xcom/return.json", "/dev/termination-log"),
}
"""Where the value is looked for. A job of AWS Batch can be told no other file for its message than Kubernetes' own,
which is in each container; a pod is told the first one, which is there then."""


class _FromFunction(DecoratedOperator, RemotePodOperator):
    """A pod whose command comes from a Python function when the task runs."""

    # A function's surroundings cannot always be copied.
    shallow_copy_attrs: Sequence[str] = ("python_callable",)
    _has_command = False

    @staticmethod
    def _name_of(function: Callable[..., Any], kwargs: dict[str, Any]) -> str | None:
        """Take the name that was given, or make one as upstream's decorators do. None leaves it to the operator."""
        made = f"k8s-airflow-pod-{getattr(function, '__name__', 'function')}"
        name: str | None = kwargs.pop("name", made)
        return name

    def execute(self, context: Context) -> Any:  # noqa: ANN401 -- as RemotePodOperator
        """Find out the command, and run it."""
        self._prepare(context)
        return super().execute(context)

    def build_pod_request_obj(self, context: Context | None = None, **kwargs: Any) -> k8s.V1Pod:  # noqa: ANN401
        """Make the manifest; after a trigger that failed, ``execute`` was not called in this process.

        Without a context, as in a dry run, the command is not known and is not in it.
        """
        if context is not None and not self._has_command:
            self._prepare(context)
        return super().build_pod_request_obj(context, **kwargs)

    def _prepare(self, context: Context) -> None:
        self._set_command(context)
        self._has_command = True

    def _set_command(self, context: Context) -> None:
        """Set what of the pod comes from the function: the same each time in one try."""
        raise NotImplementedError


class _RemotePodDecoratedOperator(_FromFunction):
    """Runs a Python function in a pod."""

    custom_operator_name = "@task.remote_pod"
    template_fields: Sequence[str] = (
        "op_args",
        "op_kwargs",
        *(name for name in RemotePodOperator.template_fields if name not in {"cmds", "arguments"}),
    )

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        use_dill: bool = False,
        python: str = "python",
        **kwargs: Any,  # noqa: ANN401 -- those of the operator
    ) -> None:
        self.use_dill = use_dill
        self.python = python
        name = self._name_of(python_callable, kwargs)
        # What stands here is taken for the command until it is known.
        super().__init__(python_callable=python_callable, name=name, cmds=[python], **kwargs)

    def _set_command(self, context: Context) -> None:  # noqa: ARG002 -- the arguments are rendered already
        """Put the function and its arguments into the pod."""
        # dill is not needed unless it is asked for.
        pickler = import_module("dill") if self.use_dill else pickle
        script = script_of(
            source=source_of(self.python_callable),
            function=self.python_callable.__name__,
            pickler=pickler.__name__,
            result_files=RESULT_FILES[self.result_source] if self.wants_result else (),
        )
        arguments = pickler.dumps((tuple(self.op_args), dict(self.op_kwargs)))
        own = {SCRIPT_VARIABLE: packed(script.encode()), INPUT_VARIABLE: packed(arguments)}
        self.env_vars = [
            *(each for each in convert_env_vars(self.env_vars or []) if each.name not in own),
            *(k8s.V1EnvVar(name=name, value=value) for name, value in own.items()),
        ]
        self.cmds, self.arguments = [self.python, "-c", BOOTSTRAP], []


class _RemotePodCmdDecoratedOperator(_FromFunction):
    """Runs in a pod the command that a Python function returns."""

    custom_operator_name = "@task.remote_pod_cmd"
    template_fields: Sequence[str] = ("op_args", "op_kwargs", *RemotePodOperator.template_fields)
    # The command is known only when the task runs, and people want to see it.
    overwrite_rtif_after_execution: bool = True

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        args_only: bool = False,
        **kwargs: Any,  # noqa: ANN401 -- those of the operator
    ) -> None:
        self.args_only = args_only
        given = [name for name in ("cmds", "arguments") if kwargs.pop(name, None) is not None]
        if given:
            warnings.warn(
                f"The `cmds` and `arguments` are unused in {self.custom_operator_name}: the function returns the"
                f" command, or with args_only=True the arguments of the image's own. Given: {', '.join(given)}",
                UserWarning,
                stacklevel=3,
            )
        name = self._name_of(python_callable, kwargs)
        super().__init__(python_callable=python_callable, name=name, **kwargs)

    def _set_command(self, context: Context) -> None:
        """Ask the function for the command."""
        known: dict[str, Any] = {**context, **self.op_kwargs}
        kwargs = determine_kwargs(self.python_callable, self.op_args, known)
        command = self._checked(self.python_callable(*self.op_args, **kwargs))
        # The function may return templates.
        rendered = [str(each) for each in self.render_template(command, context)]
        self.cmds, self.arguments = ([], rendered) if self.args_only else (rendered, [])

    def _checked(self, command: object) -> list[str]:
        name = self.python_callable.__name__
        if not isinstance(command, list):
            message = f"{name} has to return a list of strings, not {type(command).__name__}"
            raise TypeError(message)
        if wrong := [type(each).__name__ for each in command if not isinstance(each, str)]:
            message = f"{name} has to return a list of strings; there is {', '.join(sorted(set(wrong)))} in it"
            raise TypeError(message)
        if not command:
            message = f"{name} returned an empty list: there is nothing to run"
            raise ValueError(message)
        return command


def remote_pod_task(
    python_callable: Callable[..., Any] | None = None,
    multiple_outputs: bool | None = None,
    **kwargs: Any,  # noqa: ANN401 -- those of the operator
) -> TaskDecorator:
    """Run the function in a pod at a target of the broker.

    The function stands alone: what it needs it imports itself, and its arguments and its value have to fit into one
    environment variable and into JSON. With ``do_xcom_push=True`` the value becomes the task's XCom.

    Args:
        python_callable: The function.
        multiple_outputs: Whether a returned mapping becomes one XCom for each of its keys.
        kwargs: The arguments of ``RemotePodOperator``, and ``use_dill`` (pickle the arguments with dill, which the
            image then needs as well) and ``python`` (the interpreter in the image, ``python`` unless said otherwise).

    """
    decorator: TaskDecorator = task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=multiple_outputs,
        decorated_operator_class=_RemotePodDecoratedOperator,
        **kwargs,
    )
    return decorator


def remote_pod_cmd_task(
    python_callable: Callable[..., Any] | None = None,
    **kwargs: Any,  # noqa: ANN401 -- those of the operator
) -> TaskDecorator:
    """Run in a pod the command that the function returns.

    Args:
        python_callable: The function; it returns a list of strings, which may be templates. It gets what it asks for by
            name from Airflow's context, beside its arguments.
        kwargs: The arguments of ``RemotePodOperator`` but ``cmds`` and ``arguments``, and ``args_only``: whether the
            list holds the arguments of the image's own entry point.

    """
    decorator: TaskDecorator = task_decorator_factory(
        python_callable=python_callable, decorated_operator_class=_RemotePodCmdDecoratedOperator, **kwargs
    )
    return decorator
