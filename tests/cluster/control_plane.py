"""etcd, the API server, the controllers and the scheduler: what they are told."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from . import identity
from .component import Component, accepts
from .pki import MASTERS

if TYPE_CHECKING:
    from .api import Api
    from .pki import Authority
    from .run import Plan, Run

#: Requests for pods and their events are recorded per user, so that a test can count what a client cost. What the
#: cluster does by itself is left out; a client that wants to be counted has a user name of its own.
AUDIT_POLICY: dict[str, Any] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "users": ["system:apiserver", "system:kube-controller-manager", "system:kube-scheduler"]},
        {"level": "None", "userGroups": ["system:nodes", "system:serviceaccounts:kube-system"]},
        {
            "level": "Metadata",
            "resources": [
                {
                    "group": "",
                    "resources": [
                        *("pods", "pods/log", "pods/status", "pods/eviction", "pods/exec", "pods/attach"),
                        *("pods/ephemeralcontainers", "pods/resize", "events", "configmaps", "secrets"),
                    ],
                },
                {"group": "events.k8s.io", "resources": ["events"]},
                {"group": "coordination.k8s.io", "resources": ["leases"]},
            ],
        },
        {"level": "None"},
    ],
}

#: Never routed: there is no kube-proxy. Services exist as objects only.
SERVICE_SUBNET = "10.96.0.0/16"

#: MB; large enough that the audit log is never rotated away under a test that counts lines.
_AUDIT_LOG_SIZE = 10_000

#: Requests per second that controllers and scheduler may make. The defaults (20 to 50) spare big clusters; here they
#: would only make tests with many pods wait.
_RATE, _BURST = 500, 1000


def issue_certificates(run: Run, plan: Plan, authority: Authority) -> None:
    """Makes the identities that the control plane serves and asks with."""
    names = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
    hosts = (*(f"DNS:{name}" for name in names), "IP:127.0.0.1", f"IP:{plan.gateway}", "IP:10.96.0.1")
    authority.issue("kube-apiserver", hosts=hosts)
    authority.issue("kube-apiserver-kubelet-client", groups=(MASTERS,))
    for name in ("kube-controller-manager", "kube-scheduler"):
        authority.kubeconfig(f"system:{name}", server=plan.server, file=name)
    (run.folder / "audit-policy.json").write_text(json.dumps(AUDIT_POLICY))


def etcd(run: Run, plan: Plan) -> Component:
    """The store. It listens on a socket file: no port to choose, and nobody else can reach it."""
    address = run.folder / "etcd.sock"
    command = [
        *(plan.program, "etcd", f"--data-dir={run.folder / 'etcd'}"),
        f"--listen-client-urls=unix://{address}",
        # Must have a port, and is only told to members that there are none of.
        "--advertise-client-urls=http://127.0.0.1:2379",
        # A single member talks to no peer, yet insists on listening for one.
        f"--listen-peer-urls=unix://{run.folder / 'peer.sock'}",
        # The data dies with the run; waiting for the disk would only slow it down.
        "--unsafe-no-fsync",
        f"--quota-backend-bytes={4 * 2**30}",
    ]
    return Component("etcd", command, run.logs / "etcd.log", lambda: accepts(address))


def api_server(run: Run, plan: Plan, authority: Authority, api: Api) -> Component:
    """The API server, with the authorization of a production cluster: nodes and roles."""
    root, serving = authority.root, authority.client("kube-apiserver")
    asking, accounts = authority.client("kube-apiserver-kubelet-client"), authority.service_accounts
    command = [
        *(plan.program, "kube-apiserver", f"--etcd-servers=unix://{run.folder / 'etcd.sock'}"),
        *("--bind-address=127.0.0.1", f"--secure-port={plan.api_port}"),
        # The address in the `kubernetes` service must not be loopback, so nobody is asked to write that object.
        *("--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none"),
        *(f"--tls-cert-file={serving.certificate}", f"--tls-private-key-file={serving.key}"),
        *(f"--client-ca-file={root.certificate}", "--authorization-mode=Node,RBAC"),
        f"--service-account-key-file={accounts.certificate}",
        f"--service-account-signing-key-file={accounts.key}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-cluster-ip-range={SERVICE_SUBNET}",
        f"--kubelet-client-certificate={asking.certificate}",
        f"--kubelet-client-key={asking.key}",
        f"--kubelet-certificate-authority={root.certificate}",
        "--kubelet-preferred-address-types=InternalIP",
        f"--audit-policy-file={run.folder / 'audit-policy.json'}",
        f"--audit-log-path={run.logs / 'audit.log'}",
        f"--audit-log-maxsize={_AUDIT_LOG_SIZE}",
        f"--authentication-token-webhook-config-file={identity.webhook(run)}",
        *("--authentication-token-webhook-version=v1", "--authentication-token-webhook-cache-ttl=0s"),
        *plan.settings.api_server_arguments,
    ]
    return Component("kube-apiserver", command, run.logs / "kube-apiserver.log", api.is_ready)


def controller_manager(run: Run, plan: Plan, authority: Authority) -> Component:
    """The controllers, among them those that make service accounts and notice a lost node."""
    command = [
        *(plan.program, "kube-controller-manager", f"--kubeconfig={run.pki / 'kube-controller-manager.kubeconfig'}"),
        f"--service-account-private-key-file={authority.service_accounts.key}",
        f"--root-ca-file={authority.root.certificate}",
        "--use-service-account-credentials=true",
        *("--leader-elect=false", "--secure-port=0"),
        *(f"--kube-api-qps={_RATE}", f"--kube-api-burst={_BURST}"),
        f"--node-monitor-grace-period={plan.settings.node_grace_period}",
        # Would make the default, a folder in /usr.
        f"--flex-volume-plugin-dir={run.folder / 'volume-plugins'}",
    ]
    return Component("kube-controller-manager", command, run.logs / "kube-controller-manager.log")


def scheduler(run: Run, plan: Plan) -> Component:
    """The scheduler."""
    command = [
        *(plan.program, "kube-scheduler", f"--kubeconfig={run.pki / 'kube-scheduler.kubeconfig'}"),
        *("--leader-elect=false", "--secure-port=0"),
        *(f"--kube-api-qps={_RATE}", f"--kube-api-burst={_BURST}"),
    ]
    return Component("kube-scheduler", command, run.logs / "kube-scheduler.log")
