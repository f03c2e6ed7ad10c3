"""AWS as a test sets it up: roles and their trust, clusters, faults; and EKS tokens made without the broker."""

from __future__ import annotations

import base64
import json
import secrets
import threading
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import botocore.session
from botocore import UNSIGNED
from botocore.config import Config
from botocore.signers import RequestSigner

from cluster.identity import CLUSTER, REGION, ROLE, USER
from e2e.broker import image

if TYPE_CHECKING:
    from collections.abc import Iterable

    from e2e.site import Site

#: Whom the broker is before it assumes anything: a role in an account of its own.
WORKLOAD: Final = "arn:aws:iam::444455556666:role/AirflowWorkload"
#: A service account's name in its web identity.
SUBJECT: Final = "system:serviceaccount:airflow:podbroker"

NAMESPACE: Final = "astro-remote-kpo"
TARGET: Final = "remote"

#: Seconds; the doubles answer in milliseconds unless they were told not to.
_TIMEOUT: Final = 60.0

#: What the role AstroRemoteKPO may do in AWS: find its cluster, and nothing else.
_DESCRIBE: Final = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": "eks:DescribeCluster",
            "Resource": f"arn:aws:eks:{REGION}:111122223333:cluster/{CLUSTER}",
        }
    ],
}

_ROOT: Final = Path(__file__).resolve().parents[2]


@dataclass(kw_only=True)
class Aws:
    """The doubles of one cluster, as one test has set them up."""

    site: Site
    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    #: Where doubles are that are not the cluster's; its authenticator does not ask them.
    urls: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """The example of the pages: it works; what shall not is the test's to change."""
        self._lock = threading.Lock()
        is_clusters = not self.urls
        self.urls = self.urls or self.site.cluster.facts["aws"]
        self.call("POST", "/reset")
        self.web_identity = f"eyJ.{secrets.token_hex(40)}.sig"
        authority = Path(self.site.cluster.facts["certificate_authority"]).read_bytes()
        self.config = {
            "web_identities": {self.web_identity: SUBJECT},
            "users": {},
            "roles": {
                WORKLOAD: {"trust": {"web_subjects": [SUBJECT]}, "policy": {"Statement": []}},
                ROLE: {"trust": {"principals": [WORKLOAD]}, "policy": _DESCRIBE},
            },
            "clusters": {
                f"{REGION}/{CLUSTER}": {
                    "account": "111122223333",
                    "endpoint": self.site.cluster.facts["server"],
                    "certificate_authority": base64.b64encode(authority).decode(),
                }
            },
        }
        self.apply()
        if is_clusters:
            self.map_roles({ROLE: {"username": USER, "groups": []}})

    # --- what exists -------------------------------------------------------------------------------------------------

    @property
    def role(self) -> dict[str, Any]:
        """The role AstroRemoteKPO; `apply` makes changes count."""
        found: dict[str, Any] = self.config["roles"][ROLE]
        return found

    @property
    def cluster(self) -> dict[str, Any]:
        """The cluster remote-kpo-demo; `apply` makes changes count."""
        found: dict[str, Any] = self.config["clusters"][f"{REGION}/{CLUSTER}"]
        return found

    def apply(self) -> None:
        """Makes the configuration count from now on."""
        self.call("PUT", "/config", self.config)

    def map_roles(self, roles: dict[str, dict[str, Any]], *, cluster: str = CLUSTER) -> None:
        """Says who the sessions of roles are in the cluster, and which cluster the tokens must be for."""
        rules = {"cluster": cluster, "region": REGION, "partition": "aws", "roles": roles}
        path = Path(self.site.cluster.facts["authenticator_rules"])
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(rules))
        partial.replace(path)

    def faults(self, *faults: dict[str, Any]) -> None:
        """Replaces what goes wrong: `service`, `action`, `times`, `rate`, and `kind`.

        Kinds are throttle, unavailable, reset, lost_answer and hang.
        """
        self.call("PUT", "/faults", list(faults))

    def expire(self, role: str | None = ROLE) -> int:
        """Ends the role's sessions now; returns how many there were."""
        return int(self.call("POST", "/expire", {"role": role})["expired"])

    # --- what happened -----------------------------------------------------------------------------------------------

    def calls(self, action: str, *, outcome: str | None = None) -> list[dict[str, Any]]:
        """The calls of one kind that the doubles have answered, without those of the authenticator."""
        found: list[dict[str, Any]] = self.call("GET", "/calls")
        return [
            one
            for one in found
            if one["action"] == action and not one["presigned"] and outcome in (None, one["outcome"])
        ]

    def checks(self) -> list[dict[str, Any]]:
        """What the authenticator has asked STS."""
        found: list[dict[str, Any]] = self.call("GET", "/calls")
        return [one for one in found if one["presigned"]]

    def held(self) -> int:
        """How many requests hang."""
        return int(self.call("GET", "/held"))

    def secrets(self) -> list[str]:
        """Everything that must be nowhere in a log: keys, session tokens, web identities."""
        found: list[str] = self.call("GET", "/secrets")
        return found

    # --- the broker's side -------------------------------------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        """Environment of a broker that is the workload, by a service account's web identity."""
        token = self.folder / "web-identity"
        token.write_text(self.web_identity)
        return {
            **self.endpoints,
            "AWS_ROLE_ARN": WORKLOAD,
            "AWS_WEB_IDENTITY_TOKEN_FILE": str(token),
            "AWS_REGION": REGION,
        }

    @property
    def endpoints(self) -> dict[str, str]:
        """How an AWS SDK finds the doubles."""
        found = {f"AWS_ENDPOINT_URL_{name.upper()}": self.urls[name] for name in ("sts", "eks", "batch", "sqs")}
        return found | {"AWS_ENDPOINT_URL_CLOUDWATCH_LOGS": self.urls["logs"]}

    def target(self, *, namespace: str = NAMESPACE, **more: Any) -> dict[str, Any]:  # noqa: ANN401  fields of a target
        """The target of a broker's configuration."""
        return {
            "name": TARGET,
            "kind": "eks",
            "cluster": CLUSTER,
            "region": REGION,
            "role_arn": ROLE,
            "namespace": namespace,
            "result_image": image(),
            **more,
        }

    # --- without the broker ------------------------------------------------------------------------------------------

    def workload_session(self) -> dict[str, str]:
        """Credentials of the workload itself, made as a Python program would."""
        answer = self.client("sts").assume_role_with_web_identity(
            RoleArn=WORKLOAD, RoleSessionName="test", WebIdentityToken=self.web_identity
        )
        return dict(answer["Credentials"])

    def role_session(self, **more: Any) -> dict[str, str]:  # noqa: ANN401  parameters of AssumeRole
        """Credentials of the role AstroRemoteKPO."""
        client = self.client("sts", self.workload_session())
        return dict(client.assume_role(RoleArn=ROLE, RoleSessionName="test", **more)["Credentials"])

    def call_sts(self, operation: str, credentials: dict[str, str] | None, **parameters: Any) -> dict[str, Any]:  # noqa: ANN401  of the operation
        """Calls one operation of STS, such as `get_caller_identity`."""
        return dict(getattr(self.client("sts", credentials), operation)(**parameters))

    def describe(self, credentials: dict[str, str], name: str = CLUSTER) -> dict[str, Any]:
        """What DescribeCluster answers."""
        return dict(self.client("eks", credentials).describe_cluster(name=name)["cluster"])

    def token(self, credentials: dict[str, str], *, cluster: str = CLUSTER, region: str = REGION) -> str:
        """An EKS token, made as the AWS command line makes it."""
        session = botocore.session.Session()
        session.set_credentials(credentials["AccessKeyId"], credentials["SecretAccessKey"], credentials["SessionToken"])
        signer = RequestSigner(
            _service_id(session, region),
            region,
            "sts",
            "v4",
            session.get_credentials(),
            session.get_component("event_emitter"),
        )
        request = {
            "method": "GET",
            "url": f"https://sts.{region}.amazonaws.com/?Action=GetCallerIdentity&Version=2011-06-15",
            "body": {},
            "headers": {"x-k8s-aws-id": cluster},
            "context": {},
        }
        url = signer.generate_presigned_url(request, region_name=region, expires_in=60, operation_name="")
        return "k8s-aws-v1." + base64.urlsafe_b64encode(url.encode()).decode().rstrip("=")

    def kubeconfig(self, token: str) -> Path:
        """A kubeconfig of whoever the token is."""
        facts = self.site.cluster.facts
        with self._lock:
            path = self.folder / f"token-{secrets.token_hex(4)}.kubeconfig"
        place = {"server": facts["server"], "certificate-authority": facts["certificate_authority"]}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": place}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "c",
        }
        path.write_text(json.dumps(content))
        return path

    def client(self, service: str, credentials: dict[str, str] | None = None) -> Any:  # noqa: ANN401  botocore's
        """A client of one of the doubles that tries once; without credentials nothing is signed."""
        session = botocore.session.Session()
        keys: dict[str, Any] = {}
        if credentials is not None:
            keys = {
                "aws_access_key_id": credentials["AccessKeyId"],
                "aws_secret_access_key": credentials["SecretAccessKey"],
                "aws_session_token": credentials["SessionToken"],
            }
        return session.create_client(
            service,
            region_name=REGION,
            endpoint_url=self.urls[service],
            # Without keys nothing is to be signed, nor looked for.
            config=Config(retries={"max_attempts": 0}, signature_version=None if credentials else UNSIGNED),
            **keys,
        )

    def call(self, method: str, path: str, value: object = None) -> Any:  # noqa: ANN401  JSON
        """Calls the control API of the doubles."""
        url = self.urls["control"] + path
        body = None if value is None else json.dumps(value).encode()
        request = urllib.request.Request(url, data=body, method=method)  # noqa: S310  our own
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310  our own
            return json.load(answer)


def _service_id(session: Any, region: str) -> Any:  # noqa: ANN401  botocore's
    return session.create_client("sts", region_name=region).meta.service_model.service_id


def shipped_files() -> Iterable[Path]:
    """What a user applies to the remote cluster, in its order."""
    folder = _ROOT / "k8s/remote"
    return [folder / name for name in ("namespace.yaml", "role.yaml", "role-binding.yaml")]
