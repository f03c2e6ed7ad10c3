"""What the machine must offer before a cluster can start: root, and a few programs that distributions package."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

from .errors import ClusterError

#: Program to Debian package. `ctr` and the shim come with containerd.
_PROGRAMS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "containerd-shim-runc-v2": "containerd",
    "runc": "runc",
    "busybox": "busybox-static",
    "ip": "iproute2",
    "openssl": "openssl",
    "unshare": "util-linux",
}

#: Where distributions put the container network plugins: Debian, upstream, Fedora.
_PLUGIN_FOLDERS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"), Path("/usr/libexec/cni"))
_PLUGINS = ("bridge", "host-local", "loopback")

#: The search path of everything the harness starts. A user's own PATH may lack sbin, or hide a wrapper.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def find_program(name: str) -> str:
    """The absolute path of a program that `check` has found."""
    found = shutil.which(name, path=PATH)
    if found is None:
        raise ClusterError(f"{name} is missing; run `python3 -m cluster build`")
    return found


def find_plugins() -> Path | None:
    """The folder with the container network plugins."""
    for folder in _PLUGIN_FOLDERS:
        if all((folder / name).exists() for name in _PLUGINS):
            return folder
    return None


def check() -> None:
    """Makes sure that a cluster can start, installing Debian packages where that is all that is missing."""
    if sys.platform != "linux":
        raise ClusterError("the test cluster needs Linux; name a cluster of your own in PODBROKER_KUBECONFIG instead")
    if os.geteuid() != 0:
        raise ClusterError(
            "the test cluster runs containers and needs root; use sudo, or name a cluster of your own in "
            "PODBROKER_KUBECONFIG"
        )
    missing = _missing_packages()
    if missing:
        _install(missing)
        missing = _missing_packages()
    if missing:
        raise ClusterError(f"still missing after installation: {', '.join(missing)}")


def _missing_packages() -> list[str]:
    missing = {package for program, package in _PROGRAMS.items() if shutil.which(program, path=PATH) is None}
    busybox = shutil.which("busybox", path=PATH)
    if busybox is not None and not _is_static(Path(busybox)):
        missing.add("busybox-static")
    if find_plugins() is None:
        missing.add("containernetworking-plugins")
    return sorted(missing)


def _install(packages: list[str]) -> None:
    names = " ".join(packages)
    if shutil.which("apt-get", path=PATH) is None:
        raise ClusterError(f"missing (Debian's names): {names}; install them with this machine's package manager")
    print(f"cluster: installing Debian packages: {names}", file=sys.stderr, flush=True)
    environment = {**os.environ, "PATH": PATH, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    for command in (["apt-get", "update", "-qq"], install):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ClusterError(f"`{' '.join(command)}` failed; install by hand: {names}\n{done.stderr.strip()}")


def _is_static(program: Path) -> bool:
    """Whether a 64-bit ELF file names no interpreter. An image holds nothing else, so nothing else could load it."""
    interpreter = 3  # PT_INTERP, elf(5)
    with program.open("rb") as file:
        header = file.read(64)
        if header[:5] != b"\x7fELF\x02":
            return False
        (table,) = struct.unpack_from("<Q", header, 32)
        size, count = struct.unpack_from("<HH", header, 54)
        file.seek(table)
        entries = file.read(size * count)
    return all(struct.unpack_from("<I", entries, i * size)[0] != interpreter for i in range(count))
