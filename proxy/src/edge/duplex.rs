//! Two legs joined after an upgrade: bytes, half-closes and resets pass each way.

use std::sync::Arc;
use std::time::Duration;

use adit_filters::{By, Cause, Direction, Passed, Settlement, StreamFlow};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use super::abort::{Abort, code};
use super::dial::BoxStream;
use super::http2;
use super::record::Record;

/// Most bytes read from a leg at once. Also what one direction of a relay keeps at most.
const CHUNK_BYTES: usize = 16 << 10;

/// One leg of a relay.
pub(crate) struct Duplex {
    reader: Reader,
    writer: Writer,
}

enum Reader {
    Io(ReadHalf<BoxStream>, BytesMut),
    Http2(http2::Incoming),
}

enum Writer {
    Io(WriteHalf<BoxStream>),
    Http2(http2::Outgoing),
}

impl Duplex {
    pub(crate) fn io(stream: impl super::dial::Stream + 'static) -> Self {
        let stream: BoxStream = Box::new(stream);
        let (reader, writer) = tokio::io::split(stream);
        Self {
            reader: Reader::Io(reader, BytesMut::new()),
            writer: Writer::Io(writer),
        }
    }

    pub(crate) fn http2(reader: http2::Incoming, writer: http2::Outgoing) -> Self {
        Self {
            reader: Reader::Http2(reader),
            writer: Writer::Http2(writer),
        }
    }
}

impl Reader {
    /// The next bytes; `None` is the peer's half-close.
    async fn next(&mut self) -> Result<Option<Bytes>, Abort> {
        match self {
            Self::Io(io, buffer) => {
                buffer.reserve(CHUNK_BYTES);
                let mut limited = (&mut *io).take(CHUNK_BYTES as u64);
                match limited.read_buf(buffer).await {
                    Ok(0) => Ok(None),
                    Ok(_) => Ok(Some(buffer.split().freeze())),
                    Err(_) => Err(Abort::Truncated),
                }
            }
            Self::Http2(body) => body.data().await.transpose(),
        }
    }
}

impl Writer {
    async fn send(&mut self, bytes: Bytes) -> Result<(), Abort> {
        match self {
            Self::Io(io) => {
                io.write_all(&bytes).await.map_err(|_| Abort::Truncated)?;
                io.flush().await.map_err(|_| Abort::Truncated)
            }
            Self::Http2(stream) => stream.send(bytes, false).await,
        }
    }

    async fn finish(&mut self) -> Result<(), Abort> {
        match self {
            Self::Io(io) => io.shutdown().await.map_err(|_| Abort::Truncated),
            Self::Http2(stream) => stream.send(Bytes::new(), true).await,
        }
    }

    /// Waits until the peer resets this direction; an `Io` leg tells by the next write.
    async fn broken(&mut self) -> Abort {
        match self {
            Self::Io(_) => std::future::pending().await,
            Self::Http2(stream) => stream.reset_by_peer().await,
        }
    }

    /// Ends the leg at once. An `Io` leg is reset by being dropped without a shutdown.
    fn abort(&mut self, abort: &Abort) {
        if let Self::Http2(stream) = self {
            let code = match abort {
                // A reset TCP connection is CONNECT_ERROR to a tunnel (RFC 9113 §8.5).
                Abort::Truncated => code::CONNECT_ERROR,
                other => other.code(),
            };
            stream.reset(code);
        }
    }
}

/// An agreed upgrade: the upstream's leg, waiting for the visitor's.
pub(crate) struct Relay {
    upstream: Duplex,
    record: Arc<Record>,
    half_closed: Duration,
}

impl Relay {
    /// `half_closed` bounds the second direction's life without the first.
    pub(crate) fn new(upstream: Duplex, record: Arc<Record>, half_closed: Duration) -> Self {
        Self {
            upstream,
            record,
            half_closed,
        }
    }

    /// Relays until both directions have ended, or one leg broke.
    pub(crate) async fn run(self, visitor: Duplex) {
        let Self {
            upstream,
            record,
            half_closed,
        } = self;
        let chain = Arc::clone(record.chain());
        let mut up = Lane {
            from: visitor.reader,
            to: upstream.writer,
            flow: chain.stream(record.exchange(), Direction::ToAgent),
        };
        let mut down = Lane {
            from: upstream.reader,
            to: visitor.writer,
            flow: chain.stream(record.exchange(), Direction::ToClient),
        };
        let outcome = {
            let one = up.run(&record, By::Downstream, Record::add_up);
            let other = down.run(&record, By::Upstream, Record::add_down);
            tokio::pin!(one, other);
            // One direction may end before the other, but not for ever: a peer that is gone without
            // a word is noticed by nobody who only waits for it.
            let both = async {
                tokio::select! {
                    ended = &mut one => match ended {
                        Ok(()) => within(half_closed, other).await,
                        Err(broken) => Err(broken),
                    },
                    ended = &mut other => match ended {
                        Ok(()) => within(half_closed, one).await,
                        Err(broken) => Err(broken),
                    },
                }
            };
            tokio::select! {
                ended = both => ended,
                refusal = record.stopped_by() => Err((By::Server, Abort::Refused(refusal))),
            }
        };
        match outcome {
            Ok(()) => record.end(By::Unknown, Cause::Closed),
            Err((by, abort)) => {
                let cause = match abort {
                    Abort::Stalled => Cause::Timeout,
                    Abort::Closed | Abort::Refused(_) | Abort::Answered(_) => Cause::Closed,
                    Abort::Reset(_) | Abort::Truncated => Cause::Reset,
                };
                record.end_with(by, cause, &abort);
                up.to.abort(&abort);
                down.to.abort(&abort);
            }
        }
        for flow in [up.flow, down.flow].into_iter().flatten() {
            flow.finish(record.exchange());
        }
    }
}

async fn within(
    limit: Duration,
    lane: impl Future<Output = Result<(), (By, Abort)>>,
) -> Result<(), (By, Abort)> {
    match tokio::time::timeout(limit, lane).await {
        Ok(ended) => ended,
        Err(_) => Err((By::Server, Abort::Stalled)),
    }
}

struct Lane {
    from: Reader,
    to: Writer,
    flow: Option<StreamFlow>,
}

impl Lane {
    async fn run(
        &mut self,
        record: &Arc<Record>,
        by: By,
        count: fn(&Record, usize),
    ) -> Result<(), (By, Abort)> {
        let other = match by {
            By::Downstream => By::Upstream,
            _ => By::Downstream,
        };
        let piece_max = self.flow.as_ref().map_or(usize::MAX, StreamFlow::piece_max);
        let mut rest = Bytes::new();
        loop {
            let mut last = false;
            if rest.is_empty() {
                let next = tokio::select! {
                    biased;
                    next = self.from.next() => next.map_err(|abort| (by, abort))?,
                    abort = self.to.broken() => return Err((other, abort)),
                };
                last = next.is_none();
                rest = next.unwrap_or_default();
                count(record, rest.len());
            }
            let bytes = rest.split_to(rest.len().min(piece_max));
            let bytes = match &mut self.flow {
                None => bytes,
                Some(flow) => match flow.pass(record.exchange(), bytes, last) {
                    Passed::Forward(bytes) => bytes,
                    Passed::Pace(bytes, wait) => tokio::select! {
                        () = tokio::time::sleep(wait) => bytes,
                        abort = self.to.broken() => return Err((other, abort)),
                    },
                    Passed::Held => Bytes::new(),
                    Passed::Refuse(refusal) => {
                        record.refuse(refusal.clone());
                        return Err((By::Server, Abort::Refused(refusal)));
                    }
                    Passed::Respond { by, .. } | Passed::Close { by } => {
                        record.settle(by, Settlement::Closed);
                        return Err((By::Server, Abort::Closed));
                    }
                },
            };
            if !bytes.is_empty() {
                self.to.send(bytes).await.map_err(|abort| (other, abort))?;
            }
            if last {
                return self.to.finish().await.map_err(|abort| (other, abort));
            }
        }
    }
}
