//! Renders metrics as Prometheus text or OpenMetrics.
//!
//! Formats: [Prometheus text 0.0.4][text], [OpenMetrics 1.0][open].
//!
//! [text]: https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
//! [open]: https://prometheus.io/docs/specs/om/open_metrics_spec/

use std::fmt::{self, Write};

use crate::HistogramSnapshot;
use crate::family::{MetricFamily, MetricKind, Sample, SampleValue};

/// A text format of Prometheus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TextFormat {
    /// Prometheus text 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

/// Ends of metric names that are units of the values.
const UNITS: [&str; 2] = ["seconds", "bytes"];

/// Renders families, each with its description. Families without samples are left out.
pub(crate) fn render(families: &[MetricFamily], format: TextFormat) -> String {
    let mut out = String::with_capacity(16 * 1024);
    let mut rendered = families.iter().filter(|family| !family.samples.is_empty());
    rendered
        .try_for_each(|family| render_family(&mut out, family, format))
        .expect("writing to a string does not fail");
    if format == TextFormat::OpenMetrics {
        out.push_str("# EOF\n");
    }
    out
}

fn render_family(out: &mut String, family: &MetricFamily, format: TextFormat) -> fmt::Result {
    let MetricFamily { name, help, kind, samples } = family;
    let (kind_name, total) = match kind {
        MetricKind::Counter => ("counter", "_total"),
        MetricKind::Gauge => ("gauge", ""),
        MetricKind::Histogram => ("histogram", ""),
    };
    // Only OpenMetrics distinguishes the name of a counter from that of its samples.
    let described = if format == TextFormat::OpenMetrics { "" } else { total };
    writeln!(out, "# TYPE {name}{described} {kind_name}")?;
    let unit = UNITS.iter().find(|unit| name.strip_suffix(**unit).is_some_and(|rest| rest.ends_with('_')));
    if let Some(unit) = unit.filter(|_| format == TextFormat::OpenMetrics) {
        writeln!(out, "# UNIT {name} {unit}")?;
    }
    write!(out, "# HELP {name}{described} ")?;
    escape(out, help, format == TextFormat::OpenMetrics)?;
    out.push('\n');
    for sample in samples {
        match &sample.value {
            SampleValue::Number(value) => render_sample(out, (name, total), sample, None, *value)?,
            SampleValue::Histogram(histogram) => render_histogram(out, name, sample, histogram)?,
        }
    }
    Ok(())
}

fn render_histogram(
    out: &mut String,
    name: &str,
    sample: &Sample,
    histogram: &HistogramSnapshot,
) -> fmt::Result {
    for (bound, count) in histogram.cumulative() {
        render_sample(out, (name, "_bucket"), sample, Some(bound), count as f64)?;
    }
    render_sample(out, (name, "_sum"), sample, None, histogram.sum())?;
    render_sample(out, (name, "_count"), sample, None, histogram.count() as f64)
}

/// Renders one line. `bound` is the upper bound of a bucket.
fn render_sample(
    out: &mut String,
    (name, suffix): (&str, &str),
    sample: &Sample,
    bound: Option<f64>,
    value: f64,
) -> fmt::Result {
    write!(out, "{name}{suffix}")?;
    let mut opening = '{';
    for (label, value) in &sample.labels {
        write!(out, "{opening}{label}=\"")?;
        escape(out, value, true)?;
        out.push('"');
        opening = ',';
    }
    if let Some(bound) = bound {
        write!(out, "{opening}le=\"")?;
        // Both formats write the same label, so that both give the same time series: `1.0`.
        if bound.is_finite() {
            write!(out, "{bound:?}")?;
        } else {
            out.push_str("+Inf");
        }
        out.push('"');
        opening = ',';
    }
    out.push_str(if opening == ',' { "} " } else { " " });
    match value {
        value if value == f64::INFINITY => out.push_str("+Inf"),
        value if value == f64::NEG_INFINITY => out.push_str("-Inf"),
        // `NaN` is spelled alike.
        value => write!(out, "{value}")?,
    }
    out.push('\n');
    Ok(())
}

/// Writes a text with backslashes before characters that would end it.
fn escape(out: &mut String, text: &str, escapes_quotes: bool) -> fmt::Result {
    for letter in text.chars() {
        match letter {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if escapes_quotes => out.push_str("\\\""),
            letter => out.write_char(letter)?,
        }
    }
    Ok(())
}
