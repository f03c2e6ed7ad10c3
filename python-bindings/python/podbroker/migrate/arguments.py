"""Looks at the arguments that a DAG gives to an operator: what is refused, means nothing, or cannot be seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import libcst as cst

from podbroker.migrate.finding import Finding, Level
from podbroker.migrate.names import CLUSTER_ARGUMENTS, REFUSED, WITHOUT_EFFECT, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podbroker.migrate.tree import Tree

__all__ = ["Call", "find_in_call", "find_in_dict", "find_in_dict_call"]

_NOTHING = frozenset({"None", "False"})


@dataclass(frozen=True)
class Call:
    """A call that makes an operator, or ``partial`` or ``expand`` of one."""

    node: cst.Call
    kind: Kind
    makes: bool
    """Whether all that the operator is told stands here, but for what another mapped call adds."""

    def argument(self, name: str) -> cst.Arg | None:
        """Give the argument of that name."""
        return next((arg for arg in self.node.args if arg.keyword is not None and arg.keyword.value == name), None)

    @property
    def names_target(self) -> bool:
        """Whether it says at which target, or may say so in what cannot be seen."""
        return self.kind is Kind.EKS or self.argument("target") is not None or any(a.star for a in self.node.args)


def find_in_call(tree: Tree, call: Call) -> Iterator[Finding]:
    """Look at the arguments of one call."""
    for arg in call.node.args:
        if arg.star:
            message = f"what {arg.star}{tree.code(arg.value)} holds cannot be seen; look there for {_asked(call.kind)}"
            yield Finding(tree.start(arg), Level.PERSON, "hidden-arguments", message)
        elif arg.keyword is not None:
            yield from _find_in_argument(tree, call, arg, arg.keyword.value)
    if call.kind is Kind.EKS and call.argument("cluster_name") is not None:
        yield Finding(tree.start(call.node), Level.NOTE, "eks-target", _wanted_target(tree, call))


def find_in_dict(tree: Tree, node: cst.Dict) -> Iterator[Finding]:
    """Look for arguments in a dictionary, such as the default arguments of a DAG."""
    for element in node.elements:
        if not isinstance(element, cst.DictElement) or not isinstance(element.key, cst.SimpleString):
            continue
        name = element.key.evaluated_value
        if not isinstance(name, str):
            continue
        yield from _find_in_item(tree, element, name, element.value)


def find_in_dict_call(tree: Tree, node: cst.Call) -> Iterator[Finding]:
    """Look for arguments in a dictionary that is made by ``dict(name=value)``."""
    if "builtins.dict" not in tree.names(node.func):
        return
    for arg in node.args:
        if arg.keyword is not None:
            yield from _find_in_item(tree, arg, arg.keyword.value, arg.value)


def _find_in_item(tree: Tree, item: cst.CSTNode, name: str, value: cst.BaseExpression) -> Iterator[Finding]:
    reason = _NAMES_IN_DICTS.get(name)
    if reason is not None and tree.code(value) not in _NOTHING:
        yield Finding(tree.start(item), Level.PERSON, "argument-in-dict", f"{name}: {reason}")


def _find_in_argument(tree: Tree, call: Call, arg: cst.Arg, name: str) -> Iterator[Finding]:
    value = tree.code(arg.value)
    if value in _NOTHING:
        return
    refused = REFUSED[Kind.EKS if call.kind is Kind.EKS else Kind.POD]
    if name in refused:
        yield Finding(tree.start(arg), Level.PERSON, "refused-argument", f"{name}={value}: {refused[name]}")
    elif name in WITHOUT_EFFECT:
        level = Level.PERSON if name in CLUSTER_ARGUMENTS else Level.NOTE
        yield Finding(tree.start(arg), level, "argument-without-effect", f"{name}={value}: {WITHOUT_EFFECT[name]}")
    elif name == "callbacks":
        message = "callbacks get a client that reads and cancels this pod only, and no CoreV1Api"
        yield Finding(tree.start(arg), Level.PERSON, "callbacks", message)
    elif name == "on_finish_action" and "delete_active_pod" in value.lower():
        message = "on_finish_action=delete_active_pod keeps the pod: at the end none is active"
        yield Finding(tree.start(arg), Level.NOTE, "finish-action", message)


def _wanted_target(tree: Tree, call: Call) -> str:
    defaults = {"region": "that of the AWS connection", "namespace": "'default'", "aws_conn_id": "'aws_default'"}
    said = {name: arg for name in ("cluster_name", *defaults) if (arg := call.argument(name)) is not None}
    words = {name: tree.code(arg.value) for name, arg in said.items()}
    words = {**defaults, **words}
    return (
        f"the broker needs one target that fits: cluster {words['cluster_name']}, region {words['region']},"
        f" namespace {words['namespace']}, role of the connection {words['aws_conn_id']}"
    )


def _asked(kind: Kind) -> str:
    names = sorted({*REFUSED[Kind.EKS if kind is Kind.EKS else Kind.POD], *CLUSTER_ARGUMENTS})
    return ", ".join(names)


_NAMES_IN_DICTS = {name: WITHOUT_EFFECT[name] for name in sorted(CLUSTER_ARGUMENTS)}
