"""A DAG that used the Amazon provider's ``BatchOperator`` for jobs on EKS, with one import changed.

The broker submits the job, shows its lines while it runs, and ends it when the task is killed. The worker needs neither
AWS credentials nor the Amazon provider. The target is one of the broker's whose namespace a compute environment of AWS
Batch uses:

    export AIRFLOW_CONN_PODBROKER_DEFAULT='{"conn_type": "podbroker", "host": "127.0.0.1", "port": 50051,
        "extra": {"target": "remote-batch"}}'
    airflow dags test batch_on_eks

The first task runs one job. The second defers and runs an array, whose children find their part by
``AWS_BATCH_JOB_ARRAY_INDEX``; their lines begin with ``[index/container]``. The third is a ``RemotePodOperator``, whose
pod such a target turns into a job; a job has no sidecar, so its value is the container's termination message. Target,
definition, queue and image are parameters of the run.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param

from podbroker import ResultSource
from podbroker.airflow import BatchOperator, RemotePodOperator

with DAG(
    dag_id="batch_on_eks",
    description="Runs a job, an array of jobs and a pod as jobs of AWS Batch on EKS through the broker",
    schedule=None,
    catchup=False,
    tags=["podbroker", "example"],
    params={
        "target": Param("", type="string", description="A target of the broker; empty: the connection's default"),
        "job_definition": Param("astro-remote-batch", type="string", description="The target's own, for the pod too"),
        "job_queue": Param("", type="string", description="The job queue; empty: the target's"),
        "container": Param("main", type="string", description="The definition's container, whose command is replaced"),
        "size": Param(4, type="integer", minimum=2, description="How many children the array has"),
        "image": Param("", type="string", description="Any image with a shell; empty: the variable remote_kpo_image"),
    },
):
    one = BatchOperator(
        task_id="one",
        job_name="batch-on-eks-one",
        target="{{ params.target }}",
        job_definition="{{ params.job_definition }}",
        job_queue="{{ params.job_queue }}",
        eks_properties_override={
            "podProperties": {
                "containers": [
                    {"name": "{{ params.container }}", "command": ["sh", "-c"], "args": ["echo hello from $(hostname)"]}
                ]
            }
        },
        submit_job_timeout=600,
    )

    array = BatchOperator(
        task_id="array",
        job_name="batch-on-eks-array",
        target="{{ params.target }}",
        job_definition="{{ params.job_definition }}",
        job_queue="{{ params.job_queue }}",
        array_properties={"size": "{{ params.size }}"},
        eks_properties_override={
            "podProperties": {
                "containers": [
                    {
                        "name": "{{ params.container }}",
                        "command": ["sh", "-c"],
                        "args": ["echo part $AWS_BATCH_JOB_ARRAY_INDEX of {{ params.size }}"],
                    }
                ]
            }
        },
        retry_strategy={"attempts": 2},
        deferrable=True,
    )

    pod = RemotePodOperator(
        task_id="pod",
        name="batch-on-eks-pod",
        target="{{ params.target }}",
        base_container_name="{{ params.container }}",
        image="{{ params.image or var.value.get('remote_kpo_image', 'busybox:1.37') }}",
        cmds=["sh", "-c"],
        arguments=["echo adding up; echo '{\"parts\": {{ params.size }}}' > /dev/termination-log"],
        do_xcom_push=True,
        result_source=ResultSource.TERMINATION_MESSAGE,
    )

    one >> array >> pod
