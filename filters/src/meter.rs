//! What filters answer, counted and timed by whoever keeps a clock.

use std::sync::Arc;
use std::time::Duration;

use crate::weight::Said;

/// A phase in which filters answer.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Phase {
    /// A connection reaches a tunnel.
    Connect,
    /// A request goes down the chain.
    Request,
    /// A piece of its body passes.
    RequestBody,
    /// A response goes back up.
    Response,
    /// A piece of its body passes.
    ResponseBody,
    /// A piece of a stream passes, either way.
    Stream,
    /// A datagram passes, either way.
    Datagram,
}

impl Phase {
    /// Every phase, in the order they happen.
    pub const ALL: [Self; 7] = [
        Self::Connect,
        Self::Request,
        Self::RequestBody,
        Self::Response,
        Self::ResponseBody,
        Self::Stream,
        Self::Datagram,
    ];

    /// The phase in kebab case, as `explain` and metrics write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Request => "request",
            Self::RequestBody => "request-body",
            Self::Response => "response",
            Self::ResponseBody => "response-body",
            Self::Stream => "stream",
            Self::Datagram => "datagram",
        }
    }
}

macro_rules! answered {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// What came of a filter's answer: the few words metrics are kept by.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        pub enum Answered { $($(#[$doc])* $variant,)* }

        impl Answered {
            /// Every one; their order is that of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word in kebab case.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}
answered! {
    /// It went on.
    Pass = "pass",
    /// An upgrade was granted.
    Upgrade = "upgrade",
    /// The filter answered itself.
    Respond = "respond",
    /// The visitor was sent elsewhere.
    Redirect = "redirect",
    /// It was refused.
    Refuse = "refuse",
    /// It was closed without a word.
    Close = "close",
    /// The filter failed, so it was refused.
    Fail = "fail",
    /// The filter failed, and it went on.
    PassedOver = "passed-over",
    /// The filter is on trial: it went on, and would not have.
    WouldRefuse = "would-refuse",
}

impl From<&Said> for Answered {
    fn from(said: &Said) -> Self {
        match said {
            Said::Pass => Self::Pass,
            Said::Upgrade(_) => Self::Upgrade,
            Said::Respond(_) => Self::Respond,
            Said::Redirect(..) => Self::Redirect,
            Said::Refuse(..) => Self::Refuse,
            Said::Close => Self::Close,
            Said::Fail(..) => Self::Fail,
        }
    }
}

/// Measures what filters do. A chain asks it once, when it is compiled, for each place it will report from.
pub trait Meter: Send + Sync {
    /// Where the answers of one filter in one phase are counted.
    fn tally(&self, filter: &Arc<str>, phase: Phase) -> Arc<dyn Tally>;
}

/// Counts the answers of one filter in one phase. It is called for each of them: it must not wait.
pub trait Tally: Send + Sync {
    /// Time since some fixed moment, the same one for every tally of a meter.
    fn now(&self) -> Duration;

    /// The filter answered, this long after it was asked; waits are part of it.
    fn add(&self, answered: Answered, took: Duration);
}

/// Hears the answers of one phase, one after the other.
pub(crate) struct Ear<'a> {
    /// When the last was heard, if they are measured. One look at the clock serves the end of one filter and the
    /// beginning of the next.
    since: Option<Duration>,
    told: Option<&'a mut Vec<Told>>,
}

/// An answer that was heard.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) at: u8,
    pub(crate) said: Said,
    pub(crate) answered: Answered,
}

impl<'a> Ear<'a> {
    /// Hears what is measured by tallies like the `first`.
    pub(crate) fn measuring(first: Option<&Arc<dyn Tally>>) -> Self {
        Self {
            since: first.map(|tally| tally.now()),
            told: None,
        }
    }

    /// Writes down what is heard; nothing of it is measured.
    pub(crate) fn writing(told: &'a mut Vec<Told>) -> Self {
        Self {
            since: None,
            told: Some(told),
        }
    }

    /// Whether nothing comes of what is heard.
    pub(crate) fn is_of_a_trial(&self) -> bool {
        self.told.is_some()
    }

    pub(crate) fn heard(
        &mut self,
        at: u8,
        tally: Option<&Arc<dyn Tally>>,
        answered: Answered,
        said: Said,
    ) {
        if let (Some(since), Some(tally)) = (&mut self.since, tally) {
            let now = tally.now();
            tally.add(answered, now.saturating_sub(*since));
            *since = now;
        }
        if let Some(told) = &mut self.told {
            told.push(Told { at, said, answered });
        }
    }
}
