//! Finds out which tests a project has. Knows nothing of running them.

use std::path::Path;

use crate::{Environment, Error, Test, cargo};

/// The tests of a project, found without being told of them.
///
/// # Errors
/// [`Error::Discover`] with what is wrong in the project's files, or why the runner that knows cannot be asked.
pub async fn discover(project: &Path, environment: &Environment) -> Result<Vec<Test>, Error> {
    let root = project.canonicalize().map_err(Error::io("find", project))?;
    let mut tests = Vec::new();
    if root.join("Cargo.toml").is_file() {
        tests.extend(cargo::discover(&root, Path::new(""), environment).await?);
    }
    Ok(tests)
}
