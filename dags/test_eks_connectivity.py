"""Tests the way from an Airflow task to a pod in a remote cluster, and shows it.

The first task walks the chain (Airflow task, broker, the broker's workload identity, the role, the cluster, the
Kubernetes user, its permissions, the pod) and draws it in its log: who we are at each link, and whether it holds. At
the first broken link it fails, and the error names the link and what to do. Nothing is created. The second task then
runs a small pod the same way.

The target is a parameter: its name, or a cluster with its region and namespace, to which the role of the AWS connection
`aws_eks` is added if there is one. Without either it is the default target of the connection `podbroker_default`.

    airflow dags test test_eks_connectivity
    airflow dags test test_eks_connectivity --conf '{"target": "remote-kpo"}'
    airflow dags test test_eks_connectivity --conf '{"cluster": "remote-kpo-demo", "region": "us-east-1",
        "namespace": "astro-remote-kpo"}'
"""

from __future__ import annotations

import logging

from airflow.sdk import DAG, Param, get_current_context, task

from podbroker.airflow import PodbrokerHook, RemotePodOperator
from podbroker.airflow.chain import readable
from podbroker.airflow.eks import place_of_cluster

log = logging.getLogger("airflow.task")

with DAG(
    dag_id="test_eks_connectivity",
    description="Walks the chain to a remote cluster link by link, then runs a small pod there",
    schedule=None,
    catchup=False,
    tags=["podbroker", "example"],
    params={
        "target": Param("", type="string", description="A target of the broker; empty: the one of the cluster below"),
        "cluster": Param("", type="string", description="An EKS cluster; empty: the connection's default target"),
        "region": Param("", type="string", description="The cluster's region; empty: as the AWS connection says"),
        "namespace": Param("", type="string", description="The namespace of the pods; empty: any"),
        "aws_conn_id": Param("aws_eks", type="string", description="The AWS connection whose role_arn is meant"),
        "image": Param("", type="string", description="Any image with a shell; empty: the variable remote_kpo_image"),
    },
):

    @task
    def walk_the_chain() -> str | dict[str, str]:
        """Draw the chain, fail at its first broken link, and hand on the target."""
        context = get_current_context()
        params, ti = context["params"], context["ti"]
        target: str | dict[str, str] = params["target"]
        if not target and params["cluster"]:
            target = place_of_cluster(
                cluster_name=params["cluster"],
                region=params["region"],
                namespace=params["namespace"],
                aws_conn_id=params["aws_conn_id"],
                log=log,
            )
        hook = PodbrokerHook(target=target)
        chain = hook.check_chain(asker=f"task {ti.dag_id}.{ti.task_id}")
        for line in chain.picture():
            log.info("%s", line)
        chain.raise_if_broken()
        log.info("A pod can run at %s", readable(hook.target))
        return target

    RemotePodOperator(
        task_id="run_a_pod",
        name="test-eks-connectivity",
        target=walk_the_chain(),  # type: ignore[arg-type]  # a template field: Airflow puts the value there
        image="{{ params.image or var.value.get('remote_kpo_image', 'busybox:1.37') }}",
        cmds=["sh", "-c"],
        arguments=["echo a pod of $(hostname) runs, as $(id -un 2>/dev/null || id -u)"],
        container_resources={"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
        on_finish_action="delete_pod",
    )
