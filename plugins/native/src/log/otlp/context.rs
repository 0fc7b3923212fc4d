//! Where an exchange stands in a trace ([W3C Trace Context](https://www.w3.org/TR/trace-context/)).

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use adit_filters::env::Random;

/// The header field that carries a position in a trace.
pub(super) const TRACEPARENT: &str = "traceparent";

/// The header field that carries what others add to it.
pub(super) const TRACESTATE: &str = "tracestate";

/// An odd number near 2⁶⁴/φ: steps of it visit every value before one comes twice.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The span of one exchange.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct TraceContext {
    /// 0 where there is no trace.
    pub(super) trace: u128,
    /// 0 where there is no trace.
    pub(super) span: u64,
    /// The span this one is a part of, if it is the visitor's.
    pub(super) parent: Option<u64>,
    /// Whether it is to be recorded, here and by whoever comes next.
    pub(super) sampled: bool,
}

/// As the next service is told.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = u8::from(self.sampled);
        write!(f, "00-{:032x}-{:016x}-{flags:02x}", self.trace, self.span)
    }
}

/// What a visitor says about its trace (§3.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct TraceParent {
    trace: u128,
    parent: u64,
    sampled: bool,
}

impl TraceParent {
    /// Reads the field; nothing where it breaks a rule, which then counts as if it were not there.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (version, rest) = text.split_once('-')?;
        let (trace, rest) = rest.split_once('-')?;
        let (parent, rest) = rest.split_once('-')?;
        let (flags, later) = match rest.split_once('-') {
            Some((flags, _)) => (flags, true),
            None => (rest, false),
        };
        let version = hex(version, 2)?;
        // Version 0 has nothing more to say; 255 is none.
        if version == 255 || (version == 0 && later) {
            return None;
        }
        let trace = hex(trace, 32).filter(|trace| *trace != 0)?;
        let parent = hex(parent, 16).filter(|parent| *parent != 0)?;
        Some(Self {
            trace,
            parent: u64::try_from(parent).ok()?,
            sampled: hex(flags, 2)? & 1 == 1,
        })
    }

    /// The visitor's own span.
    pub(super) fn itself(self) -> TraceContext {
        TraceContext {
            trace: self.trace,
            span: self.parent,
            parent: None,
            sampled: self.sampled,
        }
    }
}

/// Exactly `digits` digits, in lower case.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let lower = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (text.len() == digits && text.bytes().all(lower))
        .then(|| u128::from_str_radix(text, 16).ok())
        .flatten()
}

/// Gives out spans and decides which are recorded.
pub(super) struct Tracer {
    next: AtomicU64,
    /// Of 2⁶⁴ traces, this many more than 0 are recorded.
    sampled: u128,
}

impl Tracer {
    /// Records `ratio` (0 to 1) of the traces that begin here.
    pub(super) fn new(ratio: f64, random: &dyn Random) -> Self {
        let mut seed = [0; 8];
        random.fill(&mut seed);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a ratio of 2⁶⁴ is between 0 and 2⁶⁴"
        )]
        let sampled = (ratio * 2f64.powi(64)) as u128;
        Self {
            next: AtomicU64::new(u64::from_ne_bytes(seed)),
            sampled,
        }
    }

    /// A span in the visitor's trace, or the first of a trace.
    pub(super) fn begin(&self, incoming: Option<TraceParent>) -> TraceContext {
        let span = self.number();
        if let Some(incoming) = incoming {
            return TraceContext {
                trace: incoming.trace,
                span,
                parent: Some(incoming.parent),
                sampled: incoming.sampled,
            };
        }
        let (high, low) = (self.number(), self.number());
        TraceContext {
            trace: u128::from(high) << 64 | u128::from(low),
            span,
            parent: None,
            sampled: u128::from(low) < self.sampled,
        }
    }

    /// A number that looks like chance and comes once: an id is a name, not a secret, so that one call of the system's
    /// randomness is enough for all of them (splitmix64).
    fn number(&self) -> u64 {
        let mut z = self.next.fetch_add(STEP, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).max(1)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::collections::HashSet;

    use adit_filters::env::fake::FakeRandom;

    use super::*;

    const INCOMING: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_visitors_trace_is_read_as_the_standard_says() {
        let parsed = TraceParent::parse(INCOMING).unwrap();
        assert_eq!(parsed.trace, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
        assert_eq!(
            (parsed.parent, parsed.sampled),
            (0xb7ad_6b71_6920_3331, true)
        );
        let later = format!("cc{}-what-ever", INCOMING.trim_start_matches("00"));
        assert_eq!(TraceParent::parse(&later), Some(parsed));
        let unsampled = INCOMING.replace("-01", "-02");
        assert!(!TraceParent::parse(&unsampled).unwrap().sampled);
        for wrong in [
            "",
            "00",
            &INCOMING.to_uppercase(),
            &INCOMING.replace("00-", "ff-"),
            &INCOMING.replace("00-", "0-"),
            &format!("{INCOMING}-x"),
            &format!(" {INCOMING}"),
            &INCOMING.replace("b7ad6b7169203331", "0000000000000000"),
            &INCOMING.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &INCOMING.replace("-01", "-1"),
            &INCOMING.replace("-01", "-é"),
        ] {
            assert_eq!(TraceParent::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_span_continues_the_visitors_trace_or_begins_one() {
        let tracer = Tracer::new(1.0, &FakeRandom::default());
        let span = tracer.begin(TraceParent::parse(INCOMING));
        assert_eq!(span.parent, Some(0xb7ad_6b71_6920_3331));
        let told = span.to_string();
        assert!(
            told.starts_with("00-0af7651916cd43dd8448eb211c80319c-"),
            "{told}"
        );
        assert!(
            told.ends_with("-01") && !told.contains("b7ad6b7169203331"),
            "{told}"
        );
        let own = tracer.begin(None);
        assert!(own.parent.is_none() && own.sampled);
        assert!(TraceParent::parse(&own.to_string()).is_some());
    }

    #[test]
    fn the_ratio_of_recorded_traces_is_kept_and_a_visitors_wish_goes_first() {
        for (ratio, from, to) in [(0.0, 0, 0), (0.25, 2300, 2700), (1.0, 10_000, 10_000)] {
            let tracer = Tracer::new(ratio, &FakeRandom::default());
            let sampled = (0..10_000).filter(|_| tracer.begin(None).sampled).count();
            assert!((from..=to).contains(&sampled), "{ratio}: {sampled}");
            assert!(tracer.begin(TraceParent::parse(INCOMING)).sampled);
        }
    }

    #[test]
    fn no_two_spans_have_one_id() {
        let tracer = Tracer::new(1.0, &FakeRandom::default());
        let mut seen = HashSet::new();
        for _ in 0..10_000 {
            let span = tracer.begin(None);
            assert!(seen.insert(span.span) && span.trace != 0);
        }
    }
}
