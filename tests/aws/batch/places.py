"""Job queues and compute environments: read from the configuration each time, so that a test can change them."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SERVICE_ROLE: Final = "arn:aws:iam::{}:role/aws-service-role/batch.amazonaws.com/AWSServiceRoleForBatch"
#: Of the uuids of compute environments, which stay the same as long as the names do.
_UUIDS: Final = uuid.UUID("7d1f5b0c-5c0e-4f3e-9d52-6f2f0a3f5b11")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Something with a name in a region of an account."""

    account: str
    region: str
    name: str
    facts: Mapping[str, Any]

    @property
    def is_usable(self) -> bool:
        """Whether it is enabled and valid."""
        return (self.facts.get("state", "ENABLED"), self.facts.get("status", "VALID")) == ("ENABLED", "VALID")

    def _states(self) -> dict[str, Any]:
        found = {"state": self.facts.get("state", "ENABLED"), "status": self.facts.get("status", "VALID")}
        reason = self.facts.get("statusReason", "" if self.is_usable else "it was made so")
        return {**found, **({"statusReason": reason} if reason else {})}


class Queue(Place):
    """A job queue."""

    @property
    def arn(self) -> str:
        """Its ARN."""
        return f"arn:aws:batch:{self.region}:{self.account}:job-queue/{self.name}"

    @property
    def environments(self) -> list[str]:
        """Names of its compute environments, in their order."""
        return list(self.facts["compute_environments"])

    def detail(self, tags: Mapping[str, str]) -> dict[str, Any]:
        """JobQueueDetail."""
        prefix = f"arn:aws:batch:{self.region}:{self.account}:compute-environment/"
        order = [{"order": at + 1, "computeEnvironment": prefix + name} for at, name in enumerate(self.environments)]
        policy = self.facts.get("scheduling_policy")
        return {
            "jobQueueName": self.name,
            "jobQueueArn": self.arn,
            **self._states(),
            "priority": self.facts.get("priority", 1),
            "computeEnvironmentOrder": order,
            "jobQueueType": "EKS",
            **({"schedulingPolicyArn": policy} if policy else {}),
            **({"tags": dict(tags)} if tags else {}),
        }


class Environment(Place):
    """A compute environment on EKS."""

    @property
    def arn(self) -> str:
        """Its ARN."""
        return f"arn:aws:batch:{self.region}:{self.account}:compute-environment/{self.name}"

    @property
    def uuid(self) -> str:
        """What its pods are labelled with."""
        return str(uuid.uuid5(_UUIDS, self.arn))

    @property
    def cluster_arn(self) -> str:
        """Of its EKS cluster."""
        return f"arn:aws:eks:{self.region}:{self.account}:cluster/{self.facts['cluster']}"

    @property
    def namespace(self) -> str:
        """Where its pods are, unless they say otherwise."""
        return str(self.facts["namespace"])

    def detail(self, tags: Mapping[str, str]) -> dict[str, Any]:
        """ComputeEnvironmentDetail."""
        role = f"arn:aws:iam::{self.account}:instance-profile/eks-node"
        resources = {
            "type": "EC2",
            "allocationStrategy": "BEST_FIT_PROGRESSIVE",
            "minvCpus": 0,
            "maxvCpus": self.facts.get("max_vcpus", 256),
            "instanceTypes": ["m5.large"],
            "subnets": ["subnet-0example"],
            "securityGroupIds": ["sg-0example"],
            "instanceRole": role,
        }
        configuration = {
            "eksClusterArn": self.cluster_arn,
            "kubernetesNamespace": self.namespace,
            "accessEntry": self.facts.get("access_entry", {"desiredState": "DISABLED", "status": "INACTIVE"}),
        }
        return {
            "computeEnvironmentName": self.name,
            "computeEnvironmentArn": self.arn,
            "type": "MANAGED",
            **self._states(),
            "computeResources": resources,
            "serviceRole": self.facts.get("service_role", _SERVICE_ROLE.format(self.account)),
            "eksConfiguration": configuration,
            "containerOrchestrationType": "EKS",
            "uuid": self.uuid,
            **({"tags": dict(tags)} if tags else {}),
        }


def queues(config: Mapping[str, Any], account: str, region: str) -> list[Queue]:
    """All queues there."""
    found = _places(config.get("queues", {}), account, region)
    return [Queue(account=account, region=region, name=name, facts=facts) for name, facts in found]


def environments(config: Mapping[str, Any], account: str, region: str) -> list[Environment]:
    """All compute environments there."""
    found = _places(config.get("compute_environments", {}), account, region)
    return [Environment(account=account, region=region, name=name, facts=facts) for name, facts in found]


def _places(section: Mapping[str, Any], account: str, region: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """A section has `REGION/NAME`; what has no account is in all."""
    for key, facts in section.items():
        place, _, name = key.partition("/")
        if place == region and facts.get("account", account) == account:
            yield name, facts
