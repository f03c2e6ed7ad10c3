"""Rewrites the import statements of one file, and the places that use an imported module.

A name keeps the name that the file gave it, so that nothing else in the file, and nothing that imports from it, has to
change: ``from ...pod import KubernetesPodOperator`` becomes ``from podbroker.airflow import RemotePodOperator as
KubernetesPodOperator``. Only what is said through a module (``pod.KubernetesPodOperator``) changes where it is used.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import libcst as cst

from podbroker.migrate.finding import Finding, Level
from podbroker.migrate.names import MODULES, OPERATORS
from podbroker.migrate.source import Edit
from podbroker.migrate.statement import Change, rewrite_statement
from podbroker.migrate.tree import Alias

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podbroker.migrate.names import New
    from podbroker.migrate.tree import Tree

__all__ = ["rewrite_imports"]


@dataclass
class _Module:
    """An import that binds a module, or a package above it, through which operators are used."""

    alias: Alias
    uses: dict[cst.Attribute, New] = field(default_factory=dict)
    has_other_uses: bool = False

    @property
    def may_go(self) -> bool:
        """Whether nothing but our operators is used through it."""
        return not self.has_other_uses and self.alias.path in MODULES

    @property
    def keeps_name(self) -> bool:
        """Whether our module can have the name that the file uses for the old one."""
        return self.may_go and (self.alias.renamed or isinstance(self.alias.statement, cst.ImportFrom))

    @property
    def homes(self) -> list[str]:
        """Our modules that are needed in its place."""
        return sorted({new.module for new in self.uses.values()})


def rewrite_imports(tree: Tree) -> tuple[list[Edit], list[Finding]]:
    """Give the edits, and what could not be rewritten."""
    findings: list[Finding] = []
    edits: set[Edit] = set()
    statements: list[cst.Import | cst.ImportFrom] = [*tree.nodes(cst.Import), *tree.nodes(cst.ImportFrom)]
    modules = [module for statement in statements for module in _modules_of(tree, statement, findings)]
    in_place = {use for module in modules if module.keeps_name for use in module.uses}
    in_place -= {use for module in modules if not module.keeps_name for use in module.uses}
    changes: dict[cst.ImportAlias, Change] = {}
    for module in modules:
        changes[module.alias.node] = _change(module, in_place)
        for use, new in module.uses.items():
            if use in in_place:
                edits.add(Edit(*tree.span(use.attr), new.name))
            else:
                edits.add(Edit(*tree.span(use), f"{new.module}.{new.name}"))
    for statement in statements:
        for alias in _aliases(statement):
            if isinstance(statement, cst.ImportFrom) and alias.path in OPERATORS:
                changes[alias.node] = Change(keep=False, new=OPERATORS[alias.path], bound=alias.bound)
        mine = {alias.node: changes[alias.node] for alias in _aliases(statement) if alias.node in changes}
        if mine:
            edits.update(rewrite_statement(tree, statement, mine))
    return sorted(edits), findings


def _aliases(statement: cst.Import | cst.ImportFrom) -> list[Alias]:
    if isinstance(statement.names, cst.ImportStar):
        return []
    return [Alias(statement, node) for node in statement.names]


def _modules_of(tree: Tree, statement: cst.Import | cst.ImportFrom, findings: list[Finding]) -> Iterator[_Module]:
    for alias in _aliases(statement):
        if not alias.path or not any(f"{module}.".startswith(f"{alias.path}.") for module in MODULES):
            continue
        module = _Module(alias)
        for reference in tree.references(alias):
            use = _use_of(tree, reference)
            if use is None:
                module.has_other_uses = True
                findings += _bare(tree, alias, reference)
            elif len(found := {OPERATORS.get(name) for name in tree.names(use)}) == 1 and (new := found.pop()):
                module.uses[use] = new
            else:
                module.has_other_uses = True
                message = f"{tree.code(use)} may also be something else, so it is left as it is"
                findings.append(Finding(tree.start(use), Level.PERSON, "ambiguous", message))
        if module.uses:
            yield module


def _use_of(tree: Tree, reference: cst.CSTNode) -> cst.Attribute | None:
    """Find the operator that is named through a reference to a module."""
    for node in tree.chain(reference):
        if isinstance(node, cst.Attribute) and tree.names(node) & OPERATORS.keys():
            return node
    return None


def _bare(tree: Tree, alias: Alias, reference: cst.CSTNode) -> Iterator[Finding]:
    """Report a module that is handed around: its operator may be taken out of it anywhere."""
    *_, whole = tree.chain(reference)
    if tree.names(whole) & MODULES:
        message = f"the module {alias.path} is used as a value; what is taken out of it is not known"
        yield Finding(tree.start(reference), Level.PERSON, "module-as-value", message)


def _change(module: _Module, in_place: set[cst.Attribute]) -> Change:
    if module.keeps_name and in_place.issuperset(module.uses):
        return Change(keep=False, statements=tuple(f"import {home} as {module.alias.bound}" for home in module.homes))
    # A name that only some of its uses could keep stays, since another import gives them the same name.
    keep = not module.may_go or module.keeps_name
    return Change(keep=keep, statements=tuple(f"import {home}" for home in module.homes))
