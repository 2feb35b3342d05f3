//! Takes answers that name arbitrary paths into arbitrary trees with links, under several plans,
//! and compares the files that they write with a model.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| greenwave::conformance::check_answer_names(input));
