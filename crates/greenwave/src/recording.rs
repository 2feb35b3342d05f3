//! Opens the recording of a run.

use greenwave_agents::Recording;
use greenwave_testing::Environment;

use crate::error::Error;
use crate::mask::{AddedSecrets, Mask};
use crate::plan::Exchanges;

/// Opens the directory in which agents are recorded, or from which they are replayed, if there is
/// one.
///
/// # Errors
/// [`Error::Recording`] if it cannot be used.
pub(crate) fn open(
    exchanges: &Exchanges,
    environment: &Environment,
    secrets: &AddedSecrets,
) -> Result<Option<Recording>, Error> {
    let mask = Mask::new(environment.texts()).with(secrets.clone());
    let masked = move |text: &str| mask.apply(text).into_owned();
    let recording = match exchanges {
        Exchanges::Live => return Ok(None),
        Exchanges::Record(directory) => Recording::record(directory, masked),
        Exchanges::Replay(directory) => Recording::replay(directory, masked),
    };
    recording.map(Some).map_err(Error::Recording)
}
