//! The program itself: what it prints, what it listens on, how it ends. The cluster of its target does not answer, which is
//! no reason not to serve.

use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use podbroker_proto::v1 as wire;
use podbroker_proto::v1::broker_service_client::BrokerServiceClient;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::Endpoint;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;

/// A broken test ends; nothing waits for this on a good day.
const LIMIT: Duration = Duration::from_secs(30);

/// Nobody listens on port 1.
const KUBECONFIG: &str = "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
    contexts: [{name: c, context: {cluster: c, user: u, namespace: pods}}]\n\
    clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]\nusers: [{name: u, user: {}}]\n";

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        std::fs::write(place.path("kubeconfig"), KUBECONFIG).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn socket(&self) -> String {
        format!("unix:{}", self.path("s").display())
    }

    /// Writes a configuration with the target `t`; the ports are the system's choice, and the log says them.
    fn configure(&self) {
        let config = "listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n[[targets]]\nname = \"t\"\n\
             kind = \"kubeconfig\"\nkubeconfig = \"kubeconfig\"\n";
        std::fs::write(self.path("c.toml"), config).unwrap();
    }

    /// Nothing of the machine that runs the test is to be seen.
    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_podbroker"));
        command.env_clear().env("HOME", self.0.path()).current_dir(self.0.path());
        command.kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    async fn output(&self, arguments: &[&str]) -> Output {
        tokio::time::timeout(LIMIT, self.command().args(arguments).output()).await.unwrap().unwrap()
    }

    async fn refusal(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments).await;
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    async fn serve(&self, arguments: &[&str]) -> Broker {
        let mut command = self.command();
        let mut child =
            command.arg("serve").args(arguments).env("KUBECONFIG", self.path("kubeconfig")).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = String::new();
        let address = loop {
            let line = tokio::time::timeout(LIMIT, log.next_line()).await.unwrap().unwrap();
            let line = line.unwrap_or_else(|| panic!("it ended:\n{said}"));
            said.push_str(&line);
            said.push('\n');
            if let Some((_, address)) = line.split_once("podbroker is ready on ") {
                break address.split([' ', '"']).next().unwrap().to_owned();
            }
        };
        Broker { child, log, address, said }
    }
}

struct Broker {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
    address: String,
    said: String,
}

impl Broker {
    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// The port of metrics and probes, which is said just before or just after the address of the API.
    async fn admin_port(&mut self) -> u16 {
        let port = |line: &str| {
            let (_, at) = line.split_once("answered on http://127.0.0.1:")?;
            at.split(|one: char| !one.is_ascii_digit()).next()?.parse().ok()
        };
        if let Some(port) = self.said.lines().find_map(port) {
            return port;
        }
        loop {
            let line = tokio::time::timeout(LIMIT, self.log.next_line()).await.unwrap().unwrap();
            if let Some(port) = port(&line.expect("it ended without a port for probes")) {
                return port;
            }
        }
    }

    async fn ended(&mut self) -> ExitStatus {
        tokio::time::timeout(LIMIT, self.child.wait()).await.unwrap().unwrap()
    }

    async fn until_it_says(&mut self, words: &str) {
        loop {
            let line = tokio::time::timeout(LIMIT, self.log.next_line()).await.unwrap().unwrap();
            if line.unwrap_or_else(|| panic!("it ended without {words:?}")).contains(words) {
                return;
            }
        }
    }
}

async fn info(address: &str) -> wire::GetServerInfoResponse {
    let endpoint = match address.strip_prefix("unix:") {
        Some(path) => Endpoint::from_shared(format!("unix://{path}")),
        None => Endpoint::from_shared(format!("http://{address}")),
    };
    let channel = endpoint.unwrap().connect().await.unwrap();
    BrokerServiceClient::new(channel).get_server_info(wire::GetServerInfoRequest {}).await.unwrap().into_inner()
}

#[tokio::test]
async fn without_a_configuration_it_serves_this_machine_with_the_current_context() {
    let place = Place::new();
    let mut broker = place.serve(&["--listen", "127.0.0.1:0"]).await;
    assert!(!broker.address.ends_with(":0"), "the real port is said: {}", broker.address);
    assert!(broker.said.contains("no configuration"), "{}", broker.said);
    assert!(broker.said.contains("namespace=\"pods\""), "{}", broker.said);

    let info = info(&broker.address).await;

    assert_eq!((info.instance.as_str(), info.caller_subject.as_str()), ("default", "local"));
    assert_eq!(info.max_manifest_bytes, 256 << 10);
    broker.signal(Signal::SIGTERM);
    assert_eq!(broker.ended().await.code(), Some(0));
}

#[tokio::test]
async fn without_anything_it_says_what_is_missing() {
    let place = Place::new();
    let refusal = place.refusal(&["serve"]).await;
    assert!(refusal.contains("there is no kubeconfig") && refusal.contains("--config FILE"), "{refusal}");
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once_with_another_code() {
    let place = Place::new();
    place.configure();
    let mut broker = place.serve(&["--config", "c.toml"]).await;
    let admin = broker.admin_port().await;
    // A reflection stream that its client keeps open holds the drain.
    let channel = Endpoint::from_shared(format!("http://{}", broker.address)).unwrap().connect().await.unwrap();
    let mut reflection = ServerReflectionClient::new(channel);
    let (asks, requests) = tokio::sync::mpsc::channel(1);
    let answers = reflection.server_reflection_info(ReceiverStream::new(requests)).await.unwrap();
    assert!(get(admin, "/readyz").await.starts_with("HTTP/1.1 200"));

    broker.signal(Signal::SIGINT);
    broker.until_it_says("draining").await;
    // The log event comes first.
    while get(admin, "/readyz").await.starts_with("HTTP/1.1 200") {}
    assert!(get(admin, "/readyz").await.starts_with("HTTP/1.1 503"));
    assert!(get(admin, "/livez").await.starts_with("HTTP/1.1 200"));
    assert!(Endpoint::from_shared(format!("http://{}", broker.address)).unwrap().connect().await.is_err());
    broker.signal(Signal::SIGTERM);

    assert_eq!(broker.ended().await.code(), Some(1));
    drop((asks, answers));
}

#[tokio::test]
async fn what_does_not_end_is_cut_at_the_drain_limit() {
    let place = Place::new();
    place.configure();
    let mut config = std::fs::read_to_string(place.path("c.toml")).unwrap();
    config.push_str("[limits]\ndrain = \"1s\"\n");
    std::fs::write(place.path("c.toml"), config).unwrap();
    let mut broker = place.serve(&["--config", "c.toml"]).await;
    let channel = Endpoint::from_shared(format!("http://{}", broker.address)).unwrap().connect().await.unwrap();
    let mut reflection = ServerReflectionClient::new(channel);
    let (asks, requests) = tokio::sync::mpsc::channel(1);
    let answers = reflection.server_reflection_info(ReceiverStream::new(requests)).await.unwrap();

    broker.signal(Signal::SIGTERM);

    broker.until_it_says("did not end in time").await;
    assert_eq!(broker.ended().await.code(), Some(0));
    drop((asks, answers));
}

#[tokio::test]
async fn a_unix_socket_is_private_and_goes_with_the_process() {
    let place = Place::new();
    let mut broker = place.serve(&["--listen", &place.socket()]).await;
    let metadata = std::fs::metadata(place.path("s")).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert_eq!(info(&place.socket()).await.caller_subject, "local");

    broker.signal(Signal::SIGTERM);

    assert_eq!(broker.ended().await.code(), Some(0));
    let left: Vec<_> = std::fs::read_dir(place.0.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["kubeconfig"]);
}

#[tokio::test]
async fn a_socket_of_a_killed_process_is_replaced_and_one_in_use_is_not() {
    let place = Place::new();
    let mut killed = place.serve(&["--listen", &place.socket()]).await;
    killed.signal(Signal::SIGKILL);
    killed.ended().await;
    assert!(place.path("s").exists());

    let _broker = place.serve(&["--listen", &place.socket()]).await;
    let mut command = place.command();
    command.args(["serve", "--listen", &place.socket()]).env("KUBECONFIG", place.path("kubeconfig"));
    let second = tokio::time::timeout(LIMIT, command.output()).await.unwrap().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another process listens there"));
    assert_eq!(info(&place.socket()).await.instance, "default", "the first one serves on");

    std::fs::write(place.path("f"), "precious").unwrap();
    let file = format!("unix:{}", place.path("f").display());
    let mut command = place.command();
    command.args(["serve", "--listen", &file]).env("KUBECONFIG", place.path("kubeconfig"));
    let refused = tokio::time::timeout(LIMIT, command.output()).await.unwrap().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(std::fs::read_to_string(place.path("f")).unwrap(), "precious");
}

#[tokio::test]
async fn a_flag_cannot_open_what_the_configuration_may_not() {
    let place = Place::new();
    let mut command = place.command();
    command.args(["serve", "--listen", "0.0.0.0:0"]).env("KUBECONFIG", place.path("kubeconfig"));
    let refused = tokio::time::timeout(LIMIT, command.output()).await.unwrap().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("can be reached from other machines"));
}

#[tokio::test]
async fn tokens_let_in_their_callers_and_nobody_else() {
    let place = Place::new();
    let printed = String::from_utf8(
        place.output(&["token", "--subject", "me \"x\"", "--tenant", "us", "--target", "t"]).await.stdout,
    )
    .unwrap();
    let (token, snippet) = printed.split_once('\n').unwrap();
    let config = format!(
        "listen = \"127.0.0.1:0\"\n{snippet}\n[[targets]]\nname = \"t\"\nkind = \"kubeconfig\"\nkubeconfig = \"kubeconfig\"\n"
    );
    std::fs::write(place.path("c.toml"), config).unwrap();
    let checked = place.output(&["config", "check", "c.toml"]).await;
    assert_eq!(checked.stdout, b"c.toml is accepted\n");

    let broker = place.serve(&["--config", "c.toml", "--log-format", "json", "--log-level", "trace"]).await;
    let channel = Endpoint::from_shared(format!("http://{}", broker.address)).unwrap().connect().await.unwrap();
    let mut client = BrokerServiceClient::new(channel);
    assert_eq!(client.list_targets(wire::ListTargetsRequest {}).await.unwrap_err().code(), Code::Unauthenticated);
    let bearer = format!("Bearer {token}");
    let mut request = tonic::Request::new(wire::GetServerInfoRequest {});
    request.metadata_mut().insert("authorization", bearer.parse().unwrap());
    let info = client.get_server_info(request).await.unwrap().into_inner();
    let mut request = tonic::Request::new(wire::ListTargetsRequest {});
    request.metadata_mut().insert("authorization", bearer.parse().unwrap());
    assert_eq!(client.list_targets(request).await.unwrap().into_inner().targets[0].name, "t");
    assert_eq!((info.caller_subject.as_str(), info.caller_tenant.as_str()), ("me \"x\"", "us"));

    broker.signal(Signal::SIGTERM);
    let Broker { mut child, log, said, .. } = broker;
    let mut rest = String::new();
    log.into_inner().read_to_string(&mut rest).await.unwrap();
    child.wait().await.unwrap();
    let log = said + &rest;
    assert!(!log.contains(token), "no token in the log, at any level");
    assert!(log.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{log}");
}

#[tokio::test]
async fn probes_and_metrics_are_answered_while_it_serves() {
    let place = Place::new();
    place.configure();
    let mut broker = place.serve(&["--config", "c.toml"]).await;
    let admin = broker.admin_port().await;
    assert!(get(admin, "/livez").await.starts_with("HTTP/1.1 200"));
    assert!(get(admin, "/readyz").await.starts_with("HTTP/1.1 200"), "a target that cannot be reached changes nothing");
    let metrics = get(admin, "/metrics").await;
    assert!(metrics.contains("application/openmetrics-text"), "{metrics}");
    assert!(metrics.contains("\npodbroker_target_serving{target=\"t\"} 0\n"), "{metrics}");
}

async fn get(port: u16, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn what_is_wrong_is_said_once_with_its_cause() {
    let place = Place::new();
    assert_eq!(
        place.refusal(&["config", "check", "nowhere.toml"]).await,
        "podbroker: the configuration is refused\n  because nowhere.toml: cannot be read\n  because No such file or \
         directory (os error 2)\n"
    );
    assert_eq!(place.output(&["serve", "--nonsense"]).await.status.code(), Some(2));
}

#[tokio::test]
async fn an_uninstall_says_what_it_cannot_do() {
    let place = Place::new();
    place.configure();
    let unknown = place.output(&["uninstall", "--config", "c.toml", "--target", "other", "--yes"]).await;
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("no target other"));
    let away = place.output(&["uninstall", "--config", "c.toml", "--yes"]).await;
    assert_eq!(away.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&away.stdout).starts_with("t: passed over: "), "{away:?}");
}

#[tokio::test]
async fn the_printed_example_is_the_file_and_completions_are_there() {
    let place = Place::new();
    let example = place.output(&["config", "example"]).await.stdout;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.example.toml");
    assert_eq!(example, std::fs::read(file).unwrap());
    assert_eq!(place.output(&["version"]).await.stdout, format!("{}\n", env!("CARGO_PKG_VERSION")).into_bytes());
    for shell in ["bash", "zsh", "fish"] {
        assert!(place.output(&["completion", shell]).await.stdout.len() > 1000, "{shell}");
    }
}
