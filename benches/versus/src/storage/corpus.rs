//! A corpus of real source files, from the packages that cargo has unpacked.

use std::fs;
use std::path::{Path, PathBuf};

/// Range of file sizes, in bytes.
pub type Sizes = std::ops::RangeInclusive<u64>;

/// A set of source files, which is the same in every run as long as cargo's packages do not change.
#[derive(Debug)]
pub struct Corpus {
    /// Contents of the files.
    pub files: Vec<Vec<u8>>,
}

impl Corpus {
    /// Reads `count` files.
    ///
    /// # Panics
    /// If cargo has unpacked too few files of these sizes.
    pub fn new(count: usize, sizes: &Sizes) -> Self {
        let paths = sources(count, sizes);
        let files = paths.iter().map(|path| fs::read(path).expect("a source file can be read"));
        Self { files: files.collect() }
    }

    /// Returns the total size of the files, in bytes.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.len() as u64).sum()
    }
}

/// Returns the paths of `count` source files, spread over all packages.
///
/// # Panics
/// If cargo has unpacked too few files of these sizes.
pub fn sources(count: usize, sizes: &Sizes) -> Vec<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home =
        home.or_else(|| Some(std::env::home_dir()?.join(".cargo"))).expect("cargo has a home directory");
    let mut paths = Vec::new();
    collect(&home.join("registry/src"), sizes, &mut paths);
    paths.sort();
    assert!(paths.len() >= count, "cargo has unpacked only {} of {count} source files", paths.len());
    let step = paths.len() / count;
    paths.into_iter().step_by(step.max(1)).take(count).collect()
}

fn collect(directory: &Path, sizes: &Sizes, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let (path, Ok(metadata)) = (entry.path(), entry.metadata()) else { continue };
        if metadata.is_dir() {
            collect(&path, sizes, paths);
        } else if path.extension().is_some_and(|end| end == "rs") && sizes.contains(&metadata.len()) {
            paths.push(path);
        }
    }
}

/// A generator of random orders and edits that its seed determines (xorshift64*).
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Creates a generator from a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Returns a number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % n
    }

    /// Returns the numbers below `n` in random order.
    pub fn order(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for at in (1..n).rev() {
            order.swap(at, self.below(at + 1));
        }
        order
    }

    /// Edits 1 to 5 % of the lines, as an agent would. Replaces lines by modified copies of others,
    /// adds some and removes some.
    pub fn edit(&mut self, text: &[u8]) -> Vec<u8> {
        let mut lines: Vec<Vec<u8>> =
            text.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        let changes = (lines.len() * (1 + self.below(5))).div_ceil(100);
        for _ in 0..changes {
            let at = self.below(lines.len());
            let mut line = lines[self.below(lines.len())].clone();
            let name = format!("_{:x}", self.below(1 << 20));
            let start = line.iter().position(u8::is_ascii_alphabetic).unwrap_or(0);
            line.splice(start..start, name.bytes());
            match self.below(4) {
                0 => lines.insert(at, line),
                1 if lines.len() > 1 => drop(lines.remove(at)),
                _ => lines[at] = line,
            }
        }
        lines.concat()
    }
}
