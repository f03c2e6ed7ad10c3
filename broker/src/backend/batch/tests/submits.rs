//! What a submit sends, and what comes of it.

use super::*;

#[tokio::test]
async fn what_is_sent_is_what_was_planned() {
    let double = Double::start().await;
    let jobs = double.jobs(settings_for_tests());
    double.json("submitjob", json!({ "jobId": "j-1", "jobName": "etl-1" }));
    let mut full = BatchWork {
        job_definition: "etl:3".to_owned(),
        parameters: [("p".to_owned(), "v".to_owned())].into(),
        array_size: Some(20),
        depends_on: vec!["a".to_owned(), "b".to_owned()],
        share_identifier: Some("team".to_owned()),
        scheduling_priority: Some(7),
        attempts: Some(2),
        evaluate_on_exit: vec![EvaluateOnExit {
            on_status_reason: Some("Host EC2*".to_owned()),
            on_reason: Some("r".to_owned()),
            on_exit_code: Some("1*".to_owned()),
            action: "RETRY".to_owned(),
        }],
        attempt_timeout: Some(Duration::from_secs(61)),
        tags: [("t".to_owned(), "v".to_owned())].into(),
        ..BatchWork::default()
    };
    let overrides = json!({ "podProperties": {
        "containers": [{ "name": "Default", "image": "i", "command": ["c"], "args": ["a", "b"],
            "env": [{ "name": "A", "value": "1" }, { "name": "B" }],
            "resources": { "limits": { "cpu": "1", "memory": "512Mi" }, "requests": { "nvidia.com/gpu": "1" } } }],
        "initContainers": [{ "name": "first", "args": [] }],
        "metadata": { "labels": { "l": "1" }, "annotations": { "a": "2" } },
    } });
    full.eks_properties_override = overrides.as_object().unwrap().clone();
    let workload = Workload::Batch(Box::new(full));
    let Submission::Made { id } = submit(&jobs, &workload).await else { panic!() };
    assert_eq!(id, "j-1");
    assert_eq!(double.requests("submitjob"), [planned(&jobs, &workload)["SubmitJob"].clone()]);
}

#[tokio::test]
async fn a_definition_is_registered_as_planned_and_once_for_all_pods_of_its_kind() {
    let double = Double::start().await;
    let jobs = double.jobs(registering());
    let workload = |argument: &str| {
        pod(&json!({
            "serviceAccountName": "s", "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet",
            "imagePullSecrets": [{ "name": "p" }], "shareProcessNamespace": true,
            "volumes": [
                { "name": "a", "emptyDir": { "medium": "Memory", "sizeLimit": "1Gi" } },
                { "name": "b", "hostPath": { "path": "/b" } },
                { "name": "c", "secret": { "secretName": "s", "optional": true } },
                { "name": "d", "persistentVolumeClaim": { "claimName": "c", "readOnly": false } },
                { "name": "e", "emptyDir": {} },
            ],
            "initContainers": [{ "name": "first", "image": "i" }],
            "containers": [{ "name": "base", "image": "i", "imagePullPolicy": "Always", "args": [argument],
                "resources": { "requests": { "cpu": "1" } },
                "volumeMounts": [{ "name": "a", "mountPath": "/a", "subPath": "x", "readOnly": true }],
                "securityContext": { "runAsUser": 1, "runAsGroup": 2, "privileged": false, "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true, "runAsNonRoot": true } }],
        }))
    };
    let plan = planned(&jobs, &workload("1"));
    double.json("registerjobdefinition", json!({ "jobDefinitionName": "x", "jobDefinitionArn": "arn", "revision": 4 }));
    for id in ["j-1", "j-2"] {
        double.json("submitjob", json!({ "jobId": id, "jobName": "etl-1" }));
        assert!(matches!(submit(&jobs, &workload(id)).await, Submission::Made { .. }));
    }
    assert_eq!(double.requests("registerjobdefinition"), [plan["RegisterJobDefinition"].clone()]);
    let name = plan["RegisterJobDefinition"]["jobDefinitionName"].as_str().unwrap();
    let used: Vec<_> = double.requests("submitjob").iter().map(|job| job["jobDefinition"].clone()).collect();
    assert_eq!(used, [json!(format!("{name}:4")), json!(format!("{name}:4"))]);

    // Another replica finds it, by what it says and not by its name alone.
    let digest = plan["RegisterJobDefinition"]["tags"]["podbroker.io/digest"].clone();
    let definition = |revision: u32, digest: Value| {
        json!({ "jobDefinitionName": name, "jobDefinitionArn": "arn", "revision": revision, "type": "container", "status": "ACTIVE",
            "tags": { "podbroker.io/digest": digest } })
    };
    let found = [definition(4, digest.clone()), definition(5, digest), definition(6, json!("other"))];
    double.json("describejobdefinitions", json!({ "jobDefinitions": found }));
    let another = double.jobs(registering());
    double.json("submitjob", json!({ "jobId": "j-3", "jobName": "etl-1" }));
    submit(&another, &workload("3")).await;
    assert_eq!(double.requests("registerjobdefinition").len(), 0);
    assert_eq!(double.requests("submitjob")[0]["jobDefinition"], json!(format!("{name}:5")));
}

#[tokio::test]
async fn a_submit_is_sent_once_whatever_comes_of_it() {
    let double = Double::start().await;
    let jobs = double.jobs(settings_for_tests());
    let cases: [(Answer, &str); 9] = [
        (Answer::Json(200, json!({ "jobId": "j", "jobName": "n" })), "made"),
        (Answer::Json(200, json!({})), "unknown"),
        (Answer::Refusal(500, "ServerException", "oh"), "unknown"),
        (Answer::Cut, "unknown"),
        (Answer::Silence, "unknown"),
        (Answer::Refusal(429, "TooManyRequestsException", "slow down"), "not made"),
        (Answer::Refusal(403, "ExpiredTokenException", "over"), "not made"),
        (Answer::Refusal(400, "ClientException", "no such queue"), "refused InvalidSpec"),
        (Answer::Refusal(403, "AccessDeniedException", "no"), "refused AdmissionDenied"),
    ];
    for (answer, expected) in cases {
        double.answer("submitjob", answer);
        let said = match submit(&jobs, &batch()).await {
            Submission::Made { .. } => "made".to_owned(),
            Submission::Refused { class, message } => {
                assert!(message.starts_with("AWS Batch refuses SubmitJob: "), "{message}");
                format!("refused {class:?}")
            }
            Submission::NotMade(_) => "not made".to_owned(),
            Submission::Unknown(_) => "unknown".to_owned(),
        };
        assert_eq!(said, expected);
        assert_eq!(double.requests("submitjob").len(), 1, "{expected}");
    }
}

#[tokio::test]
async fn where_nobody_listens_nothing_is_made() {
    let mut double = Double::start().await;
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    double.address = free.local_addr().unwrap();
    drop(free);
    let jobs = double.jobs(settings_for_tests());
    let Submission::NotMade(error) = submit(&jobs, &batch()).await else { panic!() };
    assert!(matches!(error, Error::Backend { operation: "SubmitJob", .. }), "{error:?}");
}

#[tokio::test]
async fn a_definition_that_was_deregistered_is_registered_anew_and_a_bad_one_is_refused() {
    let double = Double::start().await;
    let jobs = double.jobs(registering());
    let workload = pod(&json!({ "containers": [{ "name": "base", "image": "i" }] }));
    double.json("registerjobdefinition", json!({ "jobDefinitionName": "x", "jobDefinitionArn": "arn", "revision": 1 }));
    double.answer("submitjob", Answer::Refusal(400, "ClientException", "bad"));
    // It was registered just now: another one would be as bad.
    assert!(matches!(submit(&jobs, &workload).await, Submission::Refused { class: FailureClass::InvalidSpec, .. }));
    double.answer("registerjobdefinition", Answer::Refusal(403, "AccessDeniedException", "no"));
    let other = pod(&json!({ "containers": [{ "name": "base", "image": "j" }] }));
    let Submission::Refused { class, message } = submit(&jobs, &other).await else { panic!() };
    assert_eq!(class, FailureClass::AdmissionDenied);
    assert!(message.contains("RegisterJobDefinition"), "{message}");
    assert_eq!(double.requests("submitjob").len(), 1);
}

#[tokio::test]
async fn a_validation_asks_whether_queue_and_definition_would_take_it() {
    let double = Double::start().await;
    let jobs = double.jobs(settings_for_tests());
    let policies = policies();
    let base = pod(&json!({ "containers": [{ "name": "base" }], "initContainers": [{ "name": "first" }] }));
    double.json("describejobqueues", queue("ENABLED"));
    double.json("describejobdefinitions", definitions(&json!([{ "name": "base", "image": "i" }])));
    let error = jobs.validate(&work(&base, &policies)).await.unwrap_err();
    assert_eq!(of_violations(error), ["spec.initContainers[0].name"]);
    double.json("describejobqueues", queue("DISABLED"));
    double.json("describejobdefinitions", json!({ "jobDefinitions": [] }));
    let error = jobs.validate(&work(&batch(), &policies)).await.unwrap_err();
    assert_eq!(of_violations(error), ["workload.batch.job_queue", "workload.batch.job_definition"]);
    double.json("describejobqueues", queue("ENABLED"));
    double.json("describejobdefinitions", definitions(&json!([{ "name": "base", "image": "i" }])));
    let base = pod(&json!({ "containers": [{ "name": "base" }] }));
    jobs.validate(&work(&base, &policies)).await.unwrap();
    assert_eq!(double.requests("submitjob").len(), 0);
    assert_eq!(double.requests("describejobqueues")[0], json!({ "jobQueues": ["queue"] }));
    let asked = json!({ "jobDefinitionName": "pods", "status": "ACTIVE" });
    assert_eq!(double.requests("describejobdefinitions")[0], asked);
}
