//! `podbroker get`: one execution.

use clap::Args;
use podbroker_client::{Client, proto};

use super::parse::Name;
use super::screen::Screen;
use super::{Done, Failure, Format, json, text};

/// Show where an execution stands, and how it ended
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  podbroker get prod/nightly
  podbroker get --full prod/nightly                              with its pod, as the cluster has it
  podbroker get -o json prod/nightly | jq .outcome.exit_code")]
pub(crate) struct GetArgs {
    /// The execution: TARGET/ID, or its full name
    name: Name,
    /// Ask the cluster for the pod too
    #[arg(long)]
    full: bool,
}

pub(crate) async fn run(client: &Client, args: GetArgs, screen: &mut Screen) -> Done {
    let view = if args.full { proto::ExecutionView::Full } else { proto::ExecutionView::Basic };
    let execution = client.get(proto::GetExecutionRequest { name: args.name.0, view: view.into() }).await?;
    show(&execution, screen)?;
    Ok(0)
}

/// Shows all that is known of an execution.
pub(crate) fn show(execution: &proto::Execution, screen: &mut Screen) -> Result<(), Failure> {
    if screen.format == Format::Json {
        return Ok(screen.json(&json::execution(execution))?);
    }
    for fact in text::execution(execution) {
        screen.line(&fact)?;
    }
    if !execution.pod_json.is_empty() {
        let pod: serde_json::Value = serde_json::from_slice(&execution.pod_json).unwrap_or_default();
        screen.line(&format!("\n{pod:#}"))?;
    }
    Ok(())
}
