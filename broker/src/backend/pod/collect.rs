//! Fetches the result of an execution that has ended.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};

use super::api::{LogRequest, PodApi};
use super::kubelet_error::KubeletError;
use super::lines::Splitter;
use super::names::RESULT_NAME;
use super::record::Record;
use super::result;
use super::status::is_over;
use super::view::{ContainerState, ContainerView, View};
use crate::execution::NoResult;

/// The pause before a read that failed is tried again; the watch's drain deadline ends the trying.
const PAUSE: Duration = Duration::from_millis(500);

/// How often a node may say that it cannot read the log: longer than its runtime takes to start again.
const UNREAD_TRIES: u32 = 20;

/// The result as the deciding container's termination message.
pub(super) fn termination_message(view: &View) -> Result<Bytes, NoResult> {
    let ends = || view.deciding().filter_map(ContainerView::termination);
    // Of a Job of the cluster, a pod that failed before another one succeeded has no say; else the first one has it.
    let has_tries = view.record().is_some_and(Record::is_of_cluster);
    match ends().find(|end| !has_tries || end.exit_code == 0).or_else(|| ends().next()) {
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
    let mut unread = 0;
    loop {
        let unreadable =
            |error: &dyn std::fmt::Display| NoResult::Unreadable(format!("the result cannot be read: {error}"));
        match api.log(pod_name, &request).await {
            Ok(body) => match contents(body, result::frame_limit(max_bytes)).await {
                Some(Ok(log)) => return result::read_frame(&log, max_bytes),
                Some(Err(error)) => {
                    unread += 1;
                    if unread == UNREAD_TRIES {
                        return Err(unreadable(&error));
                    }
                }
                None => {}
            },
            Err(error) if error.is_passing() => {}
            Err(error) => return Err(unreadable(&error)),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The log without the times; `None` if it broke off.
async fn contents(
    body: impl futures::Stream<Item = Result<Bytes, kube::Error>>,
    limit: usize,
) -> Option<Result<Vec<u8>, KubeletError>> {
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
            return Some(Ok(log));
        }
    }
    Some(splitter.rest().map(|_| log))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(parts: &[&'static str]) -> Option<Result<Vec<u8>, String>> {
        let parts: Vec<_> = parts.iter().map(|part| Ok(Bytes::from_static(part.as_bytes()))).collect();
        let body = futures::stream::iter(parts);
        Some(contents(body, 1000).await?.map_err(|error| error.to_string()))
    }

    #[tokio::test]
    async fn what_the_kubelet_says_of_a_log_that_it_cannot_read_is_not_a_log_without_a_result() {
        let line = "2026-11-21T08:00:00.123456789Z x\n";
        assert_eq!(read(&[line]).await, Some(Ok(b"x\n".to_vec())));
        assert_eq!(read(&[]).await, Some(Ok(vec![])));
        for parts in [
            &["unable to retr", "ieve container logs for containerd://1"][..],
            &["2026-11-21T08:00:00.123456789Z x\nfailed to read log file \"x\": EIO"],
        ] {
            let error = read(parts).await.unwrap().unwrap_err();
            assert!(error.starts_with("the kubelet wrote: "), "{error}");
        }
    }
}
