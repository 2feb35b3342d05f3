//! `greenwave key`: the key that signs the results that a user stores on a server.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use greenwave::SigningSeed;
use greenwave_testing::UserKey;

use crate::dirs::key_dir;
use crate::error::CliError;
use crate::exit::Exit;
use crate::key_error::KeyError;
use crate::output;
use crate::result_keys::signing_key;
use crate::user_key::resolved;

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Create the key, unless there is one, and print its public half.
    Create(CreateArgs),
    /// Print the public half of the key.
    Show,
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// Replace the key: others have to trust the new one.
    #[arg(long)]
    replace: bool,
}

/// Runs the command.
pub(super) fn key(command: &KeyCommand) -> Result<Exit, CliError> {
    let seed = match command {
        KeyCommand::Create(args) => create(args.replace)?,
        KeyCommand::Show => {
            let directory = key_dir().unwrap_or_default();
            signing_key()?.ok_or(KeyError::NoSigning(directory))?
        }
    };
    let public = seed.public().ok_or(KeyError::NoSignatures)?;
    output::answer(&public.to_string())?;
    Ok(Exit::SUCCESS)
}

fn create(replace: bool) -> Result<SigningSeed, CliError> {
    // Before a key is made that cannot be used.
    SigningSeed::new([1; 32]).public().ok_or(KeyError::NoSignatures)?;
    let directory = key_dir().ok_or(KeyError::NoDirectory)?;
    check_place(&directory)?;
    let created = UserKey::create_signing(&directory, replace);
    let bytes = created.map_err(|source| KeyError::ReadSigning { directory, source })?;
    Ok(SigningSeed::new(bytes))
}

/// Checks that the directory is in no project: others could read the key there, and tests could.
fn check_place(directory: &Path) -> Result<(), KeyError> {
    let project = crate::dirs::project_dir(None).unwrap_or_else(|_| PathBuf::from("."));
    if resolved(directory).starts_with(resolved(&project)) {
        return Err(KeyError::SigningInProject(directory.to_owned()));
    }
    Ok(())
}
