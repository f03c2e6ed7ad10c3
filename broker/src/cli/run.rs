//! `podbroker run`: submits a pod, shows its lines as they come, and ends as it ended.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use podbroker_client::proto::event::Event as Kind;
use podbroker_client::{Client, proto};
use serde_json::Value;

use super::batch::BatchArgs;
use super::follow::{Prefix, Show, Talk, Times};
use super::group::GroupArgs;
use super::manifest::{self, Container, Start};
use super::parse::{duration, pair, short_name};
use super::screen::Screen;
use super::signals::{Signals, Wish, typed_line};
use super::{Done, Failure, Format, json, selector, target_or_only, text};

/// The exit code for failures that are not the container's.
pub(crate) const OWN_FAILURE: u8 = 125;

const DEADLINE: u8 = 124;
const CANCELLED: u8 = 130;

/// Run a pod at a target and show its lines as they come
///
/// Standard output has the container's lines, byte by byte, and the result, if one is asked for; states and notices go to
/// standard error. The connection may break and the broker may restart: lines arrive once and in order all the same.
#[derive(Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
#[command(after_long_help = "\
Ctrl-C:
  On a terminal you are asked whether to cancel the execution or to leave it running;
  a second Ctrl-C leaves it. Elsewhere SIGINT cancels it and waits for its end.
  SIGTERM and SIGHUP leave it running.

Exit codes:
  0        it succeeded, or --detach was given
  1..255   the exit code of its container
  124      its start deadline or run deadline passed
  125      podbroker failed, or no container ended by itself: no image, no room, evicted
  130      it was cancelled, or Ctrl-C left it running
  143      SIGTERM left it running
  A container may end with these codes too; `podbroker get NAME` tells the difference.

Examples:
  podbroker run --image busybox -- echo hello
  podbroker run --target prod --image python:3.13 --env N=3 -- python -c 'print(1)'
  podbroker run -f pod.yaml --id nightly-2026-01-31 --run-deadline 1h
  podbroker run --target jobs --batch-definition etl --batch-parameter day=2026-01-31
  value=$(podbroker run -q --result -f pod.yaml)
  name=$(podbroker run --detach -f pod.yaml) && podbroker logs -f \"$name\"")]
pub(crate) struct RunArgs {
    /// Where to run it [default: the only target that you may use]
    #[arg(long, short)]
    target: Option<String>,
    /// Your own name for the execution; the same request with the same id starts nothing new and is followed instead
    /// [default: made up]
    #[arg(long)]
    id: Option<String>,
    /// A name to recognise the pod by
    #[arg(long)]
    name: Option<String>,
    /// A manifest of a Pod, or of a Job for a target that runs them, as YAML or JSON; - reads standard input
    #[arg(long, short = 'f', value_name = "FILE", conflicts_with_all = ["image", "env", "command"], required_unless_present_any = ["image", "batch_definition"])]
    file: Option<PathBuf>,
    /// The image of a pod with one container
    #[arg(long)]
    image: Option<String>,
    /// An environment variable of the container; may be repeated
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = pair, conflicts_with = "file")]
    env: Vec<(String, String)>,
    /// The container's name
    #[arg(long, value_name = "NAME", default_value = "main", conflicts_with = "file")]
    container: String,
    /// Hand CMD to the image's entrypoint instead of running it in its place
    #[arg(long, conflicts_with = "file")]
    entrypoint: bool,
    /// A label for `podbroker list`; may be repeated
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = pair)]
    label: Vec<(String, String)>,
    #[command(flatten)]
    batch: BatchArgs,
    #[command(flatten)]
    group: GroupArgs,
    /// Print the value that the pod writes to /airflow/xcom/return.json, after its lines
    #[arg(long)]
    result: bool,
    /// The longest time until a container starts, such as 5m
    #[arg(long, value_name = "TIME", value_parser = duration)]
    start_deadline: Option<Duration>,
    /// The longest time that the pod may run, such as 1h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    run_deadline: Option<Duration>,
    /// Make up to so many attempts in all when the cluster takes the pod away: evicted, preempted, its node lost; 1 makes
    /// another one only while no container has started
    #[arg(long, value_name = "ATTEMPTS", value_parser = clap::value_parser!(i32).range(1..=20))]
    retry_infra: Option<i32>,
    /// Cancel it when nobody has followed it for so long, 5m to 7d
    #[arg(long, value_name = "TIME", value_parser = duration)]
    orphan_after: Option<Duration>,
    /// Keep the pod after its end
    #[arg(long)]
    keep: bool,
    /// Do not say that you have all that you want; the pod stays until its time to live has passed
    #[arg(long)]
    no_release: bool,
    /// Print the name and leave it running
    #[arg(long, short)]
    detach: bool,
    /// Show no lines, states and notices, only the result
    #[arg(long, short, conflicts_with = "detach")]
    quiet: bool,
    /// Say when each line was written
    #[arg(long)]
    timestamps: bool,
    /// What to run, and its arguments [default: what the image says]
    #[arg(last = true, value_name = "CMD", conflicts_with = "file")]
    command: Vec<String>,
}

/// The way in which a followed execution was left.
enum Left {
    Ended(Box<proto::Execution>),
    Running(Wish),
}

pub(crate) async fn run(client: &Client, args: RunArgs, screen: &mut Screen) -> Done {
    let mut signals = Signals::new()?;
    let (workload, prefix) = args.workload()?;
    let target = target_or_only(client, args.target.clone()).await?;
    let id = args.id.clone().unwrap_or_else(made_up_id);
    let submit = client.submit(args.request(&target, &id, workload));
    let answer = tokio::select! {
        answer = submit => answer?,
        wish = signals.next() => {
            screen.tell(&format!("left before the broker answered; if it runs, its name is {target}/{id}"));
            return Ok(wish.exit_code());
        }
    };
    let execution = answer.execution.clone().unwrap_or_default();
    let name = short_name(&execution.name);
    if screen.format == Format::Json {
        screen.json(&json::submission(&answer))?;
        screen.flush()?;
    } else if args.detach {
        screen.line(&name)?;
        screen.flush()?;
    }
    if !args.quiet {
        screen.tell(&if answer.created { name.clone() } else { format!("{name} exists already and is followed") });
    }
    if args.detach {
        screen.tell(&how_to_follow(&name));
        return Ok(0);
    }
    let mut following = Following { client, name: &execution.name, claim: &answer.claim, was_cancelled: false };
    match following.follow(args.show(prefix), &mut signals, screen).await? {
        Left::Running(wish) => {
            screen.tell(&format!("{name} runs on; {}", how_to_follow(&name)));
            Ok(wish.exit_code())
        }
        Left::Ended(execution) => {
            let is_fine = execution.state() == proto::ExecutionState::Succeeded;
            if !(args.quiet && is_fine) {
                screen.tell(&text::standing(&execution));
            }
            if !args.no_release {
                following.release(screen).await;
            }
            Ok(exit_code(&execution))
        }
    }
}

struct Following<'a> {
    client: &'a Client,
    name: &'a str,
    claim: &'a str,
    was_cancelled: bool,
}

impl Following<'_> {
    async fn follow(&mut self, mut show: Show, signals: &mut Signals, screen: &mut Screen) -> Result<Left, Failure> {
        let request = proto::WatchExecutionRequest { name: self.name.to_owned(), ..Default::default() };
        let mut watch = self.client.watch(request);
        loop {
            let event = tokio::select! {
                event = show.next(&mut watch, screen) => event,
                wish = signals.next() => {
                    if self.leaves(wish, signals, screen).await? {
                        return Ok(Left::Running(wish));
                    }
                    continue;
                }
            };
            let Some(event) = event.transpose()? else {
                return Err(Failure::Usage("the watch ended before the execution did".to_owned()));
            };
            show.show(&event, screen)?;
            if let Some(Kind::End(end)) = event.event {
                return Ok(Left::Ended(Box::new(end.execution.unwrap_or_default())));
            }
        }
    }

    /// Does what was wished for. True: the execution is left running.
    async fn leaves(&mut self, wish: Wish, signals: &mut Signals, screen: &mut Screen) -> Result<bool, Failure> {
        if wish == Wish::Terminate
            || self.was_cancelled
            || (screen.is_interactive() && !wants_cancel(signals, screen).await)
        {
            return Ok(true);
        }
        screen.tell("cancelling; once more leaves it");
        self.was_cancelled = true;
        let request = proto::CancelExecutionRequest {
            name: self.name.to_owned(),
            claim: self.claim.to_owned(),
            reason: "interrupted".to_owned(),
            grace: None,
        };
        tokio::select! {
            answer = self.client.cancel(request) => {
                answer?;
                Ok(false)
            }
            _ = signals.next() => Ok(true),
        }
    }

    /// An execution that could not be released ends by its time to live; its outcome stands.
    async fn release(&self, screen: &mut Screen) {
        let request = proto::ReleaseExecutionRequest { name: self.name.to_owned(), claim: self.claim.to_owned() };
        if let Err(error) = self.client.release(request).await {
            screen.tell(&format!("not released: {error}"));
        }
    }
}

async fn wants_cancel(signals: &mut Signals, screen: &mut Screen) -> bool {
    screen.ask("cancel it, or detach and leave it running? [c/d]");
    tokio::select! {
        line = typed_line() => line.is_some_and(|line| line.trim_start().to_ascii_lowercase().starts_with('c')),
        _ = signals.next() => {
            screen.drop_question();
            false
        }
    }
}

fn how_to_follow(name: &str) -> String {
    format!("follow it with `podbroker logs -f {name}`, end it with `podbroker cancel {name}`")
}

/// An id that nobody else has: the time, so that ids sort by it, and chance.
fn made_up_id() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("run-{:x}-{:08x}", now.as_millis(), rand::random::<u32>())
}

fn exit_code(execution: &proto::Execution) -> u8 {
    let outcome = execution.outcome.clone().unwrap_or_default();
    let of_container = outcome.exit_code.and_then(|code| u8::try_from(code).ok()).filter(|code| *code != 0);
    match (outcome.state(), outcome.failure_class()) {
        (proto::ExecutionState::Succeeded, _) => 0,
        (proto::ExecutionState::Cancelled, _) => CANCELLED,
        (_, proto::FailureClass::Deadline | proto::FailureClass::StartDeadline) => DEADLINE,
        _ => of_container.unwrap_or(OWN_FAILURE),
    }
}

impl RunArgs {
    fn manifest(&self) -> Result<Value, Failure> {
        let mut manifest = match (&self.file, &self.image) {
            (Some(path), _) => manifest::read(path)?,
            (None, Some(image)) => manifest::of_container(&Container {
                name: &self.container,
                image,
                command: &self.command,
                start: if self.entrypoint { Start::Arguments } else { Start::Command },
                env: &self.env,
            }),
            (None, None) => return Err(Failure::Usage("an image or a file is needed".to_owned())),
        };
        if let Some(name) = &self.name {
            manifest::set_name(&mut manifest, name);
        }
        Ok(manifest)
    }

    /// What is to be run, and whether its lines need the names of containers.
    fn workload(&self) -> Result<(proto::workload::Workload, Prefix), Failure> {
        if let Some(job) = self.batch.workload()? {
            // Its definition says how many containers it has.
            return Ok((proto::workload::Workload::Batch(job), Prefix::Always));
        }
        let manifest = self.manifest()?;
        if manifest["kind"] == "Job" {
            // It may have any number of pods.
            let json = proto::job_workload::Manifest::Json(manifest.to_string().into());
            return Ok((proto::workload::Workload::Job(proto::JobWorkload { manifest: Some(json) }), Prefix::Always));
        }
        let prefix = if manifest::count_containers(&manifest) > 1 { Prefix::Always } else { Prefix::Never };
        let json = proto::pod_workload::Manifest::Json(manifest.to_string().into());
        Ok((proto::workload::Workload::Pod(proto::PodWorkload { manifest: Some(json) }), prefix))
    }

    fn request(&self, target: &str, id: &str, workload: proto::workload::Workload) -> proto::SubmitExecutionRequest {
        proto::SubmitExecutionRequest {
            target: Some(selector(target.to_owned())),
            execution_id: id.to_owned(),
            workload: Some(proto::Workload { workload: Some(workload) }),
            labels: self.label.iter().cloned().collect(),
            policies: Some(self.policies()),
            group: self.group.group(),
            ..Default::default()
        }
    }

    fn policies(&self) -> proto::Policies {
        let span = |time: Option<Duration>| time.and_then(|time| time.try_into().ok());
        let deadlines = proto::Deadlines { start: span(self.start_deadline), run: span(self.run_deadline) };
        let keep = proto::FinishPolicy { action: proto::FinishAction::Keep.into(), ttl: None };
        let result = proto::ResultPolicy { source: proto::ResultSource::Sidecar.into(), max_bytes: 0 };
        proto::Policies {
            deadlines: (deadlines != proto::Deadlines::default()).then_some(deadlines),
            finish: self.keep.then_some(keep),
            result: self.result.then_some(result),
            infra_retry: self
                .retry_infra
                .map(|max_attempts| proto::InfraRetryPolicy { max_attempts, ..Default::default() }),
            orphan: span(self.orphan_after).map(|after| proto::OrphanPolicy { cancel_after: Some(after) }),
            ..Default::default()
        }
    }

    fn show(&self, prefix: Prefix) -> Show {
        let times = if self.timestamps { Times::Shown } else { Times::Hidden };
        Show::new(prefix, times, if self.quiet { Talk::None } else { Talk::All })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        run: RunArgs,
    }

    fn parsed(line: &str) -> Result<RunArgs, clap::Error> {
        Line::try_parse_from(std::iter::once("run").chain(line.split(' '))).map(|line| line.run)
    }

    #[test]
    fn a_command_line_becomes_a_request() {
        let args = parsed(
            "--image busybox --env A=1 --label k=v --result --keep --run-deadline 1h --retry-infra 3 --orphan-after 1h --name n -- echo -n hi",
        );
        let args = args.unwrap();
        let manifest = args.manifest().unwrap();
        assert_eq!(manifest["metadata"]["name"], "n");
        assert_eq!(manifest["spec"]["containers"][0]["command"], serde_json::json!(["echo", "-n", "hi"]));
        let request = args.request("t", "e", args.workload().unwrap().0);
        assert_eq!(request.group, None);
        assert_eq!(request.labels, [("k".to_owned(), "v".to_owned())].into());
        let policies = request.policies.unwrap();
        assert_eq!(policies.deadlines.unwrap().run.unwrap().seconds, 3600);
        assert_eq!(policies.infra_retry.unwrap().max_attempts, 3);
        assert_eq!(policies.orphan.unwrap().cancel_after.unwrap().seconds, 3600);
        assert_eq!(policies.finish.unwrap().action(), proto::FinishAction::Keep);
        assert_eq!(policies.result.unwrap().source(), proto::ResultSource::Sidecar);
    }

    #[test]
    fn a_job_is_asked_for_by_its_definition() {
        let args = parsed("--batch-definition etl:3 --batch-queue q --batch-parameter day=1 --batch-array 20").unwrap();
        let (proto::workload::Workload::Batch(job), _) = args.workload().unwrap() else { panic!("no job") };
        assert_eq!((job.job_definition.as_str(), job.job_queue.as_str(), job.array_size), ("etl:3", "q", 20));
        assert_eq!(job.parameters, [("day".to_owned(), "1".to_owned())].into());
        for line in
            ["--batch-queue q --image a", "--batch-definition d --image a", "--batch-definition d --batch-array 1"]
        {
            assert!(parsed(line).is_err(), "{line}");
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for line in
            ["--target t", "--image a -f b", "-f b -- echo", "-f b --env A=1", "--image a --env A", "--image a echo"]
        {
            assert!(parsed(line).is_err(), "{line}");
        }
        assert!(parsed("-f pod.yaml").is_ok() && parsed("-f -").is_ok() && parsed("--image a").is_ok());
    }

    #[test]
    fn the_exit_code_is_that_of_the_container_where_there_is_one() {
        use proto::ExecutionState::{Cancelled, Failed, Succeeded};
        use proto::FailureClass::{Application, CancelledByCaller, Deadline, ImagePull, OutOfMemory, Unspecified};
        for (state, class, code, expected) in [
            (Succeeded, Unspecified, Some(0), 0),
            (Failed, Application, Some(3), 3),
            (Failed, OutOfMemory, Some(137), 137),
            (Failed, Deadline, Some(143), 124),
            (Failed, ImagePull, None, 125),
            (Failed, Application, Some(0), 125),
            (Cancelled, CancelledByCaller, Some(143), 130),
        ] {
            let outcome = proto::Outcome {
                state: state.into(),
                failure_class: class.into(),
                exit_code: code,
                ..Default::default()
            };
            let execution = proto::Execution { outcome: Some(outcome), ..Default::default() };
            assert_eq!(exit_code(&execution), expected, "{state:?} {class:?}");
        }
    }

    #[test]
    fn two_made_up_ids_differ() {
        assert_ne!(made_up_id(), made_up_id());
    }
}
