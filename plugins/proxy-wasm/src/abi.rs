//! Numbers and layouts of the ABI.

use adit_wasm::module::Stop;

/// What a function of the host answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Status {
    Ok = 0,
    NotFound = 1,
    BadArgument = 2,
    InvalidMemory = 6,
    Empty = 7,
    CasMismatch = 8,
    InternalFailure = 10,
    Unimplemented = 12,
}

/// Why a function of the host did not do what it should.
pub(crate) enum Fail {
    /// The guest hears of it.
    Status(Status),
    /// The guest ends.
    Stop(Stop),
}

impl From<Status> for Fail {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl From<Stop> for Fail {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

/// What a callback says of the exchange.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Action {
    Continue,
    Pause,
}

impl Action {
    pub(crate) fn of(number: u32) -> Self {
        match number {
            0 => Self::Continue,
            _ => Self::Pause,
        }
    }
}

/// Direction of a part of an exchange.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Way {
    Request,
    Response,
}

/// Whose fields.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Map {
    Headers(Way),
    Trailers(Way),
    CallHeaders,
    /// Of what is never there: trailers of calls, metadata of gRPC.
    Nothing,
}

impl Map {
    pub(crate) fn of(number: u32) -> Result<Self, Status> {
        Ok(match number {
            0 => Self::Headers(Way::Request),
            1 => Self::Trailers(Way::Request),
            2 => Self::Headers(Way::Response),
            3 => Self::Trailers(Way::Response),
            6 => Self::CallHeaders,
            4 | 5 | 7 => Self::Nothing,
            _ => return Err(Status::BadArgument),
        })
    }
}

/// Names with values, as they are written for the guest.
pub(crate) type Pairs = Vec<(String, Vec<u8>)>;

/// Writes pairs as the ABI does; none is no bytes.
pub(crate) fn write_pairs(pairs: &Pairs) -> Vec<u8> {
    if pairs.is_empty() {
        return Vec::new();
    }
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes();
    let mut text = Vec::new();
    text.extend(number(pairs.len()));
    for (name, value) in pairs {
        text.extend(number(name.len()));
        text.extend(number(value.len()));
    }
    for (name, value) in pairs {
        text.extend(name.as_bytes());
        text.push(0);
        text.extend(value);
        text.push(0);
    }
    text
}

/// Reads pairs as the ABI writes them.
pub(crate) fn read_pairs(text: &[u8]) -> Option<Pairs> {
    if text.is_empty() || text == [0] {
        return Some(Vec::new());
    }
    let number = |at: usize| -> Option<usize> {
        let octets = text.get(at..at.checked_add(4)?)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(octets)).ok()
    };
    let count = number(0)?;
    // Each takes ten bytes at least: nobody makes room for more than there is.
    if count > text.len() / 10 {
        return None;
    }
    let mut pairs = Vec::with_capacity(count);
    let mut at = count.checked_mul(8)?.checked_add(4)?;
    let mut part = |length: usize| -> Option<&[u8]> {
        let end = at.checked_add(length)?;
        let part = text.get(at..end)?;
        at = end.checked_add(1)?;
        Some(part)
    };
    for one in 0..count {
        let name = part(number(4 + one * 8)?)?;
        let value = part(number(8 + one * 8)?)?;
        pairs.push((String::from_utf8(name.to_vec()).ok()?, value.to_vec()));
    }
    Some(pairs)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn pairs_are_read_as_they_are_written() {
        for pairs in [
            vec![],
            vec![(String::new(), vec![])],
            vec![
                ("a".to_owned(), b"1".to_vec()),
                ("b".to_owned(), vec![0, 255]),
            ],
        ] {
            assert_eq!(read_pairs(&write_pairs(&pairs)).unwrap(), pairs);
        }
        let text = write_pairs(&vec![("a".to_owned(), b"22".to_vec())]);
        assert_eq!(text, b"\x01\0\0\0\x01\0\0\0\x02\0\0\0a\x0022\0");
    }

    #[test]
    fn what_promises_more_than_there_is_is_none() {
        for text in [
            &b"\x01"[..],
            b"\xff\xff\xff\xff",
            b"\x01\0\0\0\xff\xff\xff\xff\0\0\0\0",
            b"\x01\0\0\0\x01\0\0\0\x02\0\0\0a\x002",
            b"\x01\0\0\0\x01\0\0\0\x00\0\0\0\xff\0\0",
        ] {
            assert_eq!(read_pairs(text), None, "{text:?}");
        }
    }
}
