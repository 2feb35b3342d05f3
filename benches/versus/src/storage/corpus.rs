//! Real source files: those of the packages that cargo has unpacked. Knows nothing of stores.

use std::fs;
use std::path::{Path, PathBuf};

/// Sizes of files in bytes.
pub type Sizes = std::ops::RangeInclusive<u64>;

/// The same source files in every run on a machine whose cargo does not change.
#[derive(Debug)]
pub struct Corpus {
    /// Their contents.
    pub files: Vec<Vec<u8>>,
}

impl Corpus {
    /// `count` files.
    ///
    /// # Panics
    /// If cargo's folder has too few.
    pub fn new(count: usize, sizes: &Sizes) -> Self {
        let paths = sources(count, sizes);
        let files = paths.iter().map(|path| fs::read(path).expect("a source file can be read"));
        Self { files: files.collect() }
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.len() as u64).sum()
    }
}

/// Paths of source files, spread over all packages.
///
/// # Panics
/// If cargo's folder has too few.
pub fn sources(count: usize, sizes: &Sizes) -> Vec<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(std::env::home_dir()?.join(".cargo"))).expect("cargo has a folder");
    let mut paths = Vec::new();
    collect(&home.join("registry/src"), sizes, &mut paths);
    paths.sort();
    assert!(paths.len() >= count, "{} source files in cargo's folder, of {count}", paths.len());
    let step = paths.len() / count;
    paths.into_iter().step_by(step.max(1)).take(count).collect()
}

fn collect(folder: &Path, sizes: &Sizes, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, Ok(metadata)) = (entry.path(), entry.metadata()) else { continue };
        if metadata.is_dir() {
            collect(&path, sizes, paths);
        } else if path.extension().is_some_and(|end| end == "rs") && sizes.contains(&metadata.len()) {
            paths.push(path);
        }
    }
}

/// Random numbers for orders and edits, the same for the same seed (xorshift64*).
#[derive(Debug)]
pub struct Work(u64);

impl Work {
    /// Begins anew.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % n
    }

    /// The numbers below `n` in any order.
    pub fn order(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for at in (1..n).rev() {
            order.swap(at, self.below(at + 1));
        }
        order
    }

    /// Changes 1 to 5 % of the lines, as an agent does that works on a file: replaces them by lines that stand elsewhere in it with other
    /// names in them, adds some, takes some away.
    pub fn edit(&mut self, text: &[u8]) -> Vec<u8> {
        let mut lines: Vec<Vec<u8>> =
            text.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        let changes = (lines.len() * (1 + self.below(5))).div_ceil(100);
        for _ in 0..changes {
            let at = self.below(lines.len());
            let mut line = lines[self.below(lines.len())].clone();
            let name = format!("_{:x}", self.below(1 << 20));
            let place = line.iter().position(u8::is_ascii_alphabetic).unwrap_or(0);
            line.splice(place..place, name.bytes());
            match self.below(4) {
                0 => lines.insert(at, line),
                1 if lines.len() > 1 => drop(lines.remove(at)),
                _ => lines[at] = line,
            }
        }
        lines.concat()
    }
}
