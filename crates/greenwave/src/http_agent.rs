//! Builds agents that are model servers.

use std::sync::Arc;

#[cfg(feature = "http-agents")]
use greenwave_agents::HttpAgent;
use greenwave_agents::Recording;
use greenwave_agents::{Agent, ApiKeySource};
use greenwave_testing::Environment;

use crate::error::Error;
use crate::mask::AddedSecrets;
use crate::plan::HttpSpec;

/// Builds the model servers of a plan.
#[derive(Debug)]
pub(crate) struct HttpAgents<'a> {
    environment: &'a Environment,
    secrets: &'a AddedSecrets,
    #[cfg_attr(not(feature = "http-agents"), expect(dead_code, reason = "there are no model servers"))]
    recording: Option<Recording>,
}

impl<'a> HttpAgents<'a> {
    /// Creates a builder. Exchanges are recorded or replayed with `recording`, if there is one.
    pub(crate) fn new(
        environment: &'a Environment,
        secrets: &'a AddedSecrets,
        recording: Option<Recording>,
    ) -> Self {
        Self { environment, secrets, recording }
    }

    /// Builds the agent with a name. Its key comes from the environment or from a program, and is
    /// added to the secrets.
    ///
    /// # Errors
    /// [`Error::Agent`] if the options are invalid or no client can be created, and
    /// [`Error::NoHttp`] without the feature `http-agents`.
    pub(crate) fn agent(&self, name: &str, spec: &HttpSpec) -> Result<Arc<dyn Agent>, Error> {
        let key = match &spec.options.key {
            ApiKeySource::Variable(variable) => {
                self.environment.get(variable).and_then(|value| value.to_str())
            }
            _ => None,
        };
        key.into_iter().for_each(|key| self.secrets.add(key.trim()));
        self.build(name, spec, key)
    }

    #[cfg(feature = "http-agents")]
    fn build(&self, name: &str, spec: &HttpSpec, key: Option<&str>) -> Result<Arc<dyn Agent>, Error> {
        let agent = HttpAgent::new(spec.options.clone(), key);
        let agent = agent.map_err(|source| Error::Agent { agent: name.to_owned(), source })?;
        let secrets = self.secrets.clone();
        let agent = agent.with_key_observer(move |key| secrets.add(key));
        Ok(Arc::new(match &self.recording {
            Some(recording) => agent.with_recording(recording.clone()),
            None => agent,
        }))
    }

    #[cfg(not(feature = "http-agents"))]
    fn build(&self, name: &str, _: &HttpSpec, _: Option<&str>) -> Result<Arc<dyn Agent>, Error> {
        Err(Error::NoHttp { agent: name.to_owned() })
    }
}
