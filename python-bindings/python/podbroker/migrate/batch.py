"""Rewrites the import of the Amazon provider's ``BatchOperator`` where it is certain that its jobs run on EKS.

The same class starts jobs on ECS, for which there is nothing here. A file says that a job runs on EKS only by giving
``eks_properties_override``; so an import is rewritten if every use of its name is such a call, with nothing in it that
is refused here or cannot be seen. Everything else stays as it is, and is listed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import libcst as cst

from podbroker.migrate.finding import Finding, Level
from podbroker.migrate.names import BATCH_REFUSED, NEW_MODULE, OLD_BATCH, Kind, New
from podbroker.migrate.statement import Change, rewrite_statement
from podbroker.migrate.tree import Alias

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podbroker.migrate.source import Edit
    from podbroker.migrate.tree import Tree

__all__ = ["rewrite_batch"]

_NEW = New(NEW_MODULE, "BatchOperator", Kind.BATCH)
_OURS = frozenset({f"{NEW_MODULE}.BatchOperator", f"{NEW_MODULE}.batch.BatchOperator"})
_NOTHING = frozenset({"None", "{}"})


def rewrite_batch(tree: Tree) -> tuple[list[Edit], list[Finding]]:
    """Give the edits, and what could not be rewritten or has to be known."""
    edits: list[Edit] = []
    findings: list[Finding] = []
    safe: set[cst.CSTNode] = set()
    for statement in tree.nodes(cst.ImportFrom):
        changes = {}
        for alias in _aliases(statement):
            doubts = list(_doubts(tree, alias))
            findings += _listed(tree, alias, doubts)
            if not doubts:
                changes[alias.node] = Change(keep=False, new=_NEW, bound=alias.bound)
                safe.update(tree.references(alias))
        if changes:
            edits += rewrite_statement(tree, statement, changes)
    return edits, [*findings, *_notes(tree, safe)]


def _aliases(statement: cst.ImportFrom) -> list[Alias]:
    names = () if isinstance(statement.names, cst.ImportStar) else statement.names
    return [alias for alias in (Alias(statement, node) for node in names) if alias.path == OLD_BATCH]


def _notes(tree: Tree, safe: set[cst.CSTNode]) -> Iterator[Finding]:
    """Say which jobs name no target, and which uses of the class cannot be rewritten because of their form."""
    for call in tree.nodes(cst.Call):
        if (call.func in safe or tree.names(call.func) & _OURS) and not _has(call, "target"):
            message = "the job runs at the default target of the connection podbroker_default, if target= says no other"
            yield Finding(tree.start(call), Level.NOTE, "batch-target", message)
    for attribute in tree.nodes(cst.Attribute):
        if OLD_BATCH in tree.names(attribute):
            message = f"{tree.code(attribute)} stays as it is: import the class by its name to have it rewritten"
            yield Finding(tree.start(attribute), Level.NOTE, "not-migrated", message)


def _doubts(tree: Tree, alias: Alias) -> Iterator[tuple[cst.CSTNode, str]]:
    """Say why a name may not be rewritten, and where that stands."""
    references = tree.references(alias)
    if not references:
        yield alias.node, "it is used nowhere in this file"
    for reference in references:
        call = tree.parent(reference)
        if not isinstance(call, cst.Call) or call.func is not reference:
            if not isinstance(call, cst.Annotation):
                yield reference, "it is used as a value, or mapped: with which arguments it is called is not seen"
            continue
        if not _has(call, "eks_properties_override"):
            yield call, "nothing says that its job runs on EKS, as eks_properties_override would"
        for arg in call.args:
            name = arg.keyword.value if arg.keyword is not None else ""
            if arg.star:
                yield arg, f"what {arg.star}{tree.code(arg.value)} holds cannot be seen"
            elif name in BATCH_REFUSED and tree.code(arg.value) not in _NOTHING:
                yield arg, f"{name}={tree.code(arg.value)}: {BATCH_REFUSED[name]}"


def _listed(tree: Tree, alias: Alias, doubts: list[tuple[cst.CSTNode, str]]) -> Iterator[Finding]:
    """List the doubts; a file that says EKS somewhere is for a person, one that does not may well be of ECS."""
    calls = [tree.parent(reference) for reference in tree.references(alias)]
    says_eks = any(isinstance(call, cst.Call) and _has(call, "eks_properties_override") for call in calls)
    for node, why in doubts:
        message = f"{alias.bound} stays as it is: {why}"
        if says_eks:
            yield Finding(tree.start(node), Level.PERSON, "batch-operator", message)
        else:
            yield Finding(tree.start(node), Level.NOTE, "not-migrated", message)


def _has(call: cst.Call, name: str) -> bool:
    return any(arg.keyword is not None and arg.keyword.value == name for arg in call.args)
