//! The frames a visitor sends, judged by what stands in their heads: which of them RFC 9113 answers with another error code than h2
//! does. No I/O and no payload kept.

use std::collections::BTreeSet;
use std::ops::Range;

/// Octets of the connection preface, RFC 9113 §3.4.
const PREFACE: usize = 24;
/// Octets of a frame's head, §4.1.
const HEAD: usize = 9;
/// Streams whose body is still to end that are remembered; older ones are left to h2.
const OPEN_MAX: usize = 1024;

/// Error codes of §7 that h2 does not send by itself.
pub(super) mod code {
    pub(super) const PROTOCOL_ERROR: u32 = 0x1;
    pub(super) const FLOW_CONTROL_ERROR: u32 = 0x3;
    pub(super) const STREAM_CLOSED: u32 = 0x5;
    pub(super) const FRAME_SIZE_ERROR: u32 = 0x6;
}

/// Frame types of §6.
mod kind {
    pub(super) const DATA: u8 = 0x0;
    pub(super) const HEADERS: u8 = 0x1;
    pub(super) const PRIORITY: u8 = 0x2;
    pub(super) const RST_STREAM: u8 = 0x3;
    pub(super) const SETTINGS: u8 = 0x4;
    pub(super) const PUSH_PROMISE: u8 = 0x5;
    pub(super) const PING: u8 = 0x6;
    pub(super) const GOAWAY: u8 = 0x7;
    pub(super) const WINDOW_UPDATE: u8 = 0x8;
    pub(super) const CONTINUATION: u8 = 0x9;
}

/// `END_STREAM` of DATA and HEADERS, `ACK` of SETTINGS.
const FLAG_ONE: u8 = 0x1;
/// `END_HEADERS` of HEADERS and CONTINUATION.
const FLAG_END_HEADERS: u8 = 0x4;
/// `SETTINGS_INITIAL_WINDOW_SIZE`, §6.5.2.
const INITIAL_WINDOW_SIZE: u16 = 0x4;
/// Octets of one setting.
const SETTING: u32 = 6;

/// Where in a frame the next octet is.
#[derive(Debug)]
enum At {
    Preface(usize),
    Head(usize),
    Payload { left: u32 },
    Settings { left: u32, position: u32, name: u16 },
}

/// What has been seen of the visitor's frames. Holds no payload.
#[derive(Debug)]
pub(super) struct Frames {
    at: At,
    head: [u8; HEAD],
    /// Whether a header block has begun and not ended.
    in_block: bool,
    /// The highest stream the visitor has opened.
    pub(super) last: u32,
    /// Streams below `last` that were skipped when it was opened: idle, hence h2's to refuse.
    skipped: Range<u32>,
    /// Opened streams that the visitor has not ended.
    open: BTreeSet<u32>,
    /// Streams below are too old to be judged.
    floor: u32,
    /// A fault that counts once the frame is over.
    pending: Option<u32>,
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            at: At::Preface(PREFACE),
            head: [0; HEAD],
            in_block: false,
            last: 0,
            skipped: 0..0,
            open: BTreeSet::new(),
            floor: 0,
            pending: None,
        }
    }
}

/// A frame that must not reach h2.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) code: u32,
    /// How many of the octets come before it.
    pub(super) good: usize,
}

impl Frames {
    /// Looks at octets that arrived, in order. A window size beyond all bounds is made a harmless one, so that h2 takes the
    /// frame as it stands and the guard alone answers it.
    pub(super) fn see(&mut self, octets: &mut [u8]) -> Result<(), Fault> {
        let mut used = 0;
        let mut frame_from = 0;
        while let Some(rest) = octets.get_mut(used..).filter(|rest| !rest.is_empty()) {
            match &mut self.at {
                At::Preface(left) => {
                    let step = rest.len().min(*left);
                    *left -= step;
                    used += step;
                    if *left == 0 {
                        self.at = At::Head(0);
                    }
                }
                At::Head(have) => {
                    if *have == 0 {
                        frame_from = used;
                    }
                    let step = rest.len().min(HEAD - *have);
                    for (to, from) in self.head.iter_mut().skip(*have).zip(rest.iter().take(step)) {
                        *to = *from;
                    }
                    *have += step;
                    used += step;
                    if *have == HEAD {
                        self.at = self.judge().map_err(|code| Fault {
                            code,
                            good: frame_from,
                        })?;
                    }
                }
                At::Payload { left } => {
                    let step = rest.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= u32::try_from(step).unwrap_or(*left);
                    used += step;
                    if *left == 0 {
                        self.at = At::Head(0);
                    }
                }
                At::Settings {
                    left,
                    position,
                    name,
                } => {
                    if let Some(octet) = rest.first_mut() {
                        match *position {
                            0 => *name = u16::from(*octet) << 8,
                            1 => *name |= u16::from(*octet),
                            2 if *name == INITIAL_WINDOW_SIZE && *octet & 0x80 != 0 => {
                                *octet &= 0x7f;
                                self.pending = Some(code::FLOW_CONTROL_ERROR);
                            }
                            _ => {}
                        }
                    }
                    *position = (*position + 1) % SETTING;
                    *left -= 1;
                    used += 1;
                    if *left == 0 {
                        self.at = At::Head(0);
                        if let Some(code) = self.pending.take() {
                            return Err(Fault { code, good: used });
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Judges a frame by its head; returns how its payload is to be read.
    fn judge(&mut self) -> Result<At, u32> {
        let [a, b, c, kind, flags, s, t, u, v] = self.head;
        let length = u32::from_be_bytes([0, a, b, c]);
        let stream = u32::from_be_bytes([s & 0x7f, t, u, v]);
        let ends = flags & FLAG_ONE != 0;
        // Nothing may come between the frames of a header block, §6.10.
        if self.in_block != (kind == kind::CONTINUATION) {
            return Err(code::PROTOCOL_ERROR);
        }
        if matches!(kind, kind::HEADERS | kind::CONTINUATION) {
            self.in_block = flags & FLAG_END_HEADERS == 0;
        }
        let right_size = match kind {
            kind::PRIORITY => length == 5,
            kind::RST_STREAM | kind::WINDOW_UPDATE => length == 4,
            kind::PING => length == 8,
            kind::SETTINGS if ends => length == 0,
            kind::SETTINGS => length.is_multiple_of(SETTING),
            _ => true,
        };
        if !right_size {
            return Err(code::FRAME_SIZE_ERROR);
        }
        match kind {
            // Only a server promises, §8.4.
            kind::PUSH_PROMISE => return Err(code::PROTOCOL_ERROR),
            kind::HEADERS if stream > self.last && stream % 2 == 1 => self.opened(stream, ends),
            kind::DATA | kind::HEADERS if self.is_over(stream) => return Err(code::STREAM_CLOSED),
            kind::DATA | kind::HEADERS if ends => _ = self.open.remove(&stream),
            kind::RST_STREAM => _ = self.open.remove(&stream),
            _ => {}
        }
        Ok(match (kind, length) {
            (_, 0) => At::Head(0),
            (kind::SETTINGS, left) => At::Settings {
                left,
                position: 0,
                name: 0,
            },
            (_, left) => At::Payload { left },
        })
    }

    fn opened(&mut self, stream: u32, ends: bool) {
        if stream > self.last.saturating_add(2) {
            self.skipped = self.last.saturating_add(1)..stream;
        }
        self.last = stream;
        if !ends {
            self.open.insert(stream);
            if self.open.len() > OPEN_MAX {
                self.floor = self
                    .open
                    .pop_first()
                    .map_or(self.floor, |oldest| oldest.saturating_add(1));
            }
        }
    }

    /// Whether the visitor opened the stream and then ended or reset it.
    fn is_over(&self, stream: u32) -> bool {
        stream % 2 == 1
            && (self.floor..=self.last).contains(&stream)
            && !self.skipped.contains(&stream)
            && !self.open.contains(&stream)
    }
}

/// A whole `GOAWAY` frame, §6.8.
pub(super) fn farewell(last: u32, code: u32) -> [u8; HEAD + 8] {
    let ([l0, l1, l2, l3], [c0, c1, c2, c3]) = (last.to_be_bytes(), code.to_be_bytes());
    [
        0,
        0,
        8,
        kind::GOAWAY,
        0,
        0,
        0,
        0,
        0,
        l0,
        l1,
        l2,
        l3,
        c0,
        c1,
        c2,
        c3,
    ]
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::panic,
        reason = "tests"
    )]

    use super::*;

    const PREFACE_TEXT: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut out = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
        out.extend([kind, flags]);
        out.extend(stream.to_be_bytes());
        out.extend(payload);
        out
    }

    /// Feeds the preface and the frames in pieces of every size: the verdict must not depend on how they arrive.
    fn judged(frames: &[Vec<u8>]) -> Option<u32> {
        let whole = [PREFACE_TEXT.to_vec(), frames.concat()].concat();
        let mut verdicts = (1..=whole.len()).map(|size| {
            let mut seen = Frames::default();
            let mut all = whole.clone();
            all.chunks_mut(size)
                .find_map(|piece| seen.see(piece).err())
                .map(|fault| fault.code)
        });
        let first = verdicts.next().unwrap();
        assert!(verdicts.all(|verdict| verdict == first));
        first
    }

    const ENDS: u8 = FLAG_ONE | FLAG_END_HEADERS;
    const OPENS: u8 = FLAG_END_HEADERS;

    #[test]
    fn ordinary_traffic_is_left_alone() {
        let frames = [
            frame(
                kind::SETTINGS,
                0,
                0,
                &[0, 4, 0x7f, 0xff, 0xff, 0xff, 0, 3, 0xff, 0xff, 0xff, 0xff],
            ),
            frame(kind::SETTINGS, FLAG_ONE, 0, &[]),
            frame(kind::HEADERS, OPENS, 1, b"x"),
            frame(kind::DATA, 0, 1, b"body"),
            frame(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
            frame(kind::HEADERS, FLAG_ONE, 1, b"tr"),
            frame(kind::CONTINUATION, FLAG_END_HEADERS, 1, b"ailer"),
            frame(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
            frame(kind::HEADERS, ENDS, 3, b"x"),
            frame(kind::RST_STREAM, 0, 3, &[0; 4]),
            frame(kind::PRIORITY, 0, 3, &[0; 5]),
            frame(kind::PING, 0, 0, &[0; 8]),
            frame(0xee, 0xff, 9, b"of a kind nobody knows"),
        ];
        assert_eq!(judged(&frames), None);
    }

    #[test]
    fn sizes_that_a_frame_cannot_have() {
        for (kind, flags, length) in [
            (kind::PING, 0, 7),
            (kind::RST_STREAM, 0, 3),
            (kind::PRIORITY, 0, 6),
            (kind::WINDOW_UPDATE, 0, 5),
            (kind::SETTINGS, 0, 5),
            (kind::SETTINGS, FLAG_ONE, 6),
        ] {
            assert_eq!(
                judged(&[frame(kind, flags, 1, &vec![0; length])]),
                Some(code::FRAME_SIZE_ERROR),
                "type {kind}"
            );
        }
    }

    #[test]
    fn a_window_beyond_the_largest() {
        let settings = frame(
            kind::SETTINGS,
            0,
            0,
            &[0, 3, 0, 0, 0, 9, 0, 4, 0x80, 0, 0, 0],
        );
        assert_eq!(judged(&[settings]), Some(code::FLOW_CONTROL_ERROR));
    }

    #[test]
    fn frames_on_a_stream_that_is_over() {
        let ended = frame(kind::HEADERS, ENDS, 1, b"x");
        let reset = [
            frame(kind::HEADERS, OPENS, 1, b"x"),
            frame(kind::RST_STREAM, 0, 1, &[0; 4]),
        ]
        .concat();
        for before in [ended, reset] {
            for after in [
                frame(kind::DATA, 0, 1, b"x"),
                frame(kind::HEADERS, ENDS, 1, b"x"),
            ] {
                assert_eq!(judged(&[before.clone(), after]), Some(code::STREAM_CLOSED));
            }
        }
    }

    #[test]
    fn streams_never_opened_are_left_to_h2() {
        let skipping = frame(kind::HEADERS, ENDS, 7, b"x");
        assert_eq!(
            judged(&[skipping.clone(), frame(kind::HEADERS, ENDS, 5, b"x")]),
            None
        );
        assert_eq!(judged(&[skipping, frame(kind::DATA, 0, 9, b"x")]), None);
    }

    #[test]
    fn a_header_block_is_not_interrupted() {
        let begun = frame(kind::HEADERS, 0, 1, b"x");
        assert_eq!(
            judged(&[begun, frame(kind::PING, 0, 0, &[0; 8])]),
            Some(code::PROTOCOL_ERROR)
        );
        assert_eq!(
            judged(&[frame(kind::CONTINUATION, 0, 1, b"x")]),
            Some(code::PROTOCOL_ERROR)
        );
    }

    #[test]
    fn a_visitor_promises_nothing() {
        assert_eq!(
            judged(&[frame(kind::PUSH_PROMISE, 0, 1, &[0; 8])]),
            Some(code::PROTOCOL_ERROR)
        );
    }

    #[test]
    fn open_streams_are_remembered_up_to_a_limit() {
        let mut seen = Frames::default();
        seen.see(&mut PREFACE_TEXT.to_vec()).unwrap();
        let streams = u32::try_from(OPEN_MAX).unwrap() + 10;
        for number in 0..streams {
            seen.see(&mut frame(kind::HEADERS, OPENS, number * 2 + 1, b"x"))
                .unwrap();
            assert!(seen.open.len() <= OPEN_MAX);
        }
        // Too old to be judged, whatever is sent there.
        seen.see(&mut frame(kind::DATA, 0, 1, b"x")).unwrap();
    }
}
