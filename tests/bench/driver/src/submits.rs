//! Starts many pods as fast as it goes: through a broker, and at the API server itself.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt as _, TryStreamExt as _};
use podbroker_client::{Client, Settings, proto};
use serde::Serialize;
use serde_json::{Value, json};

use crate::Failure;
use crate::cluster::{Access, Api};
use crate::distribution::{Delays, Summary};

/// How many, and how many at a time.
#[derive(clap::Args)]
struct Amount {
    #[arg(long)]
    count: usize,
    #[arg(long, default_value_t = 50)]
    at_a_time: usize,
    /// The names are this and a number
    #[arg(long)]
    prefix: String,
    /// A file with a pod as JSON
    #[arg(long)]
    manifest: PathBuf,
}

#[derive(clap::Args)]
pub(crate) struct Submit {
    #[arg(long)]
    address: String,
    #[arg(long)]
    target: String,
    #[command(flatten)]
    amount: Amount,
    /// Where the names of executions and pods go, a line of JSON for each
    #[arg(long)]
    names: Option<PathBuf>,
    /// Nodes to spread the pods over, without a scheduler: the field `nodeName` is set to each in turn
    #[arg(long, value_delimiter = ',')]
    nodes: Vec<String>,
}

#[derive(clap::Args)]
pub(crate) struct Create {
    #[command(flatten)]
    access: Access,
    #[arg(long)]
    namespace: String,
    #[command(flatten)]
    amount: Amount,
}

/// How fast it went.
#[derive(Serialize)]
pub(crate) struct Report {
    count: usize,
    seconds: f64,
    delay: Option<Summary>,
}

impl Submit {
    pub(crate) async fn run(self) -> Result<Report, Failure> {
        let client = Client::new(Settings::new(self.address.as_str()))?;
        let manifest: Value = serde_json::from_slice(&fs::read(&self.amount.manifest)?)?;
        // Connected before the clock starts, as the peer is.
        client.server_info().await?;
        let tries = futures::stream::iter(0..self.amount.count).map(|number| {
            let mut pod = manifest.clone();
            if !self.nodes.is_empty() {
                pod["spec"]["nodeName"] = json!(self.nodes[number % self.nodes.len()]);
            }
            let request = request(&self.target, format!("{}-{number}", self.amount.prefix), &pod);
            let client = client.clone();
            async move {
                let begin = Instant::now();
                let execution = client.submit(request).await?.execution.unwrap_or_default();
                let pod = execution.attempts.first().map(|attempt| attempt.pod_name.clone()).unwrap_or_default();
                Ok((begin.elapsed(), json!({"name": execution.name, "pod": pod}).to_string()))
            }
        });
        let (report, names) = all(tries.buffer_unordered(self.amount.at_a_time)).await?;
        if let Some(path) = &self.names {
            fs::write(path, names.join("\n"))?;
        }
        Ok(report)
    }
}

fn request(target: &str, execution_id: String, pod: &Value) -> proto::SubmitExecutionRequest {
    let manifest = proto::pod_workload::Manifest::Json(pod.to_string().into_bytes());
    let workload = proto::workload::Workload::Pod(proto::PodWorkload { manifest: Some(manifest) });
    proto::SubmitExecutionRequest {
        target: Some(proto::TargetSelector {
            selector: Some(proto::target_selector::Selector::Name(target.to_owned())),
        }),
        execution_id,
        workload: Some(proto::Workload { workload: Some(workload) }),
        ..Default::default()
    }
}

impl Create {
    pub(crate) async fn run(self) -> Result<Report, Failure> {
        let api = Api::new(&self.access)?;
        let manifest: Value = serde_json::from_slice(&fs::read(&self.amount.manifest)?)?;
        let path = format!("/api/v1/namespaces/{}/pods", self.namespace);
        api.call(http::Method::GET, "/version", "", Vec::new()).await?;
        let tries = futures::stream::iter(0..self.amount.count).map(|number| {
            let mut pod = manifest.clone();
            pod["metadata"]["name"] = json!(format!("{}-{number}", self.amount.prefix));
            let (api, path) = (&api, &path);
            async move {
                let begin = Instant::now();
                api.call(http::Method::POST, path, "application/json", pod.to_string().into_bytes()).await?;
                Ok((begin.elapsed(), String::new()))
            }
        });
        Ok(all(tries.buffer_unordered(self.amount.at_a_time)).await?.0)
    }
}

async fn all(tries: impl Stream<Item = Result<(Duration, String), Failure>>) -> Result<(Report, Vec<String>), Failure> {
    let (begin, mut delays) = (Instant::now(), Delays::default());
    let mut tries = std::pin::pin!(tries);
    let mut names = Vec::new();
    while let Some((took, name)) = tries.try_next().await? {
        delays.push_nanos(i64::try_from(took.as_nanos())?);
        names.push(name);
    }
    let seconds = begin.elapsed().as_secs_f64();
    Ok((Report { count: names.len(), seconds, delay: delays.summary() }, names))
}
