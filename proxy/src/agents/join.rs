//! The agent's leg of a stream meets the one who waits for it.

use adit_protocol::handshake::ProxyClaim;
use adit_protocol::{ErrorCode, ProtocolError};
use adit_transport::{Abort, messages};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Agents, LAST_WORD, refuse};

/// Joins `io` to the opener of its stream. The secret alone proves the agent; the first valid claim
/// wins and any other is refused. The answer goes out before any payload, in a record of its own.
pub(super) async fn serve<I>(agents: &Agents, mut io: I, claim: &ProxyClaim)
where
    I: AsyncRead + AsyncWrite + Abort + Unpin + Send + 'static,
{
    let waiting = agents
        .pending
        .claim(&claim.stream_id, claim.secret.as_ref());
    let Some(waiting) = waiting else {
        let error = ProtocolError::new(
            ErrorCode::INVALID_STREAM,
            "nobody waits for this stream, or its secret is wrong",
        );
        return refuse(io, claim.refused(error)).await;
    };
    if let Some(answer) = claim.accepted() {
        let written = tokio::time::timeout(LAST_WORD, messages::write(&mut io, &answer)).await;
        if !matches!(written, Ok(Ok(()))) {
            // The agent gave this connection up and may come again with the same claim.
            let is_connected = |session: &str| agents.sessions().contains_key(session);
            agents
                .pending
                .put_back(&claim.stream_id, waiting, is_connected);
            return;
        }
    }
    if !waiting.hand_over(Box::new(agents.open.count(io))) {
        tracing::debug!("a stream came too late");
    }
}
