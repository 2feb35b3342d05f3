//! Checks of the decoders of a run's records, for fuzzing.

use std::path::Path;

use crate::attempt_record::AttemptRecord;
use crate::green_record::GreenRecord;
use crate::merge::BatchRecord;
use crate::receipts;

/// Decodes arbitrary bytes as each kind of record that runs write: green features, attempts, merges
/// that are being written, and receipts. Receipts are compared with the files in a directory.
///
/// # Panics
/// If a decoded record does not encode to an equal record.
pub fn check_run_record(project: &Path, bytes: &[u8]) {
    if let Some(record) = GreenRecord::decode(bytes) {
        assert_eq!(GreenRecord::decode(&record.encode()), Some(record));
    }
    if let Some(record) = AttemptRecord::decode(bytes) {
        assert_eq!(AttemptRecord::decode(&record.encode()), Some(record));
    }
    if let Some(record) = BatchRecord::decode(bytes) {
        assert_eq!(BatchRecord::decode(&record.encode()), Some(record));
    }
    receipts::check(project, bytes);
}

/// Takes answers into a working copy, and compares the files that they write with a model. The
/// input describes a tree, a plan and the answers.
///
/// # Panics
/// If something is written that may not be, or a file that may be written is not.
pub fn check_answer_names(input: &[u8]) {
    crate::stage::check_answers(input);
}
