"""Who a caller is, as on EKS: the token webhook of the API server, and the doubles of AWS that it asks.

The authenticator is the real verifier (`program/authenticator.go`). It reaches STS through a proxy that is the double
itself, with a certificate of the cluster's own authority: nothing leaves the machine. The webhook's answers are not
cached; the API server itself takes a token that was good for good for 10 seconds more, which no flag changes.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .component import Component

if TYPE_CHECKING:
    from .pki import Authority
    from .run import Plan, Run

#: The example of the pages: one role that is one user.
CLUSTER: Final = "remote-kpo-demo"
REGION: Final = "us-east-1"
ROLE: Final = "arn:aws:iam::111122223333:role/AstroRemoteKPO"
USER: Final = "AstroRemoteKPO"

#: Hosts of STS that the proxy can stand for.
_STS_HOSTS: Final = (
    *(f"sts.{region}.amazonaws.com" for region in (REGION, "us-east-2", "us-west-2", "eu-central-1", "ap-east-1")),
    *("sts.amazonaws.com", f"sts-fips.{REGION}.amazonaws.com", f"sts.{REGION}.api.aws"),
    *("sts.cn-north-1.amazonaws.com.cn", "sts.us-gov-west-1.amazonaws.com"),
)


def python() -> str | None:
    """An interpreter that has botocore, whose signer the doubles need: the tests' own if it is there, else this one."""
    candidates = [os.environ.get("PODBROKER_TEST_PYTHON"), sys.executable]
    if output := os.environ.get("PODBROKER_OUT"):
        candidates.insert(1, str(Path(output) / "venv/bin/python"))
    for candidate in candidates:
        if candidate is not None and Path(candidate).exists():
            asked = subprocess.run([candidate, "-c", "import botocore"], capture_output=True, check=False)
            if asked.returncode == 0:
                return candidate
    return None


def rules(run: Run) -> Path:
    """The authenticator's rules; a test may rewrite them while it runs."""
    return run.folder / "authenticator.json"


def webhook(run: Run) -> Path:
    """Tells the API server where the authenticator is."""
    return run.pki / "authenticator.kubeconfig"


def prepare(run: Run, plan: Plan, authority: Authority) -> None:
    """Makes certificates, rules and the folder of the doubles' state."""
    authority.issue("authenticator", hosts=("IP:127.0.0.1",))
    authority.issue("sts", hosts=tuple(f"DNS:{host}" for host in _STS_HOSTS))
    (run.folder / "aws").mkdir(mode=0o700)
    roles = {ROLE: {"username": USER, "groups": []}}
    contents = {"cluster": CLUSTER, "region": REGION, "partition": "aws", "roles": roles}
    rules(run).write_text(json.dumps(contents, indent=1) + "\n")
    place = {
        "server": f"https://127.0.0.1:{plan.authenticator_port}/authenticate",
        "certificate-authority": str(authority.root.certificate),
    }
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "authenticator", "cluster": place}],
        "users": [{"name": "kube-apiserver", "user": {}}],
        "contexts": [{"name": "webhook", "context": {"cluster": "authenticator", "user": "kube-apiserver"}}],
        "current-context": "webhook",
    }
    webhook(run).write_text(json.dumps(config, indent=1) + "\n")


def aws(run: Run, plan: Plan, authority: Authority) -> Component:
    """STS and EKS."""
    assert plan.python is not None
    served = authority.client("sts")
    ports = [f"--{name}-port={port}" for name, port in plan.aws_ports.items()]
    command = [
        *(plan.python, "-m", "aws", f"--folder={run.folder / 'aws'}", *ports),
        *(f"--certificate={served.certificate}", f"--key={served.key}"),
    ]
    environment = {"PYTHONPATH": str(Path(__file__).resolve().parent.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    log = run.logs / "aws.log"
    return Component("aws", command, log, lambda: _listens(plan.aws_ports["control"]), environment=environment)


def authenticator(run: Run, plan: Plan, authority: Authority) -> Component:
    """The API server's token webhook."""
    served = authority.client("authenticator")
    command = [
        *(plan.program, "authenticator", f"--address=127.0.0.1:{plan.authenticator_port}", f"--rules={rules(run)}"),
        *(f"--tls-cert-file={served.certificate}", f"--tls-private-key-file={served.key}"),
    ]
    environment = {
        "HTTPS_PROXY": f"http://127.0.0.1:{plan.aws_ports['proxy']}",
        "SSL_CERT_FILE": str(authority.root.certificate),
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    log = run.logs / "authenticator.log"
    return Component("authenticator", command, log, lambda: _listens(plan.authenticator_port), environment=environment)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
