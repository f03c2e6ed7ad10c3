"""Certificates of one cluster: an authority of its own, and kubeconfigs for any user name.

Kubernetes takes the user's name from a client certificate's common name and the groups from its organizations
(https://kubernetes.io/docs/reference/access-authn-authz/authentication/#x509-client-certificates). So a kubeconfig for
anybody can be made at any time, and each measured client can have a name of its own in the audit log.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import ClusterError
from .machine import find_program

if TYPE_CHECKING:
    from pathlib import Path

#: May do everything; bound by the API server itself, so it works before any role exists.
MASTERS = "system:masters"

#: A name that is safe as file name, as certificate field and in an OpenSSL configuration. 64 is X.509's limit.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,63}")

#: Days. Longer than any run; a forgotten interactive cluster stops working some day, which is no loss.
_VALIDITY = 365

#: NIST P-256: a key takes milliseconds where an RSA key takes up to half a second.
_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True)
class Certificate:
    """A certificate and its private key, both PEM files."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Authority:
    """The certificate authority of one cluster, kept in one folder."""

    folder: Path

    @property
    def root(self) -> Certificate:
        """The authority's own certificate, which everybody in the cluster trusts."""
        return self._files("ca")

    @property
    def service_accounts(self) -> Certificate:
        """The key pair that signs service account tokens; the first file holds a bare public key."""
        return Certificate(certificate=self.folder / "service-accounts.pub", key=self.folder / "service-accounts.key")

    def client(self, name: str) -> Certificate:
        """The certificate that `issue` made under this name."""
        return self._files(name)

    def create(self) -> None:
        """Makes the authority and the service account keys."""
        self.folder.mkdir(mode=0o700, parents=True)
        extensions = {"basicConstraints": "critical,CA:TRUE", "keyUsage": "critical,keyCertSign,cRLSign"}
        self._make(self.root, name="podbroker-test", groups=(), extensions=extensions, signer=None)
        pair = self.service_accounts
        _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", str(pair.key))
        _openssl("pkey", "-in", str(pair.key), "-pubout", "-out", str(pair.certificate))

    def issue(
        self, name: str, *, groups: tuple[str, ...] = (), hosts: tuple[str, ...] = (), file: str = ""
    ) -> Certificate:
        """Makes a certificate that serves as client and, for the given hosts (`DNS:x`, `IP:y`), as server."""
        for part in (name, *groups):
            if not _NAME.fullmatch(part):
                raise ClusterError(f"{part!r} cannot be a user or group: letters, digits and ._:@- only, at most 64")
        extensions = {
            "basicConstraints": "critical,CA:FALSE",
            "keyUsage": "critical,digitalSignature",
            "extendedKeyUsage": "clientAuth,serverAuth",
            "authorityKeyIdentifier": "keyid",
        }
        if hosts:
            extensions["subjectAltName"] = ",".join(hosts)
        files = self._files(file or name)
        self._make(files, name=name, groups=groups, extensions=extensions, signer=self.root)
        return files

    def kubeconfig(self, name: str, *, server: str, groups: tuple[str, ...] = (), file: str = "") -> Path:
        """Makes a kubeconfig for a user, with a new certificate inside it."""
        issued = self.issue(name, groups=groups, file=file)
        cluster = {"server": server, "certificate-authority-data": _data(self.root.certificate)}
        user = {"client-certificate-data": _data(issued.certificate), "client-key-data": _data(issued.key)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "podbroker-test", "cluster": cluster}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": name, "context": {"cluster": "podbroker-test", "user": name}}],
            "current-context": name,
        }
        path = self.folder / f"{file or name}.kubeconfig"
        # JSON is YAML, so every client reads it.
        path.write_text(json.dumps(config, indent=1))
        return path

    def _files(self, name: str) -> Certificate:
        return Certificate(certificate=self.folder / f"{name}.crt", key=self.folder / f"{name}.key")

    def _make(
        self,
        files: Certificate,
        *,
        name: str,
        groups: tuple[str, ...],
        extensions: dict[str, str],
        signer: Certificate | None,
    ) -> None:
        # A configuration of our own keeps the machine's openssl.cnf, which may add extensions, out of it.
        subject = [f"{i}.O = {group}" for i, group in enumerate(groups)] + [f"CN = {name}"]
        lines = ["[req]", "prompt = no", "distinguished_name = subject", "x509_extensions = extensions", "[subject]"]
        lines += [*subject, "[extensions]", *(f"{key} = {value}" for key, value in extensions.items())]
        sign = [] if signer is None else ["-CA", str(signer.certificate), "-CAkey", str(signer.key)]
        output = ["-keyout", str(files.key), "-out", str(files.certificate)]
        command = ["req", "-x509", *_NEW_KEY, "-days", str(_VALIDITY), "-config", "/dev/stdin", *sign, *output]
        _openssl(*command, stdin="\n".join(lines) + "\n")


def _data(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _openssl(*arguments: str, stdin: str = "") -> None:
    command = [find_program("openssl"), *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"openssl {arguments[0]} failed: {done.stderr.strip()}")
