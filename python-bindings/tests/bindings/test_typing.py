"""The types that are published are those of the module."""

from __future__ import annotations

import subprocess
import sys


def test_the_stub_says_what_the_native_module_has() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "--concise", "podbroker._core"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
