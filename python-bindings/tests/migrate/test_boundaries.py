"""The migration reads source and nothing else: it uses neither Airflow nor the rest of the package."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import podbroker.migrate

MODULES = sorted(Path(podbroker.migrate.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_it_imports_only_libcst_and_itself(path):
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    foreign = {name for name in names if name.partition(".")[0] not in sys.stdlib_module_names}
    assert {name for name in foreign if not name.startswith(("libcst", "podbroker.migrate"))} == set()


def test_every_module_is_looked_at():
    assert len(MODULES) > 10
