//! The command `podbroker`: the broker itself, what is needed to set it up, and a client for people and scripts.
//!
//! Exit codes of `serve`: 0 after the first SIGTERM or SIGINT, when open calls have ended or the drain limit has passed; 1 when it
//! cannot start, when a part of it fails, and after a second signal. Every command: 2 for a wrong command line. `config check`: 1
//! for a file that is refused. The client commands document their own.

mod cli;

use std::io::{self, IsTerminal as _, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use podbroker::auth::Token;
use podbroker::config::{Config, ConfigError, EXAMPLE, Listen};
use podbroker::execution::{TargetName, Tenant};
use podbroker::server::{self, Ended, ServeError};
use podbroker::telemetry::{self, LogFormat, LogLevel};
use thiserror::Error;

/// Runs pods in remote Kubernetes clusters for callers that hold no cluster credential.
#[derive(Parser)]
#[command(version, propagate_version = true, disable_help_subcommand = true)]
struct Arguments {
    #[command(flatten)]
    client: cli::ClientArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(Serve),
    /// Shows and checks configurations
    #[command(subcommand)]
    Config(ConfigCommand),
    Token(TokenCommand),
    Uninstall(Uninstall),
    /// Prints a completion script for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Prints the version
    Version,
    #[command(flatten)]
    Client(cli::ClientCommand),
}

/// Runs the broker. Without a configuration it serves this machine only, with one target: the current kubeconfig context
#[derive(clap::Args)]
struct Serve {
    /// The configuration; `podbroker config example` prints one
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[arg(
        long,
        value_name = "ADDRESS",
        help = "Where callers connect, ADDRESS:PORT or unix:/PATH, instead of what the configuration says"
    )]
    listen: Option<Listen>,
    /// How log events are written
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
    /// The least important events that are written
    #[arg(long, value_enum, default_value_t)]
    log_level: LogLevel,
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Prints a configuration with every key, its default and its meaning
    Example,
    /// Says whether a configuration is accepted; opens neither the files that it names nor any connection
    Check {
        /// The configuration
        file: PathBuf,
    },
}

/// Takes the finalizers off the pods of this installation, for when its broker goes for good
///
/// Stop the broker first. Nothing is deleted or ended: what runs goes on, and nobody keeps its outcome then. Exit code 1: not
/// all could be done; run it again.
#[derive(clap::Args)]
struct Uninstall {
    /// The broker's configuration
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only at this target; may be given several times
    #[arg(long = "target", value_name = "NAME")]
    targets: Vec<TargetName>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Makes a bearer token and prints it with the lines for the configuration, which keeps only its digest
#[derive(clap::Args)]
struct TokenCommand {
    /// Who is to hold it
    #[arg(long, default_value = "airflow")]
    subject: String,
    /// Whose executions it is to see
    #[arg(long, default_value = "default")]
    tenant: Tenant,
    /// A target that it may use, or * for every one; may be given several times
    #[arg(long = "target", value_name = "NAME")]
    targets: Vec<String>,
}

#[derive(Debug, Error)]
enum Failure {
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
    #[error("cannot start logging")]
    Logging(#[source] Box<dyn std::error::Error>),
    #[error("the configuration is refused")]
    Config(#[from] ConfigError),
    #[error("cannot serve")]
    Serve(#[from] ServeError),
    #[error("{0}")]
    Refused(String),
    #[error("cannot read the answer")]
    Input(#[source] io::Error),
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
}

fn main() -> ExitCode {
    // kube and tonic look for the one provider of the process.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        unreachable!("nothing has run before that could have installed another");
    }
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Command::Serve(serve) => run_serve(serve),
        Command::Config(ConfigCommand::Example) => print(EXAMPLE),
        Command::Config(ConfigCommand::Check { file }) => check(&file),
        Command::Token(token) => print_token(&token),
        Command::Uninstall(command) => uninstall(&command),
        Command::Completion { shell } => completion(shell),
        Command::Version => print(&format!("{}\n", env!("CARGO_PKG_VERSION"))),
        Command::Client(command) => run_client(command, arguments.client),
    };
    done.unwrap_or_else(|failure| {
        report(&failure);
        ExitCode::FAILURE
    })
}

fn run_serve(serve: Serve) -> Result<ExitCode, Failure> {
    telemetry::start_logging(serve.log_format, serve.log_level).map_err(|error| Failure::Logging(Box::new(error)))?;
    let mut config = match &serve.config {
        Some(file) => Config::load(file)?,
        None => server::own_machine().map_err(ServeError::from)?,
    };
    if let Some(listen) = serve.listen {
        config.listen = listen;
        config.check_listen_flag()?;
    }
    let runtime = runtime()?;
    let ended = runtime.block_on(server::run(config));
    // A task that does not end is no reason to stay.
    runtime.shutdown_background();
    Ok(match ended? {
        Ended::Drained => ExitCode::SUCCESS,
        Ended::Aborted => ExitCode::FAILURE,
    })
}

fn run_client(command: cli::ClientCommand, arguments: cli::ClientArgs) -> Result<ExitCode, Failure> {
    let runtime = runtime()?;
    let code = runtime.block_on(cli::run(command, arguments));
    runtime.shutdown_background();
    Ok(code)
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::Runtime)
}

fn check(file: &std::path::Path) -> Result<ExitCode, Failure> {
    Config::load(file)?;
    print(&format!("{} is accepted\n", file.display()))
}

fn print_token(command: &TokenCommand) -> Result<ExitCode, Failure> {
    let TokenCommand { subject, tenant, targets } = command;
    let token = Token::random();
    // JSON's strings and lists of strings are TOML's, too.
    let (subject, targets) = (serde_json::json!(subject), serde_json::json!(targets));
    print(&format!(
        "{}\n\n# Add to the configuration. It may use no other targets than those of the last line.\n[[tokens]]\n\
         sha256 = \"{}\"\nsubject = {subject}\ntenant = \"{tenant}\"\ntargets = {targets}\n",
        token.expose(),
        token.digest(),
    ))
}

fn uninstall(command: &Uninstall) -> Result<ExitCode, Failure> {
    let config = match &command.config {
        Some(file) => Config::load(file)?,
        None => server::own_machine().map_err(ServeError::from)?,
    };
    if let Some(name) = command.targets.iter().find(|name| config.targets.iter().all(|target| target.name != **name)) {
        return Err(Failure::Refused(format!("the configuration has no target {name}")));
    }
    let runtime = runtime()?;
    let found = runtime.block_on(server::held_pods(&config, &command.targets)).map_err(ServeError::from)?;
    let mut code = ExitCode::SUCCESS;
    let mut held = Vec::new();
    for (target, pods) in found {
        match pods {
            Ok(pods) => {
                let (count, running, namespace) = (pods.count(), pods.running(), pods.namespace());
                print(&format!("{target}: namespace {namespace}, pods: {count}, not ended: {running}\n"))?;
                held.push((target, pods));
            }
            Err(error) => {
                print(&format!("{target}: passed over: {error}\n"))?;
                code = ExitCode::FAILURE;
            }
        }
    }
    held.retain(|(_, pods)| pods.count() > 0);
    if held.is_empty() {
        return Ok(code);
    }
    if !command.yes && !agrees()? {
        return Err(Failure::Refused("nothing was changed".to_owned()));
    }
    for (target, pods) in held {
        let count = pods.count();
        let done = match runtime.block_on(pods.let_go()) {
            Ok(()) => format!("{target}: finalizers taken off: {count}\n"),
            Err(error) => {
                code = ExitCode::FAILURE;
                format!("{target}: not all could be taken off: {error}\n")
            }
        };
        print(&done)?;
    }
    Ok(code)
}

/// Asks on a terminal. Elsewhere nobody can answer.
fn agrees() -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::Refused("nobody can be asked here: nothing was changed; say --yes".to_owned()));
    }
    print("Take the finalizers off? Nobody keeps the outcomes of these pods then. [y/N] ")?;
    io::stdout().flush().map_err(Failure::Output)?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(Failure::Input)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn completion(shell: clap_complete::Shell) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "podbroker", &mut script);
    io::stdout().write_all(&script).map_err(Failure::Output)?;
    Ok(ExitCode::SUCCESS)
}

fn print(text: &str) -> Result<ExitCode, Failure> {
    io::stdout().write_all(text.as_bytes()).map_err(Failure::Output)?;
    Ok(ExitCode::SUCCESS)
}

/// The error with its causes, each on a line, once.
fn report(failure: &Failure) {
    let mut chain = vec![format!("podbroker: {failure}")];
    let mut cause = std::error::Error::source(failure);
    while let Some(error) = cause {
        chain.push(format!("  because {error}"));
        cause = error.source();
    }
    // There is nobody left to tell that this failed.
    let _ = writeln!(io::stderr(), "{}", chain.join("\n"));
}
