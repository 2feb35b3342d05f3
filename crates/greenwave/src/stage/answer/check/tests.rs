//! Random answers.

use super::*;

/// Number of random inputs, raised by `cargo xtask long answer-names`.
fn rounds() -> u64 {
    std::env::var("GREENWAVE_ANSWER_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(300)
}

/// Names, and parts of names that are put together.
const NAMES: [&str; 30] = [
    "a",
    "b",
    "src",
    ".git",
    ".github",
    "GIT~1",
    ".greenwave",
    ".envrc",
    ".vscode",
    "ops",
    "docs",
    "..",
    ".",
    "",
    "plan.toml",
    "check.sh",
    "CLAUDE.md",
    ".gitkeep",
    "flake.nix",
    "build.rs",
    "x.sql",
    "a.txt",
    "conftest.py",
    "pytest",
    "__init__.py",
    "l",
    "m",
    "outside",
    "precious",
    "data.md",
];
const ENDS: [&str; 12] = ["", "", "", "", "", ".", " ", ":s", "\u{200b}", "~1", "\u{202e}", "\u{7}"];

/// A generator of numbers (xorshift64*, Vigna 2016).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let mixed = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(mixed).expect("31 bits fit") % bound
    }

    fn path(&mut self) -> String {
        let count = 1 + self.below(4);
        let names: Vec<String> = (0..count).map(|_| self.name()).collect();
        names.join("/")
    }

    fn name(&mut self) -> String {
        let name = format!("{}{}", NAMES[self.below(NAMES.len())], ENDS[self.below(ENDS.len())]);
        match self.below(8) {
            0 => name.to_uppercase(),
            1 => name.replace('s', "ſ"),
            _ => name,
        }
    }

    /// Returns a description of a tree and of answers.
    fn input(&mut self) -> Vec<u8> {
        let mut text = String::from(["0", "1", "2", "3"][self.below(4)]);
        for _ in 0..LINES_MAX {
            let letters = b"ABCDEFGHabcdefgh";
            let letter = char::from(letters[self.below(letters.len())]);
            text.push_str(&format!("{letter}{}\t{}\n", self.path(), self.path()));
        }
        text.into_bytes()
    }
}

#[test]
fn answers_write_what_the_model_says() {
    for seed in 1..=rounds() {
        let input = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)).input();
        let checked = std::panic::catch_unwind(|| check(&input));
        assert!(checked.is_ok(), "seed {seed}: {}", String::from_utf8_lossy(&input));
    }
}

#[test]
fn the_seeds_of_the_fuzz_target_hold() {
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/answer_names");
    let seeds: Vec<_> = fs::read_dir(seeds).unwrap().map(|seed| seed.unwrap().path()).collect();
    assert!(!seeds.is_empty());
    seeds.iter().for_each(|seed| check(&fs::read(seed).unwrap()));
}

#[test]
fn the_model_refuses_what_the_documentation_names() {
    let model = Model::numbered(0);
    for path in [
        ".git/config",
        "a/.GIT/hooks/x",
        ".g\u{200d}it/x",
        ".greenwave/x",
        ".github/workflows/x.yml",
        ".vscode/tasks.json",
        ".envrc",
        "sub/.envrc.",
        ".husky/x",
        "build.rs",
        "conftest.py",
        "plan.toml",
        "greenwave.toml",
        "pytest/__init__.py",
        "AGENTS.md",
    ] {
        assert_eq!(model.rule(path, false), Rule::Refused, "{path}");
    }
    for path in ["src/lib.rs", "a/b/c.txt", "github/a", ".gitkeep", "README.md"] {
        assert_eq!(model.rule(path, false), Rule::Permitted, "{path}");
    }
    assert_eq!(Model::numbered(1).rule("docs/.envrc", false), Rule::Permitted);
    assert_eq!(Model::numbered(1).rule("docs/.git/x", false), Rule::Refused);
    assert_eq!(Model::numbered(2).rule(".envrc", false), Rule::Permitted);
    assert_eq!(Model::numbered(3).rule(".envrc", false), Rule::Refused);
    assert_eq!(model::plain("./a//b"), Some("a/b".to_owned()));
    assert_eq!(model::plain("a/../b"), None);
}
