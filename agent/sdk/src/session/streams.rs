//! Streams the engine asks for.

use adit_protocol::agent::StreamRequest;
use adit_protocol::{ErrorCode, ProtocolError};
use tokio::sync::mpsc;

use super::Session;
use crate::{Dialer, Stream};

/// Streams that are brought at the same time. More requests wait, up to
/// [`STREAM_REQUESTS_MAX`](adit_protocol::agent::STREAM_REQUESTS_MAX) in all; those above are
/// refused.
pub const DIALS_MAX: usize = 64;

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
            // Its place first: streams brought for an application that does not accept would take the
            // turns of other tunnels.
            let place = match queue.clone().try_reserve_owned() {
                Ok(place) => place,
                Err(error) => {
                    let reason = match error {
                        mpsc::error::TrySendError::Full(_) => ProtocolError::new(
                            ErrorCode::CAPACITY_EXHAUSTED,
                            "the application accepts no streams",
                        ),
                        mpsc::error::TrySendError::Closed(_) => gone("the tunnel is closing"),
                    };
                    self.channel.answer_stream(&request.stream_id, Err(reason));
                    continue;
                }
            };
            let dialer = self.dialer.clone();
            self.dials.spawn(async move {
                let outcome = bring(&dialer, &request, queue, place).await;
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
    place: mpsc::OwnedPermit<Stream>,
) -> Result<(), ProtocolError> {
    // The engine is told the reason in any case: no answer costs it its full patience.
    let stream = tokio::select! {
        stream = dialer.bring(request) => stream.map_err(|error| {
            tracing::warn!(%error, stream = request.stream_id, "a stream could not be brought");
            error.to_answer()
        })?,
        () = queue.closed() => return Err(gone("the tunnel is closing")),
    };
    if queue.is_closed() {
        return Err(gone("the tunnel is closing"));
    }
    place.send(stream);
    Ok(())
}

fn gone(text: &str) -> ProtocolError {
    ProtocolError::new(ErrorCode::TUNNEL_NOT_FOUND, text)
}
