//! Streams the engine asks for.

use std::time::Duration;

use adit_protocol::agent::StreamRequest;
use adit_protocol::{ErrorCode, ProtocolError};
use tokio::sync::mpsc;

use super::Session;
use crate::{Dialer, Stream};

/// Streams that are brought at the same time. More requests wait, up to
/// [`STREAM_REQUESTS_MAX`](adit_protocol::agent::STREAM_REQUESTS_MAX) in all; those above are
/// refused.
pub const DIALS_MAX: usize = 64;

/// How long a stream is offered to an application whose queue is full.
pub const HANDOVER_TIMEOUT: Duration = Duration::from_secs(5);

impl Session {
    /// Brings as many of the streams asked for as may be brought at once.
    pub(super) fn start_dials(&mut self) {
        while self.dials.len() < DIALS_MAX {
            let Some(request) = self.waiting.pop_front() else {
                return;
            };
            let queue = self
                .key_of(&request.tunnel_id)
                .and_then(|key| self.registry.get(key))
                .and_then(|entry| entry.queue());
            let Some(queue) = queue else {
                self.channel
                    .answer_stream(&request.stream_id, Err(gone("the tunnel is closing")));
                continue;
            };
            let dialer = self.dialer.clone();
            self.dials.spawn(async move {
                let outcome = bring(&dialer, &request, queue).await;
                (request.stream_id, outcome)
            });
        }
    }
}

/// Brings one stream and hands it over.
async fn bring(
    dialer: &Dialer,
    request: &StreamRequest,
    queue: mpsc::Sender<Stream>,
) -> Result<(), ProtocolError> {
    // The engine is told the reason in any case: no answer costs it its full patience.
    let stream = tokio::select! {
        stream = dialer.bring(request) => stream.map_err(|error| {
            tracing::warn!(%error, stream = request.stream_id, "a stream could not be brought");
            error.to_answer()
        })?,
        () = queue.closed() => return Err(gone("the tunnel is closing")),
    };
    match queue.send_timeout(stream, HANDOVER_TIMEOUT).await {
        Ok(()) => Ok(()),
        Err(mpsc::error::SendTimeoutError::Closed(_)) => Err(gone("the tunnel is closing")),
        Err(mpsc::error::SendTimeoutError::Timeout(_)) => Err(ProtocolError::new(
            ErrorCode::CAPACITY_EXHAUSTED,
            "the application accepts no streams",
        )),
    }
}

fn gone(text: &str) -> ProtocolError {
    ProtocolError::new(ErrorCode::TUNNEL_NOT_FOUND, text)
}
