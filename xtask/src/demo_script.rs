//! Generates the demonstration's script from the answers it replays, with the rhythm of a fast
//! hosted model.
//!
//! A coding agent wrote the answers (`demo/answers/FEATURE.ATTEMPT.md`). Their original timing was
//! not recorded, so it is modelled: a first chunk after about half a second, then about 300 tokens
//! a second of four characters each, in chunks of one to five tokens.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::json;

use crate::Result;
use crate::process::root;

/// Directory of the demonstration's plan, project and answers.
const DEMO: &str = "crates/greenwave-cli/demo";

const TOKENS_PER_SECOND: u64 = 300;
const CHARS_PER_TOKEN: u64 = 4;
const FIRST_CHUNK_MS: std::ops::Range<u64> = 400..600;

/// Texts that the prompt for an answer must contain: a second attempt quotes the failure of the
/// first.
const EXPECTS: [(&str, &[&str]); 1] =
    [("simplify.2", &["what_divides_by_zero_is_left_alone", "attempt 2 of 3"])];

/// Writes the script or, with `only_check`, compares it with the file.
///
/// # Errors
/// If an answer cannot be read, or the file differs from the generated script.
pub(crate) fn demo_script(only_check: bool) -> Result<String> {
    let demo = root().join(DEMO);
    let script = demo.join("answers.jsonl");
    let generated = generate(&demo.join("answers"))?;
    if only_check {
        let is_same = fs::read_to_string(&script).is_ok_and(|text| text == generated);
        let problem = format!("{DEMO}/answers.jsonl is stale: run `cargo xtask demo-script`");
        return if is_same { Ok("demo-script: up to date".to_owned()) } else { Err(problem.into()) };
    }
    fs::write(&script, &generated)?;
    Ok(format!("demo-script: wrote {DEMO}/answers.jsonl, {} lines", generated.lines().count()))
}

/// Returns the script's text.
fn generate(answers: &Path) -> Result<String> {
    let mut script = String::from("{\"greenwave_script\": 1}\n");
    let mut names: Vec<_> = fs::read_dir(answers)?.collect::<Result<Vec<_>, _>>()?;
    names.sort_by_key(fs::DirEntry::file_name);
    for entry in names {
        let name = entry.file_name().to_string_lossy().into_owned();
        let stem = name.strip_suffix(".md").ok_or_else(|| format!("{name}: expected FEATURE.ATTEMPT.md"))?;
        let (feature, attempt) =
            stem.split_once('.').ok_or_else(|| format!("{name}: expected FEATURE.ATTEMPT.md"))?;
        let mut head = json!({"feature": feature, "attempt": attempt.parse::<u32>()?});
        if let Some((_, texts)) = EXPECTS.iter().find(|(answer, _)| *answer == stem) {
            head["expects"] = json!(texts);
        }
        writeln!(script, "{head}")?;
        add_chunks(&mut script, stem, &fs::read_to_string(entry.path())?)?;
        script.push_str("{\"end\":true}\n");
    }
    Ok(script)
}

fn add_chunks(script: &mut String, seed: &str, text: &str) -> Result<()> {
    let mut random = Random::new(seed);
    let mut after_ms = random.in_range(FIRST_CHUNK_MS);
    let (mut rest, mut remainder) = (text, 0);
    while !rest.is_empty() {
        let characters = random.in_range(1..6) * CHARS_PER_TOKEN - random.in_range(0..3);
        let end = rest.char_indices().nth(characters as usize).map_or(rest.len(), |(at, _)| at);
        let (chunk, tail) = rest.split_at(end);
        writeln!(script, "{}", json!({"after_ms": after_ms, "text": chunk}))?;
        // Fractions of a millisecond are carried over.
        remainder += chunk.chars().count() as u64 * 1000;
        after_ms = remainder / (TOKENS_PER_SECOND * CHARS_PER_TOKEN);
        remainder %= TOKENS_PER_SECOND * CHARS_PER_TOKEN;
        rest = tail;
    }
    Ok(())
}

/// The 64-bit linear congruential generator of Knuth's MMIX. Only its upper bits are used.
struct Random(u64);

impl Random {
    fn new(seed: &str) -> Self {
        Self(seed.bytes().fold(0, |sum, byte| sum * 31 + u64::from(byte)))
    }

    fn in_range(&mut self, range: std::ops::Range<u64>) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        range.start + (self.0 >> 33) % (range.end - range.start)
    }
}
