//! Protocol messages over a stream.

use std::io;
use std::time::Duration;

use adit_protocol::frame::{BODY_MAX, Decoder, FrameError, HEADER_LEN};
use adit_protocol::message::{MalformedMessage, Message};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Reads messages and never a byte beyond the last one asked for, so that the stream can be handed
/// on when payload follows.
#[derive(Debug)]
pub struct MessageReader<R> {
    stream: R,
    decoder: Decoder,
}

impl<R: AsyncRead + Unpin> MessageReader<R> {
    /// Reads messages of any permitted size from `stream`.
    pub fn new(stream: R) -> Self {
        Self::with_limit(stream, BODY_MAX)
    }

    /// Reads messages whose bodies have at most `body_max` bytes.
    pub fn with_limit(stream: R, body_max: usize) -> Self {
        Self {
            stream,
            decoder: Decoder::with_limit(body_max),
        }
    }

    /// Changes the limit for the messages still to come.
    pub fn set_limit(&mut self, body_max: usize) {
        self.decoder.set_limit(body_max);
    }

    /// The next message, or `None` at the end of the stream between two messages. May be dropped
    /// before it is done and called again; nothing is lost.
    ///
    /// # Errors
    ///
    /// [`ReadError`]; the stream is of no use afterwards.
    pub async fn next(&mut self) -> Result<Option<Message>, ReadError> {
        loop {
            if let Some(body) = self.decoder.next_frame()? {
                return Ok(Some(Message::from_frame(&body)?));
            }
            let buffer = self.decoder.buffer();
            let missing = match buffer.first_chunk::<HEADER_LEN>() {
                None => HEADER_LEN - buffer.len(),
                Some(header) => {
                    // The decoder has refused lengths above its limit by now.
                    let len = usize::try_from(u32::from_be_bytes(*header)).unwrap_or(BODY_MAX);
                    (HEADER_LEN + len).saturating_sub(buffer.len())
                }
            };
            buffer.reserve(missing);
            let limit = u64::try_from(missing).unwrap_or(u64::MAX);
            let mut exactly = (&mut self.stream).take(limit);
            if exactly.read_buf(buffer).await? == 0 {
                return match self.decoder.is_partial() {
                    false => Ok(None),
                    true => Err(ReadError::Truncated),
                };
            }
        }
    }

    /// The next message, waited for no longer than `limit`. The end of the stream is an error.
    ///
    /// # Errors
    ///
    /// [`ReadError`], also when the time is over.
    pub async fn expect(&mut self, limit: Duration) -> Result<Message, ReadError> {
        match tokio::time::timeout(limit, self.next()).await {
            Ok(Ok(Some(message))) => Ok(message),
            Ok(Ok(None)) => Err(ReadError::Closed),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ReadError::Timeout(limit)),
        }
    }

    /// The stream, at the first byte after the last message.
    pub fn into_inner(self) -> R {
        self.stream
    }
}

/// Writes one message and flushes it.
///
/// # Errors
///
/// [`WriteError`]; the stream is of no use afterwards.
pub async fn write<W: AsyncWrite + Unpin>(
    stream: &mut W,
    message: &Message,
) -> Result<(), WriteError> {
    let frame = message.to_frame()?;
    stream.write_all(&frame).await?;
    stream.flush().await?;
    Ok(())
}

/// No message could be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The peer ended the stream where a message was due.
    #[error("the peer closed the connection")]
    Closed,
    /// The peer sent a frame that is too long.
    #[error("the peer sent a frame that is too long")]
    Frame(#[from] FrameError),
    /// The connection broke.
    #[error("connection lost: {0}")]
    Io(#[from] io::Error),
    /// The frame holds no message.
    #[error("the peer sent something that is not a message")]
    Malformed(#[from] MalformedMessage),
    /// Nothing came in time.
    #[error("no message within {0:?}")]
    Timeout(Duration),
    /// The stream ended inside a frame.
    #[error("the connection ended inside a frame")]
    Truncated,
}

/// A message could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The message is too long to be sent.
    #[error("the message is too long to be sent")]
    Frame(#[from] FrameError),
    /// The connection broke.
    #[error("connection lost: {0}")]
    Io(#[from] io::Error),
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use super::*;
    use adit_protocol::message::{Heartbeat, ProxyRsp};

    #[tokio::test]
    async fn payload_behind_the_last_message_stays_in_the_stream() {
        // agent-protocol §4: read-ahead belongs to the payload side
        let (mut a, b) = tokio::io::duplex(1024);
        write(&mut a, &ProxyRsp::default().into()).await.unwrap();
        a.write_all(b"payload").await.unwrap();
        a.shutdown().await.unwrap();
        let mut reader = MessageReader::new(b);
        assert!(reader.next().await.unwrap().is_some());
        let mut rest = String::new();
        reader.into_inner().read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "payload");
    }

    #[tokio::test]
    async fn a_reader_dropped_in_the_middle_goes_on_where_it_was() {
        let (mut a, b) = tokio::io::duplex(1024);
        let frame = Message::from(Heartbeat {
            sequence: 7,
            acknowledgement: 0,
        })
        .to_frame()
        .unwrap();
        let mut reader = MessageReader::new(b);
        for byte in frame.iter() {
            assert!(futures_ready(reader.next()).is_none());
            a.write_all(&[*byte]).await.unwrap();
        }
        assert!(reader.next().await.unwrap().is_some());
    }

    /// Polls once and drops the future.
    fn futures_ready<T>(future: impl Future<Output = T>) -> Option<T> {
        let mut future = std::pin::pin!(future);
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        match future.as_mut().poll(&mut cx) {
            std::task::Poll::Ready(value) => Some(value),
            std::task::Poll::Pending => None,
        }
    }

    #[tokio::test]
    async fn an_end_inside_a_frame_is_not_an_end() {
        for (bytes, truncated) in [(&[][..], false), (&[0], true), (&[0, 0, 0, 9, 1], true)] {
            let (mut a, b) = tokio::io::duplex(64);
            a.write_all(bytes).await.unwrap();
            drop(a);
            match MessageReader::new(b).next().await {
                Ok(None) => assert!(!truncated),
                Err(ReadError::Truncated) => assert!(truncated),
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_frame_above_the_limit_is_refused_by_its_prefix() {
        // agent-protocol §16 case 39
        let (mut a, b) = tokio::io::duplex(64);
        a.write_all(&65_536u32.to_be_bytes()).await.unwrap();
        let error = MessageReader::new(b).next().await.unwrap_err();
        assert!(matches!(error, ReadError::Frame(_)), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_frame_that_does_not_come_is_not_waited_for_longer_than_allowed() {
        let (_a, b) = tokio::io::duplex(64);
        let limit = Duration::from_secs(10);
        let error = MessageReader::new(b).expect(limit).await.unwrap_err();
        assert!(matches!(error, ReadError::Timeout(_)), "{error}");
    }
}
