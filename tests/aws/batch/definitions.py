"""Job definitions: each registration of a name is a revision of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(eq=False, kw_only=True)
class Definition:
    """One revision."""

    account: str
    region: str
    name: str
    revision: int
    request: dict[str, Any]
    tags: dict[str, str]
    is_active: bool = True

    @property
    def arn(self) -> str:
        """With the revision."""
        return f"arn:aws:batch:{self.region}:{self.account}:job-definition/{self.name}:{self.revision}"

    @property
    def detail(self) -> dict[str, Any]:
        """JobDefinition."""
        copied = ("type", "schedulingPriority", "parameters", "retryStrategy", "timeout", "propagateTags")
        more = ("eksProperties", "platformCapabilities", "consumableResourceProperties")
        return {
            "jobDefinitionName": self.name,
            "jobDefinitionArn": self.arn,
            "revision": self.revision,
            "status": "ACTIVE" if self.is_active else "INACTIVE",
            "containerOrchestrationType": "EKS",
            **{key: self.request[key] for key in (*copied, *more) if key in self.request},
            **({"tags": dict(self.tags)} if self.tags else {}),
        }


@dataclass(kw_only=True)
class Definitions:
    """All of them, by account, region and name."""

    _revisions: dict[tuple[str, str, str], list[Definition]] = field(default_factory=dict)

    def register(self, request: Mapping[str, Any], account: str, region: str) -> Definition:
        """Makes the next revision."""
        name = request["jobDefinitionName"]
        revisions = self._revisions.setdefault((account, region, name), [])
        definition = Definition(
            account=account,
            region=region,
            name=name,
            revision=len(revisions) + 1,
            request=dict(request),
            tags=dict(request.get("tags", {})),
        )
        revisions.append(definition)
        return definition

    def find(self, reference: str, account: str, region: str) -> Definition | None:
        """By name, name:revision or ARN with or without a revision; without one, the latest that is active."""
        prefix = f"arn:aws:batch:{region}:{account}:job-definition/"
        name, _, revision = reference.removeprefix(prefix).partition(":")
        revisions = self._revisions.get((account, region, name), [])
        if revision:
            return next((one for one in revisions if str(one.revision) == revision), None)
        return next((one for one in reversed(revisions) if one.is_active), None)

    def named(self, name: str | None, account: str, region: str) -> list[Definition]:
        """All revisions of one name, or of all, newest first."""
        keys = [key for key in self._revisions if key[:2] == (account, region) and name in (None, key[2])]
        return [one for key in keys for one in reversed(self._revisions[key])]
