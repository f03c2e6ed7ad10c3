use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use http::{Request, Response};
use http_body_util::StreamBody;
use hyper::body::Frame;
use k8s_openapi::api::core::v1::Pod;
use kube::client::Body;
use serde_json::{Value, json};

use super::super::clock::ServerClock;
use super::super::hub::tests::settings;
use super::*;

/// What the API server does with one request.
enum Answer {
    /// A whole answer.
    Json(u16, Value),
    /// A watch that says this and ends.
    Says(Vec<Value>),
    /// A watch that says this and then nothing any more.
    Falls(Vec<Value>),
}

fn refused(code: u16) -> Answer {
    Answer::Json(code, json!({ "kind": "Status", "status": "Failure", "code": code, "message": "no", "reason": "No" }))
}

fn page(version: &str, names: &[&str], next: &str) -> Answer {
    let items: Vec<_> = names.iter().map(|name| pod(name, version)).collect();
    let metadata = json!({ "resourceVersion": version, "continue": next });
    Answer::Json(200, json!({ "kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": items }))
}

fn pod(name: &str, version: &str) -> Value {
    json!({ "metadata": { "name": name, "resourceVersion": version } })
}

fn event(kind: &str, name: &str, version: &str) -> Value {
    json!({ "type": kind, "object": pod(name, version) })
}

fn bookmark(version: &str) -> Value {
    let object = json!({ "kind": "Pod", "apiVersion": "v1", "metadata": { "resourceVersion": version } });
    json!({ "type": "BOOKMARK", "object": object })
}

fn error(code: u16) -> Value {
    json!({ "type": "ERROR", "object": { "kind": "Status", "status": "Failure", "code": code, "message": "no", "reason": "No" } })
}

/// Notes what it is given.
#[derive(Default)]
struct Notes(Vec<String>);

impl Intake for Notes {
    type Object = Pod;

    fn version(pod: &Pod) -> Option<String> {
        pod.metadata.resource_version.clone()
    }

    fn begin_list(&mut self) {
        self.0.push("begin".to_owned());
    }

    fn list(&mut self, pod: Pod) {
        self.0.push(format!("list {}", pod.metadata.name.unwrap()));
    }

    fn end_list(&mut self, version: u64) {
        self.0.push(format!("end {version}"));
    }

    fn open(&mut self) {
        self.0.push("open".to_owned());
    }

    fn put(&mut self, pod: Pod) {
        self.0.push(format!("put {}", pod.metadata.name.unwrap()));
    }

    fn remove(&mut self, pod: Pod) {
        self.0.push(format!("remove {}", pod.metadata.name.unwrap()));
    }

    fn reach(&mut self, version: u64) {
        self.0.push(format!("reach {version}"));
    }

    fn fail(&mut self, error: &ApiError) -> Duration {
        self.0.push(format!("fail {:?}", error.code()));
        Duration::ZERO
    }
}

/// Runs a feed until the server has nothing more to say. Returns what was asked, when, and what was noted.
async fn run_with(answers: Vec<Answer>) -> (Vec<(u64, String)>, Vec<String>) {
    let answers = Arc::new(Mutex::new(VecDeque::from(answers)));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (done, mut all_done) = tokio::sync::mpsc::channel::<()>(1);
    let began = Instant::now();
    let asked_here = Arc::clone(&asked);
    let service = tower::service_fn(move |request: Request<Body>| {
        asked_here.lock().unwrap().push((began.elapsed().as_secs(), request.uri().query().unwrap().to_owned()));
        let answer = answers.lock().unwrap().pop_front();
        let done = done.clone();
        async move {
            let Some(answer) = answer else {
                done.send(()).await.unwrap();
                return std::future::pending().await;
            };
            let lines = |events: Vec<Value>| {
                let lines = events.into_iter().map(|event| Ok(Frame::data(Bytes::from(format!("{event}\n")))));
                stream::iter(lines).boxed()
            };
            let (code, frames): (u16, BoxStream<'static, Result<Frame<Bytes>, std::io::Error>>) = match answer {
                Answer::Json(code, value) => (code, lines(vec![value])),
                Answer::Says(events) => (200, lines(events)),
                Answer::Falls(events) => (200, lines(events).chain(stream::pending()).boxed()),
            };
            let body = StreamBody::new(frames);
            Ok::<_, std::convert::Infallible>(Response::builder().status(code).body(body).unwrap())
        }
    });
    let api = PodApi::new(kube::Client::new(service, "n"), &settings(), ServerClock::default());
    let selection = Selection { resource: "pods", labels: Some("a=b".to_owned()), fields: Some("c=d".to_owned()) };
    let mut notes = Notes::default();
    tokio::select! {
        () = run(&api, &selection, &mut notes) => unreachable!("a feed has no end"),
        _ = all_done.recv() => {}
    }
    let asked = asked.lock().unwrap().clone();
    (asked, notes.0)
}

fn versions(asked: &[(u64, String)]) -> Vec<&str> {
    let version = |query: &'_ str| query.find("resourceVersion=").map(|at| at + "resourceVersion=".len());
    asked.iter().map(|(_, query)| version(query).map_or("list", |at| query[at..].split('&').next().unwrap())).collect()
}

#[tokio::test(start_paused = true)]
async fn it_lists_page_by_page_and_watches_from_there() {
    let watch = Answer::Says(vec![event("ADDED", "c", "8"), event("DELETED", "a", "9"), bookmark("12")]);
    let (asked, notes) = run_with(vec![page("7", &["a"], "more"), page("7", &["b"], ""), watch]).await;
    let told = ["begin", "list a", "list b", "end 7", "open", "put c", "reach 8", "remove a", "reach 9", "reach 12"];
    assert_eq!(notes, told);
    assert_eq!(versions(&asked), ["list", "list", "7", "12"]);
    for (_, query) in &asked {
        assert!(query.contains("labelSelector=a%3Db") && query.contains("fieldSelector=c%3Dd"), "{query}");
    }
    assert!(asked[1].1.contains("continue=more"));
    assert!(asked[2].1.contains("allowWatchBookmarks=true"));
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_gone_makes_a_new_list_wherever_that_is_said() {
    let answers = vec![
        page("7", &["a"], "more"),
        refused(410),
        page("8", &["a"], ""),
        refused(410),
        page("9", &["a"], ""),
        Answer::Says(vec![error(410)]),
        page("10", &[], ""),
    ];
    let (asked, notes) = run_with(answers).await;
    assert_eq!(versions(&asked), ["list", "list", "list", "8", "list", "9", "list", "10"]);
    assert!(!notes.iter().any(|note| note.starts_with("fail")), "{notes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_silent_is_given_up_and_resumed() {
    let silent = vec![page("7", &[], ""), Answer::Falls(vec![]), Answer::Falls(vec![bookmark("9")])];
    let (asked, notes) = run_with(silent).await;
    assert_eq!(versions(&asked), ["list", "7", "7", "9"]);
    let at: Vec<_> = asked.iter().map(|(at, _)| *at).collect();
    assert!((305..308).contains(&at[2]), "{at:?}");
    // A server that sends bookmarks is missed sooner.
    assert!((190..193).contains(&(at[3] - at[2])), "{at:?}");
    assert!(!notes.iter().any(|note| note.starts_with("fail")));
}

#[tokio::test(start_paused = true)]
async fn failures_are_repeated_ever_more_slowly_and_a_watch_that_served_forgets_them() {
    let mut answers: Vec<_> = (0..12).map(|_| refused(500)).collect();
    answers.extend([page("7", &[], ""), Answer::Falls(vec![]), refused(503), refused(503)]);
    let (asked, notes) = run_with(answers).await;
    let at: Vec<_> = asked.iter().map(|(at, _)| *at).collect();
    assert!(at[3] <= 3, "{at:?}");
    let last = at[12] - at[11];
    assert!((30..46).contains(&last), "{at:?}");
    let (open, after) = (at[13], at[15]);
    assert!(after - open < 310, "{at:?}");
    assert_eq!(notes.iter().filter(|note| *note == "fail Some(500)").count(), 12);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ends_every_watch_at_once_makes_no_busy_loop() {
    let mut answers = vec![page("7", &[], "")];
    answers.extend((0..20).map(|_| Answer::Says(vec![])));
    let (asked, notes) = run_with(answers).await;
    assert!(asked.last().unwrap().0 > 300, "{asked:?}");
    assert!(!notes.iter().any(|note| note.starts_with("fail")));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_wants_to_be_left_alone_is_but_not_for_ever() {
    let busy = |seconds: u32| {
        let details = json!({ "retryAfterSeconds": seconds });
        Answer::Json(
            429,
            json!({ "kind": "Status", "code": 429, "message": "later", "reason": "TooManyRequests", "details": details }),
        )
    };
    let (asked, _) = run_with(vec![busy(20), busy(100_000)]).await;
    let at: Vec<_> = asked.iter().map(|(at, _)| *at).collect();
    assert!((20..31).contains(&at[1]), "{at:?}");
    assert!((60..91).contains(&(at[2] - at[1])), "{at:?}");
}
