//! Walks the chain from the broker to a running pod, link by link, and creates nothing.

use std::sync::Arc;

use futures::Stream;
use http::Method;
use serde_json::{Value, json};

use super::PodSettings;
use super::api::{ApiError, PodApi, Run};
use super::carrier::Carriers;
use super::names::group;
use crate::backend::{Check, Verdict};
use crate::identity::eks::{Chain, LINKS, Link};

/// What the broker does in a target's namespace: the verbs of its role, no more and no less.
const VERBS: [(&str, &str, &str); 13] = [
    ("create", "pods", ""),
    ("get", "pods", ""),
    ("list", "pods", ""),
    ("watch", "pods", ""),
    ("patch", "pods", ""),
    ("delete", "pods", ""),
    ("get", "pods", "log"),
    ("list", "events", ""),
    ("watch", "events", ""),
    ("create", "leases", ""),
    ("list", "leases", ""),
    ("patch", "leases", ""),
    ("delete", "leases", ""),
];

/// The same in the namespace of a target's jobs.
const VERBS_FOR_JOBS: [(&str, &str, &str); 16] = [
    ("create", "configmaps", ""),
    ("get", "configmaps", ""),
    ("list", "configmaps", ""),
    ("watch", "configmaps", ""),
    ("patch", "configmaps", ""),
    ("delete", "configmaps", ""),
    ("get", "pods", ""),
    ("list", "pods", ""),
    ("watch", "pods", ""),
    ("get", "pods", "log"),
    ("list", "events", ""),
    ("watch", "events", ""),
    ("create", "leases", ""),
    ("list", "leases", ""),
    ("patch", "leases", ""),
    ("delete", "leases", ""),
];

/// And where those are Jobs of the cluster.
const VERBS_FOR_CLUSTER_JOBS: [(&str, &str, &str); 22] = [
    ("create", "configmaps", ""),
    ("get", "configmaps", ""),
    ("list", "configmaps", ""),
    ("watch", "configmaps", ""),
    ("patch", "configmaps", ""),
    ("delete", "configmaps", ""),
    ("create", "jobs", ""),
    ("get", "jobs", ""),
    ("list", "jobs", ""),
    ("watch", "jobs", ""),
    ("patch", "jobs", ""),
    ("delete", "jobs", ""),
    ("get", "pods", ""),
    ("list", "pods", ""),
    ("watch", "pods", ""),
    ("get", "pods", "log"),
    ("list", "events", ""),
    ("watch", "events", ""),
    ("create", "leases", ""),
    ("list", "leases", ""),
    ("patch", "leases", ""),
    ("delete", "leases", ""),
];

/// What executions do not need as such, and what is lost without it.
fn loss(resource: &str) -> Option<&'static str> {
    match resource {
        "events" => {
            Some("executions run without it, but nobody is told which volume, image or network a pod waits for")
        }
        "leases" => Some("executions run without it, but what nobody follows any more is not ended, or not in time"),
        _ => None,
    }
}

/// The links, as they are tried. After the first broken one the rest is skipped, but for the verbs, which are all tried.
pub(super) fn check(
    settings: Arc<PodSettings>,
    api: PodApi,
    chain: Option<Arc<Chain>>,
) -> impl Stream<Item = Check> + Send {
    async_stream::stream! {
        // Who we are to the cluster is called by what proves it.
        let proof = if chain.is_some() { "token" } else { "identity" };
        let (mut whole, mut unusable) = (true, None);
        if let Some(chain) = &chain {
            let mut links = chain.explain().await;
            whole = links.iter().all(|link| link.fix.is_none());
            unusable = links.pop_if(|link| link.name == proof);
            let missing = LINKS.iter().skip(links.len()).map(|name| skipped(name, ""));
            for check in links.into_iter().map(of_link).chain(missing) {
                yield check;
            }
        }
        let connect = if whole { connect(&api, chain.as_deref()).await } else { skipped("connect", "") };
        let connected = connect.verdict == Verdict::Passed;
        yield connect;
        let identity = match unusable {
            Some(link) => of_link(link),
            None if connected => identity(&api, proof, chain.as_deref()).await,
            None => skipped(proof, ""),
        };
        let identified = identity.verdict == Verdict::Passed;
        yield identity;
        let mut permitted = identified;
        let verbs = match settings.carriers() {
            Carriers::Pods => VERBS.as_slice(),
            Carriers::Records if settings.runs_cluster_jobs() => VERBS_FOR_CLUSTER_JOBS.as_slice(),
            Carriers::Records => VERBS_FOR_JOBS.as_slice(),
        };
        for (verb, resource, subresource) in verbs {
            let permission = if identified {
                permission(&settings, &api, verb, resource, subresource).await
            } else {
                skipped("permission", &subject(verb, resource, subresource))
            };
            permitted &= permission.verdict == Verdict::Passed || loss(resource).is_some();
            yield permission;
        }
        yield if permitted { dry_run(&settings, &api).await } else { skipped("create", "") };
    }
}

fn passed(link: &'static str, subject: &str, detail: String) -> Check {
    Check { link, subject: subject.to_owned(), verdict: Verdict::Passed, detail }
}

fn failed(link: &'static str, subject: &str, detail: String, fix: String) -> Check {
    Check { link, subject: subject.to_owned(), verdict: Verdict::Failed { fix }, detail }
}

fn warned(link: &'static str, subject: &str, detail: String, fix: String) -> Check {
    Check { link, subject: subject.to_owned(), verdict: Verdict::Warned { fix }, detail }
}

fn skipped(link: &'static str, subject: &str) -> Check {
    let detail = "not tried, because a link before it is broken".to_owned();
    Check { link, subject: subject.to_owned(), verdict: Verdict::Skipped, detail }
}

fn subject(verb: &str, resource: &str, subresource: &str) -> String {
    if subresource.is_empty() { format!("{verb} {resource}") } else { format!("{verb} {resource}/{subresource}") }
}

/// The whole chain of causes: TLS and DNS errors hide at its end.
fn causes(error: &ApiError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let said = cause.to_string();
        // Some layers repeat what is below them.
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        source = cause.source();
    }
    text
}

const IDENTITY_FIX: &str = "the cluster does not accept the target's credentials: renew them in its kubeconfig, or recreate the \
                            service account's token";

/// The verifier answers every breach with the same 401.
const TOKEN_FIX: &str = "the cluster does not accept the token. In the order of how often it is: the role has no access entry and \
                         no line in aws-auth; the role was deleted and made anew, so its old entry means another role (make \
                         the entry anew); a line in aws-auth names the role with its path (leave the path out); the target's \
                         cluster is not this cluster's name; the broker's clock is wrong by minutes";

fn of_link(link: Link) -> Check {
    match link.fix {
        None => passed(link.name, "", link.detail),
        Some(fix) => failed(link.name, "", link.detail, fix),
    }
}

async fn connect(api: &PodApi, chain: Option<&Chain>) -> Check {
    match api.call(Method::GET, "/version", None).await {
        Ok(version) => {
            let version = version.get("gitVersion").and_then(Value::as_str).unwrap_or("of unknown version");
            passed("connect", "", format!("the API server answers, Kubernetes {version}"))
        }
        // An API server that does not show its version to everybody is an API server all the same.
        Err(ApiError::Refused(status)) if status.code == 403 => {
            passed("connect", "", "the API server answers".to_owned())
        }
        Err(ApiError::Refused(status)) if status.code == 401 => {
            passed("connect", "", "the API server answers, and does not know us".to_owned())
        }
        // The same, of an identity that it knew.
        Err(error) if error.chain().is_some_and(|chain| chain.link == "token") => {
            passed("connect", "", "the API server answers, and does not know us any more".to_owned())
        }
        Err(error) => {
            let fix = "check the target's server address, its certificate authority, and that the broker may reach it \
                       (security groups, private endpoint, network policy)";
            let fix = fix_of(chain, &error).await.unwrap_or_else(|| fix.to_owned());
            failed("connect", "", causes(&error), fix)
        }
    }
}

/// What the chain knows to do about a failed request.
async fn fix_of(chain: Option<&Chain>, error: &ApiError) -> Option<String> {
    match chain {
        Some(chain) => chain.fix_of(error).await,
        None => None,
    }
}

async fn identity(api: &PodApi, link: &'static str, chain: Option<&Chain>) -> Check {
    let review = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview" });
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    match api.call(Method::POST, path, Some(&review)).await {
        Ok(answer) => {
            let user = &answer["status"]["userInfo"];
            let name = user["username"].as_str().unwrap_or_default();
            let groups: Vec<_> = user["groups"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            passed(link, "", format!("the cluster knows us as {name}, in the groups {}", groups.join(", ")))
        }
        Err(error) if error.code() == Some(401) => {
            failed(link, "", causes(&error), (if link == "token" { TOKEN_FIX } else { IDENTITY_FIX }).to_owned())
        }
        Err(error) => {
            let fix = "the API server could not say who we are; try again, then look at its log";
            let fix = fix_of(chain, &error).await.unwrap_or_else(|| fix.to_owned());
            failed(link, "", causes(&error), fix)
        }
    }
}

async fn permission(settings: &PodSettings, api: &PodApi, verb: &str, resource: &str, subresource: &str) -> Check {
    let namespace = &settings.namespace;
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": { "resourceAttributes": {
            "namespace": namespace, "verb": verb, "group": group(resource), "resource": resource, "subresource": subresource,
        } },
    });
    let subject = subject(verb, resource, subresource);
    let answer = api.call(Method::POST, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", Some(&review)).await;
    match answer {
        Ok(answer) if answer["status"]["allowed"] == json!(true) => {
            passed("permission", &subject, format!("allowed in the namespace {namespace}"))
        }
        Ok(answer) => {
            let why = answer["status"]["reason"].as_str().unwrap_or_default();
            let (_, resource) = subject.split_once(' ').unwrap_or(("", resource));
            let fix = format!("add the verb {verb} on {resource} to the role bound in the namespace {namespace}");
            let detail = format!("not allowed in the namespace {namespace} {why}");
            match loss(resource) {
                Some(loss) => warned("permission", &subject, detail, format!("{fix}; {loss}")),
                None => failed("permission", &subject, detail, fix),
            }
        }
        Err(error) => {
            let fix = "the API server could not say what we may do; try again, then look at its log";
            failed("permission", &subject, causes(&error), fix.to_owned())
        }
    }
}

async fn dry_run(settings: &PodSettings, api: &PodApi) -> Check {
    let (object, what) = match settings.carriers() {
        Carriers::Pods => (pod(settings), "pod"),
        Carriers::Records => (record(settings), "record"),
    };
    match api.create(&object, "check", Run::Dry).await {
        Ok(_) => passed("create", "", format!("a {what} would be accepted in {}", settings.namespace)),
        Err(error) => {
            let fix = format!(
                "mend what the cluster names: a missing namespace {}, an admission policy or a quota",
                settings.namespace
            );
            failed("create", "", causes(&error), fix)
        }
    }
}

fn record(settings: &PodSettings) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": "podbroker-check", "namespace": settings.namespace },
    })
}

fn pod(settings: &PodSettings) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "podbroker-check", "namespace": settings.namespace },
        "spec": {
            "restartPolicy": "Never",
            "securityContext": { "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": { "type": "RuntimeDefault" } },
            "containers": [{
                "name": "check",
                "image": settings.result_image,
                "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
                "resources": { "requests": { "cpu": "1m", "memory": "16Mi" }, "limits": { "cpu": "100m", "memory": "32Mi" } },
            }],
        },
    })
}
