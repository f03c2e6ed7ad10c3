//! `podbroker targets`: where the caller may run something.

use clap::Args;
use podbroker_client::{Client, proto};

use super::screen::Screen;
use super::text::words;
use super::{Done, Format, json};

/// List the targets that you may use
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  podbroker targets
  podbroker targets -o json | jq -r .name")]
pub(crate) struct TargetsArgs {}

pub(crate) async fn run(client: &Client, _: &TargetsArgs, screen: &mut Screen) -> Done {
    let targets = client.list_targets().await?;
    if screen.format == Format::Json {
        for target in &targets {
            screen.json(&json::target(target))?;
        }
    } else if targets.is_empty() {
        screen.tell("you may use no target of this broker");
    } else {
        let rows: Vec<Vec<String>> = targets.iter().map(row).collect();
        screen.table(&["NAME", "KIND", "CLUSTER", "NAMESPACE", "HEALTH"], &rows)?;
    }
    Ok(0)
}

fn row(target: &proto::Target) -> Vec<String> {
    let place = target.place.clone().unwrap_or_default();
    let health = words(target.health().as_str_name(), "TARGET_HEALTH_");
    let health = if target.health_reason.is_empty() { health } else { format!("{health}: {}", target.health_reason) };
    let kind = words(target.kind().as_str_name(), "TARGET_KIND_");
    vec![target.name.clone(), kind, place.cluster, place.namespace, health]
}
