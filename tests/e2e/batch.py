"""AWS Batch as a test sets it up: a queue on the cluster, what the target's role may do, and what happened to jobs."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from cluster.identity import CLUSTER, REGION
from e2e.broker import image
from e2e.waiting import LONG, wait_for

if TYPE_CHECKING:
    from e2e.aws import Aws

ACCOUNT: Final = "111122223333"
QUEUE: Final = "jobs"
ENVIRONMENT: Final = "eks"
DEFINITION: Final = "busybox"
#: Who Batch is to the cluster. Each process of a parallel run makes a user of its own.
USER: Final = f"aws-batch-{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}"
ARN: Final = f"arn:aws:batch:{REGION}:{ACCOUNT}"

#: What a role needs for everything that the tests of the double do.
STATEMENTS: Final = [
    {
        "Effect": "Allow",
        "Action": ["batch:Describe*", "batch:List*"],
        "Resource": "*",
    },
    {
        "Effect": "Allow",
        "Action": ["batch:SubmitJob", "batch:RegisterJobDefinition", "batch:DeregisterJobDefinition"],
        "Resource": [f"{ARN}:job-queue/*", f"{ARN}:job-definition/*"],
    },
    {
        "Effect": "Allow",
        "Action": ["batch:TerminateJob", "batch:CancelJob", "batch:TagResource", "batch:UntagResource"],
        "Resource": [f"{ARN}:job/*", f"{ARN}:job-definition/*"],
    },
]


@dataclass(kw_only=True)
class Batch:
    """The double of Batch, as one test has set it up; see the package `aws.batch` for what its control API knows."""

    aws: Aws
    namespace: str

    def __post_init__(self) -> None:
        """One queue with one compute environment, whose pods are in the namespace; the target's role may use them."""
        kubeconfig = json.loads(self.aws.site.user(USER).read_text())
        environment = {"account": ACCOUNT, "cluster": CLUSTER, "namespace": self.namespace, "kubeconfig": kubeconfig}
        self.aws.config["batch"] = {
            "queues": {f"{REGION}/{QUEUE}": {"account": ACCOUNT, "compute_environments": [ENVIRONMENT]}},
            "compute_environments": {f"{REGION}/{ENVIRONMENT}": environment},
        }
        self.aws.role["policy"] = {"Statement": [*self.aws.role["policy"]["Statement"], *STATEMENTS]}
        self.aws.apply()

    # --- what exists and how it behaves ------------------------------------------------------------------------------

    @property
    def queue(self) -> dict[str, Any]:
        """The queue; `aws.apply` makes changes count."""
        found: dict[str, Any] = self.aws.config["batch"]["queues"][f"{REGION}/{QUEUE}"]
        return found

    @property
    def environment(self) -> dict[str, Any]:
        """The compute environment; `aws.apply` makes changes count."""
        found: dict[str, Any] = self.aws.config["batch"]["compute_environments"][f"{REGION}/{ENVIRONMENT}"]
        return found

    @cached_property
    def client(self) -> Any:  # noqa: ANN401  boto's
        """A client with the target's role, which tries everything once."""
        return self.aws.client("batch", self.aws.role_session())

    def register(self, script: str = "true", *, name: str = DEFINITION, **more: Any) -> str:  # noqa: ANN401  fields
        """Registers a definition of one container with a shell script, and returns its ARN."""
        pod = {"hostNetwork": False, "containers": [container(script)]}
        request = {"jobDefinitionName": name, "type": "container", "eksProperties": {"podProperties": pod}, **more}
        return str(self.client.register_job_definition(**request)["jobDefinitionArn"])

    def submit(self, name: str, **more: Any) -> str:  # noqa: ANN401  of the request
        """Submits a job with the definition that was registered last, and returns its id."""
        request = {"jobName": name, "jobQueue": QUEUE, "jobDefinition": DEFINITION, **more}
        return str(self.client.submit_job(**request)["jobId"])

    def run(self, script: str, *, name: str = "job", **more: Any) -> str:  # noqa: ANN401  of the request
        """Registers a script and submits it."""
        self.register(script)
        return self.submit(name, **more)

    def behave(self, *rules: dict[str, Any]) -> None:
        """Replaces the rules of how the double behaves to which jobs."""
        self.aws.call("PUT", "/batch/behaviour", list(rules))

    def throttle(self, *, action: str = "*", **more: Any) -> None:  # noqa: ANN401  times, rate
        """Refuses calls with 429 until told otherwise."""
        self.aws.faults({"service": "batch", "action": action, "kind": "throttle", **more})

    def lose(self, job: str, **more: Any) -> None:  # noqa: ANN401  reason, grace
        """The node of the job's pod goes away."""
        self.aws.call("POST", "/batch/lose", {"job": job, **more})

    def terminate(self, job: str, reason: str) -> None:
        """Somebody else terminates the job."""
        self.aws.call("POST", "/batch/terminate", {"job": job, "reason": reason})

    def finish(self, pattern: str, *, exit_code: int = 0) -> int:
        """Ends the pods of played nodes whose jobs have such names; returns how many."""
        return int(self.aws.call("POST", "/batch/finish", {"name": pattern, "exit_code": exit_code})["finished"])

    # --- what happened -----------------------------------------------------------------------------------------------

    def jobs(self, pattern: str = "*") -> list[dict[str, Any]]:
        """The truth about the jobs whose name has that shape, oldest first; two of one name are doubled."""
        found: list[dict[str, Any]] = self.aws.call("GET", f"/batch/jobs?name={quote(pattern)}")
        return found

    def counts(self) -> dict[str, Any]:
        """Requests so far: `operations` by outcome, `seconds` by operation, `total`."""
        found: dict[str, Any] = self.aws.call("GET", "/batch/counts")
        return found

    def count_anew(self) -> None:
        """Forgets the requests so far."""
        self.aws.call("DELETE", "/batch/counts")

    def violations(self) -> list[str]:
        """What was said against model and limits since it was last asked for; the fixture fails for what is left."""
        found: list[str] = self.aws.call("DELETE", "/batch/violations")
        return found

    def describe(self, job: str) -> dict[str, Any]:
        """What DescribeJobs says of one job."""
        (found,) = self.client.describe_jobs(jobs=[job])["jobs"]
        return dict(found)

    def reaches(self, job: str, *statuses: str, within: float = LONG) -> dict[str, Any]:
        """Waits until the job has one of the statuses, and returns what DescribeJobs says then."""

        def found() -> dict[str, Any] | None:
            told = self.describe(job)
            return told if told["status"] in statuses else None

        return wait_for(f"{job} to be {statuses}", found, within=within, about=lambda: self.describe(job)) or {}

    def ends(self, job: str) -> dict[str, Any]:
        """Waits until the job has ended."""
        return self.reaches(job, "SUCCEEDED", "FAILED")


def container(script: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401  fields of an EksContainer
    """A container with a shell script."""
    # Without cpu, of which Batch knows quarters only, and the small node of the tests has eight.
    amounts = {"memory": "32Mi"}
    return {
        "name": "main",
        "image": image(),
        "command": ["sh", "-c", script],
        "resources": {"requests": {**amounts}, "limits": {**amounts}},
        **more,
    }
