"""The books of the provider's own tests: what is not as expected fails the run, in both directions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest

def test_good(): pass
def test_bad(): assert False
def test_left_out(): pytest.skip("not here")
"""

EXPECTED = """
provider = "1"
skipped = {skipped}
[passed]
"test_it.py" = {passed}
[category.known]
reason = "Known."
tests = {waived}
"""


@pytest.fixture
def run(tmp_path):
    (tmp_path / "test_it.py").write_text(TESTS)

    def start(*, passed=1, waived='["test_it.py::test_bad"]', skipped='["test_it.py::test_left_out"]', options=()):
        file = tmp_path / "expected.toml"
        file.write_text(EXPECTED.format(passed=passed, waived=waived, skipped=skipped))
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "parity.books",
            "-p",
            "no:cacheprovider",
            "-c",
            "/dev/null",
        ]
        command += ["--rootdir", str(tmp_path), "--expected", str(file), *options, "test_it.py"]
        paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout, file.read_text()

    return start


def test_what_is_as_expected_passes_and_a_waived_test_is_not_counted_as_passed(run):
    code, output, _ = run()
    assert code == 0, output
    assert "parity: 1 of 3 of upstream's tests pass" in output
    assert "parity:   waived, known: 1" in output
    assert "1 passed, 1 skipped, 1 waived in" in output


@pytest.mark.parametrize(
    ("expected", "said"),
    [
        ({"waived": "[]"}, "FAILED test_it.py::test_bad"),
        ({"waived": '["test_it.py::test_bad", "test_it.py::test_good"]'}, "XPASS(strict)"),
        ({"waived": '["test_it.py::test_bad", "test_it.py::test_gone"]'}, "vanished: test_it.py::test_gone"),
        ({"passed": 2}, "test_it.py: 1 tests pass, and 2 did before"),
        ({"passed": 0}, "test_it.py: 1 tests pass, and only 0 are written down"),
        ({"skipped": "[]"}, "skipped, which nobody expects: test_it.py::test_left_out"),
        ({"skipped": '["test_it.py::test_left_out", "test_it.py::test_good"]'}, "not skipped, as it should be"),
    ],
    ids=["unknown failure", "waived and passes", "gone", "fewer pass", "more pass", "skipped", "not skipped"],
)
def test_what_is_not_as_expected_fails_the_run(run, expected, said):
    code, output, _ = run(**expected)
    assert code == 1, output
    assert said in output


def test_a_part_of_the_tests_can_be_run_alone(run):
    code, output, _ = run(options=["-k", "bad"])
    assert code == 0, output


def test_a_recording_writes_what_happens(run):
    _, output, written = run(passed=0, options=["--record"])
    assert "in no category" not in output
    assert '"test_it.py" = 1' in written
    _, output, written = run(waived="[]", options=["--record"])
    assert "in no category: test_it.py::test_bad" in output
    assert "[category.unsorted]" in written


def test_a_recording_of_fewer_tests_that_pass_has_to_be_asked_for(run):
    code, output, written = run(passed=7, options=["--record"])
    assert code == 1
    assert "nothing is recorded: fewer tests pass than before" in output
    assert "test_it.py (7 to 1)" in output
    assert '"test_it.py" = 7' in written
    _, output, written = run(passed=7, options=["--record", "--fewer"])
    assert "nothing is recorded" not in output
    assert '"test_it.py" = 1' in written
