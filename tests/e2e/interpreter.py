"""A Python for pods whose image has none: the node is this machine, so a pod can have its interpreter, read-only."""

from __future__ import annotations

import sys
from typing import Final

from kubernetes.client import models as k8s

_FOLDERS: Final = (sys.base_prefix, "/lib", "/lib64", "/usr/lib")
PYTHON: Final = f"{sys.base_prefix}/bin/python3"
VOLUMES: Final = [
    k8s.V1Volume(name=f"machine-{at}", host_path=k8s.V1HostPathVolumeSource(path=path))
    for at, path in enumerate(_FOLDERS)
]
MOUNTS: Final = [
    k8s.V1VolumeMount(name=f"machine-{at}", mount_path=path, read_only=True) for at, path in enumerate(_FOLDERS)
]
