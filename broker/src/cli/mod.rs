//! The commands that talk to a broker, for people and for scripts.
//!
//! They are clients like any other: all they know comes through the contract. What a program wants (lines, names, tables,
//! JSON) goes to standard output; what a person wants to know besides goes to standard error. One file holds one command;
//! `screen` writes, `text` and `json` say how things look, `follow` shows a watch.

mod batch;
mod cancel;
mod check;
mod follow;
mod get;
mod group;
mod info;
mod json;
mod list;
mod logs;
mod manifest;
mod parse;
mod release;
mod run;
mod screen;
mod signals;
mod targets;
mod text;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use podbroker_client::{Client, ClientCertificate, Error, Settings, Token, proto};

use screen::Screen;

/// The exit code of a command that failed.
const FAILED: u8 = 1;

/// The exit code of a shell for a program that SIGPIPE ended.
const BROKEN_PIPE: u8 = 141;

/// How to reach the broker, and how to show its answers.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connection and output")]
pub(crate) struct ClientArgs {
    /// Where the broker listens: `http://HOST:PORT`, `https://HOST:PORT` or `unix:/PATH`
    #[arg(
        long,
        global = true,
        env = "PODBROKER_ADDRESS",
        default_value = "http://127.0.0.1:50051",
        value_name = "URL"
    )]
    pub(crate) address: String,
    /// A file with the bearer token; sent only over TLS, to this machine, or through a unix socket
    #[arg(long, global = true, env = "PODBROKER_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// PEM certificates of the authority behind the broker's certificate [default: those of this machine]
    #[arg(long, global = true, env = "PODBROKER_CA_FILE", value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// A PEM certificate that says who you are
    #[arg(long, global = true, env = "PODBROKER_CLIENT_CERTIFICATE_FILE", value_name = "FILE")]
    pub(crate) client_certificate_file: Option<PathBuf>,
    /// The private key of that certificate
    #[arg(long, global = true, env = "PODBROKER_CLIENT_KEY_FILE", value_name = "FILE")]
    pub(crate) client_key_file: Option<PathBuf>,
    /// The name in the broker's certificate, where it is not the host of the address
    #[arg(long, global = true, env = "PODBROKER_SERVER_NAME", value_name = "NAME")]
    pub(crate) server_name: Option<String>,
    /// How long to try when the broker cannot be reached; what follows an execution never gives up
    #[arg(long, global = true, env = "PODBROKER_RETRY_FOR", value_name = "TIME", default_value = "15s", value_parser = parse::duration)]
    pub(crate) retry_for: Duration,
    /// text for people; json for programs: one object, or one per line where there are several
    #[arg(long, short, global = true, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
}

/// How answers are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
}

/// What to ask of the broker.
#[derive(Subcommand, Debug)]
pub(crate) enum ClientCommand {
    Run(Box<run::RunArgs>),
    Logs(logs::LogsArgs),
    Get(get::GetArgs),
    List(list::ListArgs),
    Cancel(cancel::CancelArgs),
    Release(release::ReleaseArgs),
    Targets(targets::TargetsArgs),
    Check(check::CheckArgs),
    Info(info::InfoArgs),
}

/// Carries out one command.
pub(crate) async fn run(command: ClientCommand, args: ClientArgs) -> ExitCode {
    let mut screen = Screen::of_process(args.output);
    let own_failure = if matches!(command, ClientCommand::Run(_)) { run::OWN_FAILURE } else { FAILED };
    let done = match connect(args) {
        Err(error) => Err(error),
        Ok(client) => match command {
            ClientCommand::Run(args) => Box::pin(run::run(&client, *args, &mut screen)).await,
            ClientCommand::Logs(args) => logs::run(&client, args, &mut screen).await,
            ClientCommand::Get(args) => get::run(&client, args, &mut screen).await,
            ClientCommand::List(args) => list::run(&client, args, &mut screen).await,
            ClientCommand::Cancel(args) => cancel::run(&client, args, &mut screen).await,
            ClientCommand::Release(args) => release::run(&client, args, &mut screen).await,
            ClientCommand::Targets(args) => targets::run(&client, &args, &mut screen).await,
            ClientCommand::Check(args) => check::run(&client, args, &mut screen).await,
            ClientCommand::Info(args) => info::run(&client, &args, &mut screen).await,
        },
    };
    match done.and_then(|code| screen.flush().map(|()| code).map_err(Failure::from)) {
        Ok(code) => ExitCode::from(code),
        Err(Failure::Output(cause)) if cause.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::from(BROKEN_PIPE),
        Err(failure) => {
            screen.tell(&text::failure(&failure));
            ExitCode::from(own_failure)
        }
    }
}

/// Why a command could not be carried out.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The broker refused, or could not be reached.
    Client(Error),
    /// What was asked for makes no sense.
    Usage(String),
    /// The answer could not be written.
    Output(std::io::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Client(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(cause: std::io::Error) -> Self {
        Self::Output(cause)
    }
}

/// What a command comes to: its exit code.
pub(crate) type Done = Result<u8, Failure>;

fn connect(args: ClientArgs) -> Result<Client, Failure> {
    let client_certificate = match (args.client_certificate_file, args.client_key_file) {
        (Some(certificate_file), Some(key_file)) => Some(ClientCertificate { certificate_file, key_file }),
        (None, None) => None,
        _ => return Err(Failure::Usage("a client certificate and its key are given together".to_owned())),
    };
    let settings = Settings {
        token: args.token_file.map(Token::File),
        ca_file: args.ca_file,
        client_certificate,
        server_name: args.server_name,
        retry_for: args.retry_for,
        ..Settings::new(args.address)
    };
    Ok(Client::new(settings)?)
}

/// The target that was named, or the only one there is.
async fn target_or_only(client: &Client, named: Option<String>) -> Result<String, Failure> {
    if let Some(name) = named {
        return Ok(name);
    }
    let mut targets = client.list_targets().await?;
    match targets.len() {
        0 => Err(Failure::Usage("you may use no target of this broker".to_owned())),
        1 => Ok(targets.remove(0).name),
        _ => {
            let choice: Vec<&str> = targets.iter().map(|target| target.name.as_str()).collect();
            Err(Failure::Usage(format!("there are several targets; choose one: {}", choice.join(", "))))
        }
    }
}

fn selector(target: String) -> proto::TargetSelector {
    proto::TargetSelector { selector: Some(proto::target_selector::Selector::Name(target)) }
}
