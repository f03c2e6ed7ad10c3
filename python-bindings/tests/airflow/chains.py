"""A broker whose chain is as a test wants it, with the names of the walkthrough."""

from __future__ import annotations

from podbroker import Check, CheckStatus, ServerInfo, Target, TargetHealth, TargetKind, TargetPlace

ROLE = "arn:aws:iam::111122223333:role/AstroRemoteKPO"
PLACE = TargetPlace(cluster="remote-kpo-demo", region="us-east-1", role_arn=ROLE, namespace="astro-remote-kpo")
VERBS = (
    *("create pods", "get pods", "list pods", "watch pods", "patch pods", "delete pods"),
    *("get pods/log", "list events", "watch events"),
    *("create leases", "list leases", "patch leases", "delete leases"),
)

EKS = (
    ("caller", "", "subject airflow, tenant data", "", ""),
    (
        "target",
        "",
        "remote-kpo (cluster remote-kpo-demo, region us-east-1, namespace astro-remote-kpo)",
        "has no target named remote-kpo",
        "choose a target that the broker has, or add it to the broker's configuration",
    ),
    (
        "workload-identity",
        "",
        "AWS knows the broker as arn:aws:sts::444455556666:assumed-role/podbroker/eks-podbroker-7d4b",
        "no credentials were found",
        "give the broker's service account a role (EKS Pod Identity or IRSA)",
    ),
    (
        "role",
        "",
        "assumed arn:aws:sts::111122223333:assumed-role/AstroRemoteKPO/podbroker-main, for 59 more minutes",
        f"STS says: podbroker/eks-podbroker-7d4b is not authorized to perform: sts:AssumeRole on resource: {ROLE}",
        f"let the trust policy of {ROLE} name the broker's identity, with the same external id if it asks for one",
    ),
    (
        "cluster",
        "",
        "remote-kpo-demo is ACTIVE, at https://ABCDEF0123456789.gr7.us-east-1.eks.amazonaws.com",
        "the cluster remote-kpo-demo is CREATING, not ACTIVE",
        "wait until the cluster is ACTIVE, or create it anew if it has failed",
    ),
    (
        "connect",
        "",
        "the API server answers, Kubernetes v1.33.4",
        "the API server does not answer in 10 s",
        "check that the broker may reach the endpoint",
    ),
    (
        "token",
        "",
        "the cluster knows us as AstroRemoteKPO, in the groups system:authenticated",
        "401 Unauthorized",
        f"create an access entry for {ROLE}, with the user name AstroRemoteKPO",
    ),
    *(
        (
            "permission",
            verb,
            "allowed in the namespace astro-remote-kpo",
            "not allowed in the namespace astro-remote-kpo",
            f"add the verb {verb.replace(' ', ' on ')} to the role bound in the namespace astro-remote-kpo",
        )
        for verb in VERBS
    ),
    (
        "create",
        "",
        "a pod would be accepted in astro-remote-kpo",
        'namespaces "astro-remote-kpo" not found',
        "create the namespace astro-remote-kpo",
    ),
)
"""Link, subject, what a link says that holds, what a broken one says, and its fix; as an EKS target has them."""

KUBECONFIG = tuple(
    ("identity" if row[0] == "token" else row[0], *row[1:])
    for row in EKS
    if row[0] not in {"workload-identity", "role", "cluster"}
)
"""The same of a target with a kubeconfig."""


def checks(*broken, rows=EKS):
    """Give the checks of a chain of which some links or verbs are broken; every other kind of link after is skipped."""
    found = []
    stopped_at = ""
    for link, subject, good, bad, fix in rows:
        fails = (subject or link) in broken
        status = CheckStatus.FAILED if fails else CheckStatus.PASSED
        # All verbs are tried, whatever becomes of the first.
        if stopped_at and stopped_at != link:
            found.append(Check(link=link, subject=subject, status=CheckStatus.SKIPPED, detail="not tried", fix=""))
            continue
        stopped_at = link if fails else stopped_at
        found.append(
            Check(link=link, subject=subject, status=status, detail=bad if fails else good, fix=fix if fails else "")
        )
    return tuple(found)


class ChainBroker:
    """A client whose broker answers as it was told to."""

    def __init__(self, *found, error=None, check_error=None):
        self.found, self.error, self.check_error = found, error, check_error
        self.checked = []

    def server_info(self):
        if self.error:
            raise self.error
        return ServerInfo(
            version="1.2.3",
            instance="main",
            features=(),
            max_request_bytes=1,
            max_manifest_bytes=1,
            caller_subject="airflow",
            caller_tenant="data",
        )

    def check(self, target):
        self.checked.append(target)
        if self.check_error:
            raise self.check_error
        return iter(self.found)

    def targets(self):
        return (target(),)


def target(name="remote-kpo", place=PLACE):
    return Target(name=name, kind=TargetKind.EKS, place=place, health=TargetHealth.SERVING, health_reason="")
