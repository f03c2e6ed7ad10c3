"""Writes the container images of the tests, from the machine's own static busybox, as an OCI image layout.

No registry and no image tool is involved: a layout is a tar of blobs named by their SHA-256 and an index
(https://github.com/opencontainers/image-spec/blob/main/image-layout.md), and `ctr images import` reads it.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import subprocess
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .machine import find_program

if TYPE_CHECKING:
    from pathlib import Path

BUSYBOX = "podbroker.test/busybox:1"
PAUSE = "podbroker.test/pause:1"

#: The annotation by which containerd names an imported image.
_NAME_ANNOTATION = "io.containerd.image.name"

_PASSWD = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"
_GROUP = "root:x:0:\nnogroup:x:65534:\n"

#: Go's names of processor architectures, which OCI uses, by the kernel's.
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Image:
    """One image: a name, the command of its containers, and one layer that images may share."""

    name: str
    command: tuple[str, ...]
    layer: bytes


def write_test_images(target: Path) -> None:
    """Writes `BUSYBOX` and `PAUSE` into one archive."""
    layer = busybox_layer()
    images = [
        Image(name=BUSYBOX, command=("sh",), layer=layer),
        # The pause container only holds the pod's namespaces: it sleeps for the longest time busybox knows.
        Image(name=PAUSE, command=("/bin/sleep", str(2**31 - 1)), layer=layer),
    ]
    write_archive(target, images)


def busybox_layer() -> bytes:
    """A file system with every busybox applet in /bin, a root and a nobody user, and a /tmp anyone may write to."""
    busybox = find_program("busybox")
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        for folder, mode in (("bin", 0o755), ("etc", 0o755), ("root", 0o700), ("tmp", 0o1777)):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            layer.addfile(entry)
        with open(busybox, "rb") as program:  # noqa: PTH123  a str from `which`
            _add_file(layer, "bin/busybox", program.read(), mode=0o755)
        for applet in applets:
            if applet != "busybox":
                entry = tarfile.TarInfo(f"bin/{applet}")
                entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
                layer.addfile(entry)
        _add_file(layer, "etc/passwd", _PASSWD.encode(), mode=0o644)
        _add_file(layer, "etc/group", _GROUP.encode(), mode=0o644)
    return buffer.getvalue()


def write_archive(target: Path, images: list[Image]) -> None:
    """Writes an OCI image layout with these images; blobs that are the same are stored once."""
    blobs: dict[str, bytes] = {}

    def store(content: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[digest] = content
        media_type = f"application/vnd.oci.image.{media_type}"
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    manifests = []
    for image in images:
        layer = store(image.layer, "layer.v1.tar")
        config = {
            "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {"Cmd": list(image.command), "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": store(_json(config), "config.v1+json"),
            "layers": [layer],
        }
        manifests.append({**store(_json(manifest), "manifest.v1+json"), "annotations": {_NAME_ANNOTATION: image.name}})
    with tarfile.open(target, "w") as archive:
        _add_file(archive, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}), mode=0o644)
        _add_file(archive, "index.json", _json({"schemaVersion": 2, "manifests": manifests}), mode=0o644)
        for digest, content in blobs.items():
            _add_file(archive, f"blobs/sha256/{digest}", content, mode=0o644)


def _add_file(archive: tarfile.TarFile, name: str, content: bytes, *, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
