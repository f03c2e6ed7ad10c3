//! `podbroker info`: what the broker is, and who the caller is to it.

use clap::Args;
use podbroker_client::Client;

use super::screen::Screen;
use super::text::fact;
use super::{Done, Format, json};

/// Show the broker's version, its features and limits, and who you are to it
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  podbroker info
  podbroker info -o json | jq -r .version")]
pub(crate) struct InfoArgs {}

pub(crate) async fn run(client: &Client, _: &InfoArgs, screen: &mut Screen) -> Done {
    let info = client.server_info().await?;
    if screen.format == Format::Json {
        screen.json(&json::server_info(&info))?;
        return Ok(0);
    }
    let features = if info.features.is_empty() { "none".to_owned() } else { info.features.join(" ") };
    let facts = [
        ("broker", client.settings().endpoint.clone()),
        ("version", info.version),
        ("instance", info.instance),
        ("you", info.caller_subject),
        ("tenant", info.caller_tenant),
        ("features", features),
        ("limits", format!("{} bytes a manifest, {} a request", info.max_manifest_bytes, info.max_request_bytes)),
    ];
    for (name, value) in facts {
        screen.line(&fact(name, &value))?;
    }
    Ok(0)
}
