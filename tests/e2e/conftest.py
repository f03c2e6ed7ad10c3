"""Fixtures: the cluster once per run, a namespace and brokers for each test."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Final

import pytest
from xdist.scheduler import LoadFileScheduling

import podbroker
from cluster.handle import Cluster
from cluster.network import free_port
from e2e.broker import Brokers
from e2e.installation import Installation, installed
from e2e.proxy import Proxy
from e2e.site import Namespace, Site
from e2e.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import podbroker
    from e2e.airflow import Airflow
    from e2e.aws import Aws
    from e2e.batch import Batch
    from e2e.stores import Bucket, Folder, Store

#: Files of tests that share what a cluster has once: the doubles of AWS, and the namespace of the shipped manifests.
_ONCE: Final = ("e2e/test_identity", "e2e/test_manifests", "e2e/test_batch")
#: Of these, the files that have doubles of their own.
_APART: Final = ("e2e/test_batch_double.py", "e2e/test_batch_double_limits.py")


class _Files(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    """Gives each file to one process, and files that share what is there once to the same."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "once" if file.startswith(_ONCE) and not file.startswith(_APART) else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> _Files:
    """Says which process runs what."""
    return _Files(config, log)


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
def aws(site: Site, tmp_path: Path) -> Iterator[Aws]:
    """The doubles of AWS, set up so that the chain to the cluster holds."""
    if not site.is_own:
        pytest.skip("elsewhere: roles and tokens are judged by doubles of AWS")
    from e2e.aws import Aws

    folder = tmp_path / "aws"
    folder.mkdir()
    aws = Aws(site=site, folder=folder)
    yield aws
    # Held requests must not outlive the test.
    aws.faults()


@pytest.fixture
def batch(aws: Aws, namespace: Namespace) -> Iterator[Batch]:
    """The double of AWS Batch, with a queue whose pods are in the test's namespace; asserts what was said to it."""
    from e2e.batch import Batch

    batch = Batch(aws=aws, namespace=namespace.name)
    yield batch
    aws.faults()
    violations = batch.violations()
    # Takes the pods away before the namespace goes.
    aws.call("POST", "/reset")
    assert not violations


@pytest.fixture
def remote(site: Site) -> Iterator[Namespace]:
    """The namespace, role and binding that users apply to their cluster, as they are shipped."""
    from e2e.aws import NAMESPACE, shipped_files

    site.cluster.kubectl("apply", *(f"--filename={file}" for file in shipped_files()))
    namespace = Namespace(site=site, name=NAMESPACE)
    wait_for("the default service account", lambda: site.has_service_account(NAMESPACE))
    yield namespace
    namespace.clear()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """An archive in a folder."""
    from e2e.stores import Folder

    return Folder(path=tmp_path / "archive")


@pytest.fixture(scope="module")
def s3() -> Iterator[tuple[str, int]]:
    """Where a store that speaks like S3 answers."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=free_port(), verbose=False)
    server.start()
    yield server.get_host_and_port()
    server.stop()


@pytest.fixture
def bucket(s3: tuple[str, int]) -> Iterator[Bucket]:
    """An archive in a bucket, behind a proxy that can take it away and sees what is asked of it."""
    from e2e.stores import Bucket

    with Proxy(upstream=s3, sees_http=True) as proxy:
        bucket = Bucket(server=s3, prefix=f"archive-{secrets.token_hex(4)}", proxy=proxy)
        bucket.make()
        yield bucket


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest) -> Store:
    """Either of them."""
    found: Store = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def client(namespace: Namespace, brokers: Brokers) -> podbroker.Client:
    """A client of a broker whose target `local` is the test's namespace."""
    return brokers.start(namespace=namespace).client()


@pytest.fixture(scope="module")
def installation(
    site: Site, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """A whole Airflow and its broker, with as many triggerers as the module says in `TRIGGERERS`."""
    triggerers = getattr(request.module, "TRIGGERERS", 0)
    with installed(site, tmp_path_factory.mktemp("installation"), triggerers=triggerers) as installation:
        yield installation


@pytest.fixture(scope="module")
def airflow(installation: Installation) -> Airflow:
    """The Airflow of it."""
    return installation.airflow
