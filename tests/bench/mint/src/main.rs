//! How long it takes to make an EKS token; started by the benchmark, prints one line of JSON.
//!
//! Each token is made as the broker makes it: signed, checked against the verifier's rules, and put into a header. The session
//! token has the length of an ordinary one.

use std::io::Write as _;
use std::time::{Duration, Instant, SystemTime};

use aws_credential_types::Credentials;
use podbroker::identity::eks::{Audience, presign};

const TOKENS: usize = 20_000;

/// Characters of a role session's own token.
const SESSION_TOKEN: usize = 800;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let audience = Audience {
        region: "us-east-1".to_owned(),
        host: "sts.us-east-1.amazonaws.com".to_owned(),
        cluster: "remote-kpo-demo".to_owned(),
    };
    let (key, secret) = ("ASIAEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
    let credentials = Credentials::new(key, secret, Some("A".repeat(SESSION_TOKEN)), None, "bench");
    let mut times = Vec::with_capacity(TOKENS);
    for _ in 0..TOKENS {
        let begin = Instant::now();
        std::hint::black_box(presign(&credentials, &audience, SystemTime::now())?);
        times.push(begin.elapsed());
    }
    times.sort_unstable();
    let at = |share: usize| times.get(TOKENS * share / 100).map(Duration::as_nanos).unwrap_or_default();
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    writeln!(
        std::io::stdout(),
        r#"{{"build": "{build}", "tokens": {TOKENS}, "p50_ns": {}, "p90_ns": {}, "p99_ns": {}}}"#,
        at(50),
        at(90),
        at(99),
    )?;
    Ok(())
}
