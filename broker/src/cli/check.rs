//! `podbroker check`: whether each link from the caller to a running pod holds.

use clap::Args;
use podbroker_client::{Client, proto};

use super::screen::Screen;
use super::{Done, FAILED, Format, json, selector, target_or_only};

/// Check each link of the chain from you to a running pod at a target
///
/// Creates nothing. One line says of each link whether it holds and who you are there, and how to mend it if it does not.
/// The exit code is 1 if a link is broken. A warning is about what pods run without, and is none.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  podbroker check prod
  podbroker check prod -o json | jq -r 'select(.status == \"FAILED\").fix'")]
pub(crate) struct CheckArgs {
    /// The target [default: the only one that you may use]
    target: Option<String>,
}

pub(crate) async fn run(client: &Client, args: CheckArgs, screen: &mut Screen) -> Done {
    let target = target_or_only(client, args.target).await?;
    let mut checks = client.check_target(selector(target)).await?;
    let mut code = 0;
    while let Some(check) = checks.next().await {
        let check = check?;
        if check.status() == proto::CheckStatus::Failed {
            code = FAILED;
        }
        match screen.format {
            Format::Json => screen.json(&json::check(&check))?,
            Format::Text => screen.line(&line(&check))?,
        }
        screen.flush()?;
    }
    Ok(code)
}

fn line(check: &proto::Check) -> String {
    let status = match check.status() {
        proto::CheckStatus::Passed => "ok",
        proto::CheckStatus::Failed => "FAIL",
        proto::CheckStatus::Warning => "warn",
        proto::CheckStatus::Skipped => "skip",
        proto::CheckStatus::Unspecified => "?",
    };
    let what = format!("{} {}", check.link, check.subject);
    let line = format!("{status:<5} {:<32} {}", what.trim_end(), check.detail);
    match check.fix.as_str() {
        "" => line.trim_end().to_owned(),
        fix => format!("{}\n      to mend it: {fix}", line.trim_end()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_link_comes_with_its_fix() {
        let mut check = proto::Check {
            link: "permission".to_owned(),
            subject: "create pods".to_owned(),
            detail: "denied".to_owned(),
            fix: "bind the role".to_owned(),
            ..Default::default()
        };
        check.set_status(proto::CheckStatus::Failed);
        let head = format!("FAIL  {:<32} denied", "permission create pods");
        assert_eq!(line(&check), format!("{head}\n      to mend it: bind the role"));
        check.set_status(proto::CheckStatus::Warning);
        assert!(line(&check).starts_with("warn  permission create pods "), "{}", line(&check));
        check.set_status(proto::CheckStatus::Passed);
        check.fix.clear();
        assert_eq!(line(&check), format!("ok    {:<32} denied", "permission create pods"));
    }
}
