//! The ClientHello, read without being consumed (RFC 8446 §4.1.2, RFC 6066 §3, RFC 7301 §3.1).
//!
//! The server name and the protocols offered decide who serves a connection, before any handshake;
//! versions and groups decide which of a tunnel's configurations answers it.
//! The bytes are kept as they came, so that whoever serves it can be given them again. The parser
//! looks for these things only and forgives what it need not understand: judging the handshake
//! is the business of whoever answers it.

use std::io;

use adit_filters::ClientHello;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes asked of the socket at a time: a post-quantum hello of about 1,800 bytes fits.
const READ_BYTES: usize = 2048;

/// Content type of a record that carries a handshake (RFC 8446 §5.1).
const RECORD_HANDSHAKE: u8 = 22;
/// Header of a record: type, version, length.
const RECORD_HEADER_BYTES: usize = 5;
/// Longest plaintext record (RFC 8446 §5.1).
const RECORD_BYTES_MAX: usize = 1 << 14;
/// Handshake type of a ClientHello.
const CLIENT_HELLO: u8 = 1;
/// Header of a handshake message: type, length.
const MESSAGE_HEADER_BYTES: usize = 4;

const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_GROUPS: u16 = 10;
const EXTENSION_ALPN: u16 = 16;
const EXTENSION_VERSIONS: u16 = 43;
const NAME_TYPE_HOST: u8 = 0;
/// Longest host name taken from a hello (RFC 1035 §2.3.4), trailing dot included.
const SERVER_NAME_BYTES_MAX: usize = 254;
/// Most versions and most groups taken from a hello; clients offer fewer than ten of each.
const NUMBERS_MAX: usize = 32;

/// What a connection began with.
#[derive(Debug)]
pub(crate) enum Beginning {
    /// A ClientHello, and every byte read so far.
    Hello(ClientHello, Bytes),
    /// An HTTP request in the clear.
    PlainHttp,
    /// Something else, or nothing.
    Neither(NotHello),
}

/// Why a connection is not served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotHello {
    /// The peer closed before its hello was complete.
    #[error("the connection ended before its ClientHello did")]
    Ended,
    /// Not TLS at all, or a record or message that cannot begin a handshake.
    #[error("the connection did not begin with a ClientHello")]
    Malformed,
    /// Reading failed.
    #[error("reading the ClientHello failed: {0}")]
    Read(#[from] io::Error),
    /// The hello is longer than is taken.
    #[error("the ClientHello is longer than {limit} bytes")]
    TooLong {
        /// The limit in bytes.
        limit: usize,
    },
}

/// Reads from `io` until the ClientHello is complete; `buffer` may hold bytes read earlier.
pub(crate) async fn read<Io>(io: &mut Io, mut buffer: BytesMut, limit: usize) -> Beginning
where
    Io: AsyncRead + Unpin,
{
    let mut recorder = Recorder::default();
    loop {
        match recorder.advance(&buffer) {
            Ok(Some(hello)) => return Beginning::Hello(hello, buffer.freeze()),
            Ok(None) => {}
            Err(_) if looks_like_http(&buffer) => return Beginning::PlainHttp,
            Err(error) => return Beginning::Neither(error),
        }
        if buffer.len() >= limit {
            return Beginning::Neither(NotHello::TooLong { limit });
        }
        buffer.reserve(READ_BYTES.min(limit - buffer.len()));
        let room = limit - buffer.len();
        let mut taken = (&mut *io).take(room as u64);
        match taken.read_buf(&mut buffer).await {
            Ok(0) => return Beginning::Neither(NotHello::Ended),
            Ok(_) => {}
            Err(error) => return Beginning::Neither(error.into()),
        }
    }
}

/// Whether the first bytes could be the method of an HTTP request.
fn looks_like_http(bytes: &[u8]) -> bool {
    const METHODS: [&[u8]; 9] = [
        b"GET ",
        b"HEAD ",
        b"POST ",
        b"PUT ",
        b"DELETE ",
        b"OPTIONS ",
        b"PATCH ",
        b"CONNECT ",
        b"PRI * ",
    ];
    METHODS.iter().any(|method| bytes.starts_with(method))
}

/// Unwraps records and finds the hello in them, looking at every byte once.
#[derive(Debug, Default)]
pub struct Recorder {
    /// Bytes of the stream that belong to records unwrapped already.
    unwrapped: usize,
    /// The handshake bytes of those records.
    message: Vec<u8>,
}

impl Recorder {
    /// Looks at `stream`, all the bytes so far: at each call those of the last one and more.
    ///
    /// Returns the hello once it is complete, `None` while it is not.
    ///
    /// # Errors
    /// [`NotHello::Malformed`] as soon as the bytes cannot become one.
    pub fn advance(&mut self, stream: &[u8]) -> Result<Option<ClientHello>, NotHello> {
        while let Some(rest) = stream.get(self.unwrapped..) {
            let Some(payload_bytes) = record(rest)? else {
                return Ok(None);
            };
            let end = RECORD_HEADER_BYTES + payload_bytes;
            let Some(payload) = rest.get(RECORD_HEADER_BYTES..end) else {
                return Ok(None);
            };
            self.message.extend_from_slice(payload);
            self.unwrapped += end;
            if let Some(body) = message(&self.message)? {
                return parse(body).map(Some).ok_or(NotHello::Malformed);
            }
        }
        Ok(None)
    }
}

/// The payload length of the record that begins here, once its header is there.
fn record(bytes: &[u8]) -> Result<Option<usize>, NotHello> {
    // The first byte alone tells TLS from anything else.
    if bytes.first().is_some_and(|kind| *kind != RECORD_HANDSHAKE)
        || bytes.get(1).is_some_and(|major| *major != 3)
    {
        return Err(NotHello::Malformed);
    }
    let &[_, _, _, high, low, ..] = bytes else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    // An empty handshake record is forbidden (RFC 8446 §5.1), and would cost us for nothing.
    if length == 0 || length > RECORD_BYTES_MAX {
        return Err(NotHello::Malformed);
    }
    Ok(Some(length))
}

/// The body of the ClientHello message, once it is whole.
fn message(bytes: &[u8]) -> Result<Option<&[u8]>, NotHello> {
    if bytes.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
        return Err(NotHello::Malformed);
    }
    let &[_, high, middle, low, ..] = bytes else {
        return Ok(None);
    };
    let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
    Ok(bytes.get(MESSAGE_HEADER_BYTES..MESSAGE_HEADER_BYTES + length))
}

/// What the body of a ClientHello says; `None` if its frame is broken.
fn parse(body: &[u8]) -> Option<ClientHello> {
    let mut hello = ClientHello::default();
    let mut body = Cursor(body);
    body.take(2 + 32)?; // legacy_version, random
    body.vector8()?; // legacy_session_id
    body.vector16()?; // cipher_suites
    body.vector8()?; // legacy_compression_methods
    if body.0.is_empty() {
        return Some(hello); // TLS 1.2 without extensions
    }
    let mut extensions = Cursor(body.vector16()?);
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let data = Cursor(extensions.vector16()?);
        match kind {
            EXTENSION_SERVER_NAME => hello.server_name = server_name(data),
            EXTENSION_ALPN => hello.alpn = protocols(data),
            EXTENSION_GROUPS => hello.groups = numbers(data.vector16_of()),
            EXTENSION_VERSIONS => hello.versions = numbers(data.vector8_of()),
            _ => {}
        }
    }
    Some(hello)
}

/// The host name of a server name list, lower case, without trailing dot.
fn server_name(mut data: Cursor<'_>) -> Option<String> {
    let mut list = Cursor(data.vector16()?);
    while !list.0.is_empty() {
        let kind = list.u8()?;
        let name = list.vector16()?;
        if kind == NAME_TYPE_HOST {
            return normal(name);
        }
    }
    None
}

fn normal(name: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(name).ok()?;
    let bare = name.strip_suffix('.').unwrap_or(name);
    let plausible = !bare.is_empty()
        && name.len() <= SERVER_NAME_BYTES_MAX
        && bare
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
    plausible.then(|| bare.to_ascii_lowercase())
}

fn protocols(mut data: Cursor<'_>) -> Vec<Bytes> {
    let mut protocols = Vec::new();
    let mut list = Cursor(data.vector16().unwrap_or_default());
    while let Some(protocol) = list.vector8() {
        if !protocol.is_empty() {
            protocols.push(Bytes::copy_from_slice(protocol));
        }
    }
    protocols
}

/// The first numbers of a list (RFC 8446 §4.2.1 and §4.2.7).
fn numbers(mut list: Cursor<'_>) -> Vec<u16> {
    std::iter::from_fn(|| list.u16())
        .take(NUMBERS_MAX)
        .collect()
}

/// Bytes taken from the front, as TLS writes its numbers and vectors (RFC 8446 §3).
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn vector8(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?;
        self.take(length.into())
    }

    fn vector16(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(length.into())
    }

    /// What is in the vector that begins here; nothing if it is broken.
    fn vector8_of(mut self) -> Self {
        Self(self.vector8().unwrap_or_default())
    }

    /// The same, with a length of two octets.
    fn vector16_of(mut self) -> Self {
        Self(self.vector16().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::panic,
        reason = "tests"
    )]

    use std::sync::Arc;

    use rustls::RootCertStore;
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// The first flight of a rustls client, post-quantum key share included.
    fn real_hello(name: &'static str, alpn: &[&[u8]]) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        let name = rustls_pki_types::ServerName::try_from(name).unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    /// A hello with these extensions, in one message.
    fn message_with(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.push(0);
        body.extend([0, 2, 0x13, 1, 1, 0]);
        let mut all = Vec::new();
        for (kind, data) in extensions {
            all.extend(kind.to_be_bytes());
            all.extend((data.len() as u16).to_be_bytes());
            all.extend(data);
        }
        body.extend((all.len() as u16).to_be_bytes());
        body.extend(all);
        let mut message = vec![1];
        message.extend(&(body.len() as u32).to_be_bytes()[1..]);
        message.extend(body);
        message
    }

    fn records(message: &[u8], payload: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for chunk in message.chunks(payload) {
            bytes.extend([22, 3, 1]);
            bytes.extend((chunk.len() as u16).to_be_bytes());
            bytes.extend(chunk);
        }
        bytes
    }

    fn name_extension(name: &[u8]) -> (u16, Vec<u8>) {
        let mut data = ((name.len() + 3) as u16).to_be_bytes().to_vec();
        data.push(0);
        data.extend((name.len() as u16).to_be_bytes());
        data.extend(name);
        (0, data)
    }

    fn heard(bytes: &[u8]) -> Result<Option<ClientHello>, NotHello> {
        Recorder::default().advance(bytes)
    }

    async fn begin(bytes: &[u8], limit: usize) -> Beginning {
        let (mut peer, mut io) = tokio::io::duplex(1 << 20);
        peer.write_all(bytes).await.unwrap();
        drop(peer);
        read(&mut io, BytesMut::new(), limit).await
    }

    #[test]
    fn a_real_hello_gives_name_and_protocols() {
        let bytes = real_hello("App.T.Example.COM", &[b"h2", b"http/1.1"]);
        assert!(bytes.len() > 1200, "a post-quantum key share is that long");
        let hello = heard(&bytes).unwrap().unwrap();
        assert_eq!(hello.server_name.as_deref(), Some("app.t.example.com"));
        assert_eq!(hello.alpn, [&b"h2"[..], b"http/1.1"]);
        assert_eq!(hello.versions, [0x0304, 0x0303]);
        assert_eq!(hello.groups.first(), Some(&0x11ec), "X25519MLKEM768");
    }

    #[tokio::test]
    async fn a_hello_in_many_segments_is_replayed_byte_for_byte() {
        let mut sent = real_hello("app.t.example.com", &[b"rstrm/1"]);
        sent.extend(b"what follows at once");
        let (mut peer, mut io) = tokio::io::duplex(7);
        let bytes = sent.clone();
        let writer = tokio::spawn(async move {
            peer.write_all(&bytes).await.unwrap();
            peer
        });
        let Beginning::Hello(hello, head) = read(&mut io, BytesMut::new(), 1 << 16).await else {
            panic!("the hello was not found");
        };
        assert_eq!(hello.alpn, [&b"rstrm/1"[..]]);
        let mut stream = super::super::Rewind::new(head, io);
        let mut replayed = vec![0; sent.len()];
        stream.read_exact(&mut replayed).await.unwrap();
        assert_eq!(replayed, sent);
        drop(writer.await.unwrap());
    }

    #[test]
    fn a_hello_may_span_records_of_any_size() {
        let message = message_with(&[name_extension(b"a.example.")]);
        for payload in [1, 2, 3, 5, 40, message.len()] {
            let bytes = records(&message, payload);
            let hello = heard(&bytes).unwrap().unwrap();
            assert_eq!(hello.server_name.as_deref(), Some("a.example"));
            // Byte after byte it is the same, and never complete before its last one.
            let mut recorder = Recorder::default();
            for end in 0..bytes.len() {
                assert!(recorder.advance(&bytes[..end]).unwrap().is_none(), "{end}");
            }
            assert!(recorder.advance(&bytes).unwrap().is_some());
        }
    }

    #[test]
    fn what_need_not_be_understood_is_forgiven() {
        // No extensions, an unknown one, a name list that lies about its length, a name no host has.
        let unknown = (0xfafa, vec![1, 2, 3]);
        let broken = (0, vec![0, 99, 0]);
        for (extensions, name) in [
            (vec![], None),
            (vec![unknown, name_extension(b"x.y")], Some("x.y")),
            (vec![broken], None),
            (vec![name_extension(b"a/../b")], None),
            (vec![name_extension(b"caf\xe9")], None),
            (vec![name_extension(&[b'a'; 300])], None),
        ] {
            let hello = heard(&records(&message_with(&extensions), 1000))
                .unwrap()
                .unwrap();
            assert_eq!(hello.server_name.as_deref(), name);
        }
    }

    #[test]
    fn lists_of_versions_and_groups_are_taken_as_far_as_they_go() {
        let groups = |list: &[u8]| {
            let mut data = (list.len() as u16).to_be_bytes().to_vec();
            data.extend(list);
            (10, data)
        };
        for (extensions, versions, taken) in [
            (vec![(43, vec![4, 3, 4, 3, 3])], vec![0x0304, 0x0303], 0),
            (vec![(43, vec![3, 3, 4, 3])], vec![0x0304], 0),
            (vec![(43, vec![9, 3, 4])], vec![], 0),
            (vec![groups(&[0, 29, 0, 23])], vec![], 2),
            (vec![groups(&[0; 2000])], vec![], NUMBERS_MAX),
        ] {
            let hello = heard(&records(&message_with(&extensions), 3000));
            let hello = hello.unwrap().unwrap();
            assert_eq!(hello.versions, versions);
            assert_eq!(hello.groups.len(), taken);
        }
    }

    #[test]
    fn what_cannot_become_a_hello_is_refused_at_once() {
        for bytes in [
            &b"\x16\x02"[..],
            b"\x17\x03\x03",
            b"SSH-2.0-OpenSSH",
            b"\x16\x03\x01\x00\x00",
            b"\x16\x03\x01\xff\xff",
            b"\x16\x03\x01\x00\x01\x02",
            &records(&[1, 0, 0, 3, 1, 2, 3], 100),
        ] {
            assert!(
                matches!(heard(bytes), Err(NotHello::Malformed)),
                "{bytes:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_hello_cut_short_has_ended() {
        let bytes = real_hello("a.example", &[]);
        for end in [0, 1, 5, 6, bytes.len() - 1] {
            let beginning = begin(&bytes[..end], 1 << 16).await;
            assert!(
                matches!(beginning, Beginning::Neither(NotHello::Ended)),
                "{end}"
            );
        }
    }

    #[tokio::test]
    async fn a_hello_over_the_limit_is_not_read_further() {
        let long = message_with(&[(0xfafa, vec![0; 60_000])]);
        let bytes = records(&long, 16_384);
        assert!(matches!(begin(&bytes, 1 << 16).await, Beginning::Hello(..)));
        let beginning = begin(&bytes, 1 << 12).await;
        assert!(matches!(
            beginning,
            Beginning::Neither(NotHello::TooLong { limit: 4096 })
        ));
        // One that only ever promises more.
        let mut endless = vec![];
        for _ in 0..20_000 {
            endless.extend(records(&[1, 255, 255, 255], 1));
        }
        let beginning = begin(&endless[..70_000], 1 << 16).await;
        assert!(!matches!(beginning, Beginning::Hello(..)));
    }

    #[tokio::test]
    async fn http_in_the_clear_is_told_from_garbage() {
        for (bytes, plain) in [
            (&b"GET / HTTP/1.1\r\n"[..], true),
            (b"PRI * HTTP/2.0\r\n", true),
            (b"GETTING", false),
            (b"\x00\x01", false),
        ] {
            let beginning = begin(bytes, 1 << 16).await;
            assert_eq!(
                matches!(beginning, Beginning::PlainHttp),
                plain,
                "{bytes:?}"
            );
        }
    }

    proptest::proptest! {
        /// Whatever comes, however it is cut: no panic, and the same outcome as all at once.
        #[test]
        fn the_cuts_between_segments_change_nothing(
            name in "[a-zA-Z0-9.-]{0,40}",
            payload in 1usize..200,
            flips in proptest::collection::vec((0usize..400, 0u8..=255), 0..4),
            step in 1usize..50,
        ) {
            let message = message_with(&[name_extension(name.as_bytes())]);
            let mut bytes = records(&message, payload);
            for (position, value) in flips {
                if let Some(byte) = bytes.get_mut(position) {
                    *byte = value;
                }
            }
            let whole = heard(&bytes);
            let mut recorder = Recorder::default();
            let mut pieces = Ok(None);
            for end in (0..bytes.len()).step_by(step).chain([bytes.len()]) {
                pieces = recorder.advance(&bytes[..end]);
                if !matches!(pieces, Ok(None)) {
                    break;
                }
            }
            match (whole, pieces) {
                (Ok(Some(whole)), Ok(Some(pieces))) => {
                    proptest::prop_assert_eq!(whole.server_name, pieces.server_name);
                    proptest::prop_assert_eq!(whole.alpn, pieces.alpn);
                }
                (Ok(None), Ok(None)) | (Err(_), Err(_)) => {}
                (whole, pieces) => panic!("{whole:?} at once, {pieces:?} in pieces"),
            }
        }
    }
}
