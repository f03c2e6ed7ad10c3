"""Puts the parts together: from the bytes of a file to its new bytes and what a person has to look at."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import libcst as cst

from podbroker.migrate.batch import rewrite_batch
from podbroker.migrate.imports import rewrite_imports
from podbroker.migrate.names import DECORATORS, TASK_NAMES
from podbroker.migrate.people import find, find_calls
from podbroker.migrate.source import Edit, Source, SourceError, apply, place_after
from podbroker.migrate.tree import Tree

if TYPE_CHECKING:
    from podbroker.migrate.finding import Finding

__all__ = ["Place", "Report", "analyse", "may_concern"]

#: A file without any of this has nothing for us, and is not parsed.
_HINT = re.compile(
    rb"providers\.(?:cncf|amazon)|contrib\.operators|\.\s*kubernetes(?:_cmd)?\b"
    rb"|KubernetesPod|E(?:ks|KS)Pod|remote_pod|podbroker"
)

_IGNORE = "podbroker-migrate: ignore"
"""In a comment on a line, it keeps findings of that line out of the report."""


def may_concern(content: bytes) -> bool:
    """Tell quickly whether a file can have anything for us."""
    return _HINT.search(content) is not None


@dataclass(frozen=True)
class Place:
    """A finding, with its place in the file before and after the rewriting."""

    finding: Finding
    before: tuple[int, int]
    """Line and column, both from 1."""
    after: tuple[int, int]


@dataclass(frozen=True)
class Report:
    """What there is to say about one file."""

    old: bytes
    new: bytes
    places: tuple[Place, ...] = ()
    without_target: int = 0
    """How many tasks name no target."""

    @property
    def is_changed(self) -> bool:
        """Whether anything is rewritten."""
        return self.old != self.new


def analyse(content: bytes) -> Report:
    """Rewrite one file. Raises ``SourceError`` when it cannot be read, or not be rewritten without loss."""
    if not may_concern(content):
        return Report(old=content, new=content)
    source = Source.of(content)
    tree = Tree(source)
    edits, findings = rewrite_imports(tree)
    batch_edits, batch_findings = rewrite_batch(tree)
    edits = sorted({*edits, *batch_edits, *_rewrite_decorators(tree)})
    findings += batch_findings
    calls = find_calls(tree)
    findings += find(tree, calls)
    after = replace(source, text=apply(source.text, edits))
    if edits:
        # What is written has to be Python again, in the file's own encoding.
        try:
            cst.parse_module(after.plain)
        except cst.ParserSyntaxError as error:
            raise SourceError(f"the rewritten file would not be Python: {error.message}") from error
    places = []
    for finding in sorted(set(findings), key=lambda finding: (finding.offset, finding.code)):
        before = source.position(finding.offset)
        if _IGNORE not in source.line(before[0]):
            places.append(Place(finding, before, after.position(place_after(finding.offset, edits))))
    without_target = sum(call.makes and not call.names_target for call in calls)
    return Report(
        old=content,
        new=source.encode(after.text) if edits else content,
        places=tuple(places),
        without_target=without_target,
    )


def _rewrite_decorators(tree: Tree) -> list[Edit]:
    return [
        Edit(*tree.span(node.attr), DECORATORS[node.attr.value])
        for node in tree.nodes(cst.Attribute)
        if node.attr.value in DECORATORS and tree.names(node) & {f"{task}.{node.attr.value}" for task in TASK_NAMES}
    ]
