"""Fixtures: the cluster once per run, a namespace and brokers for each test."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import podbroker
from cluster.handle import Cluster
from e2e.broker import Brokers
from e2e.site import Namespace, Site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import podbroker


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The cluster of this run."""
    if "PODBROKER_TEST_CLUSTER" not in os.environ:
        pytest.fail("no cluster: run this with `make e2e`, or under `python3 -m cluster run --`", pytrace=False)
    return Site(cluster=Cluster.from_environment(), folder=tmp_path_factory.mktemp("site"))


@pytest.fixture
def namespace(site: Site) -> Iterator[Namespace]:
    """A namespace of the test's own."""
    with site.namespace() as namespace:
        yield namespace


@pytest.fixture
def brokers(site: Site, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Brokers]:
    """Makes brokers; all are gone after the test."""
    brokers = Brokers(site=site, folder=tmp_path)
    try:
        yield brokers
    finally:
        brokers.close()
        request.node.add_report_section("teardown", "brokers", brokers.show())


@pytest.fixture
def client(namespace: Namespace, brokers: Brokers) -> podbroker.Client:
    """A client of a broker whose target `local` is the test's namespace."""
    return brokers.start(namespace=namespace).client()
