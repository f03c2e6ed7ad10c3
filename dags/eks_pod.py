"""A DAG that used the Amazon provider's operator, with one import changed.

The operator finds the broker's target by the cluster, the region, the namespace and the role that the AWS connection
`aws_eks` names. The broker assumes the role; the worker needs neither AWS credentials nor the Amazon provider:

    export AIRFLOW_CONN_AWS_EKS='{"conn_type": "aws", "extra": {"region_name": "us-east-1",
        "role_arn": "arn:aws:iam::111122223333:role/AstroRemoteKPO"}}'
    export AIRFLOW_CONN_PODBROKER_DEFAULT='{"conn_type": "podbroker", "host": "127.0.0.1", "port": 50051}'
    airflow dags test eks_pod

Cluster, region, namespace and image are parameters of the run.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param

from podbroker.airflow import EksPodOperator

with DAG(
    dag_id="eks_pod",
    description="Runs one pod in an EKS cluster through the broker",
    schedule=None,
    catchup=False,
    tags=["podbroker", "example"],
    params={
        "cluster": Param("remote-kpo-demo", type="string", description="The EKS cluster"),
        "region": Param("", type="string", description="Its region; empty: as the AWS connection says"),
        "namespace": Param("astro-remote-kpo", type="string", description="Where the pod runs"),
        "image": Param("", type="string", description="Any image with a shell; empty: the variable remote_kpo_image"),
    },
):
    EksPodOperator(
        task_id="eks_pod",
        pod_name="eks-pod",
        cluster_name="{{ params.cluster }}",
        region="{{ params.region }}",
        namespace="{{ params.namespace }}",
        aws_conn_id="aws_eks",
        image="{{ params.image or var.value.get('remote_kpo_image', 'busybox:1.37') }}",
        cmds=["sh", "-c"],
        arguments=["echo hello from $(hostname)"],
        container_resources={"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
    )
