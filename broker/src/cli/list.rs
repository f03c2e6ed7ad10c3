//! `podbroker list`: the executions at a target.

use std::time::SystemTime;

use clap::Args;
use podbroker_client::{Client, proto};

use super::parse::{pair, short_name, state};
use super::screen::Screen;
use super::{Done, Failure, Format, json, selector, text};

/// The largest page of the contract.
const PAGE: i32 = 1000;

/// List your executions
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  podbroker list
  podbroker list --target prod --state running --state pending
  podbroker list -l team=data -o json | jq -r .name")]
pub(crate) struct ListArgs {
    /// Only at this target [default: at all that you may use]
    #[arg(long, short)]
    target: Option<String>,
    /// Only those with this label; may be repeated, and then all must be there
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = pair)]
    label: Vec<(String, String)>,
    /// Only those in this state; may be repeated, and then any of them will do
    #[arg(long, short, value_parser = state)]
    state: Vec<proto::ExecutionState>,
}

pub(crate) async fn run(client: &Client, args: ListArgs, screen: &mut Screen) -> Done {
    let targets = match &args.target {
        Some(target) => vec![target.clone()],
        None => client.list_targets().await?.into_iter().map(|target| target.name).collect(),
    };
    let mut rows = Vec::new();
    for target in targets {
        let mut request = args.request(target);
        loop {
            let page = client.list(request.clone()).await?;
            for execution in &page.executions {
                if screen.format == Format::Json {
                    screen.json(&json::execution(execution))?;
                } else {
                    rows.push(row(execution));
                }
            }
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
    }
    show(&rows, screen)?;
    Ok(0)
}

fn show(rows: &[Vec<String>], screen: &mut Screen) -> Result<(), Failure> {
    match screen.format {
        Format::Json => {}
        Format::Text if rows.is_empty() => screen.tell("no executions"),
        Format::Text => screen.table(&["NAME", "AGE", "STATE"], rows)?,
    }
    Ok(())
}

fn row(execution: &proto::Execution) -> Vec<String> {
    let age = text::age(execution.create_time.as_ref(), &SystemTime::now().into());
    vec![short_name(&execution.name), age, text::brief(execution)]
}

impl ListArgs {
    fn request(&self, target: String) -> proto::ListExecutionsRequest {
        proto::ListExecutionsRequest {
            target: Some(selector(target)),
            labels: self.label.iter().cloned().collect(),
            states: self.state.iter().map(|state| (*state).into()).collect(),
            page_size: PAGE,
            page_token: String::new(),
        }
    }
}
