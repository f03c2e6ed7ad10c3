"""Makes the Python environment of the tests and prints its folder.

The environment lies in the cache, keyed by the pinned requirements and the interpreter, so that all checkouts on a
machine share it and a changed pin makes a new one. Only the standard library is used: this runs before anything is
installed. Our own wheel is never installed into it, since checkouts differ; it lies beside it.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import shutil
import subprocess
import sys
import time
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
OLDEST = (3, 11)
QUIETLY = ("--quiet", "--progress-bar", "off", "--disable-pip-version-check", "--no-input")


def say(text: str) -> None:
    """Progress goes to stderr: stdout is the answer."""
    print(f"environment: {text}", file=sys.stderr, flush=True)


def environment_folder(cache: Path, requirements: Path = REQUIREMENTS) -> Path:
    """Where the environment for these pins and this interpreter belongs."""
    key = hashlib.sha256(requirements.read_bytes())
    key.update(f"{sys.version_info}{sys.base_prefix}".encode())
    return cache / f"venv-{sys.version_info.major}.{sys.version_info.minor}-{key.hexdigest()[:12]}"


def missing() -> str | None:
    """What this interpreter lacks, with the way to get it; None when it will do."""
    if sys.version_info < OLDEST:
        found = sys.version.split()[0]
        return f"Python {OLDEST[0]}.{OLDEST[1]} or newer is needed, this is {found}; say which with PYTHON=..."
    if importlib.util.find_spec("ensurepip") is None or importlib.util.find_spec("venv") is None:
        return "this Python has no venv module; on Debian: apt-get install python3-venv"
    return None


def make(folder: Path, requirements: Path = REQUIREMENTS) -> None:
    """Makes the environment in its place, since a venv knows its own path; a marker then says that it is whole."""
    if folder.exists():
        say("an earlier attempt was cut short, starting anew")
        shutil.rmtree(folder)
    begin = time.monotonic()
    count = sum(1 for line in requirements.read_text().splitlines() if "==" in line)
    say(f"installing {count} packages (Airflow among them) into {folder}; about 2 minutes, once")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip: list[str | Path] = [folder / "bin" / "python", "-m", "pip"]
    # Everything is pinned, so pip has nothing to resolve; `check` then says whether the pins fit together.
    subprocess.run([*pip, "install", *QUIETLY, "--no-deps", "-r", requirements], check=True, stdout=sys.stderr)
    subprocess.run([*pip, "check"], check=True, stdout=sys.stderr)
    (folder / "whole").touch()
    say(f"done in {time.monotonic() - begin:.0f} s")


def ensure(cache: Path, requirements: Path = REQUIREMENTS) -> Path:
    """Makes the environment unless it is there. Raises `CalledProcessError` when a step of it fails."""
    cache.mkdir(parents=True, exist_ok=True)
    folder = environment_folder(cache, requirements)
    with (cache / "venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "whole").exists():
            make(folder, requirements)
    return folder


def main() -> int:
    """`environment.py CACHE`: makes the environment unless it is there, and prints its folder."""
    if problem := missing():
        say(problem)
        return 1
    try:
        folder = ensure(Path(sys.argv[1]))
    except subprocess.CalledProcessError as error:
        say(f"failed: {error}")
        return 1
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
