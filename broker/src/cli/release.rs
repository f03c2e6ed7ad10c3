//! `podbroker release`: says that nobody needs the pod any more.

use clap::Args;
use podbroker_client::{Client, proto};

use super::parse::Name;
use super::screen::Screen;
use super::{Done, get};

/// Let go of an execution that is over: its pod is deleted or kept, as its finish policy says
///
/// An execution that still runs is refused: cancel it first.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  podbroker release prod/nightly")]
pub(crate) struct ReleaseArgs {
    /// The execution: TARGET/ID, or its full name
    name: Name,
}

pub(crate) async fn run(client: &Client, args: ReleaseArgs, screen: &mut Screen) -> Done {
    let request = proto::ReleaseExecutionRequest { name: args.name.0, claim: String::new() };
    get::show(&client.release(request).await?, screen)?;
    Ok(0)
}
