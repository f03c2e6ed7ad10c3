"""What a task raises when its remote pod did not succeed: one class for each thing that a retry rule may ask about.

Each is an ``AirflowException`` and, where the Kubernetes provider has a class for the case, a subclass of that one too,
so that existing ``except`` clauses and retry policies keep working. The message is meant for the person who reads the
task log. An error of a call to the broker stays in ``__cause__``.
"""

# ruff: noqa: N818 -- named for what happened, as Airflow's own are; a retry rule reads "RemotePodEvicted"

from __future__ import annotations

from typing import TYPE_CHECKING

from podbroker.airflow._compat import (
    AirflowException,
    PodLaunchFailedException,
    PodLaunchTimeoutException,
    PodNotFoundException,
)

if TYPE_CHECKING:
    from podbroker import Outcome

__all__ = [
    "RemotePodAdmissionDenied",
    "RemotePodBrokerFault",
    "RemotePodBrokerUnavailable",
    "RemotePodCancelled",
    "RemotePodChainBroken",
    "RemotePodCredentialsRefused",
    "RemotePodDeadlineExceeded",
    "RemotePodDeleted",
    "RemotePodDetached",
    "RemotePodDisrupted",
    "RemotePodError",
    "RemotePodEvicted",
    "RemotePodFailed",
    "RemotePodImagePullFailed",
    "RemotePodInvalidSpec",
    "RemotePodKilled",
    "RemotePodLost",
    "RemotePodNodeLost",
    "RemotePodNotAllowed",
    "RemotePodOrphaned",
    "RemotePodOutOfMemory",
    "RemotePodPreempted",
    "RemotePodQuotaExceeded",
    "RemotePodRefused",
    "RemotePodResultError",
    "RemotePodSpotInterrupted",
    "RemotePodStartTimeout",
    "RemotePodUnschedulable",
]


class RemotePodError(AirflowException):
    """The remote pod did not do what the task needs."""

    execution_name: str = ""
    """The broker's address of the execution, for its command line; empty when none was made."""
    outcome: Outcome | None = None
    """How the execution ended, where that is known."""


class RemotePodFailed(RemotePodError):
    """The base container ended by itself with an exit code other than 0."""

    exit_code: int | None = None
    """0 to 255; None when the cluster lost it."""


class RemotePodOutOfMemory(RemotePodFailed):
    """A container was killed because it needed more memory than its limit."""


class RemotePodDeadlineExceeded(RemotePodError):
    """The pod ran longer than its deadline allows."""


class RemotePodStartTimeout(RemotePodError, PodLaunchTimeoutException):
    """The base container did not start in time."""


class RemotePodUnschedulable(RemotePodStartTimeout):
    """No node could take the pod in time."""


class RemotePodImagePullFailed(RemotePodError, PodLaunchFailedException):
    """An image could not be pulled."""


class RemotePodDisrupted(RemotePodError):
    """The cluster ended the pod through no fault of the application. A retry is likely to succeed."""


class RemotePodEvicted(RemotePodDisrupted):
    """The kubelet or the eviction API removed the pod."""


class RemotePodPreempted(RemotePodDisrupted):
    """A pod of higher priority took its place."""


class RemotePodSpotInterrupted(RemotePodDisrupted):
    """The node's instance was reclaimed."""


class RemotePodNodeLost(RemotePodDisrupted):
    """The node went away with the pod on it."""


class RemotePodDeleted(RemotePodError, PodNotFoundException):
    """Somebody other than the broker deleted the pod."""


class RemotePodLost(RemotePodError, PodNotFoundException):
    """The execution is gone, and how it ended cannot be found out."""


class RemotePodCancelled(RemotePodError):
    """Somebody cancelled the execution through the broker, while the task was running."""


class RemotePodOrphaned(RemotePodError):
    """The broker ended the execution because nobody followed it."""


class RemotePodRefused(RemotePodError, PodLaunchFailedException):
    """The broker or the cluster refuses to run the pod, and will again until somebody mends something."""


class RemotePodInvalidSpec(RemotePodRefused):
    """The pod's manifest is refused; the message names the fields."""


class RemotePodAdmissionDenied(RemotePodRefused):
    """An admission controller of the cluster refuses the pod."""


class RemotePodNotAllowed(RemotePodRefused):
    """The broker does not know this caller, or does not allow it to use the target."""


class RemotePodCredentialsRefused(RemotePodRefused):
    """The cluster, or the way to its role, refuses the broker's credentials for the target."""


class RemotePodChainBroken(RemotePodRefused):
    """A link between the task and a pod at its target is broken; the message says which and what to do."""

    link: str = ""
    """``Check.link`` of the first broken link."""
    subject: str = ""
    """``Check.subject``: the verb and the resource, for a permission."""
    fix: str = ""
    """What to do about it."""


class RemotePodQuotaExceeded(RemotePodError, PodLaunchFailedException):
    """A resource quota of the target's namespace is used up. A later retry may succeed."""


class RemotePodBrokerUnavailable(RemotePodError, PodLaunchFailedException):
    """The broker or the cluster behind it does not answer. A retry may succeed."""


class RemotePodBrokerFault(RemotePodError):
    """The broker itself was at fault."""


class RemotePodResultError(RemotePodError):
    """The pod succeeded, but the value that it was asked to hand back is missing, too large or not JSON."""


class RemotePodKilled(RemotePodError):
    """The task was killed, and its pod is being ended."""


class RemotePodDetached(RemotePodError):
    """The task process was told to end while someone else goes on with the task; the pod is left running."""
