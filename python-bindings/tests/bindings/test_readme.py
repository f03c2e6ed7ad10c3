"""The example of the package's page runs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from repository import PROJECT

if TYPE_CHECKING:
    from collections.abc import Callable

README = PROJECT / "README.md"


def test_the_example_of_the_readme_runs(run_program: Callable[[str], str], address: str) -> None:
    example = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert example is not None
    program, replaced = re.subn(r"http://127\.0\.0\.1:\d+", address, example[1])
    assert replaced == 1
    # The scripted broker's executions fail.
    assert run_program(program) == "FAILED\n"
