//! Encodes and decodes the cache records of tests.
//!
//! The first byte of a payload is its type. `R` is a result: one line of JSON (status and count),
//! then the output and the content of output files. `L` is a set of discovered dependencies, in the
//! encoding of [`DiscoveredDeps::encode`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use greenwave_cache::{Key, Record};
use serde::{Deserialize, Serialize};

use crate::TestCount;
use crate::results::key::SCHEMA;
use crate::results::outcome::{Outcome, Source, Status};
use crate::results::outputs::{OutputFile, Outputs};
use greenwave_inputs::DiscoveredDeps;
use greenwave_inputs::now_ms;

/// A decoded record of a test's key chain.
#[derive(Debug, Clone)]
pub(crate) enum StoredRecord {
    /// The result, at the end of the chain.
    Result(StoredResult),
    /// Dependencies whose states determine the next key.
    Dependencies(Arc<DiscoveredDeps>),
}

/// A result that was read from the cache.
#[derive(Debug, Clone)]
pub(crate) struct StoredResult {
    status: Status,
    count: Option<TestCount>,
    output: Bytes,
    outputs: Outputs,
    duration: Duration,
    age: Duration,
    coarse: Option<String>,
}

/// The first line of a stored result.
#[derive(Serialize, Deserialize)]
struct Summary {
    status: Status,
    count: Option<(u32, u32)>,
    /// The peers because of which the key is coarse.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    coarse: Option<String>,
    /// Length of the output, if files follow it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output_len: Option<usize>,
    /// The files, and for each whether its content follows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    outputs: Vec<(OutputFile, bool)>,
}

const RESULT: u8 = b'R';
const DEPENDENCIES: u8 = b'L';

impl StoredResult {
    /// Converts the result of `key` to the outcome of a test that did not run.
    pub(crate) fn outcome(self, key: &Key) -> Outcome {
        Outcome {
            status: self.status,
            count: self.count,
            output: self.output,
            duration: self.duration,
            source: Source::Cached(self.age),
            key: *key.as_bytes(),
            attempts: 0,
            undeclared: Vec::new(),
            coarse: self.coarse,
            interference: None,
            outputs: self.outputs,
        }
    }
}

/// Returns the record of a result. `coarse` names the peers because of which its key is coarse.
pub(crate) fn result(
    status: Status,
    count: Option<TestCount>,
    output: &[u8],
    outputs: &[OutputFile],
    duration: Duration,
    coarse: Option<String>,
) -> Record {
    let summary = Summary {
        status,
        count: count.map(|count| (count.passed, count.failed)),
        coarse,
        output_len: (!outputs.is_empty()).then_some(output.len()),
        outputs: outputs.iter().map(|file| (file.clone(), file.content.is_some())).collect(),
    };
    let mut payload = vec![RESULT];
    payload.extend(serde_json::to_vec(&summary).expect("a status and two numbers serialize to JSON"));
    payload.push(b'\n');
    payload.extend_from_slice(output);
    outputs.iter().filter_map(|file| file.content.as_ref()).for_each(|content| payload.extend(content));
    new(duration, payload)
}

/// Returns the record of a set of discovered dependencies.
pub(crate) fn dependencies(set: &DiscoveredDeps) -> Record {
    let mut payload = vec![DEPENDENCIES];
    payload.extend(set.encode());
    new(Duration::ZERO, payload)
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
            RESULT => {
                let end = rest.iter().position(|byte| *byte == b'\n')?;
                let summary: Summary = serde_json::from_slice(&rest[..end]).ok()?;
                let (output, outputs) =
                    split(record.payload.slice(end + 2..), summary.output_len, summary.outputs)?;
                Some(StoredRecord::Result(StoredResult {
                    status: summary.status,
                    count: summary.count.map(|(passed, failed)| TestCount { passed, failed }),
                    coarse: summary.coarse,
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
    fn results_with_outputs_survive_encoding() {
        let file = |path: &str, content: Option<&'static [u8]>| OutputFile {
            path: PathBuf::from(path),
            mode: 0o644,
            len: 3,
            content: content.map(Bytes::from_static),
        };
        let outputs = [file("a", Some(b"one")), file("large", None), file("b", Some(b"two"))];
        let mut record = result(Status::Passed, None, b"text\n", &outputs, Duration::ZERO, None);
        let decoded = |record: &Record| match StoredRecord::decode(record) {
            Some(StoredRecord::Result(stored)) => Some((stored.output, stored.outputs)),
            _ => None,
        };
        assert_eq!(decoded(&record), Some((Bytes::from_static(b"text\n"), outputs.to_vec().into())));
        record.payload = record.payload.slice(..record.payload.len() - 1);
        assert_eq!(decoded(&record), None);
    }
}
