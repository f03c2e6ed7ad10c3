"""``python -m parity [--record [--fewer]] [arguments for pytest]``: run upstream's tests with our classes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from parity.ledger import PREFIX
from parity.sources import PROVIDER, SOURCE, SourceError, cache_folder, fetch, installed_version, unpack

FILES = (
    "operators/test_pod.py",
    "operators/test_job.py::TestKubernetesJobOperator",
    "operators/test_kueue.py::TestKubernetesStartKueueJobOperator",
    "utils/test_pod_manager.py",
    "triggers/test_pod.py",
    "decorators",
    "test_pod_generator.py",
    "test_secret.py",
    "backcompat",
    "utils/test_container.py",
    "utils/test_xcom_sidecar.py",
    "test_kubernetes_helper_functions.py",
)
"""Below ``unit/cncf/kubernetes``."""

SECONDS = 60
"""How long one test may take. Upstream's own waiting is patched away by its tests."""


def main() -> int:
    """Fetch, unpack, run."""
    if installed_version() != SOURCE.version:
        print(f"parity: {PROVIDER} {installed_version()} is installed, and the tests are of {SOURCE.version}")
        return 1
    try:
        archive = fetch(SOURCE, cache_folder())
        with tempfile.TemporaryDirectory(prefix="podbroker-parity-") as folder:
            root = unpack(archive, SOURCE, Path(folder))
            return subprocess.run(_command(root), cwd=root, env=_environment(), check=False).returncode
    except SourceError as error:
        print(f"parity: {error}")
        return 1


def _command(root: Path) -> list[str]:
    options = ["-q", "--color=no", "-W", "ignore", "--tb=short"]
    options += ["-p", "parity.plugin", "-p", "parity.books", "-p", "no:cacheprovider"]
    # Its settings are none of ours and none of a folder above the tests.
    options += ["--rootdir", str(root), "--confcutdir", str(root), "-c", "/dev/null", "-o", "asyncio_mode=strict"]
    options += ["--timeout", str(SECONDS), *sys.argv[1:]]
    return [sys.executable, "-m", "pytest", *options, *(f"{PREFIX}{name}" for name in FILES)]


def _environment() -> dict[str, str]:
    """Let the tests, which have a folder of their own, find the plugin."""
    paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}


if __name__ == "__main__":
    sys.exit(main())
