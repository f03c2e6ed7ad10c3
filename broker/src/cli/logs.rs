//! `podbroker logs`: the lines of an execution.

use clap::Args;
use podbroker_client::{Client, proto};

use super::Done;
use super::follow::{Prefix, Show, Talk, Times};
use super::parse::{Name, moment};
use super::screen::Screen;

/// Show the lines of an execution
///
/// Lines are shown as the bytes that they are. Where lines are missing, standard error says so. With --follow, restarts of
/// the broker neither end it nor repeat a line.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  podbroker logs prod/nightly
  podbroker logs -f --tail 20 prod/nightly
  podbroker logs --since 10m --timestamps -c main targets/prod/executions/nightly
  podbroker logs -o json prod/nightly | jq -r '.log_chunk.lines[]?.content'")]
pub(crate) struct LogsArgs {
    /// The execution: TARGET/ID, or its full name
    name: Name,
    /// Go on until the execution is over
    #[arg(long, short)]
    follow: bool,
    /// Only lines of this container; may be repeated
    #[arg(long, short, value_name = "NAME")]
    container: Vec<String>,
    /// Only the last so many lines of each container
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    tail: Option<i64>,
    /// Only lines of the last so long, such as 10m, or since a moment, such as 2026-01-31T08:00:00Z
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<prost_types::Timestamp>,
    /// Say when each line was written
    #[arg(long)]
    timestamps: bool,
    /// Say which container each line is from, also if there is only one
    #[arg(long)]
    prefix: bool,
}

pub(crate) async fn run(client: &Client, args: LogsArgs, screen: &mut Screen) -> Done {
    let mut show = args.show();
    let follow = args.follow;
    let mut watch = client.watch(args.request());
    if !follow {
        watch = watch.retry_for(client.settings().retry_for);
    }
    while let Some(event) = show.next(&mut watch, screen).await {
        show.show(&event?, screen)?;
    }
    Ok(0)
}

impl LogsArgs {
    fn request(self) -> proto::WatchExecutionRequest {
        let options = proto::WatchOptions {
            containers: self.container,
            tail_lines: self.tail.unwrap_or_default(),
            since: self.since,
            no_follow: !self.follow,
            ..Default::default()
        };
        proto::WatchExecutionRequest { name: self.name.0, options: Some(options), ..Default::default() }
    }

    fn show(&self) -> Show {
        let prefix = match (self.prefix, self.container.len()) {
            (true, _) => Prefix::Always,
            (false, 1) => Prefix::Never,
            (false, _) => Prefix::WhenMixed,
        };
        Show::new(prefix, if self.timestamps { Times::Shown } else { Times::Hidden }, Talk::Lines)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        logs: LogsArgs,
    }

    #[test]
    fn a_command_line_becomes_a_request() {
        let line = Line::try_parse_from(["logs", "t/e", "-f", "-c", "a", "-c", "b", "--tail", "5"]).unwrap();
        let request = line.logs.request();
        assert_eq!(request.name, "targets/t/executions/e");
        let options = request.options.unwrap();
        assert_eq!((options.containers, options.tail_lines), (vec!["a".to_owned(), "b".to_owned()], 5));
        assert!(!options.no_follow);
        assert!(Line::try_parse_from(["logs", "t/e", "--tail", "0"]).is_err());
        assert!(Line::try_parse_from(["logs", "e"]).is_err());
    }
}
