//! Answers that read like what they say.

use std::time::Duration;

use crate::bindings::adit::filter::types::{
    Admission, Failure, Field, Passage, Reason, Redirect, RedirectKind, Refusal, Reply, Revision,
    Verdict,
};

impl Refusal {
    /// A refusal for this reason: the edge says what it looks like.
    #[must_use]
    pub fn new(reason: Reason) -> Self {
        Self {
            reason,
            detail: None,
            retry_after_ms: None,
        }
    }

    /// The same with more for the operator's log alone.
    #[must_use]
    pub fn because(self, detail: impl Into<String>) -> Self {
        Self {
            detail: Some(detail.into()),
            ..self
        }
    }

    /// The same, and for how long.
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        Self {
            retry_after_ms: Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
            ..self
        }
    }
}

impl Reply {
    /// An empty answer with this status.
    #[must_use]
    pub fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// The same with one more field.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push(Field {
            name: name.to_ascii_lowercase(),
            value: value.as_ref().to_vec(),
        });
        self
    }

    /// The same with this body.
    #[must_use]
    pub fn body(self, body: impl Into<Vec<u8>>) -> Self {
        Self {
            body: body.into(),
            ..self
        }
    }

    /// The same with this text.
    #[must_use]
    pub fn text(self, text: impl Into<String>) -> Self {
        self.header("content-type", "text/plain; charset=utf-8")
            .body(text.into())
    }

    /// The same with this page.
    #[must_use]
    pub fn html(self, page: impl Into<String>) -> Self {
        self.header("content-type", "text/html; charset=utf-8")
            .body(page.into())
    }
}

impl Redirect {
    /// To there, for this once (303).
    #[must_use]
    pub fn see_other(location: impl Into<String>) -> Self {
        Self {
            kind: RedirectKind::SeeOther,
            location: location.into(),
        }
    }
}

macro_rules! from {
    ($($what:ident for $($answer:ident::$variant:ident),+;)*) => {
        $($(impl From<$what> for $answer {
            fn from(what: $what) -> Self {
                Self::$variant(what)
            }
        })+)*
    };
}
from! {
    Refusal for Admission::Refuse, Verdict::Refuse, Passage::Refuse;
    Reply for Verdict::Respond, Passage::Respond, Revision::Replace;
    Redirect for Verdict::Redirect;
}

impl Failure {
    /// Something the decision needs did not answer.
    pub fn unavailable(what: impl std::fmt::Display) -> Self {
        Self::Unavailable(what.to_string())
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self::Internal(text)
    }
}

impl From<&str> for Failure {
    fn from(text: &str) -> Self {
        Self::Internal(text.to_owned())
    }
}
