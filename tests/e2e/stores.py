"""Where archives are kept, a folder or a bucket, and what a test wants to see of either."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import boto3

if TYPE_CHECKING:
    from pathlib import Path

    from e2e.proxy import Proxy

BUCKET: Final = "example-logs"
REGION: Final = "us-east-1"
#: Nobody's; the secret one must never be seen anywhere.
KEY, SECRET = "AKIAEXAMPLE", "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"


class Store(Protocol):
    """An archive's place."""

    environment: dict[str, str]
    """What the broker needs to know besides its configuration."""

    def sections(self, **more: Any) -> dict[str, Any]:  # noqa: ANN401  values of the configuration
        """The broker's configuration."""

    def objects(self) -> dict[str, bytes]:
        """Everything in it, by its path below the archive's root."""

    def outcomes(self) -> list[dict[str, Any]]:
        """The outcomes in it."""


def _outcomes(objects: dict[str, bytes]) -> list[dict[str, Any]]:
    found = [content for path, content in objects.items() if path.endswith("/outcome.json")]
    return [json.loads(content)["execution"] for content in found]


@dataclass(kw_only=True)
class Folder:
    """A folder of this machine."""

    path: Path
    environment: dict[str, str] = field(default_factory=dict)

    def sections(self, **more: Any) -> dict[str, Any]:  # noqa: ANN401  values of the configuration
        """The broker's configuration."""
        return {"archive": {"url": f"file://{self.path}", **more}}

    def objects(self) -> dict[str, bytes]:
        """Everything in it; what is being written has a `#` in its name."""
        files = [path for path in self.path.rglob("*") if path.is_file() and "#" not in path.name]
        return {str(path.relative_to(self.path)): path.read_bytes() for path in files}

    def outcomes(self) -> list[dict[str, Any]]:
        """The outcomes in it."""
        return [json.loads(path.read_text())["execution"] for path in self.path.rglob("outcome.json")]


@dataclass(kw_only=True)
class Bucket:
    """A bucket of a server that speaks like S3, behind a proxy that can take it away."""

    server: tuple[str, int]
    prefix: str
    proxy: Proxy

    def __post_init__(self) -> None:
        """The broker comes through the proxy, the test does not."""
        self.environment = {
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{self.proxy.port}",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }
        host, port = self.server
        self._client = boto3.client(
            "s3",
            endpoint_url=f"http://{host}:{port}",
            region_name=REGION,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
        )

    def make(self) -> None:
        """Makes the bucket; again does no harm."""
        self._client.create_bucket(Bucket=BUCKET)

    def sections(self, **more: Any) -> dict[str, Any]:  # noqa: ANN401  values of the configuration
        """The broker's configuration."""
        archive = {"url": f"s3://{BUCKET}/{self.prefix}", "region": REGION, **more}
        return {"archive": archive, "aws": {"credentials": "env"}}

    def objects(self) -> dict[str, bytes]:
        """Everything in it."""
        found = self._client.list_objects_v2(Bucket=BUCKET, Prefix=f"{self.prefix}/").get("Contents", [])
        keys = [str(one["Key"]) for one in found]
        read = {key: self._client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}
        return {key.removeprefix(f"{self.prefix}/"): content for key, content in read.items()}

    def outcomes(self) -> list[dict[str, Any]]:
        """The outcomes in it."""
        return _outcomes(self.objects())
