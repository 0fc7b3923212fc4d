//! What the filters of all chains answer, and how long they take.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use adit_filters::{Answered, Meter, Phase, Tally};
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Opts, Registry};

/// Most pairs of filter and phase that are told apart; those that come later are counted as `other`. A
/// configuration of five hundred filters stays below.
pub const PAIRS_MAX: usize = 2000;

/// The filter that stands for those beyond the bound.
const OTHER: &str = "other";

const ANSWERS: &str = "adit_filter_answers_total";
const SECONDS: &str = "adit_filter_seconds_total";

/// Counts and times the answers of every filter in every phase. Chains of all tunnels and of every load of the
/// configuration share it, so that numbers only grow.
#[derive(Clone, Debug)]
pub struct FilterMeter(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    began: Instant,
    pairs: Mutex<Pairs>,
    answers: Desc,
    seconds: Desc,
}

/// By filter and phase.
type Pairs = HashMap<(Arc<str>, Phase), Arc<Pair>>;

/// One filter in one phase. On lines of its own in the processor's cache: threads that count for another pair do not
/// wait for it.
#[derive(Debug)]
#[repr(align(128))]
struct Pair {
    began: Instant,
    counts: [AtomicU64; Answered::ALL.len()],
    nanoseconds: AtomicU64,
}

impl FilterMeter {
    /// Makes the meter and shows it on `registry`.
    ///
    /// # Errors
    /// Where a name is taken there.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let answers = Opts::new(ANSWERS, "Answers of filters, by what came of them")
            .variable_labels(["filter", "phase", "verdict"].map(str::to_owned).to_vec());
        let seconds = Opts::new(
            SECONDS,
            "Time from asking a filter to its answer, waits included",
        )
        .variable_labels(["filter", "phase"].map(str::to_owned).to_vec());
        let meter = Self(Arc::new(Shared {
            began: Instant::now(),
            pairs: Mutex::default(),
            answers: prometheus::core::Describer::describe(&answers)?,
            seconds: prometheus::core::Describer::describe(&seconds)?,
        }));
        registry.register(Box::new(meter.clone()))?;
        Ok(meter)
    }
}

impl Meter for FilterMeter {
    fn tally(&self, filter: &Arc<str>, phase: Phase) -> Arc<dyn Tally> {
        let mut pairs = self.0.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = (Arc::clone(filter), phase);
        if pairs.len() >= PAIRS_MAX && !pairs.contains_key(&key) {
            key.0 = Arc::from(OTHER);
        }
        let pair = pairs.entry(key).or_insert_with(|| {
            Arc::new(Pair {
                began: self.0.began,
                counts: std::array::from_fn(|_| AtomicU64::new(0)),
                nanoseconds: AtomicU64::new(0),
            })
        });
        Arc::clone(pair) as Arc<dyn Tally>
    }
}

impl Tally for Pair {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn add(&self, answered: Answered, took: Duration) {
        if let Some(count) = self.counts.get(answered as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        // 584 years of waiting overflow it.
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }
}

impl Collector for FilterMeter {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0.answers, &self.0.seconds]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let pairs = self.0.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut answers, mut seconds) = (Vec::new(), Vec::new());
        for ((filter, phase), pair) in pairs.iter() {
            let labels = [("filter", &**filter), ("phase", phase.as_str())];
            let mut asked = 0;
            for (answered, count) in Answered::ALL.iter().zip(&pair.counts) {
                let count = count.load(Ordering::Relaxed);
                asked += count;
                // What was never answered would be most of the page.
                if count > 0 {
                    let verdict = [("verdict", answered.as_str())];
                    answers.push(metric(labels.iter().chain(&verdict), count as f64));
                }
            }
            if asked > 0 {
                let spent = Duration::from_nanos(pair.nanoseconds.load(Ordering::Relaxed));
                seconds.push(metric(labels.iter(), spent.as_secs_f64()));
            }
        }
        vec![
            family(&self.0.answers, answers),
            family(&self.0.seconds, seconds),
        ]
    }
}

fn metric<'a>(labels: impl Iterator<Item = &'a (&'a str, &'a str)>, value: f64) -> Metric {
    let labels = labels.map(|(name, value)| {
        let mut label = LabelPair::default();
        label.set_name((*name).to_owned());
        label.set_value((*value).to_owned());
        label
    });
    let mut counter = Counter::default();
    counter.set_value(value);
    let mut metric = Metric::from_label(labels.collect());
    metric.set_counter(counter);
    metric
}

fn family(desc: &Desc, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(desc.fq_name.clone());
    family.set_help(desc.help.clone());
    family.set_field_type(MetricType::COUNTER);
    family.set_metric(metrics);
    family
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use prometheus::TextEncoder;

    use super::*;

    fn shown(registry: &Registry) -> String {
        let families = registry.gather();
        TextEncoder::new().encode_to_string(&families).unwrap()
    }

    #[test]
    fn answers_are_counted_and_timed_by_filter_and_phase() {
        let registry = Registry::new();
        let meter = FilterMeter::register(&registry).unwrap();
        let name = Arc::from("edge/token");
        let request = meter.tally(&name, Phase::Request);
        request.add(Answered::Pass, Duration::from_millis(1500));
        request.add(Answered::Pass, Duration::from_millis(250));
        request.add(Answered::Refuse, Duration::ZERO);
        // Another chain has the same filter.
        meter
            .tally(&name, Phase::Request)
            .add(Answered::WouldRefuse, Duration::ZERO);
        meter.tally(&name, Phase::Connect);
        assert!(request.now() <= request.now());
        let text = shown(&registry);
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            lines,
            [
                r#"adit_filter_answers_total{filter="edge/token",phase="request",verdict="pass"} 2"#,
                r#"adit_filter_answers_total{filter="edge/token",phase="request",verdict="refuse"} 1"#,
                r#"adit_filter_answers_total{filter="edge/token",phase="request",verdict="would-refuse"} 1"#,
                r#"adit_filter_seconds_total{filter="edge/token",phase="request"} 1.75"#,
            ]
        );
    }

    #[test]
    fn names_beyond_the_bound_count_as_other() {
        let registry = Registry::new();
        let meter = FilterMeter::register(&registry).unwrap();
        let add = |name: &str| {
            let tally = meter.tally(&Arc::from(name), Phase::Request);
            tally.add(Answered::Pass, Duration::ZERO);
        };
        for n in 0..PAIRS_MAX {
            add(&n.to_string());
        }
        add("one more");
        add("and another");
        add("0");
        let text = shown(&registry);
        let answers = r#"adit_filter_answers_total{filter="#;
        assert_eq!(text.matches(answers).count(), PAIRS_MAX + 1);
        let of = |name: &str, count: u32| {
            let line = format!(r#"{answers}"{name}",phase="request",verdict="pass"}} {count}"#);
            assert!(text.contains(&line), "{line}");
        };
        of("other", 2);
        of("0", 2);
    }
}
