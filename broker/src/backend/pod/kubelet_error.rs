//! What a kubelet writes into a log in place of lines.
//!
//! It answers 200 before it has looked for the log's file. If it then cannot read that, or not to the end, all it can do is to
//! write why behind what it has sent, as the last bytes of the answer: without a time, and without a newline. No container writes
//! that at the beginning of a line, since each of its lines has a time; only the rest of a line that the wanted time cuts has none.

use kube::core::Status;

use super::api::ApiError;

/// How these texts begin: those of `ReadLogs` and `waitLogs` (k8s.io/cri-client, `pkg/logs/logs.go`), of `GetContainerLogs`
/// (`pkg/kubelet/kuberuntime/kuberuntime_container.go`), and the errors of the runtime that they hand on.
const SENTENCES: [&[u8]; 12] = [
    b"unable to retrieve container logs for ",
    b"container status is nil",
    b"failed to try resolving symlinks in path \"",
    b"failed to open log file \"",
    b"failed to tail ",
    b"failed to seek ",
    b"failed to read log file \"",
    b"failed to reset seek in log file \"",
    b"failed to create fsnotify watcher: ",
    b"failed to watch directory \"",
    b"failed to get parse function: ",
    b"rpc error: code = ",
];

/// The node could not read the log, or not to its end.
#[derive(Debug, thiserror::Error)]
#[error("the kubelet wrote: {0}")]
pub(super) struct KubeletError(String);

impl KubeletError {
    /// The error that the last bytes of an answer are, from the beginning of a line to the end; `None` if they are content.
    pub(super) fn of(rest: &[u8]) -> Option<Self> {
        SENTENCES
            .iter()
            .any(|sentence| rest.starts_with(sentence))
            .then(|| Self(String::from_utf8_lossy(rest).into_owned()))
    }
}

/// The status that the kubelet meant to send with the text.
impl From<KubeletError> for ApiError {
    fn from(error: KubeletError) -> Self {
        Self::Refused(Box::new(Status { code: 400, message: error.to_string(), ..Status::default() }))
    }
}
