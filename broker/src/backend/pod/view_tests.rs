use std::sync::Arc;

use serde_json::{Value, json};

use super::super::status::tests::pod;
use super::*;

/// A pod as Airflow's operator makes it, running.
fn of_airflow(number: usize) -> Value {
    let mut pod = pod(json!({
        "phase": "Running", "podIP": "10.1.2.3", "hostIP": "10.0.0.7", "qosClass": "BestEffort",
        "startTime": "2026-11-21T08:00:01Z",
        "conditions": [
            { "type": "PodReadyToStartContainers", "status": "True", "lastTransitionTime": "2026-11-21T08:00:02Z" },
            { "type": "Initialized", "status": "True", "lastTransitionTime": "2026-11-21T08:00:01Z" },
            { "type": "Ready", "status": "True", "lastTransitionTime": "2026-11-21T08:00:02Z" },
            { "type": "ContainersReady", "status": "True", "lastTransitionTime": "2026-11-21T08:00:02Z" },
            { "type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-11-21T08:00:01Z" },
        ],
        "containerStatuses": [{
            "name": "base", "restartCount": 0, "ready": true, "started": true,
            "image": "registry.example.com/team/etl:2026.11.21", "imageID": "registry.example.com/team/etl@sha256:0123456789abcdef",
            "containerID": "containerd://0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            "state": { "running": { "startedAt": "2026-11-21T08:00:02Z" } },
        }],
    }));
    let metadata = &mut pod["metadata"];
    metadata["name"] = json!(format!("prod-warehouse-load-customers-k7qz2m5t8wxa{number:06}-1"));
    metadata["namespace"] = json!("astro-remote-kpo");
    metadata["uid"] = json!(format!("6f1c1b1e-7d7e-4f5e-9a8b-{number:012}"));
    metadata["labels"]["airflow_kpo_in_cluster"] = json!("False");
    let annotations = &mut metadata["annotations"];
    annotations["podbroker.io/execution-id"] = json!(format!("prod-0199a5c2-7c1e-7d3f-8a4b-{number:012}"));
    annotations["podbroker.io/spec-digest"] = json!("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");
    let labels = json!({
        "dag_id": "warehouse_daily", "task_id": "load_customers", "run_id": format!("scheduled__2026-11-21T0{number}:00:00Z"),
        "try_number": "1", "map_index": "-1", "airflow_version": "3.3.2",
    });
    annotations["podbroker.io/labels"] = json!(labels.to_string());
    annotations["podbroker.io/manifest"] = json!("H4sIAAAAAAAA".repeat(60));
    pod["spec"]["nodeName"] = json!(format!("ip-10-0-{}-{}.ec2.internal", number % 7, number % 251));
    pod
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn ten_thousand_executions_take_little_memory() {
    const COUNT: usize = 10_000;
    let mut kept = Vec::with_capacity(COUNT);
    let before = resident_bytes();
    for number in 0..COUNT {
        let pod: Carrier = serde_json::from_value(of_airflow(number)).unwrap();
        kept.push(Arc::new(View::of(&pod).unwrap()));
    }
    let each = resident_bytes().saturating_sub(before) / COUNT;
    // Other tests run beside this one, so there is room; 200 MB in all leave 8 KiB for each, with its follower.
    assert!(each < 6 << 10, "{each} bytes each");
    assert!(kept.iter().all(|view| view.phase == Phase::Running));
}
