//! Private streams: a client dials a tunnel, published or not, by id or name.
//!
//! Bytes pass as they are, for every protocol of the tunnel. The public policy of a tunnel guards
//! its public address only; a dialer is known by its credential, which must allow the dial.

use std::sync::Arc;

use adit_protocol::handshake::DialRequest;
use adit_protocol::{ErrorCode, ProtocolError, Version};
use adit_transport::{Abort, messages, relay};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use super::listing::TunnelRecord;
use super::{Agents, BoxLeg, ConnInfo, LAST_WORD, draining, ids, internal, refuse};
use crate::edge::DialError;
use crate::route::Tunnel;

/// Opens the agent's leg and splices. Until it is there nothing is read from the dialer, so what
/// it sends ahead waits in the transport and holds the dialer back.
pub(super) async fn serve<I>(agents: Arc<Agents>, mut io: I, info: ConnInfo, request: DialRequest)
where
    I: AsyncRead + AsyncWrite + Abort + Unpin + Send + 'static,
{
    let _relay = Relay::begin(&agents.relays);
    let opened = match find(&agents, &info, &request) {
        Ok(tunnel) => open(&tunnel, &info).await,
        Err(error) => Err(error),
    };
    // Another id than the agent's: a client that dials its own tunnel sees both.
    let opened = opened.and_then(|leg| Ok((leg, ids::id().map_err(|_| internal())?)));
    let (mut leg, stream_id) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            tracing::debug!(peer = %info.peer, %error, "a private dial failed");
            return refuse(io, request.refused(error)).await;
        }
    };
    if let Some(answer) = request.opened(stream_id) {
        let written = tokio::time::timeout(LAST_WORD, messages::write(&mut io, &answer)).await;
        if !matches!(written, Ok(Ok(()))) {
            return;
        }
    }
    if let Err(error) = relay(&mut io, &mut leg).await {
        // Dropping what is not finished passes the reset on.
        tracing::debug!(peer = %info.peer, %error, "a private stream broke off");
    }
}

fn find(
    agents: &Agents,
    info: &ConnInfo,
    request: &DialRequest,
) -> Result<Arc<Tunnel>, ProtocolError> {
    Version::accept(request.details.protocol_version.as_deref())?;
    if agents.is_draining() {
        return Err(draining());
    }
    let (principal, project) = agents.verify(info, request.token.as_ref())?;
    if request.datagram_channel {
        return Err(ProtocolError::new(
            ErrorCode::INVALID_REQUEST,
            "datagram channels are not available here",
        ));
    }
    let unknown = || {
        ProtocolError::new(
            ErrorCode::TUNNEL_NOT_FOUND,
            format!("no tunnel has the id or name {:?}", request.target),
        )
    };
    let by_id = agents.routes.id(&request.target);
    let tunnel = by_id
        .filter(|tunnel| tunnel.info.project == project)
        .or_else(|| agents.routes.name(&project, &request.target))
        .ok_or_else(unknown)?;
    let port = agents.settings.load().public_port;
    if !principal.may_dial(&TunnelRecord::of(&tunnel, port)) {
        return Err(ProtocolError::new(
            ErrorCode::UNAUTHORIZED,
            "the credential does not allow this tunnel to be dialled",
        ));
    }
    Ok(tunnel)
}

async fn open(tunnel: &Tunnel, info: &ConnInfo) -> Result<BoxLeg, ProtocolError> {
    let source = Some(info.peer.ip());
    let opened = tunnel.session.open(&tunnel.info.id, source).await;
    opened.map_err(|error| {
        let code = match error {
            DialError::Capacity => ErrorCode::CAPACITY_EXHAUSTED,
            _ => ErrorCode::SERVICE_UNAVAILABLE,
        };
        ProtocolError::new(code, error.to_string())
    })
}

/// Counts a private stream while it lives.
struct Relay<'a>(&'a watch::Sender<usize>);

impl<'a> Relay<'a> {
    fn begin(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for Relay<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}
