//! Builds agents that are model servers.

use std::sync::Arc;

use greenwave_agents::{Agent, ApiKeySource};
use greenwave_testing::Environment;

use crate::error::Error;
use crate::mask::AddedSecrets;
use crate::plan::HttpSpec;

/// Builds the agent with a name. Its key comes from the environment or from a program, and is added
/// to the secrets.
///
/// # Errors
/// [`Error::Agent`] if the options are invalid or no client can be created, and [`Error::NoHttp`]
/// without the feature `http-agents`.
pub(crate) fn new(
    name: &str,
    spec: &HttpSpec,
    environment: &Environment,
    secrets: &AddedSecrets,
) -> Result<Arc<dyn Agent>, Error> {
    let key = match &spec.options.key {
        ApiKeySource::Variable(variable) => environment.get(variable).and_then(|value| value.to_str()),
        _ => None,
    };
    key.into_iter().for_each(|key| secrets.add(key.trim()));
    build(name, spec, key, secrets)
}

#[cfg(feature = "http-agents")]
fn build(
    name: &str,
    spec: &HttpSpec,
    key: Option<&str>,
    secrets: &AddedSecrets,
) -> Result<Arc<dyn Agent>, Error> {
    let agent = greenwave_agents::HttpAgent::new(spec.options.clone(), key);
    let agent = agent.map_err(|source| Error::Agent { agent: name.to_owned(), source })?;
    let secrets = secrets.clone();
    Ok(Arc::new(agent.with_key_observer(move |key| secrets.add(key))))
}

#[cfg(not(feature = "http-agents"))]
fn build(name: &str, _: &HttpSpec, _: Option<&str>, _: &AddedSecrets) -> Result<Arc<dyn Agent>, Error> {
    Err(Error::NoHttp { agent: name.to_owned() })
}
