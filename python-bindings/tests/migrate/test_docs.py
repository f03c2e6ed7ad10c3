"""The page on the migration shows what the command does, and names all that it may find."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from repository import page

from podbroker.migrate import analysis, arguments, batch, imports, people, values
from podbroker.migrate.command import main

PAGE = page("migration.md")


def block(language: str) -> str:
    (text,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return text


@pytest.fixture
def dag(tmp_path, monkeypatch):
    """The file of the page."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "dags" / "report.py"
    path.parent.mkdir()
    path.write_text(block("python"))
    return path


def test_the_diff_and_the_list_are_those_of_the_page(dag, capfd):
    assert main(["dags"]) == 0
    out, err = capfd.readouterr()
    assert out == block("diff")
    assert err == block("text")
    assert dag.read_text() == block("python")


def test_a_second_run_after_writing_changes_nothing_and_says_the_same(dag, capfd):
    assert main(["--write", "dags"]) == 0
    first = capfd.readouterr().err
    written = dag.read_text()
    assert main(["--write", "dags"]) == 0
    assert capfd.readouterr().err == first.replace("1 rewritten", "0 rewritten")
    assert dag.read_text() == written


@pytest.mark.usefixtures("dag")
def test_the_exit_codes_are_those_of_the_page(capfd):
    assert main(["--check", "dags"]) == 1
    assert main(["--check", "nowhere"]) == 2
    assert "nowhere" in capfd.readouterr().err
    Path("dags/report.py").write_text("x = 1\n")
    assert main(["--check", "dags"]) == 0


def test_the_page_names_every_code():
    sources = [Path(module.__file__).read_text() for module in (analysis, arguments, batch, imports, people, values)]
    codes = set(
        re.findall(
            r'(?:Level\.\w+|node|alias\.node|part|each|attribute|use|item), "([a-z]+(?:-[a-z]+)*)"', "\n".join(sources)
        )
    )
    assert len(codes) > 12
    assert {code for code in codes if f"`{code}`" not in PAGE} == set()
