//! `podbroker cancel`: asks for the end of an execution.

use std::time::Duration;

use clap::Args;
use podbroker_client::proto::event::Event as Kind;
use podbroker_client::{Client, proto};

use super::parse::{Name, duration};
use super::screen::Screen;
use super::{Done, get};

/// End an execution
///
/// Its containers get SIGTERM and, when their grace has passed, SIGKILL. One that ends by itself first keeps its own
/// outcome, and one that is over already stays as it is.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  podbroker cancel prod/nightly
  podbroker cancel --reason 'wrong input' --grace 10s --wait prod/nightly")]
pub(crate) struct CancelArgs {
    /// The execution: TARGET/ID, or its full name
    name: Name,
    /// Why, for whoever asks later
    #[arg(long, default_value = "")]
    reason: String,
    /// How long its containers may take to end [default: what the pod says]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    grace: Option<Duration>,
    /// Wait for its end
    #[arg(long, short)]
    wait: bool,
}

pub(crate) async fn run(client: &Client, args: CancelArgs, screen: &mut Screen) -> Done {
    let name = args.name.0.clone();
    let mut execution = client
        .cancel(proto::CancelExecutionRequest {
            name: name.clone(),
            claim: String::new(),
            reason: args.reason,
            grace: args.grace.and_then(|grace| grace.try_into().ok()),
        })
        .await?;
    if args.wait {
        let options = proto::WatchOptions { logs: proto::LogMode::None.into(), ..Default::default() };
        let request = proto::WatchExecutionRequest { name, options: Some(options), ..Default::default() };
        let mut watch = client.watch(request);
        while let Some(event) = watch.next().await {
            if let Some(Kind::End(end)) = event?.event {
                execution = end.execution.unwrap_or_default();
            }
        }
    }
    get::show(&execution, screen)?;
    Ok(0)
}
