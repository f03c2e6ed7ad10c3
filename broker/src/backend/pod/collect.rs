//! Fetches the result of an execution that has ended.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};

use super::api::{LogRequest, PodApi};
use super::lines::Splitter;
use super::names::RESULT_NAME;
use super::result;
use super::status::is_over;
use super::view::{ContainerState, ContainerView, View};
use crate::execution::NoResult;

/// The pause before a read that failed is tried again; the watch's drain deadline ends the trying.
const PAUSE: Duration = Duration::from_millis(500);

/// The result as the deciding container's termination message.
pub(super) fn termination_message(view: &View) -> Result<Bytes, NoResult> {
    match view.deciding().find_map(ContainerView::termination) {
        // Which file that is, is not said: of a job of AWS Batch it is Kubernetes' own.
        Some(end) if end.message.is_empty() => {
            Err(NoResult::Missing("no container left a termination message".to_owned()))
        }
        Some(end) => Ok(Bytes::from(end.message.clone())),
        None => Err(NoResult::Missing("the container that writes the result never ran".to_owned())),
    }
}

/// The result from the sidecar's log; `None` while the sidecar has not ended.
pub(super) fn from_sidecar(api: &PodApi, view: &View) -> Option<BoxFuture<'static, Result<Bytes, NoResult>>> {
    let sidecar = view.container(RESULT_NAME);
    let ended = sidecar.is_some_and(|sidecar| matches!(sidecar.state, ContainerState::Terminated(_)));
    if !ended && !is_over(view) {
        return None;
    }
    if !sidecar.is_some_and(ContainerView::has_run) {
        let problem = NoResult::Missing("the container that hands the result back never ran".to_owned());
        return Some(futures::future::ready(Err(problem)).boxed());
    }
    let (api, pod_name, max_bytes) = (api.clone(), view.pod_name.clone(), view.policies.result_max_bytes);
    Some(async move { read(&api, &pod_name, max_bytes).await }.boxed())
}

async fn read(api: &PodApi, pod_name: &str, max_bytes: u32) -> Result<Bytes, NoResult> {
    let request = LogRequest {
        container: RESULT_NAME,
        follow: false,
        previous: false,
        since: None,
        tail_lines: None,
        limit_bytes: None,
    };
    loop {
        match api.log(pod_name, &request).await {
            Ok(body) => {
                if let Some(log) = contents(body, result::frame_limit(max_bytes)).await {
                    return result::read_frame(&log, max_bytes);
                }
            }
            Err(error) if error.is_passing() => {}
            Err(error) => return Err(NoResult::Unreadable(format!("the result cannot be read: {error}"))),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The log without the times; `None` if it broke off.
async fn contents(body: impl futures::Stream<Item = Result<Bytes, kube::Error>>, limit: usize) -> Option<Vec<u8>> {
    let mut body = std::pin::pin!(body);
    let (mut splitter, mut log) = (Splitter::default(), Vec::new());
    while let Some(bytes) = body.next().await {
        splitter.push(&bytes.ok()?);
        while let Some(line) = splitter.next_line() {
            log.extend_from_slice(&line.content);
            if !line.partial {
                log.push(b'\n');
            }
        }
        if log.len() > limit {
            break;
        }
    }
    Some(log)
}
