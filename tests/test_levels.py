"""What a level counts, and what it runs a second time."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import levels

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

PYTEST = (sys.executable, "-m", "pytest", "-q", "--color=no", "-p", "no:cacheprovider")

#: Fails until the file `name` exists, and makes it.
ONCE = """
import pathlib, pytest

@pytest.mark.parametrize("name", {names})
def test_once(name):
    there = pathlib.Path(__file__).with_name(name.replace(" ", "_"))
    known = there.exists()
    there.touch()
    assert known, "a - b"

def test_well(): pass
"""


#: A fixture of all tests that fails until a file exists, and makes it.
FIXTURE = """
import pathlib, pytest

@pytest.fixture(scope="module")
def stage():
    there = pathlib.Path(__file__).with_name("there")
    known = there.exists()
    there.touch()
    assert known, "a - b"

@pytest.mark.parametrize("name", {names})
def test_once(name, stage): pass
"""


def level(folder: Path, text: str, *, again: bool = True) -> levels.Level:
    """A level of one file."""
    (folder / "test_it.py").write_text(text)
    # The plugins that are installed take seconds to load.
    alone = (("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1"),)
    argv = (*PYTEST, "test_it.py")
    return levels.Level(argv=argv, folder=folder, second_try=PYTEST if again else (), environment=alone)


def run(monkeypatch: pytest.MonkeyPatch, level: levels.Level) -> levels.Count:
    """Its counts."""
    monkeypatch.setitem(levels.LEVELS, "it", level)
    return levels.run("it", [])


def test_what_passes_alone_is_named_and_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = run(monkeypatch, level(tmp_path, ONCE.format(names=["one", "an other"])))

    assert (count.passed, count.failed) == (3, 0)
    assert count.unsteady == ["test_it.py::test_once[one]", "test_it.py::test_once[an other]"]


def test_what_fails_twice_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = run(monkeypatch, level(tmp_path, ONCE.format(names=["one"]) + "\ndef test_ill(): assert False\n"))

    assert (count.passed, count.failed, count.unsteady) == (1, 2, [])


def test_many_failures_are_no_accident(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"n{number}" for number in range(levels.SECOND_TRIES + 1)]
    count = run(monkeypatch, level(tmp_path, ONCE.format(names=names)))

    assert (count.passed, count.failed, count.unsteady) == (1, len(names), [])


def test_a_fixture_that_fails_a_whole_file_is_one_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"n{number}" for number in range(levels.SECOND_TRIES + 1)]
    text = FIXTURE.format(names=names)
    count = run(monkeypatch, level(tmp_path, text))

    assert (count.passed, count.failed, len(count.unsteady)) == (len(names), 0, len(names))


def test_other_levels_have_no_second_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = run(monkeypatch, level(tmp_path, ONCE.format(names=["one"]), again=False))

    assert (count.passed, count.failed) == (1, 1)
    assert [name for name, level in levels.LEVELS.items() if level.second_try and name != "it"] == ["e2e"]


def test_a_level_without_tests_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = run(monkeypatch, level(tmp_path, ""))

    assert count.failed == 1
