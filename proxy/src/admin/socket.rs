//! The socket: who may open it, and one conversation at a time on each connection.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::answer::answer;
use super::{LINE_BYTES_MAX, Reply, WAIT, line};
use crate::engine::Inner;
use crate::listen::tcp::{Phase, reached};

/// Conversations at a time.
const CONVERSATIONS_MAX: usize = 8;

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

/// Whether this user may ask: the engine's own, and root.
fn may_ask(uid: u32) -> bool {
    [nix::unistd::geteuid().as_raw(), 0].contains(&uid)
}

async fn converse(stream: UnixStream, engine: Arc<Inner>) {
    let conversation = async {
        let asked_by = stream.peer_cred().ok().map(|peer| peer.uid());
        // Whoever found the file before its mode was set does not get in by that.
        if !asked_by.is_some_and(may_ask) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let (reader, mut writer) = stream.into_split();
        let reply = match line(reader).await? {
            None => return Ok(()),
            Some(line) => match serde_json::from_str(&line) {
                Ok(request) => answer(&engine, request, asked_by).await,
                Err(error) => Reply::Wrong {
                    message: error.to_string(),
                },
            },
        };
        let mut bytes = serde_json::to_vec(&reply)?;
        if bytes.len() >= LINE_BYTES_MAX {
            let reasons = vec!["the answer is too long, ask for one project".to_owned()];
            bytes = serde_json::to_vec(&Reply::Refused { reasons })?;
        }
        bytes.push(b'\n');
        writer.write_all(&bytes).await?;
        writer.shutdown().await
    };
    if let Ok(Err(error)) = tokio::time::timeout(WAIT, conversation).await {
        tracing::debug!(%error, "a conversation on the admin socket failed");
    }
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

    #[test]
    fn nobody_but_the_engine_s_own_user_and_root_may_ask() {
        let own = nix::unistd::geteuid().as_raw();
        assert!(may_ask(own) && may_ask(0));
        assert!(!may_ask(own.wrapping_add(1).max(1)));
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
}
