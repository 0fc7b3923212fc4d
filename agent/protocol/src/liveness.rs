//! Who is still there: what two sides agree on, when to beat, when to give up.
//!
//! | Mode | Request | Response | Agent sends | Engine sends |
//! | --- | --- | --- | --- | --- |
//! | off | none | none | nothing | nothing |
//! | legacy | none, or the engine leaves it out | none | empty heartbeats | nothing |
//! | negotiated | interval | interval, timeout | numbered heartbeats | acknowledgements |
//!
//! In negotiated mode any frame counts as a sign of life, in both directions. An engine cannot tell
//! off from legacy by the request: it starts its idle limit with the first heartbeat it sees, and
//! leaves agents that never beat to the transport's own keep-alive.

use std::time::{Duration, Instant};

use crate::message::{ControlChannelLiveness, Heartbeat};

/// Shortest heartbeat interval.
pub const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// Longest heartbeat interval.
pub const INTERVAL_MAX: Duration = Duration::from_secs(300);

/// Longest silence that can be agreed on.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(900);

/// Heartbeats that may be missing before an agent counts as gone.
const INTERVALS_PER_TIMEOUT: u32 = 3;

/// A heartbeat interval: 1 s to 300 s in whole milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interval(u32);

impl Interval {
    /// The interval agents use when nobody chose another.
    pub const DEFAULT: Self = Self(5_000);

    /// An interval of this length.
    ///
    /// # Errors
    ///
    /// [`LivenessError::IntervalRange`] outside 1 s to 300 s, or with a fraction of a millisecond.
    pub fn new(interval: Duration) -> Result<Self, LivenessError> {
        if !interval.subsec_nanos().is_multiple_of(1_000_000) {
            return Err(LivenessError::IntervalRange);
        }
        u32::try_from(interval.as_millis())
            .map_err(|_| LivenessError::IntervalRange)
            .and_then(Self::from_millis)
    }

    /// An interval of `ms` milliseconds.
    ///
    /// # Errors
    ///
    /// [`LivenessError::IntervalRange`] outside 1 s to 300 s.
    pub fn from_millis(ms: u32) -> Result<Self, LivenessError> {
        let interval = Duration::from_millis(u64::from(ms));
        if (INTERVAL_MIN..=INTERVAL_MAX).contains(&interval) {
            Ok(Self(ms))
        } else {
            Err(LivenessError::IntervalRange)
        }
    }

    /// The interval in milliseconds, as on the wire.
    #[must_use]
    pub const fn as_millis(self) -> u32 {
        self.0
    }

    /// The interval as a duration.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0 as u64)
    }

    /// The wish for negotiated heartbeats, as it goes into a request.
    #[must_use]
    pub const fn to_request(self) -> ControlChannelLiveness {
        ControlChannelLiveness {
            heartbeat_interval_ms: self.0,
            heartbeat_timeout_ms: 0,
        }
    }
}

/// What both sides keep in negotiated mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// Between two heartbeats of the agent.
    pub interval: Interval,
    /// Silence after which the other side counts as gone; from the interval up to 900 s.
    pub timeout: Duration,
}

impl Agreed {
    /// The agreement as it goes into a response.
    #[must_use]
    pub fn to_response(self) -> ControlChannelLiveness {
        ControlChannelLiveness {
            heartbeat_interval_ms: self.interval.as_millis(),
            heartbeat_timeout_ms: u32::try_from(self.timeout.as_millis()).unwrap_or(u32::MAX),
        }
    }
}

/// What an engine grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnginePolicy {
    /// Shortest timeout of a negotiated channel; three intervals if that is longer.
    pub timeout_min: Duration,
    /// Silence allowed to a client that beats without having negotiated, counted from its first
    /// heartbeat on. The slowest of them beats every 10 s.
    pub legacy_idle: Duration,
}

impl Default for EnginePolicy {
    fn default() -> Self {
        Self {
            timeout_min: Duration::from_secs(60),
            legacy_idle: Duration::from_secs(60),
        }
    }
}

impl EnginePolicy {
    /// The engine's answer to a request: an agreement if one was asked for and the interval is in
    /// range, otherwise none, which makes the client beat in legacy mode.
    #[must_use]
    pub fn answer(&self, request: Option<&ControlChannelLiveness>) -> Option<Agreed> {
        let interval = Interval::from_millis(request?.heartbeat_interval_ms).ok()?;
        let timeout = self
            .timeout_min
            .max(interval.duration().saturating_mul(INTERVALS_PER_TIMEOUT))
            .min(TIMEOUT_MAX);
        Some(Agreed { interval, timeout })
    }
}

/// The agent's judgement of a response to its `requested` interval.
///
/// # Errors
///
/// What makes the agent end the channel: an agreement nobody asked for, another interval, a timeout
/// below the interval or above 900 s.
pub fn check_response(
    requested: Option<Interval>,
    response: Option<&ControlChannelLiveness>,
) -> Result<Option<Agreed>, LivenessError> {
    let Some(response) = response else {
        return Ok(None);
    };
    let Some(interval) = requested else {
        return Err(LivenessError::NotRequested);
    };
    if response.heartbeat_interval_ms != interval.as_millis() {
        return Err(LivenessError::IntervalChanged);
    }
    let timeout = Duration::from_millis(u64::from(response.heartbeat_timeout_ms));
    if !(interval.duration()..=TIMEOUT_MAX).contains(&timeout) {
        return Err(LivenessError::TimeoutRange);
    }
    Ok(Some(Agreed { interval, timeout }))
}

/// The engine's view of one agent's life.
#[derive(Debug)]
pub struct EngineWatch {
    mode: WatchMode,
    deadline: Option<Instant>,
}

#[derive(Debug)]
enum WatchMode {
    Legacy {
        idle: Duration,
    },
    Negotiated {
        timeout: Duration,
        acknowledged: u64,
    },
}

impl EngineWatch {
    /// Starts with the response that said `agreed`.
    #[must_use]
    pub fn new(agreed: Option<Agreed>, policy: &EnginePolicy, now: Instant) -> Self {
        match agreed {
            Some(Agreed { timeout, .. }) => Self {
                mode: WatchMode::Negotiated {
                    timeout,
                    acknowledged: 0,
                },
                deadline: Some(now + timeout),
            },
            None => Self {
                mode: WatchMode::Legacy {
                    idle: policy.legacy_idle,
                },
                deadline: None,
            },
        }
    }

    /// Any frame came.
    pub fn on_frame(&mut self, now: Instant) {
        match self.mode {
            WatchMode::Negotiated { timeout, .. } => self.deadline = Some(now + timeout),
            WatchMode::Legacy { idle } => {
                if self.deadline.is_some() {
                    self.deadline = Some(now + idle);
                }
            }
        }
    }

    /// A heartbeat came. Returns the acknowledgement to send: none in legacy mode, and none for a
    /// number that is not above those acknowledged, since a client ends the channel on a repetition.
    pub fn on_heartbeat(&mut self, now: Instant, heartbeat: &Heartbeat) -> Option<Heartbeat> {
        match &mut self.mode {
            WatchMode::Legacy { idle } => {
                self.deadline = Some(now + *idle);
                None
            }
            WatchMode::Negotiated {
                timeout,
                acknowledged,
            } => {
                self.deadline = Some(now + *timeout);
                (heartbeat.sequence > *acknowledged).then(|| {
                    *acknowledged = heartbeat.sequence;
                    Heartbeat {
                        sequence: 0,
                        acknowledgement: heartbeat.sequence,
                    }
                })
            }
        }
    }

    /// When the agent counts as gone if nothing comes.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether the agent counts as gone.
    #[must_use]
    pub fn is_expired(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| now >= deadline)
    }
}

/// The agent's heartbeats and its view of the engine's life.
#[derive(Debug)]
pub struct AgentPulse {
    mode: PulseMode,
}

#[derive(Debug)]
enum PulseMode {
    Off,
    Legacy {
        interval: Duration,
        next: Instant,
    },
    Negotiated {
        interval: Duration,
        timeout: Duration,
        next: Instant,
        deadline: Instant,
        sent: u64,
        acknowledged: u64,
    },
}

impl AgentPulse {
    /// Starts with the engine's response. The first heartbeat is due at once.
    #[must_use]
    pub fn new(requested: Option<Interval>, agreed: Option<Agreed>, now: Instant) -> Self {
        let mode = match (requested, agreed) {
            (_, Some(Agreed { interval, timeout })) => PulseMode::Negotiated {
                interval: interval.duration(),
                timeout,
                next: now,
                deadline: now + timeout,
                sent: 0,
                acknowledged: 0,
            },
            (Some(interval), None) => PulseMode::Legacy {
                interval: interval.duration(),
                next: now,
            },
            (None, None) => PulseMode::Off,
        };
        Self { mode }
    }

    /// Any frame came.
    pub fn on_frame(&mut self, now: Instant) {
        if let PulseMode::Negotiated {
            deadline, timeout, ..
        } = &mut self.mode
        {
            *deadline = now + *timeout;
        }
    }

    /// A heartbeat came.
    ///
    /// # Errors
    ///
    /// What makes the agent end the channel: a sequence number of the engine's own, an
    /// acknowledgement that does not grow or runs ahead. Without an agreement an empty heartbeat is
    /// let pass and anything else is an error.
    pub fn on_heartbeat(&mut self, heartbeat: &Heartbeat) -> Result<(), LivenessError> {
        match &mut self.mode {
            PulseMode::Negotiated {
                sent, acknowledged, ..
            } => {
                let number = heartbeat.acknowledgement;
                if heartbeat.sequence != 0 || number <= *acknowledged || number > *sent {
                    return Err(LivenessError::Acknowledgement);
                }
                *acknowledged = number;
                Ok(())
            }
            PulseMode::Off | PulseMode::Legacy { .. } if *heartbeat == Heartbeat::default() => {
                Ok(())
            }
            PulseMode::Off | PulseMode::Legacy { .. } => Err(LivenessError::NotRequested),
        }
    }

    /// When [`on_time`](Self::on_time) next has something to say.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        match &self.mode {
            PulseMode::Off => None,
            PulseMode::Legacy { next, .. } => Some(*next),
            PulseMode::Negotiated { next, deadline, .. } => Some(*next.min(deadline)),
        }
    }

    /// Returns the heartbeat to send now, if one is due.
    ///
    /// # Errors
    ///
    /// [`LivenessError::Expired`] once the engine has been silent for the agreed timeout.
    pub fn on_time(&mut self, now: Instant) -> Result<Option<Heartbeat>, LivenessError> {
        match &mut self.mode {
            PulseMode::Off => Ok(None),
            PulseMode::Legacy { interval, next } => Ok((now >= *next).then(|| {
                *next = now + *interval;
                Heartbeat::default()
            })),
            PulseMode::Negotiated {
                interval,
                next,
                deadline,
                sent,
                ..
            } => {
                if now >= *deadline {
                    return Err(LivenessError::Expired);
                }
                Ok((now >= *next).then(|| {
                    *next = now + *interval;
                    *sent += 1;
                    Heartbeat {
                        sequence: *sent,
                        acknowledgement: 0,
                    }
                }))
            }
        }
    }
}

/// Why a control channel cannot go on, as far as signs of life are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LivenessError {
    /// The engine acknowledged a wrong number, or sent one of its own.
    #[error("the engine acknowledged a heartbeat out of order")]
    Acknowledgement,
    /// The engine was silent for too long.
    #[error("the engine has been silent for the agreed time")]
    Expired,
    /// The engine answered another interval.
    #[error("the engine answered with another heartbeat interval")]
    IntervalChanged,
    /// The interval is not 1 s to 300 s in whole milliseconds.
    #[error("a heartbeat interval must be 1 s to 300 s in whole milliseconds")]
    IntervalRange,
    /// The engine answered or beat without having been asked.
    #[error("the engine sent liveness that was not asked for")]
    NotRequested,
    /// The timeout is below the interval or above 900 s.
    #[error("the engine answered with a timeout outside the interval to 900 s")]
    TimeoutRange,
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

    fn wire(interval: u32, timeout: u32) -> ControlChannelLiveness {
        ControlChannelLiveness {
            heartbeat_interval_ms: interval,
            heartbeat_timeout_ms: timeout,
        }
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn the_engine_grants_the_interval_and_a_timeout_in_range() {
        // agent-protocol §16 cases 3 and 4, §19 #5
        let policy = EnginePolicy::default();
        for (request, expected) in [
            (None, None),
            (Some(wire(0, 0)), None),
            (Some(wire(999, 0)), None),
            (Some(wire(300_001, 0)), None),
            (Some(wire(1_000, 7)), Some(wire(1_000, 60_000))),
            (Some(wire(5_000, 0)), Some(wire(5_000, 60_000))),
            (Some(wire(30_000, 0)), Some(wire(30_000, 90_000))),
            (Some(wire(300_000, 0)), Some(wire(300_000, 900_000))),
        ] {
            let answer = policy.answer(request.as_ref()).map(Agreed::to_response);
            assert_eq!(answer, expected, "{request:?}");
            if answer.is_some() {
                let interval = Interval::from_millis(request.unwrap().heartbeat_interval_ms);
                assert!(check_response(interval.ok(), answer.as_ref()).is_ok());
            }
        }
    }

    #[test]
    fn the_agent_refuses_answers_out_of_bounds() {
        // agent-protocol §16 case 3
        for (requested, answer, expected) in [
            (1_000, wire(2_000, 60_000), LivenessError::IntervalChanged),
            (1_000, wire(1_000, 999), LivenessError::TimeoutRange),
            (1_000, wire(1_000, 900_001), LivenessError::TimeoutRange),
            (5_000, wire(4_000, 15_000), LivenessError::IntervalChanged),
            (5_000, wire(5_000, 4_999), LivenessError::TimeoutRange),
        ] {
            let requested = Interval::from_millis(requested).unwrap();
            assert_eq!(
                check_response(Some(requested), Some(&answer)),
                Err(expected)
            );
        }
        assert_eq!(
            check_response(None, Some(&wire(1_000, 60_000))),
            Err(LivenessError::NotRequested)
        );
        assert_eq!(check_response(Some(Interval::DEFAULT), None), Ok(None));
    }

    #[test]
    fn intervals_are_whole_milliseconds_between_the_bounds() {
        assert!(Interval::new(Duration::from_micros(1_000_500)).is_err());
        assert!(Interval::new(Duration::from_millis(999)).is_err());
        assert!(Interval::new(Duration::from_millis(300_001)).is_err());
        assert!(Interval::new(Duration::MAX).is_err());
        assert_eq!(Interval::new(secs(5)), Ok(Interval::DEFAULT));
    }

    fn negotiated(interval: u32, timeout: u64) -> Option<Agreed> {
        Some(Agreed {
            interval: Interval::from_millis(interval).unwrap(),
            timeout: secs(timeout),
        })
    }

    #[test]
    fn the_agent_beats_at_once_and_then_by_the_interval() {
        // agent-protocol §16 case 5
        let start = Instant::now();
        let mut pulse = AgentPulse::new(None, negotiated(1_000, 60), start);
        assert_eq!(pulse.on_time(start).unwrap().unwrap().sequence, 1);
        assert_eq!(pulse.on_time(start).unwrap(), None);
        assert_eq!(pulse.deadline(), Some(start + secs(1)));
        assert_eq!(pulse.on_time(start + secs(1)).unwrap().unwrap().sequence, 2);
    }

    #[test]
    fn silence_ends_the_agents_patience_and_any_frame_renews_it() {
        // agent-protocol §16 cases 7 and 8
        let start = Instant::now();
        let mut pulse = AgentPulse::new(None, negotiated(1_000, 2), start);
        pulse.on_time(start).unwrap();
        pulse.on_frame(start + Duration::from_millis(1_900));
        assert!(pulse.on_time(start + secs(2)).is_ok());
        assert_eq!(
            pulse.on_time(start + Duration::from_millis(3_900)),
            Err(LivenessError::Expired)
        );
    }

    #[test]
    fn acknowledgements_must_grow_and_not_run_ahead() {
        // agent-protocol §16 cases 6 and 9
        let start = Instant::now();
        let ack = |acknowledgement| Heartbeat {
            sequence: 0,
            acknowledgement,
        };
        let mut pulse = AgentPulse::new(None, negotiated(1_000, 60), start);
        for beat in 0..4 {
            pulse.on_time(start + secs(beat)).unwrap();
        }
        assert!(pulse.on_heartbeat(&ack(2)).is_ok(), "skipping is fine");
        for wrong in [ack(0), ack(2), ack(1), ack(5)] {
            assert_eq!(
                pulse.on_heartbeat(&wrong),
                Err(LivenessError::Acknowledgement)
            );
        }
        let own = Heartbeat {
            sequence: 1,
            acknowledgement: 4,
        };
        assert!(pulse.on_heartbeat(&own).is_err());
        assert!(pulse.on_heartbeat(&ack(4)).is_ok());
    }

    #[test]
    fn without_agreement_the_agent_beats_empty_and_has_no_deadline() {
        let start = Instant::now();
        let mut pulse = AgentPulse::new(Some(Interval::DEFAULT), None, start);
        assert_eq!(pulse.on_time(start), Ok(Some(Heartbeat::default())));
        let late = start + secs(100_000);
        assert_eq!(pulse.on_time(late), Ok(Some(Heartbeat::default())));
        assert!(pulse.on_heartbeat(&Heartbeat::default()).is_ok());
        let ack = Heartbeat {
            sequence: 0,
            acknowledgement: 1,
        };
        assert_eq!(pulse.on_heartbeat(&ack), Err(LivenessError::NotRequested));
        let mut off = AgentPulse::new(None, None, start);
        assert_eq!((off.deadline(), off.on_time(late)), (None, Ok(None)));
    }

    #[test]
    fn the_engine_acknowledges_what_grows_and_times_silence() {
        // agent-protocol §16 case 5
        let start = Instant::now();
        let policy = EnginePolicy::default();
        let mut watch = EngineWatch::new(negotiated(1_000, 60), &policy, start);
        let beat = |sequence| Heartbeat {
            sequence,
            acknowledgement: 0,
        };
        let ack = watch.on_heartbeat(start, &beat(1)).unwrap();
        assert_eq!((ack.sequence, ack.acknowledgement), (0, 1));
        assert_eq!(watch.on_heartbeat(start, &beat(1)), None);
        assert_eq!(watch.on_heartbeat(start, &beat(0)), None);
        assert!(watch.on_heartbeat(start + secs(5), &beat(9)).is_some());
        assert!(!watch.is_expired(start + secs(64)));
        assert!(watch.is_expired(start + secs(65)));
        watch.on_frame(start + secs(64));
        assert!(!watch.is_expired(start + secs(65)));
    }

    #[test]
    fn a_legacy_agent_is_timed_from_its_first_heartbeat_and_never_answered() {
        // agent-protocol §16 case 4
        let start = Instant::now();
        let policy = EnginePolicy::default();
        let mut watch = EngineWatch::new(None, &policy, start);
        watch.on_frame(start);
        assert_eq!(watch.deadline(), None, "heartbeats may be switched off");
        let beat = Heartbeat::default();
        assert_eq!(watch.on_heartbeat(start, &beat), None);
        assert_eq!(watch.deadline(), Some(start + secs(60)));
        watch.on_frame(start + secs(10));
        assert!(!watch.is_expired(start + secs(69)));
        assert!(watch.is_expired(start + secs(70)));
    }
}
