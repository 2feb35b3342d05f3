//! The files and programs that a discovery depends on, and whether they are unchanged.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use greenwave_dir::read_regular;
use greenwave_inputs::codec::{self, Reader, Writer};
use greenwave_inputs::{FileStamp, FoundFile, hash_file};

use super::discovery::DiscoveryInputs;
use super::project::MANIFEST_BYTES_MAX;
use super::registry::Harnesses;
use crate::Environment;
use crate::run::toolchain::resolve;

/// The files of a project that the discovery of one harness depends on, relative to the project.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct HarnessFiles {
    manifests: Vec<PathBuf>,
    /// Files that are compared by their stamps, and the stamps.
    sources: Vec<(PathBuf, FileStamp)>,
}

/// The dependencies of a project's discovery, beside the names of the project's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DiscoveryState {
    /// The files of each harness.
    files: Vec<HarnessFiles>,
    /// Hash of everything.
    digest: [u8; 32],
}

impl HarnessFiles {
    /// Chooses from the files of a project.
    pub(super) fn of(inputs: &DiscoveryInputs, files: &[FoundFile]) -> Self {
        let mut own = Self::default();
        for file in files {
            let name = file.path.file_name().unwrap_or_default();
            if inputs.manifests.iter().any(|manifest| name == *manifest) {
                own.manifests.push(file.path.clone());
            }
            if (inputs.is_source)(&file.path) {
                own.sources.push((file.path.clone(), file.stamp));
            }
        }
        own
    }

    /// Hashes manifests, sources, programs, settings and variables. Returns whether the hash will
    /// show later changes of all sources, if it was taken at `at`.
    pub(super) fn hash(
        &self,
        hasher: &mut blake3::Hasher,
        root: &Path,
        inputs: &DiscoveryInputs,
        environment: &Environment,
        at: i64,
    ) -> bool {
        for manifest in &self.manifests {
            if let Ok((entry, _)) = hash_file(&root.join(manifest)) {
                hasher.update(&entry.hash);
                let directory = root.join(manifest.parent().unwrap_or(manifest));
                let exist = inputs.checked.iter().map(|path| directory.join(path).exists().into());
                hasher.update(&exist.collect::<Vec<u8>>());
            }
        }
        let (mut stamps, mut is_lasting) = (Vec::new(), true);
        for (source, stamp) in &self.sources {
            is_lasting &= add_source(&mut stamps, &root.join(source), stamp, at);
        }
        add_programs(hasher, root, inputs, environment);
        add(hasher, &stamps);
        is_lasting
    }

    /// Returns the same files with their present stamps; `None` if a source is missing.
    fn restamped(&self, root: &Path) -> Option<Self> {
        let restamp = |(path, _): &(PathBuf, FileStamp)| {
            let metadata = root.join(path).symlink_metadata().ok()?;
            Some((path.clone(), FileStamp::from_metadata(&metadata)))
        };
        let sources = self.sources.iter().map(restamp).collect::<Option<_>>()?;
        Some(Self { manifests: self.manifests.clone(), sources })
    }
}

impl DiscoveryState {
    /// Reads the state of the files of each harness. Returns `None` if later changes of a source
    /// may not show in it, as at the time `at`.
    pub(super) fn read(
        files: Vec<HarnessFiles>,
        root: &Path,
        harnesses: &Harnesses,
        environment: &Environment,
        at: i64,
    ) -> Option<Self> {
        let digest = digest(&files, root, harnesses, environment, at)?;
        Some(Self { files, digest })
    }

    /// Returns whether everything is unchanged.
    pub(crate) fn is_current(&self, root: &Path, harnesses: &Harnesses, environment: &Environment) -> bool {
        let files: Option<Vec<HarnessFiles>> = self.files.iter().map(|files| files.restamped(root)).collect();
        // A source that changes now changes later than the record.
        let digest = files.and_then(|files| digest(&files, root, harnesses, environment, i64::MAX));
        digest == Some(self.digest)
    }

    pub(crate) fn encode(&self, out: &mut Writer) {
        out.count(self.files.len());
        for HarnessFiles { manifests, sources } in &self.files {
            out.count(manifests.len());
            for path in manifests {
                out.path(path);
            }
            out.count(sources.len());
            for (path, stamp) in sources {
                out.path(path);
                stamp.encode(&mut out.0);
            }
        }
        out.bytes(&self.digest);
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let files = reader.list(|reader| {
            let manifests = reader.list(Reader::path)?;
            let sources = reader.list(|reader| Some((reader.path()?, FileStamp::decode(reader)?)))?;
            Some(HarnessFiles { manifests, sources })
        })?;
        Some(Self { files, digest: reader.array()? })
    }
}

/// Hashes the state of all harnesses; `None` if there are others than `files` is about, or if later
/// changes of a source may not show.
fn digest(
    files: &[HarnessFiles],
    root: &Path,
    harnesses: &Harnesses,
    environment: &Environment,
    at: i64,
) -> Option<[u8; 32]> {
    let (mut hasher, mut count, mut are_lasting) = (blake3::Hasher::new(), 0, true);
    for (harness, files) in harnesses.iter().zip(files) {
        add(&mut hasher, harness.name().as_bytes());
        are_lasting &= files.hash(&mut hasher, root, &harness.discovery_inputs(), environment, at);
        count += 1;
    }
    let is_complete = count == files.len() && count == harnesses.iter().count();
    (is_complete && are_lasting).then(|| *hasher.finalize().as_bytes())
}

/// Adds the stamp of a source, or the content of one in memory. Returns whether this will show a
/// later change of the source.
fn add_source(stamps: &mut Vec<u8>, path: &Path, stamp: &FileStamp, at: i64) -> bool {
    if !stamp.is_in_memory() {
        stamp.encode(stamps);
        return !stamp.is_racy(at);
    }
    hash_file(path).is_ok_and(|(entry, _)| {
        stamps.extend(entry.hash);
        true
    })
}

/// Adds the paths and stamps of a harness's programs, its settings, and the values of its
/// variables.
fn add_programs(
    hasher: &mut blake3::Hasher,
    root: &Path,
    inputs: &DiscoveryInputs,
    environment: &Environment,
) {
    let path: Option<&OsStr> = environment.get("PATH");
    for program in inputs.programs {
        let path = resolve(program, root, path).unwrap_or_default();
        let mut stamp = Vec::new();
        if let Ok(metadata) = std::fs::metadata(&path) {
            FileStamp::from_metadata(&metadata).encode(&mut stamp);
        }
        add(hasher, codec::path_bytes(&path));
        add(hasher, &stamp);
    }
    for settings in (inputs.settings)(environment) {
        add(hasher, &read_regular(settings, MANIFEST_BYTES_MAX).unwrap_or_default());
    }
    let variables: Vec<String> = inputs.variables.iter().map(|name| (*name).to_owned()).collect();
    for (name, value) in environment.visible(&variables).into_iter().filter(|_| !variables.is_empty()) {
        add(hasher, name.as_bytes());
        add(hasher, value.as_encoded_bytes());
    }
}

/// Adds a field with its length, so that fields cannot run into each other.
pub(super) fn add(hasher: &mut blake3::Hasher, field: &[u8]) {
    hasher.update(&(field.len() as u64).to_le_bytes()).update(field);
}
