//! The filter's own log: what it says by `log`, and what its language's runtime writes to its standard error.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use tracing::Level;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use crate::shared::{Room, Shared};

/// How many bytes are taken at once.
const WRITE_BYTES_MAX: usize = 4096;

/// Writes one line to the engine's log, as far as the filter's budget allows.
pub(crate) fn line(shared: &Shared, level: Level, message: &str) {
    let Room::Yes { dropped } = shared.room() else {
        return;
    };
    let max = shared.limits.log_line_bytes;
    let filter = &*shared.env.name;
    // What a plugin says may hold what visitors sent: it stays on its line.
    let mut text: String = message
        .chars()
        .map(|one| if one.is_control() { ' ' } else { one })
        .collect();
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max));
        text.push('…');
    }
    match level {
        Level::ERROR => tracing::error!(filter, dropped, "{text}"),
        Level::WARN => tracing::warn!(filter, dropped, "{text}"),
        Level::INFO => tracing::info!(filter, dropped, "{text}"),
        _ => tracing::debug!(filter, dropped, "{text}"),
    }
}

/// Standard output and error of an instance, line by line.
#[derive(Clone)]
pub(crate) struct Lines {
    shared: Arc<Shared>,
    begun: Arc<Mutex<Vec<u8>>>,
}

impl Lines {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            begun: Arc::default(),
        }
    }

    fn take(&self, bytes: &[u8]) {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        for part in bytes.split_inclusive(|octet| *octet == b'\n') {
            let room = self
                .shared
                .limits
                .log_line_bytes
                .saturating_sub(begun.len());
            begun.extend_from_slice(part.get(..room).unwrap_or(part));
            if part.ends_with(b"\n") {
                let text = std::mem::take(&mut *begun);
                let text = String::from_utf8_lossy(&text);
                line(&self.shared, Level::INFO, text.trim_end());
            }
        }
    }
}

impl IsTerminal for Lines {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Lines {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Lines {
    async fn ready(&mut self) {}
}

impl OutputStream for Lines {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.take(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES_MAX)
    }
}

impl AsyncWrite for Lines {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.take(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
