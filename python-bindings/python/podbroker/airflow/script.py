"""Makes of a Python function a script that runs in a pod, and of its arguments what goes along.

Pure, and without Airflow. Both travel in environment variables, compressed; the interpreter reads them by itself, so
the image needs neither a shell nor a folder that can be written to. Tracebacks show the function's lines.
"""

from __future__ import annotations

import ast
import base64
import inspect
import textwrap
import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["BOOTSTRAP", "INPUT_VARIABLE", "MOST_BYTES", "SCRIPT_VARIABLE", "packed", "script_of", "source_of"]

SCRIPT_VARIABLE = "PODBROKER_SCRIPT"
INPUT_VARIABLE = "PODBROKER_INPUT"

MOST_BYTES = 128 * 1024 - 64
"""Linux refuses to start a program with an environment variable of 128 KiB or more (MAX_ARG_STRLEN)."""

BOOTSTRAP = textwrap.dedent(
    f"""
    import base64, linecache, os, sys, traceback, zlib
    def unpacked(name):
        return zlib.decompress(base64.b64decode(os.environ.pop(name)))
    source = unpacked("{SCRIPT_VARIABLE}").decode()
    linecache.cache["task.py"] = (len(source), None, source.splitlines(True), "task.py")
    sys.excepthook = lambda *error: traceback.print_exception(*error)
    exec(compile(source, "task.py", "exec"), {{"__name__": "__main__", "arguments": unpacked("{INPUT_VARIABLE}")}})
    """
).strip()
"""What the interpreter is started with."""

# The last is the name that podbroker-migrate leaves in a file.
_DECORATORS = frozenset({"remote_pod", "remote_pod_task", "kubernetes_task"})


def packed(content: bytes) -> str:
    """Make the value of an environment variable. Raises ``ValueError`` when no program could be started with it."""
    value = base64.b64encode(zlib.compress(content)).decode("ascii")
    if len(value) > MOST_BYTES:
        message = (
            f"The function or its arguments are too large to go along with the pod: {len(value)} bytes when compressed,"
            f" and at most {MOST_BYTES} fit. Hand over a reference, such as the place of a file, instead"
        )
        raise ValueError(message)
    return value


def source_of(function: Callable[..., Any]) -> str:
    """Give the function's source without the task decorator, and without what stands above that.

    Decorators below it belong to the function and stay. Raises ``ValueError`` when the source cannot be had.
    """
    name = getattr(function, "__name__", repr(function))
    try:
        source = textwrap.dedent(inspect.getsource(function))
        (node,) = ast.parse(source).body
    except (OSError, TypeError, SyntaxError, ValueError) as error:
        message = f"The source of {name} cannot be had, so it cannot run in a pod: {error}"
        raise ValueError(message) from error
    if not isinstance(node, ast.FunctionDef) or node.name != name:
        message = f"{name} is no plain function, so it cannot run in a pod"
        raise ValueError(message)
    lines = source.splitlines(keepends=True)
    marks = [index for index, each in enumerate(node.decorator_list) if _last_name(each) in _DECORATORS]
    if not marks and len(node.decorator_list) > 1:
        message = (
            f"{name} has several decorators, and which of them is the task's cannot be told, since it goes by another"
            " name: write @task.remote_pod(...)"
        )
        raise ValueError(message)
    below = node.decorator_list[marks[-1] + 1 :] if marks else []
    kept = [line for each in below for line in lines[each.lineno - 1 : each.end_lineno]]
    return "".join([*kept, *lines[node.lineno - 1 :]])


def script_of(*, source: str, function: str, pickler: str, result_files: Sequence[str]) -> str:
    """Write the script. It reads its arguments from the variable ``arguments``.

    ``pickler`` is the module that they were pickled with. Of ``result_files`` the first one that is there takes the
    value as JSON, else the first, which is made; none is written when there is no value, or none is given.
    """
    lines = [
        "from __future__ import annotations",
        "",
        source.rstrip(),
        "",
        f"import {pickler}",
        f"positional, named = {pickler}.loads(arguments)",
        f"value = {function}(*positional, **named)",
    ]
    if result_files:
        lines += [
            "if value is not None:",
            "    import json",
            "    import os",
            "    content = json.dumps(value)",
            f"    there = [each for each in {list(result_files)!r} if os.path.exists(each)]",
            f"    with open((there or [{result_files[0]!r}])[0], 'w') as file:",
            "        file.write(content)",
        ]
    return "\n".join([*lines, ""])


def _last_name(node: ast.expr) -> str:
    """Give the last name of ``a.b.c`` or ``a.b.c(...)``."""
    if isinstance(node, ast.Call):
        node = node.func
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
