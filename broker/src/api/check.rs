//! The first two links of the chain from a caller to a running pod, which only the front knows; the target's backend walks
//! the rest. A caller that may not use the target is an answer here and no error.

use std::pin::pin;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use podbroker_proto::v1 as wire;
use tokio_util::sync::CancellationToken;

use super::convert;
use crate::auth::Caller;
use crate::backend::{Check, Verdict};
use crate::error::Error;
use crate::target::{Registry, Selector};

/// What a backend would have walked at most; the kind of a target that was not found is not known.
const REST: [&str; 7] = ["workload-identity", "role", "cluster", "connect", "token", "permission", "create"];

/// The whole chain; an error only for a selector that means nothing or too much.
pub(super) fn chain(
    caller: &Caller,
    targets: &Registry,
    selector: &Selector,
) -> Result<BoxStream<'static, Check>, Error> {
    let who = passed("caller", format!("subject {}, tenant {}", caller.subject, caller.tenant));
    let (target, rest) = match targets.select(caller, selector) {
        Ok(target) => {
            let place = &target.place;
            (passed("target", format!("{} ({place})", target.name)), target.backend.check())
        }
        Err(error @ (Error::NotAllowed { .. } | Error::NoSuchTarget { .. })) => {
            let fix = match error {
                Error::NotAllowed { .. } => {
                    "add the target's name to the caller's targets in the broker's configuration"
                }
                _ => "choose a target that the broker has, or add it to the broker's configuration",
            };
            let verdict = Verdict::Failed { fix: fix.to_owned() };
            let detail = error.to_string();
            (
                Check { link: "target", subject: String::new(), verdict, detail },
                futures::stream::iter(REST.map(skipped)).boxed(),
            )
        }
        Err(error) => return Err(error),
    };
    Ok(futures::stream::iter([who, target]).chain(rest).boxed())
}

fn passed(link: &'static str, detail: String) -> Check {
    Check { link, subject: String::new(), verdict: Verdict::Passed, detail }
}

fn skipped(link: &'static str) -> Check {
    let detail = "not tried, because a link before it is broken".to_owned();
    Check { link, subject: String::new(), verdict: Verdict::Skipped, detail }
}

/// The checks for the wire, given up when this replica goes away.
pub(super) fn answers(
    checks: BoxStream<'static, Check>,
    draining: CancellationToken,
) -> impl Stream<Item = Result<wire::CheckTargetResponse, Error>> + Send {
    async_stream::stream! {
        let mut checks = checks;
        let mut drained = pin!(draining.cancelled());
        loop {
            let check = tokio::select! {
                biased;
                () = &mut drained => {
                    yield Err(Error::Draining);
                    return;
                }
                check = checks.next() => check,
            };
            match check {
                Some(check) => yield Ok(convert::check(check)),
                None => return,
            }
        }
    }
}
