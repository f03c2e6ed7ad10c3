//! The configuration: what is accepted, and the text of each refusal.

use std::path::Path;
use std::time::Duration;

use podbroker::auth::{AllowedTargets, Authenticator};
use podbroker::config::{AdminListen, Config, EXAMPLE, Listen, Target, TargetKind};

const TARGET: &str = "[[targets]]\nname = \"a\"\nkind = \"kubeconfig\"\n";
const DIGEST: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("c.toml"), text).map_err(|error| error.to_string())
}

#[test]
fn the_example_says_the_defaults() {
    let mut target = Target::new("example".parse().unwrap(), TargetKind::Kubeconfig);
    target.namespace = Some("default".to_owned());
    assert_eq!(parse(EXAMPLE).unwrap(), Config { targets: vec![target], ..Config::default() });
}

#[test]
fn the_example_is_accepted_with_everything_in_it_that_is_commented_out() {
    let is_setting = |line: &&str| {
        let text = line.trim_start_matches("# ");
        let key = text.split(" =").next().unwrap_or_default();
        line.starts_with("# ") && (text.starts_with('[') || key.len() < text.len() && !key.contains(' '))
    };
    let text: Vec<&str> = EXAMPLE.lines().map(|line| if is_setting(&line) { &line[2..] } else { line }).collect();
    let config = parse(&text.join("\n")).unwrap();
    assert_eq!(config.tls.unwrap().certificate, Path::new("tls.crt"));
    assert_eq!(config.tokens[0].subject, "airflow");
    assert_eq!(config.targets[0].context.as_deref(), Some("prod"));
}

#[test]
fn the_example_shows_every_key() {
    let eks = "[[targets]]\nname = \"e\"\nkind = \"eks\"\n[targets.eks]\n";
    let batch = "[[targets]]\nname = \"e\"\nkind = \"eks\"\n[targets.batch]\nqueue = \"q\"\n";
    for place in ["", "[tls]\n", "[[tokens]]\n", "[aws]\n", "[[targets]]\n", eks, batch, "[limits]\n"] {
        let refusal = parse(&format!("{place}nonsense = 1\n")).unwrap_err();
        let keys: Vec<&str> = refusal.split('`').skip(3).step_by(2).collect();
        assert!(!keys.is_empty(), "{refusal}");
        for key in keys {
            let shown = |line: &str| {
                let line = line.trim_start_matches("# ");
                let tables = [format!("[{key}]"), format!("[[{key}]]"), format!("[targets.{key}]")];
                line.starts_with(&format!("{key} = ")) || tables.contains(&line.to_owned())
            };
            assert!(EXAMPLE.lines().any(shown), "{key} is not in the example");
        }
    }
}

#[test]
fn every_value_is_taken() {
    let config = parse(&format!(
        "instance = \"main\"\nlisten = \"0.0.0.0:1\"\nadmin_listen = \"0.0.0.0:2\"\n\
         [tls]\ncertificate = \"c\"\nkey = \"k\"\n\
         [[tokens]]\nsha256 = \"{DIGEST}\"\nsubject = \"s\"\ntenant = \"t\"\ntargets = [\"a\"]\n\
         [[tokens]]\nsha256 = \"{}\"\nsubject = \"nobody\"\n\
         [limits]\nmax_request_bytes = 8388608\nmax_manifest_bytes = 2048\nmax_calls = 3\nmax_watches = 4\n\
         max_streams_per_connection = 5\ndrain = \"2m\"\n\
         [[targets]]\nname = \"a\"\nkind = \"in-cluster\"\nnamespace = \"n\"\nresult_image = \"i\"\nfinish = \"keep\"\n\
         ttl = \"7d\"\nresult = \"sidecar\"\nfinalizer = false\nregion = \"r\"\n",
        DIGEST.replace('b', "c")
    ))
    .unwrap();

    assert_eq!(config.listen, Listen::Tcp("0.0.0.0:1".parse().unwrap()));
    assert_eq!(config.admin_listen, AdminListen::At("0.0.0.0:2".parse().unwrap()));
    assert_eq!(config.limits.drain, Duration::from_mins(2));
    assert_eq!(config.limits.max_streams_per_connection, 5);
    let target = &config.targets[0];
    assert_eq!(
        (target.kind, target.finalizer, target.ttl),
        (TargetKind::InCluster, false, Duration::from_hours(7 * 24))
    );
    assert_eq!(target.place("n").region, "r");
    let caller = config.authenticator().authenticate(Some("Bearer abc")).unwrap();
    assert_eq!((caller.subject.as_str(), caller.tenant.as_str()), ("s", "t"));
    assert_eq!(caller.targets, AllowedTargets::Only(["a".parse().unwrap()].into()));
    let Authenticator::Tokens(tokens) = config.authenticator() else { panic!() };
    assert_eq!(tokens[1].1.targets, AllowedTargets::Only([].into()), "a token without targets may use none");
}

#[test]
fn every_refusal_names_file_place_key_and_reason() {
    let token = format!("[[tokens]]\nsha256 = \"{DIGEST}\"\nsubject = \"s\"\n");
    let tls = "[tls]\ncertificate = \"c\"\nkey = \"k\"\n";
    let cases: &[(String, &str)] = &[
        ("listen = [".to_owned(), "c.toml:1: listen: "),
        ("instance = \"No\"\n".to_owned(), "c.toml:1: instance: instance \"No\" must be a DNS label: "),
        ("listen = \"x\"\n".to_owned(), "c.toml:1: listen: must be ADDRESS:PORT "),
        ("\nadmin_listen = \"x\"\n".to_owned(), "c.toml:2: admin_listen: must be ADDRESS:PORT "),
        (
            "listn = \"x\"\n".to_owned(),
            "c.toml:1: listn: unknown field `listn`, expected one of `instance`, `listen`, ",
        ),
        (format!("{TARGET}ttl = 5\n"), "c.toml:4: targets[0].ttl: invalid type: integer `5`, expected a string"),
        (format!("{TARGET}ttl = \"5\"\n"), "c.toml:4: targets[0].ttl: must be a whole number and a unit, such as "),
        (format!("{TARGET}ttl = \"5s\"\n"), "c.toml: targets[0].ttl: must be 60 to 2592000 seconds"),
        (format!("{TARGET}{TARGET}knd = \"x\"\n"), "c.toml:7: targets[1].knd: unknown field `knd`, expected one of "),
        (
            format!("{TARGET}finish = \"burn\"\n"),
            "c.toml:4: targets[0].finish: unknown variant `burn`, expected one of ",
        ),
        ("[[targets]]\nname = \"a\"\n".to_owned(), "c.toml:1: targets[0]: missing field `kind`"),
        (format!("{TARGET}{TARGET}"), "c.toml: targets[1].name: two targets have the name a"),
        (String::new(), "c.toml: targets: at least one is needed: add [[targets]] with name and kind"),
        (
            "[[targets]]\nname = \"a\"\nkind = \"in-cluster\"\ncontext = \"x\"\n".to_owned(),
            "c.toml: targets[0].context: only applies to the kind \"kubeconfig\"",
        ),
        (format!("{TARGET}result_image = \" \"\n"), "c.toml: targets[0].result_image: must name an image"),
        (
            format!("[[tokens]]\nsha256 = \"secret-token\"\nsubject = \"s\"\n{TARGET}"),
            "c.toml:2: tokens[0].sha256: must be the SHA-256 of a token as 64 hex digits; `podbroker token` makes a token \
             and prints it",
        ),
        (format!("{token}{token}{TARGET}"), "c.toml: tokens[1].sha256: two entries are for the same token"),
        (format!("{token}targets = [\"b\"]\n{TARGET}"), "c.toml: tokens[0].targets: no target has the name b"),
        (
            format!("{token}targets = [\"B\"]\n{TARGET}"),
            "c.toml: tokens[0].targets: target \"B\" must be a DNS label: ",
        ),
        (
            format!("[[tokens]]\nsha256 = \"{DIGEST}\"\nsubject = \"\"\n{TARGET}"),
            "c.toml: tokens[0].subject: must be 1 to 128 bytes without control characters",
        ),
        (
            format!("listen = \"0.0.0.0:1\"\n{TARGET}"),
            "c.toml: listen: 0.0.0.0:1 can be reached from other machines, which needs a certificate and at least one token: \
             add [tls] with certificate and key, run `podbroker token` and add what it prints; or listen at 127.0.0.1 or \
             unix:/PATH",
        ),
        (
            format!("listen = \"[::]:1\"\n{tls}{TARGET}"),
            "c.toml: listen: [::]:1 can be reached from other machines, which needs at least one token: ",
        ),
        (
            format!("listen = \"10.0.0.1:1\"\n{token}{TARGET}"),
            "c.toml: listen: 10.0.0.1:1 can be reached from other machines, which needs a certificate: ",
        ),
        (
            format!("listen = \"unix:/x\"\n{tls}{TARGET}"),
            "c.toml: tls: does not apply to a Unix socket; leave it out, or listen at ADDRESS:PORT",
        ),
        (format!("{TARGET}[limits]\nmax_calls = 0\n"), "c.toml: limits.max_calls: must be 1 to 1000000"),
        (format!("{TARGET}[limits]\nmax_calls = -1\n"), "c.toml:5: limits.max_calls: invalid value: integer `-1`"),
        (format!("{TARGET}[limits]\ndrain = \"0s\"\n"), "c.toml: limits.drain: must be 1 to 3600 seconds"),
        (
            format!("{TARGET}[limits]\nmax_manifest_bytes = 300000\n"),
            "c.toml: limits.max_manifest_bytes: must be 1024 to 262144",
        ),
        (
            format!("{TARGET}[limits]\nmax_request_bytes = 262144\n"),
            "c.toml: limits.max_request_bytes: must be 327680 to 67108864",
        ),
    ];
    are_refused(cases);
}

fn are_refused(cases: &[(String, &str)]) {
    for (text, beginning) in cases {
        let refusal = parse(text).unwrap_err();
        assert!(refusal.starts_with(beginning), "of\n{text}\nwas said\n{refusal}\nand not\n{beginning}");
        assert!(!refusal.contains("secret-token"), "{refusal}");
    }
}

#[test]
fn every_refusal_of_an_eks_target_names_its_key_and_reason() {
    let eks = "[[targets]]\nname = \"e\"\nkind = \"eks\"\ncluster = \"c\"\nregion = \"r\"\n";
    are_refused(&[
        (
            "[[targets]]\nname = \"e\"\nkind = \"eks\"\ncluster = \"c\"\n".to_owned(),
            "c.toml: targets[0].region: is needed for the kind \"eks\"",
        ),
        (
            format!("{eks}role_arn = \"arn\"\n"),
            "c.toml: targets[0].role_arn: must be a role's ARN, such as arn:aws:iam::111122223333:role/Name",
        ),
        (format!("{TARGET}[targets.eks]\nfips = true\n"), "c.toml: targets[0].eks: only applies to the kind \"eks\""),
        (
            format!("{eks}[targets.eks]\nsession_name = \"a b\"\n"),
            "c.toml: targets[0].eks.session_name: must be 2 to 64 letters, digits or any of _+=,.@-",
        ),
        (
            format!("{eks}[targets.eks]\nsession_duration = \"1m\"\n"),
            "c.toml: targets[0].eks.session_duration: must be \"15m\" to \"12h\"; a chained role gets \"1h\" at most",
        ),
        (
            format!("{eks}[targets.eks]\nendpoint = \"https://a\"\n"),
            "c.toml: targets[0].eks.endpoint: and eks.certificate_authority belong together",
        ),
        (
            format!("{eks}[targets.eks]\nexternalid = \"x\"\n"),
            "c.toml:7: targets.eks.externalid: unknown field `externalid`, expected one of ",
        ),
        (
            "[aws]\ncredentials = \"magic\"\n".to_owned(),
            "c.toml:2: aws.credentials: unknown variant `magic`, expected one of ",
        ),
    ]);
}

#[test]
fn a_target_of_any_kind_may_have_aws_batch() {
    let target = format!("{TARGET}region = \"us-east-1\"\n");
    let config = parse(&format!("{target}[targets.batch]\nqueue = \"q\"\n")).unwrap();
    let batch = config.targets[0].batch.clone().unwrap();
    assert_eq!(
        (batch.settle, batch.queue_deadline, batch.register_definitions),
        (Duration::from_secs(30), None, false)
    );
    let text = "queue = \"arn:aws:batch:us-east-1:111122223333:job-queue/q\"\nmore_queues = [\"r\"]\nregister_definitions = true\n\
                settle = \"2s\"\nqueue_deadline = \"1h\"\n";
    let config =
        parse(&format!("{target}role_arn = \"arn:aws:iam::111122223333:role/Jobs\"\n[targets.batch]\n{text}")).unwrap();
    assert_eq!(config.targets[0].batch.clone().unwrap().queue_deadline, Some(Duration::from_hours(1)));
    let url = "https://sqs.us-east-1.amazonaws.com/111122223333/astro-remote-batch-events";
    let config = parse(&format!("{target}[targets.batch]\nqueue = \"q\"\nevents_queue_url = \"{url}\"\n")).unwrap();
    let batch = config.targets[0].batch.clone().unwrap();
    assert_eq!(batch.events_queue(), Some(("111122223333", "astro-remote-batch-events")));
    for url in [
        "astro-remote-batch-events",
        "http://sqs.us-east-1.amazonaws.com/111122223333/q",
        "https://sqs.eu-west-1.amazonaws.com/111122223333/q",
        "https://sqs.us-east-1.amazonaws.com/1111/q",
        "https://sqs.us-east-1.amazonaws.com/111122223333/q/r",
        "https://sqs.us-east-1.amazonaws.com/111122223333/",
    ] {
        let text = format!("{target}[targets.batch]\nqueue = \"q\"\nevents_queue_url = \"{url}\"\n");
        let problem = parse(&text).unwrap_err();
        assert!(problem.contains("targets[0].batch.events_queue_url: must be a queue's URL"), "{url}: {problem}");
    }
    let logs = |text: &str| parse(&format!("{target}[targets.batch]\nqueue = \"q\"\n{text}\n"));
    for (text, identifier, account) in [
        ("/aws/containerinsights/c/application", "/aws/containerinsights/c/application", None),
        (
            "arn:aws:logs:us-east-1:111122223333:log-group:/a/b:*",
            "arn:aws:logs:us-east-1:111122223333:log-group:/a/b",
            Some("111122223333"),
        ),
    ] {
        let batch = logs(&format!("log_group = \"{text}\"")).unwrap().targets[0].batch.clone().unwrap();
        let group = batch.log_group().unwrap();
        assert_eq!((group.identifier, group.account), (identifier, account));
        assert_eq!(batch.log_stream_prefix, podbroker::config::LOG_STREAM_PREFIX);
    }
    for (text, why) in [
        ("log_group = \"\"", "log_group: must be a log group"),
        ("log_group = \"a b\"", "log_group: must be a log group"),
        ("log_group = \"a:*:*\"", "log_group: must be a log group"),
        ("log_group = \"arn:aws:logs:us-east-1:1111:log-group:g\"", "log_group: must be a log group"),
        ("log_group = \"arn:aws:s3:::b\"", "log_group: must be a log group"),
        (
            "log_group = \"arn:aws:logs:eu-west-1:111122223333:log-group:g\"",
            "log_group: must be in the target's region, us-east-1",
        ),
        ("log_stream_prefix = \"{pod}{container}\"", "log_stream_prefix: belongs to batch.log_group"),
        ("log_group = \"g\"\nlog_stream_prefix = \"{pod}\"", "log_stream_prefix: must have {pod} and {container}"),
        ("log_group = \"g\"\nlog_stream_prefix = \"{pod}{container}:\"", "log_stream_prefix: must have {pod}"),
        ("log_group = \"g\"\nlog_stream_prefix = \"{pod}{container}{id}\"", "log_stream_prefix: must have {pod}"),
    ] {
        let problem = logs(text).unwrap_err();
        assert!(problem.contains(&format!("c.toml: targets[0].batch.{why}")), "{text}: {problem}");
    }
    let batch = format!("{target}[targets.batch]\nqueue = \"q\"\n");
    are_refused(&[
        (format!("{TARGET}[targets.batch]\nqueue = \"q\"\n"), "c.toml: targets[0].region: is needed for AWS Batch"),
        (format!("{target}[targets.batch]\n"), "c.toml:5: targets.batch: missing field `queue`"),
        (
            format!("{target}[targets.batch]\nqueue = \"\"\n"),
            "c.toml: targets[0].batch.queue: must be the name or the ARN",
        ),
        (
            format!("{target}role_arn = \"x\"\n[targets.batch]\nqueue = \"q\"\n"),
            "c.toml: targets[0].role_arn: must be a role's ARN",
        ),
        (format!("{batch}more_queues = [\"a b\"]\n"), "c.toml: targets[0].batch.more_queues: must be names"),
        (
            format!("{batch}job_definition = \" \"\n"),
            "c.toml: targets[0].batch.job_definition: must be a job definition",
        ),
        (
            format!("{batch}job_definition = \"d\"\nregister_definitions = true\n"),
            "c.toml: targets[0].batch.register_definitions: and batch.job_definition exclude each other",
        ),
        (format!("{batch}settle = \"0s\"\n"), "c.toml: targets[0].batch.settle: must be \"1s\" to \"10m\""),
        (
            format!("{batch}queue_deadline = \"31d\"\n"),
            "c.toml: targets[0].batch.queue_deadline: must be \"1s\" to \"30d\"",
        ),
    ]);
}

#[test]
fn a_local_listener_may_be_open_and_may_have_tokens() {
    let token = format!("[[tokens]]\nsha256 = \"{DIGEST}\"\nsubject = \"s\"\n");
    for listen in ["127.0.0.1:0", "[::1]:0", "unix:/run/podbroker.sock"] {
        let open = parse(&format!("listen = \"{listen}\"\n{TARGET}")).unwrap();
        assert_eq!(open.authenticator().authenticate(None).unwrap().subject, "local");
        let closed = parse(&format!("listen = \"{listen}\"\n{token}{TARGET}")).unwrap();
        assert!(closed.authenticator().authenticate(None).is_err(), "tokens are needed everywhere");
    }
}

#[test]
fn relative_paths_start_at_the_folder_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.toml");
    std::fs::write(&file, format!("{TARGET}kubeconfig = \"k\"\n[tls]\ncertificate = \"/abs/c\"\nkey = \"sub/k\"\n"))
        .unwrap();
    let config = Config::load(&file).unwrap();
    assert_eq!(config.targets[0].kubeconfig.as_deref(), Some(&*folder.path().join("k")));
    let tls = config.tls.unwrap();
    assert_eq!((&*tls.certificate, &*tls.key), (Path::new("/abs/c"), &*folder.path().join("sub/k")));
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = Config::load(Path::new("/not/there.toml")).unwrap_err();
    assert_eq!(error.to_string(), "/not/there.toml: cannot be read");
    assert!(std::error::Error::source(&error).is_some());
}

#[test]
fn the_archive_takes_the_credentials_of_a_target_that_has_a_role() {
    let eks = "[[targets]]\nname = \"e\"\nkind = \"eks\"\ncluster = \"c\"\nregion = \"us-east-1\"\n";
    let role = "role_arn = \"arn:aws:iam::111122223333:role/Logs\"\n";
    let archive = |url: &str, of: &str| format!("[archive]\nurl = \"{url}\"\ncredentials_of = \"{of}\"\n");
    let s3 = "s3://example-logs/podbroker";
    let config = parse(&format!("{}{TARGET}{eks}{role}", archive(s3, "e"))).unwrap();
    assert_eq!(config.archive.unwrap().credentials_of.unwrap().as_str(), "e");
    for (text, hint) in [
        (format!("{}{TARGET}{eks}{role}", archive(s3, "f")), "no target has the name f; those with a role are: e"),
        (format!("{}{TARGET}", archive(s3, "f")), "leave it out to use the broker's own credentials"),
        (format!("{}{TARGET}", archive(s3, "a")), "the target a is not of the kind \"eks\""),
        (format!("{}{eks}", archive(s3, "e")), "the target e has no role_arn"),
        (format!("{}{eks}{role}", archive("file:///x", "e")), "only applies to a bucket"),
    ] {
        let refusal = parse(&text).unwrap_err();
        assert!(refusal.contains("archive.credentials_of") && refusal.contains(hint), "{refusal}");
    }
}
