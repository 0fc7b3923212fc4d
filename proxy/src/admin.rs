//! The operator's door: a Unix socket only its owner can open, one JSON line in, one JSON line out.

mod answer;
mod socket;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use crate::assemble::{FilterState, IdleSwitch, Position};
use crate::engine::{Explanation, Switched, TrialReport, TrialRequest};

pub use socket::BindError;
pub(crate) use socket::Socket;

/// Longest request or reply, in bytes. A chain of 200 filters stays well below.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Longest wait for a request, or for a reply to be taken.
const WAIT: Duration = Duration::from_secs(10);

/// What the operator asks.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Ends the engine in order.
    Drain,
    /// What a host name leads to.
    Explain {
        /// The host name.
        host: String,
    },
    /// The filters of a project, or of all.
    PolicyList {
        /// The project.
        project: Option<String>,
    },
    /// Forgets how a filter was switched.
    PolicyReset {
        /// The project.
        project: String,
        /// The filter, as `policy/filter`.
        filter: String,
    },
    /// One filter.
    PolicyShow {
        /// The project.
        project: String,
        /// The filter, as `policy/filter`.
        filter: String,
    },
    /// Switches a filter, whatever the file says.
    PolicySwitch {
        /// The project.
        project: String,
        /// The filter, as `policy/filter`.
        filter: String,
        /// Which way.
        to: Position,
        /// Why.
        reason: Option<String>,
    },
    /// What filters would say to a request.
    PolicyTest(TrialRequest),
    /// Reads the configuration again.
    Reload,
    /// How the engine is.
    Status,
}

/// What the engine answers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    /// The engine ends.
    Draining,
    /// What the host name leads to.
    Explained(Explanation),
    /// Filters of the operator's.
    Filters {
        /// The filters, once for each place they stand in.
        filters: Vec<FilterState>,
        /// Switches that have no effect.
        idle: Vec<IdleSwitch>,
    },
    /// The configuration was read and is in effect.
    Reloaded,
    /// Nothing has changed.
    Refused {
        /// Every reason.
        reasons: Vec<String>,
    },
    /// How the engine is.
    Status(Status),
    /// A filter was switched.
    Switched(Switched),
    /// What filters would say to a request.
    Tested(TrialReport),
    /// The request was not understood.
    Wrong {
        /// Why.
        message: String,
    },
}

/// How an engine is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Status {
    /// Its version.
    pub version: String,
    /// Its public name.
    pub host: String,
    /// Where it listens.
    pub https: SocketAddr,
    /// For how long it has run.
    pub uptime_seconds: u64,
    /// Whether it is ending.
    pub draining: bool,
    /// Connections open now.
    pub connections: usize,
    /// Agents connected now.
    pub agents: usize,
    /// Tunnels open now.
    pub tunnels: usize,
}

/// One line, without its end; `None` if there is none, an error if it is too long.
async fn line(reader: impl tokio::io::AsyncRead + Unpin) -> io::Result<Option<String>> {
    let mut line = String::new();
    let mut reader = BufReader::new(reader.take(LINE_BYTES_MAX as u64));
    match reader.read_line(&mut line).await? {
        0 => Ok(None),
        _ if line.ends_with('\n') => Ok(Some(line)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Asks the engine whose socket is at `path`.
///
/// # Errors
/// Where nobody answers, or not in time, or not in our words.
pub async fn ask(path: &Path, request: &Request) -> io::Result<Reply> {
    let exchange = async {
        let stream = UnixStream::connect(path).await?;
        let (reader, mut writer) = stream.into_split();
        let mut bytes = serde_json::to_vec(request)?;
        bytes.push(b'\n');
        writer.write_all(&bytes).await?;
        let line = line(reader).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        serde_json::from_str(&line).map_err(io::Error::from)
    };
    tokio::time::timeout(WAIT, exchange)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn requests_are_lines_a_person_can_write() {
        let request: Request = serde_json::from_str(r#"{"request":"explain","host":"x"}"#).unwrap();
        assert_eq!(request, Request::Explain { host: "x".into() });
        for wrong in [
            r#"{"request":"explode"}"#,
            r#"{"request":"explain"}"#,
            "null",
            "",
        ] {
            assert!(serde_json::from_str::<Request>(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_line_over_the_limit_is_not_read() {
        let long = vec![b'x'; LINE_BYTES_MAX + 10];
        assert!(line(&long[..]).await.is_err());
        assert_eq!(line(&b"a\n"[..]).await.unwrap().unwrap(), "a\n");
        assert!(line(&b""[..]).await.unwrap().is_none());
    }
}
