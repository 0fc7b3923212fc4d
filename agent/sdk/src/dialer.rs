//! Connections to the engine: control channels, legs of streams, private dials.

use std::sync::Arc;
use std::time::Duration;

use adit_protocol::agent::StreamRequest;
use adit_protocol::handshake::{ClientHandshake, Established, HandshakeError};
use adit_protocol::message::ClientDetails;
use adit_transport::EngineAddress;
use adit_transport::tls::{ClientStream, ConnectError, Connector};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{Error, Stream};

/// Attempts to bring a stream the engine asked for. The second is made after a timeout only, with
/// the same id and secret; anything else would fail again.
pub const PROXY_ATTEMPTS: usize = 2;

/// Time for one such attempt. Two of them end before an engine stops waiting (25 to 30 s).
pub const PROXY_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for a private dial, from the first packet to the engine's answer. The engine has to ask
/// the other agent, which may take it two attempts.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(30);

/// Dials tunnels of an engine. Needs no control channel; cheap to clone.
#[derive(Clone, Debug)]
pub struct Dialer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    connector: Connector,
    engine: EngineAddress,
    details: ClientDetails,
    zero_rtt: bool,
}

impl Dialer {
    pub(crate) fn new(
        connector: Connector,
        engine: EngineAddress,
        details: ClientDetails,
        zero_rtt: bool,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                connector,
                engine,
                details,
                zero_rtt,
            }),
        }
    }

    /// The engine dialled.
    #[must_use]
    pub fn engine(&self) -> &EngineAddress {
        &self.inner.engine
    }

    pub(crate) fn details(&self) -> ClientDetails {
        self.inner.details.clone()
    }

    /// A connection for a control channel.
    pub(crate) async fn connect(&self) -> Result<ClientStream, Error> {
        Ok(self.inner.connector.connect(&self.inner.engine).await?)
    }

    /// Dials a tunnel by id or name and waits for the engine's word that it is there.
    ///
    /// # Errors
    ///
    /// [`Error::Engine`] with the engine's reason, such as 3000 for no such tunnel; otherwise what
    /// kept the engine from being reached or from answering within [`DIAL_TIMEOUT`].
    pub async fn dial(&self, tunnel: &str) -> Result<Stream, Error> {
        self.dial_with(tunnel, false).await
    }

    /// Dials a tunnel and returns before the engine has answered: a round trip less. A refusal shows
    /// as a stream that ends without a byte.
    ///
    /// # Errors
    ///
    /// As [`dial`](Self::dial), without the engine's reasons.
    pub async fn dial_zero_rtt(&self, tunnel: &str) -> Result<Stream, Error> {
        self.dial_with(tunnel, true).await
    }

    async fn dial_with(&self, tunnel: &str, zero_rtt: bool) -> Result<Stream, Error> {
        let attempt = async {
            let mut io = self.inner.connector.connect(&self.inner.engine).await?;
            let handshake = ClientHandshake::dial(tunnel, self.details(), zero_rtt);
            let established = shake(&mut io, handshake).await?;
            let id = established.stream_id.unwrap_or_default();
            Ok(Stream::new(io, established.early, &id, tunnel, None))
        };
        match tokio::time::timeout(DIAL_TIMEOUT, attempt).await {
            Ok(stream) => stream,
            Err(_) => Err(Error::Timeout(DIAL_TIMEOUT)),
        }
    }

    /// Brings a stream the engine asked for.
    pub(crate) async fn bring(&self, request: &StreamRequest) -> Result<Stream, Error> {
        let mut failure = Error::Timeout(PROXY_ATTEMPT_TIMEOUT);
        for _ in 0..PROXY_ATTEMPTS {
            let attempt = self.bring_once(request);
            match tokio::time::timeout(PROXY_ATTEMPT_TIMEOUT, attempt).await {
                Ok(Err(Error::Connect(error)))
                    if matches!(*error, ConnectError::Timeout { .. }) =>
                {
                    failure = Error::Connect(error);
                }
                Ok(other) => return other,
                Err(_) => failure = Error::Timeout(PROXY_ATTEMPT_TIMEOUT),
            }
        }
        Err(failure)
    }

    async fn bring_once(&self, request: &StreamRequest) -> Result<Stream, Error> {
        let inner = &self.inner;
        let mut io = match &request.proxy_endpoint {
            None => inner.connector.connect(&inner.engine).await?,
            Some(endpoint) => {
                let other: EngineAddress = endpoint.parse()?;
                inner.connector.connect_redirected(&other).await?
            }
        };
        let handshake = ClientHandshake::proxy(
            &request.stream_id,
            request.secret.as_ref(),
            ClientDetails {
                // The secret proves the leg. Another engine must not see the agent's own token.
                token: None,
                ..self.details()
            },
            inner.zero_rtt,
        );
        let established = shake(&mut io, handshake).await?;
        Ok(Stream::new(
            io,
            established.early,
            &request.stream_id,
            &request.tunnel_id,
            request.source_ip,
        ))
    }
}

async fn shake(
    io: &mut ClientStream,
    mut handshake: ClientHandshake,
) -> Result<Established, Error> {
    let request = handshake.request().map_err(HandshakeError::from)?;
    io.write_all(&request).await?;
    io.flush().await?;
    loop {
        if let Some(established) = handshake.advance()? {
            return Ok(established);
        }
        if io.read_buf(handshake.buffer()).await? == 0 {
            return Err(Error::Ended);
        }
    }
}
