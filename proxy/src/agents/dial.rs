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
use super::{Agents, BoxLeg, ConnInfo, LAST_WORD, Principal, draining, ids, internal, refuse};
use crate::edge::DialError;
use crate::route::Tunnel;

/// Opens the agent's leg and splices. Until it is there nothing is read from the dialer, so what
/// it sends ahead waits in the transport and holds the dialer back.
pub(super) async fn serve<I>(agents: Arc<Agents>, mut io: I, info: ConnInfo, request: DialRequest)
where
    I: AsyncRead + AsyncWrite + Abort + Unpin + Send + 'static,
{
    let _relay = Relay::begin(&agents.relays);
    // Subscribed to before anything is judged: what changes meanwhile is not missed.
    let mut judged = agents.judged.subscribe();
    let opened = match find(&agents, &info, &request) {
        Ok(admitted) => open(&admitted.tunnel, &info)
            .await
            .map(|leg| (leg, admitted)),
        Err(error) => Err(error),
    };
    // Another id than the agent's: a client that dials its own tunnel sees both.
    let opened =
        opened.and_then(|(leg, admitted)| Ok((leg, admitted, ids::id().map_err(|_| internal())?)));
    let (mut leg, admitted, stream_id) = match opened {
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
    let usage = agents.usages.of(&admitted.tunnel.info);
    let _open = usage.connect();
    tokio::select! {
        ended = relay(&mut io, &mut leg) => {
            let relayed = match ended {
                Ok(relayed) => relayed,
                Err(error) => {
                    // Dropping what is not finished passes the reset on.
                    tracing::debug!(peer = %info.peer, %error, "a private stream broke off");
                    error.relayed
                }
            };
            usage.add(relayed.forth, relayed.back);
        }
        () = refused(&mut judged, &agents, &admitted) => {
            tracing::info!(peer = %info.peer, "a private stream was cut: its credential does not allow it any longer");
        }
    }
}

/// Who dials what.
struct Admitted {
    tunnel: Arc<Tunnel>,
    principal: Arc<dyn Principal>,
}

/// Waits until a dialer may not stay.
async fn refused(judged: &mut watch::Receiver<()>, agents: &Agents, admitted: &Admitted) {
    // The sender lives in `agents`.
    while judged.changed().await.is_ok() {
        let port = agents.settings.load().public_port;
        let record = TunnelRecord::of(&admitted.tunnel, port);
        if !(admitted.principal.may_stay() && admitted.principal.may_dial(&record)) {
            return;
        }
    }
}

fn find(
    agents: &Agents,
    info: &ConnInfo,
    request: &DialRequest,
) -> Result<Admitted, ProtocolError> {
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
    Ok(Admitted { tunnel, principal })
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
