"""A DAG that used the Amazon provider's ``BatchOperator`` for jobs on EKS, with one import changed.

The broker submits the job, shows its lines while it runs, and ends it when the task is killed. The worker needs neither
AWS credentials nor the Amazon provider. The target is one of the broker's whose namespace a compute environment of AWS
Batch uses:

    export AIRFLOW_CONN_PODBROKER_DEFAULT='{"conn_type": "podbroker", "host": "127.0.0.1", "port": 50051,
        "extra": {"target": "batch"}}'
    airflow dags test batch_on_eks

Target, job definition and queue are parameters of the run. The first task runs one job, the second defers and runs an
array, whose children find their part by ``AWS_BATCH_JOB_ARRAY_INDEX``; their lines begin with ``[index/container]``.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param

from podbroker.airflow import BatchOperator

with DAG(
    dag_id="batch_on_eks",
    description="Runs a job and an array of jobs of AWS Batch on EKS through the broker",
    schedule=None,
    catchup=False,
    tags=["podbroker", "example"],
    params={
        "target": Param("", type="string", description="A target of the broker; empty: the connection's default"),
        "job_definition": Param("podbroker-example", type="string", description="Whose container is called main"),
        "job_queue": Param("", type="string", description="The job queue; empty: the target's"),
        "container": Param("main", type="string", description="The container whose command is replaced"),
        "size": Param(4, type="integer", minimum=2, description="How many children the array has"),
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

    one >> array
