//! The operator's door: a Unix socket only its owner can open, one JSON line in, one JSON line out.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::engine::{Explanation, Inner};
use crate::listen::tcp::{Phase, reached};

/// Longest request or reply, in bytes. A chain of 200 filters stays well below.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Longest wait for a request, or for a reply to be taken.
const WAIT: Duration = Duration::from_secs(10);

/// Conversations at a time.
const CONVERSATIONS_MAX: usize = 8;

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
    /// The configuration was read and is in effect.
    Reloaded,
    /// Nothing has changed.
    Refused {
        /// Every reason.
        reasons: Vec<String>,
    },
    /// How the engine is.
    Status(Status),
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

/// Why the socket cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The path cannot be used.
    #[error("`admin.socket`: cannot listen on {path}: {source}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody answers there.
    #[error("`admin.socket`: another engine listens on {path}, stop it or use another path")]
    Taken {
        /// The socket.
        path: PathBuf,
    },
}

/// The listening socket; its file goes with it.
pub(crate) struct Socket {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl Socket {
    /// Opens the socket at `path`, in place of one that an engine left behind when it was killed.
    pub(crate) fn bind(path: &Path) -> Result<Self, BindError> {
        let failed = |source| BindError::Io {
            path: path.to_owned(),
            source,
        };
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(BindError::Taken {
                path: path.to_owned(),
            });
        }
        // Bound under another name and moved once only the owner can open it, so that there is no
        // moment at which others can.
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(format!(".{}", std::process::id()));
        let fresh = PathBuf::from(fresh);
        let bound = (|| {
            remove_if_there(&fresh)?;
            let listener = UnixListener::bind(&fresh)?;
            fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600))?;
            let inode = fs::symlink_metadata(&fresh)?.ino();
            fs::rename(&fresh, path)?;
            Ok((listener, inode))
        })();
        let (listener, inode) = bound.map_err(|error| {
            let _ = remove_if_there(&fresh);
            failed(error)
        })?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            inode,
        })
    }

    /// Answers requests until the engine begins to end.
    pub(crate) async fn serve(self, engine: Arc<Inner>, mut phase: watch::Receiver<Phase>) {
        let mut conversations = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if conversations.len() < CONVERSATIONS_MAX => {
                    match accepted {
                        Ok((stream, _)) => {
                            conversations.spawn(converse(stream, Arc::clone(&engine)));
                        }
                        Err(error) => {
                            tracing::warn!(%error, "cannot accept on the admin socket");
                            tokio::time::sleep(WAIT / 10).await;
                        }
                    }
                }
                Some(_) = conversations.join_next() => {}
                () = reached(&mut phase, Phase::Draining) => break,
            }
        }
        drop(self);
        // The answer to the request that ended the engine is still to be written.
        tokio::select! {
            () = async { while conversations.join_next().await.is_some() {} } => {}
            () = reached(&mut phase, Phase::Over) => {}
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Another engine may have taken the path since.
        if fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

async fn converse(stream: UnixStream, engine: Arc<Inner>) {
    let conversation = async {
        let (reader, mut writer) = stream.into_split();
        let reply = match line(reader).await? {
            None => return Ok(()),
            Some(line) => match serde_json::from_str(&line) {
                Ok(request) => answer(&engine, request),
                Err(error) => Reply::Wrong {
                    message: error.to_string(),
                },
            },
        };
        let mut bytes = serde_json::to_vec(&reply)?;
        bytes.push(b'\n');
        writer.write_all(&bytes).await?;
        writer.shutdown().await
    };
    if let Ok(Err(error)) = tokio::time::timeout(WAIT, conversation).await {
        tracing::debug!(%error, "a conversation on the admin socket failed");
    }
}

fn answer(engine: &Inner, request: Request) -> Reply {
    match request {
        Request::Drain => {
            engine.ask_to_stop();
            Reply::Draining
        }
        Request::Explain { host } => Reply::Explained(engine.explain(&host)),
        Request::Reload => match engine.reload() {
            Ok(()) => Reply::Reloaded,
            Err(error) => Reply::Refused {
                reasons: error.lines(),
            },
        },
        Request::Status => Reply::Status(engine.status()),
    }
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

    #[tokio::test]
    async fn only_the_owner_can_open_the_socket_and_it_leaves_no_trace() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let socket = Socket::bind(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(Socket::bind(&path), Err(BindError::Taken { .. })));
        drop(socket);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_socket_left_behind_is_replaced_and_kept_from_its_late_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let first = Socket::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let second = Socket::bind(&path).unwrap();
        drop(first);
        assert!(path.exists(), "it is the second's by now");
        drop(second);
        assert!(!path.exists());
    }

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
