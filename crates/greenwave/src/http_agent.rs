//! Builds agents that are model servers.

use std::sync::Arc;

use greenwave_agents::{Agent, ApiKeySource};
#[cfg(feature = "http-agents")]
use greenwave_agents::{HttpAgent, HttpRecording};
use greenwave_testing::Environment;

use crate::error::Error;
use crate::mask::AddedSecrets;
#[cfg(feature = "http-agents")]
use crate::mask::Mask;
#[cfg(feature = "http-agents")]
use crate::plan::Exchanges;
use crate::plan::{HttpSpec, Plan};

/// Builds the model servers of a plan.
#[derive(Debug)]
pub(crate) struct HttpAgents<'a> {
    environment: &'a Environment,
    secrets: &'a AddedSecrets,
    #[cfg(feature = "http-agents")]
    recording: Option<HttpRecording>,
}

impl<'a> HttpAgents<'a> {
    /// Opens the directory in which exchanges are recorded, or from which they are replayed, if the
    /// plan names one.
    ///
    /// # Errors
    /// [`Error::Recording`] if it cannot be used.
    pub(crate) fn new(
        plan: &Plan,
        environment: &'a Environment,
        secrets: &'a AddedSecrets,
    ) -> Result<Self, Error> {
        #[cfg(not(feature = "http-agents"))]
        let _ = plan;
        Ok(Self {
            environment,
            secrets,
            #[cfg(feature = "http-agents")]
            recording: recording(&plan.exchanges, environment, secrets)?,
        })
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

#[cfg(feature = "http-agents")]
fn recording(
    exchanges: &Exchanges,
    environment: &Environment,
    secrets: &AddedSecrets,
) -> Result<Option<HttpRecording>, Error> {
    let mask = Mask::new(environment.texts()).with(secrets.clone());
    let masked = move |text: &str| mask.apply(text).into_owned();
    let recording = match exchanges {
        Exchanges::Live => return Ok(None),
        Exchanges::Record(directory) => HttpRecording::record(directory, masked),
        Exchanges::Replay(directory) => HttpRecording::replay(directory, masked),
    };
    recording.map(Some).map_err(Error::Recording)
}
