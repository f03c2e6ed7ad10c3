"""Finds what a machine should not decide: subclasses, texts that name a module, operators that come from elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import libcst as cst

from podbroker.migrate.arguments import Call, find_in_call, find_in_dict, find_in_dict_call
from podbroker.migrate.finding import Finding, Level
from podbroker.migrate.kinds import MAPPING, kind_of
from podbroker.migrate.names import DECORATORS, GONE, MODULES, NEW_MODULE, OPERATORS, OTHERS, OURS, OWNED_METHODS, Kind
from podbroker.migrate.tree import Alias
from podbroker.migrate.values import find_values, imports_operator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podbroker.migrate.tree import Tree

__all__ = ["find", "find_calls"]

_NOT_AIRFLOWS = "pytest."
"""``pytest.mark.kubernetes`` is the one well-known decorator that has such a name and is none of Airflow's."""
_CLASS_NAMES = frozenset(name.rpartition(".")[2] for name, new in OPERATORS.items() if new.kind is not Kind.DECORATOR)


def find_calls(tree: Tree) -> list[Call]:
    """Give the calls that make operators, with those of decorators that are not called."""
    calls = []
    for node in tree.nodes(cst.Call):
        kind, is_mapped = _kind_of_call(tree, node.func)
        if kind is not None:
            calls.append(Call(node, kind, makes=not is_mapped))
    calls += [
        Call(cst.Call(func=node.decorator), Kind.DECORATOR, makes=True)
        for node in tree.nodes(cst.Decorator)
        if not isinstance(node.decorator, cst.Call) and kind_of(tree, node.decorator) is not None
    ]
    return calls


def find(tree: Tree, calls: list[Call]) -> Iterator[Finding]:
    """Give what a person has to look at, in any order."""
    for made in calls:
        yield from find_in_call(tree, made)
    if calls or imports_operator(tree):
        for literal in tree.nodes(cst.Dict):
            yield from find_in_dict(tree, literal)
        for call in tree.nodes(cst.Call):
            yield from find_in_dict_call(tree, call)
    yield from find_values(tree)
    for statement in tree.nodes(cst.ImportFrom):
        yield from _find_in_import(tree, statement)
    yield from _find_in_texts(tree)
    yield from _find_decorators(tree)
    yield from _find_subclasses(tree)
    yield from _find_attributes(tree, {call.node for call in calls})


def _find_in_import(tree: Tree, node: cst.ImportFrom) -> Iterator[Finding]:
    if isinstance(node.names, cst.ImportStar):
        module = tree.code(node.module) if node.module is not None else ""
        if module in MODULES and not node.relative:
            yield _person(tree, node, "star-import", f"from {module} import *: say which names are meant")
        return
    for alias in (Alias(node, each) for each in node.names):
        name = tree.code(alias.node.name)
        if alias.path in OTHERS:
            yield _note(tree, alias.node, "not-migrated", f"{name} stays as it is: {OTHERS[alias.path]}")
        elif alias.path in OPERATORS.keys() | OURS.keys():
            if _is_tried(tree, node):
                message = "the import is tried; other versions of Airflow's providers need no other way any more"
                yield _note(tree, alias.node, "tried-import", message)
        elif name in _CLASS_NAMES and not alias.path.startswith(f"{NEW_MODULE}."):
            message = f"{name} comes from a module of yours: it is migrated there"
            yield _note(tree, alias.node, "imported-from-elsewhere", message)


def _is_tried(tree: Tree, node: cst.CSTNode | None) -> bool:
    while node is not None and not isinstance(node, cst.FunctionDef | cst.ClassDef):
        if isinstance(node, cst.Try | cst.TryStar):
            return True
        node = tree.parent(node)
    return False


def _find_in_texts(tree: Tree) -> Iterator[Finding]:
    for node in tree.nodes(cst.SimpleString):
        if any(module in node.raw_value for module in MODULES) and not _is_docstring(tree, node):
            message = f"the text {tree.code(node)} names a module of the old operators; change it by hand"
            yield _person(tree, node, "name-in-text", message)
    for part in tree.nodes(cst.FormattedStringText):
        if any(module in part.value for module in MODULES):
            message = "the text names a module of the old operators; change it by hand"
            yield _person(tree, part, "name-in-text", message)


def _is_docstring(tree: Tree, node: cst.CSTNode) -> bool:
    parent = tree.parent(node)
    while isinstance(parent, cst.ConcatenatedString):
        parent = tree.parent(parent)
    return isinstance(parent, cst.Expr)


def _find_decorators(tree: Tree) -> Iterator[Finding]:
    """Look for task decorators of a ``task`` that comes from elsewhere, such as a module of one's own."""
    classes = {node.name.value for node in tree.nodes(cst.ClassDef)}
    for decorator in tree.nodes(cst.Decorator):
        node = decorator.decorator
        while isinstance(node, cst.Call):
            node = node.func
        if not isinstance(node, cst.Attribute) or node.attr.value not in DECORATORS or kind_of(tree, node) is not None:
            continue
        base = tree.code(node.value)
        # An import, or a star's: it may be Airflow's. What the file itself makes counts if it has the name.
        is_other = (tree.is_own(node) and (base in classes or base.rpartition(".")[2] != "task")) or any(
            name.startswith(_NOT_AIRFLOWS) for name in tree.names(node)
        )
        if not is_other:
            new = f"{base}.{DECORATORS[node.attr.value]}"
            message = f"where {base} comes from is not known: if it is Airflow's, change it to {new} by hand"
            yield _person(tree, node, "unknown-decorator", message)


def _find_subclasses(tree: Tree) -> Iterator[Finding]:
    found = [node for node in tree.nodes(cst.ClassDef) if any(kind_of(tree, base.value) for base in node.bases)]
    for node in found:
        message = f"class {node.name.value} is a subclass: its life cycle is RemotePodOperator's now"
        yield _person(tree, node, "subclass", message)
        for each in node.body.body:
            if isinstance(each, cst.FunctionDef) and each.name.value in OWNED_METHODS:
                message = f"{node.name.value}.{each.name.value} overrides a part of upstream's life cycle"
                yield _person(tree, each, "override", message)
    spans = [tree.span(node) for node in found]
    for attribute in tree.nodes(cst.Attribute):
        start = tree.start(attribute)
        if _is_gone(attribute, {"self"}) and any(first <= start < last for first, last in spans):
            yield _person(tree, attribute, "attribute", _gone(tree, attribute))


def _find_attributes(tree: Tree, calls: set[cst.Call]) -> Iterator[Finding]:
    """Look for what is taken of a variable that an operator was assigned to."""
    names = {
        each.target.value
        for node in tree.nodes(cst.Assign)
        if node.value in calls
        for each in node.targets
        if isinstance(each.target, cst.Name)
    }
    for attribute in tree.nodes(cst.Attribute):
        if _is_gone(attribute, names):
            yield _person(tree, attribute, "attribute", _gone(tree, attribute))


def _is_gone(attribute: cst.Attribute, owners: set[str]) -> bool:
    return attribute.attr.value in GONE and isinstance(attribute.value, cst.Name) and attribute.value.value in owners


def _gone(tree: Tree, attribute: cst.Attribute) -> str:
    return f"{tree.code(attribute)}: {GONE[attribute.attr.value]}"


def _kind_of_call(tree: Tree, func: cst.BaseExpression) -> tuple[Kind | None, bool]:
    """Say which operator a call makes, and whether it is one step of a mapped one."""
    if not isinstance(func, cst.Attribute) or func.attr.value not in MAPPING:
        return kind_of(tree, func), False
    inner = func.value
    while isinstance(inner, cst.Call):
        inner = inner.func
        if isinstance(inner, cst.Attribute) and inner.attr.value in MAPPING:
            inner = inner.value
    return kind_of(tree, inner), True


def _person(tree: Tree, node: cst.CSTNode, code: str, message: str) -> Finding:
    return Finding(tree.start(node), Level.PERSON, code, message)


def _note(tree: Tree, node: cst.CSTNode, code: str, message: str) -> Finding:
    return Finding(tree.start(node), Level.NOTE, code, message)
