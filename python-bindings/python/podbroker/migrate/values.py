"""Finds operators that are used as values: where they are called then, and with which arguments, cannot be seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import libcst as cst

from podbroker.migrate.finding import Finding, Level
from podbroker.migrate.kinds import MAPPING, TASKS, kind_of
from podbroker.migrate.names import MODULES, OPERATORS, OURS
from podbroker.migrate.tree import Alias

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podbroker.migrate.tree import Tree

__all__ = ["find_values", "imports_operator"]

_OPERATORS = OPERATORS.keys() | OURS.keys()
_MODULES = MODULES | {name.rpartition(".")[0] for name in OURS}
_ASKING = frozenset({"TypeVar", "cast", "hasattr", "isinstance", "issubclass", "super"})
"""Functions that take a class and make nothing of it."""


def imports_operator(tree: Tree) -> bool:
    """Whether the file imports an operator, old or ours, or a module that has one."""
    return any(alias.path in _OPERATORS or alias.path in _MODULES for alias in _aliases(tree))


def find_values(tree: Tree) -> Iterator[Finding]:
    """Look for operators that are handed on, given another name or kept in something."""
    for alias in _aliases(tree):
        if not any(f"{name}.".startswith(f"{alias.path}.") for name in _OPERATORS | TASKS):
            continue
        for reference in tree.references(alias):
            # What stands in a text, such as an annotation, has no place in the tree.
            use = _use_of(tree, reference) if tree.parent(reference) is not None else None
            if use is not None and _is_value(tree, use):
                message = f"{tree.code(use)} is used as a value; with which arguments it is called is not known"
                yield Finding(tree.start(use), Level.PERSON, "operator-as-value", message)


def _aliases(tree: Tree) -> Iterator[Alias]:
    statements: list[cst.Import | cst.ImportFrom] = [*tree.nodes(cst.Import), *tree.nodes(cst.ImportFrom)]
    for statement in statements:
        if not isinstance(statement.names, cst.ImportStar):
            yield from (alias for node in statement.names if (alias := Alias(statement, node)).path)


def _use_of(tree: Tree, reference: cst.CSTNode) -> cst.BaseExpression | None:
    return next(
        (
            node
            for node in tree.chain(reference)
            if isinstance(node, cst.Name | cst.Attribute) and kind_of(tree, node) is not None
        ),
        None,
    )


def _is_value(tree: Tree, node: cst.CSTNode) -> bool:
    """Whether more is done with it than what is found elsewhere, or what calls nothing."""
    parent = tree.parent(node)
    if isinstance(parent, cst.Attribute):
        if parent.attr.value not in MAPPING:
            return False
        node, parent = parent, tree.parent(parent)
    if isinstance(parent, cst.Call):  # it is called; what is given to a call is in a cst.Arg
        return False
    return not _is_type(tree, node)


def _is_type(tree: Tree, node: cst.CSTNode) -> bool:
    """Whether it is a base, a decorator, a part of an annotation, or compared."""
    parent = tree.parent(node)
    while isinstance(parent, cst.Tuple | cst.Element | cst.BinaryOperation):
        node, parent = parent, tree.parent(parent)
    if isinstance(parent, cst.Arg):
        owner = tree.parent(parent)
        if isinstance(owner, cst.Call):
            return tree.code(owner.func).rpartition(".")[2] in _ASKING
        return isinstance(owner, cst.ClassDef)
    types = (
        cst.Annotation | cst.Index | cst.Decorator | cst.Comparison | cst.ComparisonTarget | cst.MatchClass | cst.Expr
    )
    return isinstance(parent, types)
