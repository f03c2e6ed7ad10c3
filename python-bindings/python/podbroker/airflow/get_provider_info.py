"""Describes the provider to Airflow (entry point ``apache_airflow_provider``).

Read at every start of every Airflow component, so it imports nothing. The connection's form is declared here for
Airflow 3.2 and later; for older ones the hook has methods.
"""

from __future__ import annotations

from typing import Any

__all__ = ["get_provider_info"]


def get_provider_info() -> dict[str, Any]:
    """Describe the provider, as ``airflow/provider_info.schema.json`` wants it."""
    return {
        "package-name": "podbroker",
        "name": "podbroker",
        "description": "Runs pods on remote Kubernetes clusters through the podbroker broker.",
        "integrations": [
            {"integration-name": "podbroker", "external-doc-url": "https://kubernetes.io/", "tags": ["service"]}
        ],
        "operators": [
            {
                "integration-name": "podbroker",
                "python-modules": [
                    "podbroker.airflow.operator",
                    "podbroker.airflow.eks",
                    "podbroker.airflow.batch",
                    "podbroker.airflow.kube_job",
                ],
            }
        ],
        "triggers": [
            {
                "integration-name": "podbroker",
                "python-modules": ["podbroker.airflow.trigger", "podbroker.airflow.start_trigger"],
            }
        ],
        "hooks": [{"integration-name": "podbroker", "python-modules": ["podbroker.airflow.hook"]}],
        "extra-links": [
            "podbroker.airflow.links.BatchJobDetailsLink",
            "podbroker.airflow.links.BatchJobDefinitionLink",
            "podbroker.airflow.links.BatchJobQueueLink",
            "podbroker.airflow.links.CloudWatchEventsLink",
        ],
        "task-decorators": [
            {"name": "remote_pod", "class-name": "podbroker.airflow.decorators.remote_pod_task"},
            {"name": "remote_pod_cmd", "class-name": "podbroker.airflow.decorators.remote_pod_cmd_task"},
        ],
        "connection-types": [
            {
                "connection-type": "podbroker",
                "hook-class-name": "podbroker.airflow.hook.PodbrokerHook",
                "hook-name": "podbroker",
                "ui-field-behaviour": {
                    "hidden-fields": ["login"],
                    "relabeling": {"password": "Token", "schema": "Schema (https, http, unix)"},
                    "placeholders": {"host": "broker.example.org", "port": "50051", "schema": "https"},
                },
                "conn-fields": {
                    "target": _field("Default target", "Name of the target for tasks that name none"),
                    "token_file": _field("Token file", "File on the worker that holds the bearer token"),
                    "ca_file": _field("CA file", "Certificates to trust, PEM; empty means those of the system"),
                    "client_certificate_file": _field("Client certificate file", "PEM; for brokers that ask for one"),
                    "client_key_file": _field("Client key file", "PEM"),
                    "server_name": _field(
                        "Server name", "The name in the broker's certificate, when it is not the host"
                    ),
                },
            }
        ],
        "config": {
            "podbroker": {
                "description": "Options of the podbroker provider.",
                "options": {
                    "deployment_id": {
                        "description": "Tells two Airflow installations apart that share a broker.",
                        "version_added": None,
                        "type": "string",
                        "example": "production",
                        "default": "airflow",
                    }
                },
            }
        },
    }


def _field(label: str, description: str) -> dict[str, Any]:
    return {"label": label, "description": description, "schema": {"type": ["string", "null"]}}
