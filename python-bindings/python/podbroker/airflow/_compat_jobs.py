"""The Kubernetes provider's operator for Jobs, which only DAGs with Jobs pay the import of."""

from __future__ import annotations

from airflow.providers.cncf.kubernetes.operators.job import KubernetesJobOperator

__all__ = ["KubernetesJobOperator"]
