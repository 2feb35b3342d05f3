//! Encodes and decodes the cache records of tests.
//!
//! The first byte of a payload is its type. `R` is a result: one line of JSON (status and count),
//! then the output and the content of output files. `L` is a set of discovered dependencies, in the
//! encoding of [`DiscoveredDeps::encode`]. `T` is a list of keys of traces, and `S` the key under
//! which the result is stored.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use greenwave_cache::{Key, Record};
use serde::{Deserialize, Serialize};

use crate::results::key::SCHEMA;
use crate::results::outcome::{Outcome, Source, Status};
use crate::results::outputs::{OutputFile, Outputs};
use crate::{CaseReport, CaseStatus, TestCount};
use greenwave_inputs::DiscoveredDeps;
use greenwave_inputs::now_ms;

/// A decoded record of a test's key chain.
#[derive(Debug, Clone)]
pub(crate) enum StoredRecord {
    /// The result, at the end of the chain.
    Result(StoredResult),
    /// Dependencies whose states determine the next key.
    Dependencies(Arc<DiscoveredDeps>),
    /// The keys of a test's traces, the latest first.
    Traces(Vec<Key>),
    /// The key under which the result is stored.
    SameAs(Key),
}

/// A result that was read from the cache.
#[derive(Debug, Clone)]
pub(crate) struct StoredResult {
    status: Status,
    count: Option<TestCount>,
    cases: Vec<CaseReport>,
    output: Bytes,
    outputs: Outputs,
    duration: Duration,
    age: Duration,
    coarse: Option<String>,
    retries: u32,
}

/// A result to store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewResult<'a> {
    pub(crate) status: Status,
    /// Attempts after the first one.
    pub(crate) retries: u32,
    pub(crate) count: Option<TestCount>,
    pub(crate) cases: &'a [CaseReport],
    pub(crate) output: &'a [u8],
    pub(crate) outputs: &'a [OutputFile],
    pub(crate) duration: Duration,
    /// The reason why the key is coarse.
    pub(crate) coarse: Option<&'a str>,
}

/// The first line of a stored result.
#[derive(Serialize, Deserialize)]
struct Summary {
    status: Status,
    count: Option<(u32, u32)>,
    /// The reason why the key is coarse.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    coarse: Option<String>,
    /// Attempts after the first one, 0 for a pass.
    #[serde(default, skip_serializing_if = "is_zero")]
    retries: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    cases: Vec<StoredCase>,
    /// Length of the output, if files follow it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output_len: Option<usize>,
    /// The files, and for each whether its content follows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    outputs: Vec<(OutputFile, bool)>,
}

/// A single test in a stored result: name, status, microseconds and output.
type StoredCase = (String, u8, Option<u64>, Option<String>);

const RESULT: u8 = b'R';
const DEPENDENCIES: u8 = b'L';
const TRACES: u8 = b'T';
const SAME_AS: u8 = b'S';

impl StoredResult {
    /// Returns the outcome of a test that did not run, from the result of `key`. `None` if the test
    /// could end in another way under this time limit, or with this number of retries.
    pub(crate) fn outcome_under(self, key: &Key, time_max: Duration, retries: u32) -> Option<Outcome> {
        let is_pass = self.status == Status::Passed;
        let has_tried = is_pass || self.retries >= retries;
        Some(self.outcome(key)).filter(|outcome| has_tried && outcome.holds_under(time_max))
    }

    /// Converts the result of `key` to the outcome of a test that did not run.
    pub(crate) fn outcome(self, key: &Key) -> Outcome {
        Outcome {
            status: self.status,
            count: self.count,
            cases: self.cases,
            output: self.output,
            duration: self.duration,
            source: Source::Cached(self.age),
            key: *key.as_bytes(),
            attempts: 0,
            undeclared: Vec::new(),
            coarse: self.coarse,
            interference: None,
            left_behind: Vec::new(),
            outputs: self.outputs,
        }
    }
}

impl NewResult<'_> {
    /// Returns the record of the result.
    pub(crate) fn record(&self) -> Record {
        let Self { status, retries, count, cases, output, outputs, duration, coarse } = *self;
        let summary = Summary {
            status,
            count: count.map(|count| (count.passed, count.failed)),
            coarse: coarse.map(str::to_owned),
            retries,
            cases: cases.iter().map(encode_case).collect(),
            output_len: (!outputs.is_empty()).then_some(output.len()),
            outputs: outputs.iter().map(|file| (file.clone(), file.content.is_some())).collect(),
        };
        let mut payload = vec![RESULT];
        payload.extend(serde_json::to_vec(&summary).expect("numbers and texts serialize to JSON"));
        payload.push(b'\n');
        payload.extend_from_slice(output);
        outputs.iter().filter_map(|file| file.content.as_ref()).for_each(|content| payload.extend(content));
        new(duration, payload)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn encode_case(case: &CaseReport) -> StoredCase {
    let status = match case.status {
        CaseStatus::Passed => 0,
        CaseStatus::Failed => 1,
        CaseStatus::Skipped => 2,
    };
    let micros = case.duration.map(|it| u64::try_from(it.as_micros()).unwrap_or(u64::MAX));
    let output = case.output.as_deref().map(|it| String::from_utf8_lossy(it).into_owned());
    (case.name.clone(), status, micros, output)
}

fn decode_case((name, status, micros, output): StoredCase) -> CaseReport {
    let status = match status {
        0 => CaseStatus::Passed,
        1 => CaseStatus::Failed,
        _ => CaseStatus::Skipped,
    };
    CaseReport { name, status, duration: micros.map(Duration::from_micros), output: output.map(Bytes::from) }
}

/// Returns the record of a set of discovered dependencies.
pub(crate) fn dependencies(set: &DiscoveredDeps) -> Record {
    let mut payload = vec![DEPENDENCIES];
    payload.extend(set.encode());
    new(Duration::ZERO, payload)
}

/// Returns the record of the keys of a test's traces.
pub(crate) fn traces(keys: &[Key]) -> Record {
    let mut payload = vec![TRACES];
    keys.iter().for_each(|key| payload.extend_from_slice(key.as_bytes()));
    new(Duration::ZERO, payload)
}

/// Returns a record that refers to the result under another key.
pub(crate) fn same_as(key: &Key) -> Record {
    new(Duration::ZERO, [&[SAME_AS], key.as_bytes().as_slice()].concat())
}

fn new(cost: Duration, payload: Vec<u8>) -> Record {
    Record { schema: SCHEMA, created_ms: now_ms(), cost, tags: vec![], payload: payload.into() }
}

impl StoredRecord {
    /// Decodes a record. Returns `None` if its payload is not in this format.
    pub(crate) fn decode(record: &Record) -> Option<Self> {
        let (kind, rest) = record.payload.split_first()?;
        match *kind {
            DEPENDENCIES => Some(StoredRecord::Dependencies(Arc::new(DiscoveredDeps::decode(rest)?))),
            TRACES => {
                let (keys, rest) = rest.as_chunks();
                rest.is_empty()
                    .then(|| StoredRecord::Traces(keys.iter().copied().map(Key::from_bytes).collect()))
            }
            SAME_AS => Some(StoredRecord::SameAs(Key::from_bytes(rest.try_into().ok()?))),
            RESULT => {
                let end = rest.iter().position(|byte| *byte == b'\n')?;
                let summary: Summary = serde_json::from_slice(&rest[..end]).ok()?;
                let (output, outputs) =
                    split(record.payload.slice(end + 2..), summary.output_len, summary.outputs)?;
                Some(StoredRecord::Result(StoredResult {
                    status: summary.status,
                    count: summary.count.map(|(passed, failed)| TestCount { passed, failed }),
                    coarse: summary.coarse,
                    retries: summary.retries,
                    cases: summary.cases.into_iter().map(decode_case).collect(),
                    output,
                    outputs,
                    duration: record.cost,
                    age: Duration::from_millis(now_ms().saturating_sub(record.created_ms)),
                }))
            }
            _ => None,
        }
    }
}

/// Decodes arbitrary bytes as the payload of a record, and checks that encoding the result yields
/// an equal record.
#[cfg(feature = "conformance")]
pub(crate) fn check_payload(payload: &[u8]) {
    let record = new(Duration::ZERO, payload.to_vec());
    let Some(decoded) = StoredRecord::decode(&record) else { return };
    let again = match &decoded {
        StoredRecord::Dependencies(set) => dependencies(set),
        StoredRecord::Traces(keys) => traces(keys),
        StoredRecord::SameAs(key) => same_as(key),
        StoredRecord::Result(stored) => {
            let StoredResult { status, count, cases, output, outputs, coarse, retries, .. } = stored;
            let (duration, coarse) = (Duration::ZERO, coarse.as_deref());
            let (status, retries, count) = (*status, *retries, *count);
            NewResult { status, retries, count, cases, output, outputs, duration, coarse }.record()
        }
    };
    let shown = |record: &Record| match StoredRecord::decode(record) {
        Some(StoredRecord::Result(stored)) => {
            format!("{:?}", StoredResult { age: Duration::ZERO, ..stored })
        }
        other => format!("{other:?}"),
    };
    assert_eq!(shown(&again), shown(&record));
}

/// Separates the output of a test from the files that follow it. Returns `None` if lengths do not
/// match.
fn split(
    rest: Bytes,
    output_len: Option<usize>,
    outputs: Vec<(OutputFile, bool)>,
) -> Option<(Bytes, Outputs)> {
    let Some(mut at) = output_len else { return Some((rest, Outputs::default())) };
    let output = (at <= rest.len()).then(|| rest.slice(..at))?;
    let mut files = Vec::with_capacity(outputs.len());
    for (mut file, has_content) in outputs {
        if has_content {
            let end = usize::try_from(file.len).ok().and_then(|len| at.checked_add(len))?;
            file.content = Some((end <= rest.len()).then(|| rest.slice(at..end))?);
            at = end;
        }
        files.push(file);
    }
    (at == rest.len()).then(|| (output, files.into()))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn keys_of_traces_and_of_results_survive_encoding() {
        let keys = [Key::from_bytes([1; 32]), Key::from_bytes([2; 32])];
        let mut record = traces(&keys);
        assert!(matches!(StoredRecord::decode(&record), Some(StoredRecord::Traces(found)) if found == keys));
        record.payload = record.payload.slice(..record.payload.len() - 1);
        assert!(StoredRecord::decode(&record).is_none());
        let mut record = same_as(&keys[1]);
        assert!(
            matches!(StoredRecord::decode(&record), Some(StoredRecord::SameAs(found)) if found == keys[1])
        );
        record.payload = record.payload.slice(..record.payload.len() - 1);
        assert!(StoredRecord::decode(&record).is_none());
    }

    #[test]
    fn results_with_outputs_survive_encoding() {
        let file = |path: &str, content: Option<&'static [u8]>| OutputFile {
            path: PathBuf::from(path),
            mode: 0o644,
            len: 3,
            content: content.map(Bytes::from_static),
        };
        let outputs = [file("a", Some(b"one")), file("large", None), file("b", Some(b"two"))];
        let result = NewResult {
            status: Status::Passed,
            retries: 0,
            count: None,
            cases: &[],
            output: b"text\n",
            outputs: &outputs,
            duration: Duration::ZERO,
            coarse: None,
        };
        let mut record = result.record();
        let decoded = |record: &Record| match StoredRecord::decode(record) {
            Some(StoredRecord::Result(stored)) => Some((stored.output, stored.outputs)),
            _ => None,
        };
        assert_eq!(decoded(&record), Some((Bytes::from_static(b"text\n"), outputs.to_vec().into())));
        record.payload = record.payload.slice(..record.payload.len() - 1);
        assert_eq!(decoded(&record), None);
    }
}
