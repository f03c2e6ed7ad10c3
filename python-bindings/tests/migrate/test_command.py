"""The command: what it shows, what it writes, what it says and how it ends."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from podbroker.migrate.command import main
from podbroker.migrate.files import find

OLD = b"from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator\n"
NEW = b"from podbroker.airflow import RemotePodOperator as KubernetesPodOperator\n"
BROKEN = OLD + b"x = = 1\n"


@pytest.fixture
def dags(tmp_path, monkeypatch):
    """An empty folder `dags` in the folder that the command runs in."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "dags"
    folder.mkdir()
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_without_write_nothing_changes_and_the_diff_is_what_write_does(dags, capfdbinary):
    files = {
        "a.py": OLD + b"x = 1\n",
        "deep/er/b.py": b"\xef\xbb\xbf" + OLD.replace(b"\n", b"\r\n") + b"y = 2",
        "c d.py": b"# coding: latin-1\n" + OLD[:-1] + b"  # caf\xe9",
        "other.py": b"import os\n",
        "text.txt": OLD,
        "lone.py": b"x = 'a'\rfrom os import path\r" + OLD,
    }
    for name, content in files.items():
        (dags / name).parent.mkdir(parents=True, exist_ok=True)
        (dags / name).write_bytes(content)

    assert main(["dags"]) == 0
    assert contents(dags) == files
    diff = capfdbinary.readouterr().out
    assert diff.count(b"\n+++ b/dags/") == 4

    applied = {name: content.replace(OLD[:-1], NEW[:-1]) for name, content in files.items()} | {"text.txt": OLD}
    subprocess.run(["git", "init", "-q", "."], check=True)
    subprocess.run(["git", "apply", "--whitespace=nowarn"], input=diff, check=True)
    assert contents(dags) == applied

    for name, content in files.items():
        (dags / name).write_bytes(content)
    assert main(["dags", "--write"]) == 0
    assert capfdbinary.readouterr().out == b""
    assert contents(dags) == applied
    assert main(["dags"]) == 0
    assert capfdbinary.readouterr().out == b""


def test_check_tells_what_is_left_by_its_exit_code(dags):
    dag = dags / "a.py"
    dag.write_bytes(OLD)
    assert main(["dags", "--check"]) == 1
    assert dag.read_bytes() == OLD
    assert main(["dags", "--write"]) == 0
    assert main(["dags", "--check"]) == 0
    dag.write_bytes(NEW + b"KubernetesPodOperator(task_id='x', in_cluster=True)\n")
    assert main(["dags", "--check"]) == 1
    dag.write_bytes(NEW + b"KubernetesPodOperator(task_id='x', in_cluster=True)  # podbroker-migrate: ignore\n")
    assert main(["dags", "--check"]) == 0


def test_a_file_that_is_no_python_is_named_and_the_others_go_on(dags, capfd):
    (dags / "a.py").write_bytes(BROKEN)
    (dags / "b.py").write_bytes(OLD)
    (dags / "c.py").write_bytes(OLD + b"x = '\xff'\n")
    (dags / "d.py").write_bytes(b"# coding: klingon\n" + OLD)
    (dags / "e.py").write_bytes(OLD + b"print 'Python 2'\n")
    (dags / "f.py").write_bytes(OLD + b"x = " + b"(" * 3000 + b")" * 3000)
    assert main(["dags", "--write"]) == 2
    said = capfd.readouterr().err
    assert "dags/a.py:2: error: not valid Python" in said
    assert "dags/c.py:2: error: not utf-8" in said
    assert "dags/d.py:1: error: unknown encoding" in said
    assert "dags/e.py:2: error: not valid Python" in said
    assert "dags/f.py:" in said
    assert said.endswith("6 files read, 1 rewritten, 0 places for a person, 5 errors\n")
    assert (dags / "a.py").read_bytes() == BROKEN
    assert (dags / "b.py").read_bytes() == NEW


@pytest.mark.usefixtures("dags")
def test_what_cannot_be_found_is_an_error(capfd):
    assert main(["dags", "nowhere"]) == 2
    assert "nowhere: error: No such file or directory" in capfd.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2


def test_a_file_that_cannot_be_written_stays_whole_and_leaves_nothing_behind(dags, monkeypatch, capfd):
    (dags / "a.py").write_bytes(OLD)
    (dags / "b.py").write_bytes(OLD)
    replace = os.replace

    def full(source: str, target: Path) -> None:
        if target.name == "a.py":
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr("os.replace", full)
    assert main(["dags", "--write"]) == 2
    assert "dags/a.py: error: No space left on device" in capfd.readouterr().err
    assert contents(dags) == {"a.py": OLD, "b.py": NEW}


def test_a_files_mode_stays(dags):
    dag = dags / "a.py"
    dag.write_bytes(OLD)
    dag.chmod(0o751)
    os.utime(dag, (1, 1))
    main(["dags", "--write"])
    assert dag.stat().st_mode & 0o777 == 0o751
    assert dag.stat().st_mtime > 1


def test_links_stay_links_and_every_file_is_handled_once(dags, tmp_path, capfd):
    (dags / "a.py").write_bytes(OLD)
    (dags / "link.py").symlink_to("a.py")
    (dags / "loop").symlink_to(".")
    (dags / "broken.py").symlink_to("nowhere.py")
    outside = tmp_path / "shared"
    outside.mkdir()
    (outside / "b.py").write_bytes(OLD)
    (dags / "outside.py").symlink_to("../shared/b.py")
    (dags / "folder").symlink_to("../shared")

    assert main(["dags", "--write"]) == 0
    said = capfd.readouterr().err
    assert re.search(r"dags/outside\.py: note: is a link to .*/shared/b\.py, which is not in this folder", said)
    assert "1 file read, 1 rewritten" in said
    assert (dags / "a.py").read_bytes() == NEW
    assert (dags / "link.py").is_symlink()
    assert (outside / "b.py").read_bytes() == OLD

    assert main(["dags/outside.py", "--write"]) == 0
    assert (dags / "outside.py").is_symlink()
    assert (outside / "b.py").read_bytes() == NEW


def test_a_folder_that_is_itself_a_link_is_followed(dags):
    (dags / "a.py").write_bytes(OLD)
    Path("current").symlink_to("dags")
    assert main(["current", "dags", "--write"]) == 0
    assert (dags / "a.py").read_bytes() == NEW


def test_folders_that_hold_no_dags_are_left_out(dags):
    for name in (".git/hooks/a.py", "__pycache__/b.py", "venv/lib/c.py", "keep/d.py"):
        (dags / name).parent.mkdir(parents=True)
        (dags / name).write_bytes(OLD)
    (dags / "venv/pyvenv.cfg").touch()
    problems: list[object] = []
    found = find([dags], problem=lambda *args: problems.append(args), note=lambda *args: problems.append(args))
    assert [path.name for path in found] == ["d.py"]
    assert problems == []


def test_a_big_folder_is_done_in_many_processes_in_the_order_of_its_names(dags, capfd):
    for number in range(3000):
        content = OLD if number % 50 == 0 else b"import os\n"
        path = dags / f"team{number % 7}/dag{number:04}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(BROKEN if number == 1000 else content)
    assert main(["dags"]) == 2
    out, err = capfd.readouterr()
    names = re.findall(r"^\+\+\+ b/(.*)$", out, re.MULTILINE)
    assert names == sorted(names)
    assert len(names) == 59
    assert "3000 files read, 59 would be rewritten, 0 places for a person, 1 error" in err


GUARD = """
import sys
class Guard:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError("No module named " + name, name=name)
sys.meta_path.insert(0, Guard())
import runpy
sys.argv = ["podbroker-migrate", "dags"]
runpy.run_module("podbroker.migrate", run_name="__main__")
"""


def guarded(*blocked: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", GUARD.format(blocked=set(blocked))], capture_output=True, text=True, check=False
    )


def test_neither_airflow_nor_kubernetes_has_to_be_installed(dags):
    (dags / "a.py").write_bytes(OLD)
    done = guarded("airflow", "kubernetes", "grpc")
    assert done.returncode == 0, done.stderr
    assert NEW.decode() in done.stdout


@pytest.mark.usefixtures("dags")
def test_without_libcst_the_command_says_what_to_install():
    done = guarded("libcst")
    assert done.returncode == 2
    assert done.stderr == "podbroker-migrate needs libcst: pip install 'podbroker[migrate]'\n"
