"""What is published: the source distribution has everything that the package is built from and tested with."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tarfile
from email.parser import Parser
from typing import TYPE_CHECKING

import pytest
from repository import PROJECT, place

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution."""
    place("python-bindings", "Cargo.toml")
    if importlib.util.find_spec("maturin") is None:
        pytest.skip("elsewhere: maturin is not installed")
    folder = tmp_path_factory.mktemp("sdist")
    command = [sys.executable, "-m", "maturin", "sdist", "--manifest-path", PROJECT / "Cargo.toml", "--out", folder]
    subprocess.run(command, check=True, capture_output=True)
    (archive,) = folder.glob("*.tar.gz")
    return archive


def test_the_source_distribution_has_every_module_and_every_test(archive: Path) -> None:
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    modules = {path.relative_to(PROJECT / "python").as_posix() for path in (PROJECT / "python").rglob("*.py")}
    tests = {path.relative_to(PROJECT).as_posix() for path in (PROJECT / "tests").rglob("*.py")}
    assert len(modules) > 30
    assert len(tests) > 20
    for wanted in modules | tests:
        assert any(name.endswith(wanted) for name in names), wanted
    assert not any("__pycache__" in name for name in names)


def test_the_package_says_what_it_needs(archive: Path) -> None:
    with tarfile.open(archive) as tar:
        (name,) = [name for name in tar.getnames() if name.count("/") == 1 and name.endswith("/PKG-INFO")]
        file = tar.extractfile(name)
        assert file is not None
        said = Parser().parsestr(file.read().decode())
    assert said["Requires-Python"] == ">=3.10"
    extras = set(said.get_all("Provides-Extra") or [])
    assert {"airflow", "migrate", "test"} <= extras
    needed = [each for each in said.get_all("Requires-Dist") or [] if "extra ==" not in each]
    assert needed == []
    (airflow,) = [each for each in said.get_all("Requires-Dist") or [] if "extra == 'airflow'" in each]
    assert airflow.startswith("apache-airflow-providers-cncf-kubernetes>=10.5")


@pytest.mark.timeout(400)
def test_the_tests_of_the_source_distribution_stand_alone(archive: Path, tmp_path: Path) -> None:
    """All of them are read; those run that look at what is around them."""
    if importlib.util.find_spec("airflow") is None:
        pytest.skip("elsewhere: Airflow is not installed")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    command = [sys.executable, "-m", "pytest", "-q", "--color=no", "-k", "page or docs or dags or readme or package"]
    done = subprocess.run([*command, "python-bindings/tests"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "docs/operators/remote-pod.md is in the repository only" in done.stdout
    assert re.search(r"\b[1-9]\d* passed, [1-9]\d* skipped, \d{3,} deselected", done.stdout), done.stdout
