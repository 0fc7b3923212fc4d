//! Asking again about exchanges that were let in, when the rules or what is known of their visitors have changed.

use std::fmt;
use std::sync::Arc;

use crate::connection::{ConnectionInfo, TunnelInfo};
use crate::exchange::Exchange;
use crate::facts::Facts;
use crate::hooks::DynOnConnect;
use crate::verdict::{FilterError, Reason, Upgrade};

/// Tells whether an exchange that was let in may go on. Never waits.
///
/// A filter that decides about requests should take part: without this hook what it said when the exchange began
/// stands, and exchanges that began without it end. A filter that decides about connections alone need not: it is asked
/// about the connection again, with [`Rehearsal`](crate::Rehearsal) established.
pub trait OnRejudge: Send + Sync + 'static {
    /// Called for each open exchange after the tunnel got another chain or credentials changed. It is this chain's
    /// filter that is asked, while another one may have let the exchange in.
    ///
    /// # Errors
    /// When the filter could not decide; the exchange is then ended, unless the filter is an observer.
    fn on_rejudge(&self, cx: &mut RejudgeCx<'_>) -> Result<Stay, FilterError>;
}

/// Answer of [`OnRejudge`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stay {
    /// Nothing against it.
    Yes,
    /// Nothing against it, and its upgrade is one that this filter grants.
    Upgraded,
    /// It has to end.
    No(Reason),
}

/// An open exchange that is judged again.
#[derive(Debug)]
pub struct RejudgeCx<'a> {
    /// The exchange as it was let in, with the facts that were established then.
    pub exchange: &'a Exchange,
    /// What the filters asked so far have established anew. What was proved once counts only if its filter says so
    /// again.
    pub facts: &'a mut Facts,
    /// The protocol the exchange has left HTTP for.
    pub upgrade: Option<Upgrade>,
}

impl RejudgeCx<'_> {
    /// What is fixed for the connection.
    #[must_use]
    pub fn connection(&self) -> &Arc<ConnectionInfo> {
        self.exchange.connection().info()
    }

    /// The tunnel it reached.
    #[must_use]
    pub fn tunnel(&self) -> &Arc<TunnelInfo> {
        self.exchange.connection().tunnel()
    }
}

/// In what way a filter is asked again.
#[derive(Clone, Default)]
pub(crate) enum Again {
    /// As follows from the phases it takes part in.
    #[default]
    ByPhase,
    /// Not at all: it decides how something may begin, not whether it may go on.
    Never,
    /// By its hook.
    Hook(Arc<dyn OnRejudge>),
}

/// In what way a filter of a chain is asked again.
pub(crate) enum Asked {
    /// About the connection, as at the beginning.
    Connect(Arc<dyn DynOnConnect>),
    /// By its hook.
    Hook(Arc<dyn OnRejudge>),
    /// Not: what it said at the beginning stands, if it was asked then. `grants` says whether it is one of those that
    /// let requests leave HTTP.
    Stands { grants: bool },
}

impl fmt::Debug for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ByPhase => "by phase",
            Self::Never => "never",
            Self::Hook(_) => "by its hook",
        })
    }
}
