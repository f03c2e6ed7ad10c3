"""The fixtures of the end-to-end tests, and the parts of the cluster that may be broken."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from e2e.conftest import brokers, client, namespace
from e2e.conftest import site as _site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.site import Site

__all__ = ["brokers", "client", "namespace", "site"]

PARTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "containerd", "kubelet")


site = _site


@pytest.fixture(autouse=True)
def _whole_again(site: Site) -> Iterator[None]:
    """Breaks only what the harness has started, and mends it, also after a test that failed half way."""
    if not site.is_own:
        pytest.skip("elsewhere: parts of the cluster are stopped")
    yield
    for part in PARTS:
        site.cluster.component(part, "resume")
        site.cluster.component(part, "start")
