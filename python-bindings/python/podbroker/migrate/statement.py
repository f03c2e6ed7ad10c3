"""Rewrites the text of one import statement: some of its names go, others stay where and as they are.

A statement all of whose names go to the same module is edited in place, so that its layout and its comments stay. Else
the new statement is put before it, and a comment that stood behind a name goes along with that name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import libcst as cst

from podbroker.migrate.source import Edit, SourceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from podbroker.migrate.names import New
    from podbroker.migrate.tree import Tree

__all__ = ["Change", "rewrite_statement"]

_LINE_END = re.compile("\r\n?|\n")
_COMMENT = re.compile("#[^\r\n]*")


@dataclass(frozen=True, kw_only=True)
class Change:
    """What becomes of one name of a statement."""

    keep: bool
    """Whether the name stays in the statement, beside what is new."""
    new: New | None = None
    """The name that is imported in its place from ``new.module``, as ``bound``."""
    bound: str = ""
    statements: tuple[str, ...] = ()
    """Other statements that are needed in its place."""


def rewrite_statement(
    tree: Tree, statement: cst.Import | cst.ImportFrom, changes: Mapping[cst.ImportAlias, Change]
) -> list[Edit]:
    """Give the edits of one statement. Raises ``SourceError`` where there is no place for its comments."""
    aliases = [] if isinstance(statement.names, cst.ImportStar) else list(statement.names)
    module = statement.module if isinstance(statement, cst.ImportFrom) else None
    if module is not None and len(changes) == len(aliases) and (home := _home(changes.values())):
        edits = [Edit(*tree.span(alias), _named(change)) for alias, change in changes.items()]
        return [Edit(*tree.span(module), home), *edits]
    kept = [alias for alias in aliases if alias not in changes or changes[alias].keep]
    start, end = tree.span(statement)
    text = ""
    comments: list[str] = []
    if len(kept) == len(aliases):
        end = start
    else:
        text, comments = _without(tree, statement, aliases, kept)
    texts = _statements(changes.values())
    return [Edit(start, end, _before(tree, statement, texts, comments, more=bool(kept)) + text)]


def _home(changes: Iterable[Change]) -> str | None:
    """Give the module that all names come from now, if there is one for all."""
    homes = {change.new.module if change.new is not None else None for change in changes}
    return homes.pop() if len(homes) == 1 else None


def _named(change: Change) -> str:
    name = change.new.name if change.new is not None else change.bound
    return name if name == change.bound else f"{name} as {change.bound}"


def _statements(changes: Iterable[Change]) -> list[str]:
    names: dict[str, list[str]] = {}
    others: list[str] = []
    for change in changes:
        if change.new is not None:
            names.setdefault(change.new.module, []).append(_named(change))
        others += change.statements
    texts = [f"from {module} import {', '.join(dict.fromkeys(each))}" for module, each in names.items()]
    return list(dict.fromkeys([*texts, *others]))


def _before(
    tree: Tree, statement: cst.Import | cst.ImportFrom, texts: list[str], comments: list[str], *, more: bool
) -> str:
    """Put new statements where the old one begins, on lines of their own if it has one."""
    source = tree.source
    line, _ = source.position(tree.start(statement))
    lead = source.line(line)[: tree.start(statement) - source.line_start(line)]
    owner = tree.parent(statement)
    is_alone = isinstance(owner, cst.SimpleStatementLine) and len(owner.body) == 1 and not lead.strip()
    if comments and not is_alone:
        raise SourceError("an import with comments shares its line with another statement", line=line)
    if comments:
        texts = [*texts[:-1], "  ".join([texts[-1], *comments])]
    between = f"{source.newline}{lead}" if is_alone else "; "
    return between.join([*texts, ""]) if more else between.join(texts)


def _without(
    tree: Tree,
    statement: cst.Import | cst.ImportFrom,
    aliases: list[cst.ImportAlias],
    kept: list[cst.ImportAlias],
) -> tuple[str, list[str]]:
    """Give the statement with the kept names only, and the comments that belong to the others."""
    text = tree.source.text
    start, end = tree.span(statement)
    spans = [tree.span(alias) for alias in aliases]
    prefix = text[start : spans[0][0]]
    # What follows each name: a comma, a comment, a line end, the next line's indentation, at last a parenthesis.
    after = [
        text[span[1] : following] for span, following in zip(spans, [*(s for s, _ in spans[1:]), end], strict=True)
    ]
    if not kept:
        return "", [comment for part in (prefix, *after) for comment in _COMMENT.findall(part)]
    last = aliases.index(kept[-1])
    comments: list[str] = []
    parts = [prefix]
    for index, (alias, span) in enumerate(zip(aliases[: last + 1], spans, strict=False)):
        own, rest = _split(after[index])
        if alias in kept:
            parts.append(text[slice(*span)])
            parts.append(after[index] if index < last else "")
        else:
            comments += _COMMENT.findall(own)
            # Lines of comments belong to what comes next.
            parts.append(rest.lstrip() if _COMMENT.search(rest) else "")
    for follows in after[last + 1 :]:
        comments += _COMMENT.findall(_split(follows)[0])
    has_parentheses = isinstance(statement, cst.ImportFrom) and statement.lpar is not None
    return "".join(parts) + (_end(after[last:], tree.source.newline) if has_parentheses else ""), comments


def _end(after: list[str], newline: str) -> str:
    """Give what follows the last name that is kept, up to the parenthesis; ``after`` begins with what followed it."""
    if len(after) == 1:
        return after[0]
    (own, rest), *between, (own_end, end) = [_split(follows) for follows in after]
    if not rest:
        return _COMMENT.sub("", own_end).rstrip() + end
    lines = [own, *(each.rstrip() for each in (rest, *(more for _, more in between)) if _COMMENT.search(each))]
    needs_line = _COMMENT.search("".join(lines)) is not None
    return "".join([*lines, end or (newline if needs_line else "") + own_end.lstrip(", \t")])


def _split(follows: str) -> tuple[str, str]:
    """Split what follows a name into the rest of its line and the lines after it."""
    found = _LINE_END.search(follows)
    return (follows, "") if found is None else (follows[: found.start()], follows[found.start() :])
