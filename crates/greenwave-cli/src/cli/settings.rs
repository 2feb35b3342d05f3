//! Arguments that change settings, and the settings of the environment.

use clap::Args;

use crate::config::{ConfigError, Origin, Overrides, VARIABLE, ValueError};

/// Changes any setting.
#[derive(Debug, Default, Args)]
pub(super) struct SetArgs {
    /// Set any setting, by its name in `greenwave profile show`; repeatable.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_and_value)]
    set: Vec<(String, String)>,
}

/// Settings of a run of a plan.
#[derive(Debug, Args)]
#[command(next_help_heading = "Settings")]
pub(super) struct SettingsArgs {
    /// Use the settings of a profile: development, production or memory-constrained.
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    #[command(flatten)]
    set: SetArgs,
    /// Number of tests to run in parallel (parallel.workers).
    #[arg(long, value_name = "COUNT")]
    workers: Option<String>,
    /// Maximum number of concurrent agent requests (parallel.agents).
    #[arg(long, value_name = "COUNT")]
    agents: Option<String>,
    /// Maximum number of features in progress (parallel.features).
    #[arg(long, value_name = "COUNT")]
    features: Option<String>,
    /// Neither look up nor store test results (cache.enabled).
    #[arg(long)]
    no_cache: bool,
    /// Serve metrics on this port; 0 picks a free one (metrics.port).
    #[arg(long, value_name = "PORT")]
    metrics_port: Option<String>,
    /// Do not serve metrics (metrics.enabled).
    #[arg(long)]
    no_metrics: bool,
}

/// The flag, key and value of a setting that has its own flag, if that was given.
pub(super) type Flag = Option<(String, String, String)>;

/// Returns the setting of a flag with a value.
pub(super) fn flag(flag: &str, key: &str, value: &Option<String>) -> Flag {
    value.as_ref().map(|value| (flag.to_owned(), key.to_owned(), value.clone()))
}

/// Returns the setting of a flag that turns a key off.
pub(super) fn off(flag: &str, key: &str, is_given: bool) -> Flag {
    is_given.then(|| (flag.to_owned(), key.to_owned(), "false".to_owned()))
}

impl SetArgs {
    /// Combines the variables of the environment with flags. `--set` overrides the other flags.
    ///
    /// # Errors
    /// [`ConfigError::Value`] if a variable that is a setting is not UTF-8.
    pub(super) fn overrides(
        &self,
        profile: Option<&String>,
        flags: impl IntoIterator<Item = Flag>,
    ) -> Result<Overrides, ConfigError> {
        let set = self.set.iter().map(|(key, value)| ("--set".to_owned(), key.clone(), value.clone()));
        Ok(Overrides {
            profile: profile.cloned(),
            variables: variables()?,
            flags: flags.into_iter().flatten().chain(set).collect(),
        })
    }
}

impl SettingsArgs {
    /// Returns the settings that the arguments and the environment change.
    pub(super) fn overrides(&self) -> Result<Overrides, ConfigError> {
        let flags = [
            flag("--workers", "parallel.workers", &self.workers),
            flag("--agents", "parallel.agents", &self.agents),
            flag("--features", "parallel.features", &self.features),
            off("--no-cache", "cache.enabled", self.no_cache),
            flag("--metrics-port", "metrics.port", &self.metrics_port),
            off("--no-metrics", "metrics.enabled", self.no_metrics),
        ];
        self.set.overrides(self.profile.as_ref(), flags)
    }
}

/// Returns the environment variables that are UTF-8. A setting that is not UTF-8 is an error.
fn variables() -> Result<Vec<(String, String)>, ConfigError> {
    let mut variables = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Ok(name) = name.into_string() else { continue };
        match value.into_string() {
            Ok(value) => variables.push((name, value)),
            Err(_) if name.starts_with(VARIABLE) => {
                return Err(ConfigError::Value {
                    origin: Origin::Variable(name),
                    error: ValueError::NotUtf8,
                });
            }
            Err(_) => {}
        }
    }
    Ok(variables)
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE, as in `--set cache.entries=500`")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}
