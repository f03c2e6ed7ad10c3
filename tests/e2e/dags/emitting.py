"""Tasks whose pods say more of their assets, for the end-to-end tests."""

from __future__ import annotations

import json

from airflow.sdk import DAG, Asset, AssetAlias

from e2e.manifests import IMAGE
from podbroker.airflow.operator import RemotePodOperator

TABLE = Asset("s3://bucket/table")
PARTS = AssetAlias("parts")

with DAG("emitting", schedule=None):
    for name, deferrable in (("here", False), ("deferred", True)):
        said = [
            {"uri": TABLE.uri, "extra": {"by": name}},
            {"uri": f"s3://bucket/parts/{name}", "alias": PARTS.name, "extra": {"part": name}},
        ]
        RemotePodOperator(
            task_id=name,
            image=IMAGE,
            cmds=["sh", "-c"],
            arguments=[f"echo '{json.dumps({'rows': 3, 'asset_events': said})}' > /airflow/xcom/return.json"],
            outlets=[TABLE, PARTS],
            do_xcom_push=True,
            assets_from_result=True,
            deferrable=deferrable,
        )
