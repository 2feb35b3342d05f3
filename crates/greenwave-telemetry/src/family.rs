//! Metrics with names, labels and descriptions, for Prometheus.

use crate::HistogramSnapshot;

/// Kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

/// Value of a sample.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum SampleValue {
    Number(f64),
    Histogram(HistogramSnapshot),
}

/// A value with its labels.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    pub(crate) labels: Vec<(&'static str, String)>,
    pub(crate) value: SampleValue,
}

/// Labels of a sample: names, and values that may be any text.
pub type Labels<'a> = &'a [(&'static str, &'a str)];

/// The samples of one metric, which differ in their labels.
///
/// Prometheus stores a separate time series for each combination of label values, so a label must
/// have few values: states, kinds, names from a configuration, but no paths and no texts.
///
/// ```
/// use greenwave_telemetry::MetricFamily;
///
/// let reads = MetricFamily::counter("store_reads", "Reads by their source.")
///     .sample(&[("source", "memory")], 7.0)
///     .sample(&[("source", "disk")], 2.0);
/// # let _ = reads;
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct MetricFamily {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    pub(crate) kind: MetricKind,
    pub(crate) samples: Vec<Sample>,
}

impl MetricFamily {
    /// Creates a counter, which only increases. `name` has no `_total` at its end, since the
    /// samples get it.
    ///
    /// # Panics
    /// If Prometheus does not allow the name, as in all three constructors.
    pub fn counter(name: &'static str, help: &'static str) -> Self {
        assert!(!name.ends_with("_total"), "samples of `{name}` get their own `_total`");
        Self::new(name, help, MetricKind::Counter)
    }

    /// Creates a gauge, a value that may increase and decrease.
    pub fn gauge(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, MetricKind::Gauge)
    }

    /// Creates a histogram of durations in seconds.
    pub fn histogram(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, MetricKind::Histogram)
    }

    fn new(name: &'static str, help: &'static str, kind: MetricKind) -> Self {
        assert!(is_name(name, ":"), "`{name}` is no name of a metric");
        Self { name, help, kind, samples: Vec::new() }
    }

    /// Adds a sample to a counter or a gauge.
    ///
    /// # Panics
    /// If Prometheus does not allow the name of a label, or if the family is a histogram.
    #[must_use]
    pub fn sample(mut self, labels: Labels<'_>, value: f64) -> Self {
        assert!(self.kind != MetricKind::Histogram, "`{}` is a histogram", self.name);
        self.push(labels, SampleValue::Number(value));
        self
    }

    /// Adds a sample to a histogram. Labels are as in [`sample`](Self::sample).
    ///
    /// # Panics
    /// If Prometheus does not allow the name of a label, or if the family is no histogram.
    #[must_use]
    pub fn observed(mut self, labels: Labels<'_>, histogram: HistogramSnapshot) -> Self {
        assert!(self.kind == MetricKind::Histogram, "`{}` is no histogram", self.name);
        self.push(labels, SampleValue::Histogram(histogram));
        self
    }

    fn push(&mut self, labels: Labels<'_>, value: SampleValue) {
        let label = |&(name, value): &(&'static str, &str)| {
            assert!(is_name(name, "") && name != "le", "`{name}` is no name of a label");
            (name, value.to_owned())
        };
        self.samples.push(Sample { labels: labels.iter().map(label).collect(), value });
    }
}

/// Returns whether a text is a name of ASCII letters, digits, underscores and the characters in
/// `also`, without a digit at its start.
fn is_name(name: &str, also: &str) -> bool {
    let is_allowed = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || also.contains(letter);
    name.chars().all(is_allowed) && name.chars().next().is_some_and(|first| !first.is_ascii_digit())
}
