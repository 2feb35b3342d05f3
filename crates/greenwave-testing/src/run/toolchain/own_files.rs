//! Recognizes programs whose own files have their version, so that no version command has to run.

use std::ffi::OsStr;
use std::fs::Metadata;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use greenwave_dir::{open_regular, read_regular};
use serde_json::Value;

use super::resolve;

/// First bytes of a native program
/// (<https://refspecs.linuxfoundation.org/elf/gabi4+/ch4.eheader.html>).
const ELF: [u8; 4] = *b"\x7fELF";
/// Size from which a program with several names is no shim, in bytes: a shim contains no
/// interpreter.
const INTERPRETER_BYTES_MIN: u64 = 8 << 20;
/// Maximum size of npm's manifest, in bytes.
const MANIFEST_BYTES_MAX: u64 = 1 << 20;

/// Returns the files that tell a tool's version beside its program file. Returns `None` if the
/// program may be the shim of a version manager, whose bytes do not change when it starts another
/// version.
///
/// Only traced tests can do without the version command: their traces have the libraries that the
/// program loads.
pub(super) fn own_files(
    tool: &str,
    program: &Path,
    directory: &Path,
    path: Option<&OsStr>,
) -> Option<Vec<PathBuf>> {
    match tool {
        "python" | "python3" => is_native(program, "python").then(Vec::new),
        "node" => is_native(program, "node").then(Vec::new),
        "npm" => {
            let manifest = manifest_of_npm(program)?;
            let node = resolve("node", directory, path).filter(|node| is_native(node, "node"))?;
            Some(vec![manifest, node])
        }
        _ => None,
    }
}

/// Returns whether a program is a native one with this name, whatever the links to it are called.
///
/// The shims of version managers are scripts, links to a program with another name, or small
/// programs with several names.
fn is_native(program: &Path, name: &str) -> bool {
    let Ok(program) = program.canonicalize() else { return false };
    let has_name = program.file_name().is_some_and(|it| it.as_encoded_bytes().starts_with(name.as_bytes()));
    let mut start = [0; ELF.len()];
    let is_interpreter =
        |file: Metadata| file.is_file() && (file.nlink() == 1 || file.len() >= INTERPRETER_BYTES_MIN);
    has_name
        && program.metadata().is_ok_and(is_interpreter)
        && open_regular(&program).and_then(|mut file| file.read_exact(&mut start)).is_ok()
        && start == ELF
}

/// Returns the manifest of the package npm that a program belongs to.
fn manifest_of_npm(program: &Path) -> Option<PathBuf> {
    let program = program.canonicalize().ok()?;
    let package = program.parent()?.parent()?;
    let manifest = package.join("package.json");
    let is_script = program == package.join("bin/npm-cli.js");
    let bytes = read_regular(&manifest, MANIFEST_BYTES_MAX).ok().filter(|_| is_script)?;
    let content: Value = serde_json::from_slice(&bytes).ok()?;
    (content["name"] == "npm").then_some(manifest)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn write(file: &Path, bytes: &[u8]) {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, bytes).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn shims_need_their_version_command() {
        let directory = tempfile::tempdir().unwrap();
        let at = |path: &str| directory.path().join(path);
        let files = |tool: &str, program: &str| own_files(tool, &at(program), directory.path(), None);
        write(&at("lib/python3.11"), b"\x7fELF, and more");
        symlink(at("lib/python3.11"), at("python")).unwrap();
        assert_eq!(files("python", "python"), Some(Vec::new()), "a link of a virtual environment");
        write(&at("shims/python"), b"#!/bin/sh\nexec pyenv exec python \"$@\"\n");
        assert_eq!(files("python", "shims/python"), None, "a script");
        write(&at("manager"), b"\x7fELF");
        symlink(at("manager"), at("node")).unwrap();
        assert_eq!(files("node", "node"), None, "a link to a manager");
        fs::hard_link(at("manager"), at("shims/node")).unwrap();
        assert_eq!(files("node", "shims/node"), None, "a hard link to a manager");
        let large = fs::File::options().write(true).open(at("manager")).unwrap();
        large.set_len(INTERPRETER_BYTES_MIN).unwrap();
        assert_eq!(files("node", "shims/node"), Some(Vec::new()), "a hard link to an interpreter");
        assert_eq!(files("cargo", "lib/python3.11"), None, "rustup's shims are native");
        assert_eq!(files("python", "missing"), None);
    }

    #[test]
    fn the_version_of_npm_is_in_its_manifest() {
        let directory = tempfile::tempdir().unwrap();
        let at = |path: &str| directory.path().join(path);
        let path = at("bin").into_os_string();
        let files = |program: &str| own_files("npm", &at(program), directory.path(), Some(&path));
        write(&at("lib/npm/bin/npm-cli.js"), b"#!/usr/bin/env node\n");
        write(&at("lib/npm/package.json"), br#"{"name": "npm", "version": "1.0.0"}"#);
        fs::create_dir_all(at("bin")).unwrap();
        symlink(at("lib/npm/bin/npm-cli.js"), at("bin/npm")).unwrap();
        assert_eq!(files("bin/npm"), None, "there is no node");
        write(&at("bin/node"), b"\x7fELF");
        let package = at("lib/npm/package.json").canonicalize().unwrap();
        assert_eq!(files("bin/npm"), Some(vec![package, at("bin/node")]));
        write(&at("bin/node"), b"#!/bin/sh\n");
        assert_eq!(files("bin/npm"), None, "node is a shim");
        write(&at("bin/node"), b"\x7fELF");
        write(&at("lib/npm/package.json"), br#"{"name": "corepack"}"#);
        assert_eq!(files("bin/npm"), None, "the package has another name");
    }
}
