"""Says what a name of a file makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podbroker.migrate.names import DECORATORS, OPERATORS, OURS, TASK_NAMES, Kind

if TYPE_CHECKING:
    import libcst as cst

    from podbroker.migrate.tree import Tree

__all__ = ["MAPPING", "TASKS", "kind_of"]

MAPPING = frozenset({"partial", "expand", "expand_kwargs"})
"""The methods of an operator's class that make mapped tasks."""

TASKS = frozenset(f"{task}.{name}" for task in TASK_NAMES for name in (*DECORATORS, *DECORATORS.values()))
"""The task decorators, old and ours."""


def kind_of(tree: Tree, node: cst.BaseExpression) -> Kind | None:
    """Say which operator an expression stands for, if for one."""
    names = tree.names(node)
    if names & TASKS:
        return Kind.DECORATOR
    return next((new.kind for name in sorted(names) if (new := OPERATORS.get(name) or OURS.get(name))), None)
