//! Random tokens, which nobody can guess.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::CliError;

/// Returns 128 random bits as hexadecimal digits.
///
/// # Errors
/// [`CliError::Io`] if the system provides no random bytes.
pub(crate) fn random_token() -> Result<String, CliError> {
    let path = Path::new("/dev/urandom");
    let mut bytes = [0; 16];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|source| CliError::Io { operation: "read", path: path.to_owned(), source })?;
    Ok(bytes.map(|byte| format!("{byte:02x}")).concat())
}
