//! Directory handles: file operations that never leave a directory and never follow a symbolic
//! link.
//!
//! A path that was checked a moment ago can lead elsewhere when it is used: another program
//! replaces a directory by a symbolic link in between. A [`Dir`] is an open directory. Each of its
//! operations takes a path relative to it, which the kernel resolves below the handle without
//! following links (`openat2` with `RESOLVE_BENEATH` and `RESOLVE_NO_SYMLINKS`). Where the kernel
//! or a filter of system calls lacks that call, each component is opened by itself with
//! `O_NOFOLLOW`, with the same result.
//!
//! ```
//! use greenwave_dir::{Access, Dir, FileKind, refused};
//!
//! # fn main() -> std::io::Result<()> {
//! # let temporary = tempfile::tempdir()?;
//! # let path = temporary.path().join("project");
//! // The path of the directory itself is the user's, and may contain links.
//! let project = Dir::create(&path, 0o700)?;
//! project.create_subdirectory("build", 0o755)?;
//! project.replace_file("build/log", b"done", 0o644)?;
//!
//! // A link below it is refused, and nothing behind it is touched.
//! project.symlink("/etc", "linked")?;
//! let error = project.open_file("linked/new", Access::Create, 0o644).unwrap_err();
//! let refused = refused(&error).expect("the link is named");
//! assert_eq!((refused.path(), refused.kind()), ("linked".as_ref(), FileKind::Link));
//! # Ok(())
//! # }
//! ```
//!
//! [`Dir::temporary`] creates a file that takes the place of another one in one step, and
//! [`Dir::remove_all`] removes a directory with everything in it.
//!
//! Paths consist of names only: an absolute path or one with `..` is an error of the kind
//! [`InvalidInput`](std::io::ErrorKind::InvalidInput). Mount points are not special.
//!
//! # Errors
//!
//! Errors are those of the operating system, as [`std::io::Error`]. An error whose cause is an
//! entry that is refused, such as a link in the place of a directory or a pipe in the place of a
//! file, names the entry: [`refused`].
//!
//! # Platforms
//!
//! Unix only.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod dir;
mod entries;
mod folded;
mod lease;
mod metadata;
mod operations;
mod permissions;
mod refused;
mod regular;
mod remove;
mod resolve;
mod temporary;

pub use dir::Dir;
pub use entries::DirEntry;
pub use folded::folded_name;
pub use lease::wait_for_leases;
pub use metadata::{FileKind, Metadata};
pub use operations::Access;
pub use refused::{Refused, refused};
pub use regular::{open_regular, read_regular, read_regular_text};
pub use temporary::Temporary;
