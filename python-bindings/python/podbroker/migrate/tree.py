"""A file's syntax tree with what the analysis asks of it: places, parents, and what a name stands for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar, cast

import libcst as cst
from libcst.helpers import get_full_name_for_node
from libcst.metadata import (
    ImportAssignment,
    MetadataWrapper,
    ParentNodeProvider,
    PositionProvider,
    QualifiedNameSource,
    ScopeProvider,
)

from podbroker.migrate.source import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from libcst.metadata import CodeRange, Scope

    from podbroker.migrate.source import Source

__all__ = ["Alias", "Tree"]

MOST_BRACKETS = 1000
"""Python itself allows 200 in each other; those in texts count here, too. Many more would end the whole process."""

_ERROR_PLACE = re.compile(r"^parser error: error at (\d+):\d+")
_BRACKET = re.compile(r"[()\[\]{}]")
_Node = TypeVar("_Node", bound=cst.CSTNode)


class Alias:
    """One name that an import statement binds."""

    def __init__(self, statement: cst.Import | cst.ImportFrom, node: cst.ImportAlias) -> None:
        """Take the alias apart."""
        self.statement = statement
        self.node = node
        name = get_full_name_for_node(node.name) or ""
        self.renamed = node.asname is not None
        if isinstance(statement, cst.ImportFrom):
            module = get_full_name_for_node(statement.module) if statement.module is not None else None
            self.path = "" if statement.relative or module is None else f"{module}.{name}"
        else:
            self.path = name
        self.bound = (get_full_name_for_node(node.asname.name) or "") if node.asname is not None else name
        """The name that the code uses; a dotted one for ``import a.b``."""


class Tree:
    """A parsed file."""

    def __init__(self, source: Source) -> None:
        """Parse. Raises ``SourceError`` when the text is not Python or is not given back as it is."""
        self.source = source
        if _depth(source.plain) > MOST_BRACKETS:
            raise SourceError("nested too deeply to be parsed")
        try:
            module = cst.parse_module(source.plain)
        except cst.ParserSyntaxError as error:
            # The message names the right line; the attribute has one more, and tells of ends of files only.
            found = _ERROR_PLACE.search(error.message)
            words = _ERROR_PLACE.sub("", error.message).strip(": ")
            raise SourceError(f"not valid Python: {words}", line=int(found[1]) if found else error.raw_line) from error
        if module.code != source.plain:
            raise SourceError("libcst does not give this file back as it is")
        wrapper = MetadataWrapper(module, unsafe_skip_copy=True)
        resolved = wrapper.resolve_many((PositionProvider, ParentNodeProvider, ScopeProvider))
        self._positions = cast("Mapping[cst.CSTNode, CodeRange]", resolved[PositionProvider])
        self._parents = cast("Mapping[cst.CSTNode, cst.CSTNode]", resolved[ParentNodeProvider])
        self._scopes = cast("Mapping[cst.CSTNode, Scope | None]", resolved[ScopeProvider])
        # A walk over the tree is what costs most, so there is none: these are all nodes.
        self._nodes: dict[type[cst.CSTNode], list[cst.CSTNode]] = {}
        for node in self._positions:
            self._nodes.setdefault(type(node), []).append(node)

    def nodes(self, kind: type[_Node]) -> Iterator[_Node]:
        """Give all nodes of a kind, in the order of the file."""
        found = cast("list[_Node]", self._nodes.get(kind, []))
        yield from sorted(found, key=self.start)

    def span(self, node: cst.CSTNode) -> tuple[int, int]:
        """Give the offsets of a node in the file's text."""
        place = self._positions[node]
        return (
            self.source.offset(place.start.line, place.start.column),
            self.source.offset(place.end.line, place.end.column),
        )

    def start(self, node: cst.CSTNode) -> int:
        """Give the offset at which a node begins."""
        return self.span(node)[0]

    def code(self, node: cst.CSTNode) -> str:
        """Give a node's own text."""
        start, end = self.span(node)
        return self.source.text[start:end]

    def parent(self, node: cst.CSTNode) -> cst.CSTNode | None:
        """Give what a node is a part of."""
        return self._parents.get(node)

    def names(self, node: cst.CSTNode) -> frozenset[str]:
        """Give everything that an expression may stand for, each by the full name that it is imported by."""
        scope = self._scopes.get(node)
        return (
            frozenset(name.name for name in scope.get_qualified_names_for(node)) if scope is not None else frozenset()
        )

    def is_own(self, node: cst.CSTNode) -> bool:
        """Tell whether an expression stands for something that this file itself makes."""
        scope = self._scopes.get(node)
        return scope is not None and any(
            name.source is QualifiedNameSource.LOCAL for name in scope.get_qualified_names_for(node)
        )

    def references(self, alias: Alias) -> Sequence[cst.CSTNode]:
        """Give the places that use what an import binds; for ``import a.b`` also those that use only ``a``."""
        dotted = isinstance(alias.statement, cst.Import) and not alias.renamed
        found: list[cst.CSTNode] = []
        for scope in self._all_scopes():
            for assignment in scope.assignments:
                if not isinstance(assignment, ImportAssignment) or assignment.node is not alias.statement:
                    continue
                if assignment.name == alias.bound or (dotted and alias.bound.startswith(f"{assignment.name}.")):
                    found += [access.node for access in assignment.references]
        return found

    def chain(self, node: cst.CSTNode) -> Iterator[cst.CSTNode]:
        """Give a node and the attributes that are taken of it: ``a``, ``a.b``, ``a.b.c``."""
        yield node
        parent = self.parent(node)
        while isinstance(parent, cst.Attribute) and parent.value is node:
            yield parent
            node, parent = parent, self.parent(parent)

    def _all_scopes(self) -> set[Scope]:
        return {scope for scope in self._scopes.values() if scope is not None}


def _depth(text: str) -> int:
    """Count how many brackets are open at once, at most; also those in texts and comments."""
    depth = deepest = 0
    for found in _BRACKET.finditer(text):
        depth = depth + 1 if found.group() in "([{" else max(0, depth - 1)
        deepest = max(deepest, depth)
    return deepest
