//! Which executions a backend has: all of them first, then each that comes and goes.
//!
//! For who follows every execution, such as the archive. Nothing is asked of the cluster for it. A listener that falls behind
//! is told all of them anew, so it misses nothing and nobody waits for it.

use std::sync::Arc;

use futures::stream::BoxStream;
use futures::{StreamExt as _, stream};
use tokio::sync::broadcast;

use crate::execution::Address;

/// Who falls further behind is told all of them anew.
const BACKLOG: usize = 1024;

/// What is new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// These are there, and no others.
    All(Vec<Address>),
    /// One more.
    Arrived(Address),
    /// It is not there any more.
    Left(Address),
}

/// Tells who listens.
#[derive(Debug)]
pub struct Census(broadcast::Sender<Presence>);

impl Default for Census {
    fn default() -> Self {
        Self(broadcast::Sender::new(BACKLOG))
    }
}

impl Census {
    /// Tells what is new. Without listeners it costs nothing.
    pub fn tell(&self, news: impl FnOnce() -> Presence) {
        if self.0.receiver_count() > 0 {
            // The last listener may have gone in between.
            let _ = self.0.send(news());
        }
    }

    /// All of them, then what is new; ends with the backend.
    pub fn listen(&self, all: impl Fn() -> Vec<Address> + Send + Sync + 'static) -> BoxStream<'static, Presence> {
        // Listening begins before the list is made, so that nothing falls in between. What is told twice is harmless.
        let news = self.0.subscribe();
        let all = Arc::new(all);
        let first = stream::iter([Presence::All(all())]);
        let rest = stream::unfold((news, all), |(mut news, all)| async move {
            match news.recv().await {
                Ok(presence) => Some((presence, (news, all))),
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    let news = news.resubscribe();
                    Some((Presence::All(all()), (news, all)))
                }
                Err(broadcast::error::RecvError::Closed) => None,
            }
        });
        first.chain(rest).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(id: &str) -> Address {
        Address {
            instance: "main".parse().unwrap(),
            tenant: "default".parse().unwrap(),
            target: "prod".parse().unwrap(),
            id: id.parse().unwrap(),
        }
    }

    #[tokio::test]
    async fn a_listener_is_told_all_of_them_and_then_what_is_new() {
        let census = Census::default();
        let mut heard = census.listen(|| vec![address("a")]);
        census.tell(|| Presence::Arrived(address("b")));
        census.tell(|| Presence::Left(address("a")));
        assert_eq!(heard.next().await, Some(Presence::All(vec![address("a")])));
        assert_eq!(heard.next().await, Some(Presence::Arrived(address("b"))));
        assert_eq!(heard.next().await, Some(Presence::Left(address("a"))));
    }

    #[tokio::test]
    async fn a_listener_that_fell_behind_is_told_all_of_them_anew() {
        let census = Census::default();
        let mut heard = census.listen(|| vec![address("a")]);
        assert_eq!(heard.next().await, Some(Presence::All(vec![address("a")])));
        for _ in 0..=BACKLOG {
            census.tell(|| Presence::Arrived(address("b")));
        }
        assert_eq!(heard.next().await, Some(Presence::All(vec![address("a")])));
    }
}
