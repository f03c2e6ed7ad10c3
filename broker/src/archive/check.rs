//! How the archive is, for people: the last link of `podbroker check`, and a line of `/readyz`.

use std::error::Error as StdError;

use super::{Archive, Condition};
use crate::backend::{Check, Verdict};

/// The link's name.
const LINK: &str = "archive";

impl Archive {
    /// What is wrong with the store, if anything is. Asks nobody.
    pub fn condition(&self) -> Option<Condition> {
        self.trouble.condition()
    }

    /// Writes and lists something now.
    pub(super) async fn check(&self) -> Check {
        let check = |verdict, detail| Check { link: LINK, subject: String::new(), verdict, detail };
        let waits = self.condition().map(|Condition { lasts, waiting, .. }| {
            format!("; it could not be used for {} s, and {waiting} executions wait for it", lasts.as_secs())
        });
        let waits = waits.unwrap_or_default();
        match self.life.sign(&self.reading).await {
            Ok(()) => check(Verdict::Passed, format!("written and listed{waits}")),
            Err(error) => {
                let fix = error.reason().fix().to_owned();
                // What is asked is whether a pod can run, and it can.
                check(Verdict::Warned { fix }, format!("{}{waits}", causes(&error)))
            }
        }
    }
}

/// The whole chain of causes.
fn causes(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        // The store's own errors repeat what is below them.
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        source = cause.source();
    }
    text
}
