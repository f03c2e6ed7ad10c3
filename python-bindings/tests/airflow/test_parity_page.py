"""What is published about the provider's own tests is what they are held to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import repository
from parity import ledger, page

if TYPE_CHECKING:
    from pathlib import Path

TOML = """
provider = "1"
skipped = []
[passed]
"a.py" = 1
[category.one]
reason = "{reason}"
tests = ["a.py::first", "a.py::second[x]"]
[category.two]
reason = "Another."
tests = ["{other}"]
"""


def made(tmp_path: Path, *, reason: str = "A reason.", other: str = "a.py::third") -> Path:
    path = tmp_path / "expected.toml"
    path.write_text(TOML.format(reason=reason, other=other))
    return path


def test_the_page_says_what_the_ledger_says():
    assert repository.page("parity.md") == page.write(ledger.load()), "python -m parity.page writes it anew"


def test_a_name_without_a_parameter_stands_for_all(tmp_path):
    read = ledger.load(made(tmp_path))
    assert read.category_of("a.py::first[y]") == "one"
    assert read.category_of("a.py::second[x]") == "one"
    assert read.category_of("a.py::second[y]") is None


def test_a_waived_test_that_is_gone_is_named(tmp_path):
    read = ledger.load(made(tmp_path))
    assert read.vanished(["a.py::first[y]", "a.py::third"]) == ["a.py::second[x]"]


def test_no_category_goes_without_a_reason(tmp_path):
    with pytest.raises(ValueError, match="says no reason"):
        ledger.load(made(tmp_path, reason=" "))


def test_no_test_stands_in_two_categories(tmp_path):
    with pytest.raises(ValueError, match="stands in 'one' and 'two'"):
        ledger.load(made(tmp_path, other="a.py::first"))


def test_a_recording_keeps_what_is_sorted_and_names_what_is_not(tmp_path):
    path = made(tmp_path)
    results = {
        "a.py::first[x]": "failed",
        "a.py::first[y]": "failed",
        "a.py::second[x]": "passed",
        "a.py::third": "passed",
        "a.py::new": "failed",
        "a.py::odd": "skipped",
    }
    assert ledger.record(results, ledger.load(path), path) == ["a.py::new"]
    read = ledger.load(path, recording=True)
    assert [(each.name, each.tests) for each in read.categories] == [("one", ("a.py::first",))]
    assert read.passed == {"a.py": 2}
    assert read.skipped == ("a.py::odd",)
    with pytest.raises(ValueError, match="says no reason"):
        ledger.load(path)


def test_a_file_that_is_gone_is_not_forgotten_in_silence(tmp_path):
    path = made(tmp_path)
    before = path.read_text()
    results = {"b.py::new": "passed"}
    with pytest.raises(ledger.FewerError, match=r"a\.py \(1 to 0\)"):
        ledger.record(results, ledger.load(path), path)
    assert path.read_text() == before
    ledger.record(results, ledger.load(path), path, fewer=True)
    assert ledger.load(path).passed == {"b.py": 1}
