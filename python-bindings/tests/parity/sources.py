"""Gets the provider's source distribution and unpacks its tests.

pip fetches it from wherever this machine gets its packages; the hash is pinned here, so that what runs is what was
reviewed. The archive is kept in the cache; the tests are unpacked anew for each run, since an unpacked copy can change.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

PROVIDER = "apache-airflow-providers-cncf-kubernetes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One release of the provider."""

    version: str
    sha256: str

    @property
    def folder(self) -> str:
        """The folder inside the archive."""
        return f"{PROVIDER.replace('-', '_')}-{self.version}"

    @property
    def archive(self) -> str:
        """The archive's file name."""
        return f"{self.folder}.tar.gz"


SOURCE = Source(version="10.25.0", sha256="134809a37537cedf05cd6d60c51b64cd1df430c29e289786214d33307b27accf")


class SourceError(Exception):
    """The tests cannot be had, or are not those that were reviewed."""


def cache_folder() -> Path:
    """The cache that all checkouts on this machine share."""
    if kept := os.environ.get("PODBROKER_CACHE"):
        return Path(kept)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "podbroker"


def installed_version() -> str:
    """The provider's version that is installed here; its tests fit no other."""
    return importlib.metadata.version(PROVIDER)


def fetch(source: Source, cache: Path) -> Path:
    """Give the archive, from the cache or else through pip."""
    kept = cache / "sources" / f"{source.sha256[:16]}-{source.archive}"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as name:
            folder = Path(name)
            _download(source, folder)
            # At once, so that a second run beside this one never sees half a file.
            (folder / source.archive).rename(kept)
    found = hashlib.sha256(kept.read_bytes()).hexdigest()
    if found != source.sha256:
        raise SourceError(f"{kept} has the SHA-256 {found}, not {source.sha256}")
    return kept


def unpack(archive: Path, source: Source, folder: Path) -> Path:
    """Unpack the tests below ``folder`` and give their root, which is what they import ``unit`` from."""
    inside = PurePosixPath(source.folder, "tests")
    with tarfile.open(archive) as tar:
        members = [member for member in tar if PurePosixPath(member.name).is_relative_to(inside)]
        tar.extractall(folder, members=members, filter="data")
    root = folder / source.folder / "tests"
    if not (root / "unit").is_dir():
        raise SourceError(f"{archive} holds no unit tests")
    return root


def _download(source: Source, folder: Path) -> None:
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{PROVIDER}=={source.version} --hash=sha256:{source.sha256}\n")
    arguments = ["download", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-binary", PROVIDER]
    command = [sys.executable, "-m", "pip", *arguments, "--dest", str(folder), "-r", str(requirements)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise SourceError(f"pip could not fetch {PROVIDER} {source.version}:\n{done.stdout}")
