"""The fixtures of the end-to-end tests, on a cluster whose parts may be broken."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from e2e.conftest import brokers, client, namespace, site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.site import Site

__all__ = ["brokers", "client", "namespace", "site"]

#: In the order in which they need each other.
PARTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "containerd", "kubelet")


@pytest.fixture(autouse=True)
def _whole_again(site: Site) -> Iterator[None]:
    """Only what the harness has started is broken, and it is mended, also after a test that failed half way."""
    if not site.is_own:
        pytest.skip("elsewhere: parts of the cluster are stopped")
    yield
    for part in PARTS:
        if site.cluster.facts["components"][part]["pid"] is not None:
            site.cluster.component(part, "resume")
        site.cluster.component(part, "start")
