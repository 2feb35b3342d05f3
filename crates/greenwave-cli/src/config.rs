//! Collects settings from profiles, the settings file, environment variables and flags, in this
//! order, with the source of each value.

mod keys;
mod origin;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use greenwave::{Settings, nearest};
use greenwave_testing::{RESULTS_VARIABLE, TOOL_HOMES_VARIABLE};
use toml::de::DeValue;

use crate::diagnostic::Document;
use crate::planfile;
use crate::reader::{SETTINGS_FILE, Table, invalid_value, suggestion, whole};
use crate::testfile::TestFile;

#[cfg(test)]
pub(crate) use keys::keys;
use keys::{KEYS, key_suggestion, sections};
pub(crate) use origin::{ConfigError, Origin, ValueError};

/// Prefix of the environment variables that are settings.
pub(crate) const VARIABLE: &str = "GREENWAVE_";
/// Variables with the prefix that are not settings.
const OTHER_VARIABLES: [&str; 18] = [
    "GREENWAVE_PROFILE",
    "GREENWAVE_REQUIRE_SERVICES",
    // Identify the user to a server, and are in no file.
    "GREENWAVE_REMOTE_HEADER",
    "GREENWAVE_REMOTE_TOKEN",
    "GREENWAVE_REMOTE_TOKEN_COMMAND",
    "GREENWAVE_SIGNING_KEY",
    // A run sets these for its tests, which may be runs themselves.
    "GREENWAVE_PORT_FIRST",
    "GREENWAVE_PORT_COUNT",
    // Set for agents.
    "GREENWAVE_FEATURE",
    "GREENWAVE_ATTEMPT",
    "GREENWAVE_CANDIDATE",
    "GREENWAVE_PROMPT_FILE",
    // Set for the command `notify` of a plan.
    "GREENWAVE_PLAN",
    "GREENWAVE_KIND",
    "GREENWAVE_REASON",
    "GREENWAVE_ACTION",
    RESULTS_VARIABLE,
    TOOL_HOMES_VARIABLE,
];

/// Settings that no file of a project may have.
const OF_USER: [&str; 3] = ["testing.trust", "testing.remote_scope", "testing.trunk"];

/// The built-in profiles, with their files. Each sets every key.
pub(crate) const PROFILES: [(&str, &str); 3] = [
    ("development", include_str!("../profiles/development.toml")),
    ("production", include_str!("../profiles/production.toml")),
    ("memory-constrained", include_str!("../profiles/memory-constrained.toml")),
];

/// Settings from the environment and the command line.
#[derive(Debug, Default)]
pub(crate) struct Overrides {
    /// Value of the flag `--profile`.
    pub(crate) profile: Option<String>,
    /// All environment variables.
    pub(crate) variables: Vec<(String, String)>,
    /// Flags, each with its key and value.
    pub(crate) flags: Vec<(String, String, String)>,
}

/// The settings, with the source of each value.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) settings: Settings,
    pub(crate) profile: &'static str,
    /// The tests and resources of the settings file.
    pub(crate) tests: TestFile,
    /// Text of the settings file, if there is one.
    pub(crate) text: Option<String>,
    profile_origin: Option<Origin>,
    origins: BTreeMap<&'static str, Origin>,
}

impl Config {
    /// Collects the settings for a project.
    pub(crate) fn load(project: &Path, overrides: &Overrides) -> Result<Self, ConfigError> {
        check_directory(project)
            .map_err(|source| ConfigError::NoProject { path: project.to_owned(), source })?;
        let path = project.join(SETTINGS_FILE);
        let document = match Document::read(&path) {
            Ok(document) => Some(document),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(source) => return Err(ConfigError::Read { path, source }),
        };
        let mut root = document.as_ref().map(Table::parse).transpose()?;
        let tests = match (&document, &mut root) {
            (Some(document), Some(root)) => TestFile::take(document, root)?,
            _ => TestFile::default(),
        };
        if let (Some(document), Some(root)) = (&document, &mut root) {
            // Only `greenwave plan` uses them, and reads them again.
            planfile::agents(document, root, project, project)?;
        }
        let (profile, profile_origin) = chosen_profile(document.as_ref(), root.as_mut(), overrides)?;
        let mut config = Self {
            settings: Settings::default(),
            profile,
            profile_origin,
            origins: BTreeMap::new(),
            tests,
            text: None,
        };
        config.read_profile()?;
        if let (Some(document), Some(root)) = (&document, root) {
            config.read_table(document, root, &Origin::File(document.path.clone()))?;
        }
        for (name, value) in &overrides.variables {
            config.read_variable(name, value)?;
        }
        for (flag, key, value) in &overrides.flags {
            config.set_text(key, value, Origin::Flag(flag.clone()))?;
        }
        if let Some(directory) = &config.settings.cache.directory {
            config.settings.cache.directory = Some(project.join(directory));
        }
        if let Some(directory) = &config.settings.run.directory {
            config.settings.run.directory = Some(project.join(directory));
        }
        config.text = document.map(|document| document.text);
        Ok(config)
    }

    /// Returns all keys with their values as TOML and their sources.
    pub(crate) fn values(&self) -> impl Iterator<Item = (&'static str, String, String)> + '_ {
        KEYS.iter().map(|key| {
            let origin = self.origins.get(key.name).map(ToString::to_string).unwrap_or_default();
            (key.name, (key.show)(&self.settings), origin)
        })
    }

    /// Returns the source of the value of a key.
    pub(crate) fn origin(&self, key: &str) -> Option<&Origin> {
        self.origins.get(key)
    }

    /// Returns whether a key has the value of the default profile, so that nobody chose it.
    pub(crate) fn is_default(&self, key: &str) -> bool {
        self.profile_origin.is_none() && matches!(self.origins.get(key), None | Some(Origin::Profile(_)))
    }

    /// Returns the source of the choice of profile, if one was chosen.
    pub(crate) fn profile_origin(&self) -> Option<&Origin> {
        self.profile_origin.as_ref()
    }

    fn read_profile(&mut self) -> Result<(), ConfigError> {
        let (name, text) =
            PROFILES.into_iter().find(|(name, _)| *name == self.profile).unwrap_or(PROFILES[0]);
        let document = Document { path: PathBuf::from(format!("{name}.toml")), text: text.to_owned() };
        let root = Table::parse(&document)?;
        self.read_table(&document, root, &Origin::Profile(name))
    }

    fn read_table(
        &mut self,
        document: &Document,
        mut root: Table<'_>,
        origin: &Origin,
    ) -> Result<(), ConfigError> {
        let mut pool_min = None;
        let sections: Vec<&'static str> = sections();
        for section in root.keys() {
            let Some(name) = sections.iter().find(|name| **name == section.value) else {
                let suggestion = suggestion(&section.value, &sections);
                let name = section.value;
                let error = ValueError::UnknownName { what: "section", name, suggestion };
                return Err(document.error(section.at, error.to_string()).into());
            };
            let Some(mut table) = root.table(name)? else { continue };
            for key in table.keys() {
                let full = format!("{}.{}", section.value, key.value);
                let Some(value) = table.any_named(&key.value) else { continue };
                if full == "pool.min" {
                    pool_min = Some(value.at.clone());
                }
                self.set(&full, &value.value, origin.clone()).map_err(|error| {
                    let is_key = matches!(error, ValueError::UnknownName { .. });
                    document.error(if is_key { key.at } else { value.at }, error.to_string())
                })?;
            }
        }
        if let Some(at) = pool_min {
            self.check_pool().map_err(|error| document.error(at, error.to_string()))?;
        }
        Ok(())
    }

    fn read_variable(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let Some(short) = name.strip_prefix(VARIABLE) else { return Ok(()) };
        if OTHER_VARIABLES.contains(&name) {
            return Ok(());
        }
        let of_key = |key: &str| key.replace('.', "_").to_uppercase();
        let origin = Origin::Variable(name.to_owned());
        match KEYS.iter().find(|key| of_key(key.name) == short) {
            Some(key) => self.set_text(key.name, value, origin),
            None => {
                let names: Vec<String> = KEYS.iter().map(|key| of_key(key.name)).collect();
                let nearest = nearest(short, &mut names.iter().map(String::as_str));
                let suggestion = nearest.map(|name| format!("; did you mean `{VARIABLE}{name}`?"));
                let (what, suggestion) = ("variable", suggestion.unwrap_or_default());
                let error = ValueError::UnknownName { what, name: name.to_owned(), suggestion };
                Err(ConfigError::Value { origin: Origin::Environment, error })
            }
        }
    }

    /// Sets a value that is given as TOML, or as a string without quotation marks.
    fn set_text(&mut self, key: &str, text: &str, origin: Origin) -> Result<(), ConfigError> {
        let parsed = DeValue::parse(text).map(toml::Spanned::into_inner);
        let as_string = DeValue::String(text.into());
        let value = parsed.as_ref().unwrap_or(&as_string);
        // A string may look like a number. The first error is the better one: `0` is not `"0"`.
        let set = self.set(key, value, origin.clone());
        let set = set.or_else(|error| self.set(key, &as_string, origin.clone()).map_err(|_| error));
        let checked = set.and_then(|()| if key == "pool.min" { self.check_pool() } else { Ok(()) });
        checked.map_err(|error| ConfigError::Value { origin, error })
    }

    fn set(&mut self, name: &str, value: &DeValue<'_>, origin: Origin) -> Result<(), ValueError> {
        let Some(key) = KEYS.iter().find(|key| key.name == name) else {
            let (what, name, suggestion) = ("key", name.to_owned(), key_suggestion(name));
            return Err(ValueError::UnknownName { what, name, suggestion });
        };
        if OF_USER.contains(&key.name) && matches!(origin, Origin::File(_)) {
            let variable = format!("{VARIABLE}{}", key.name.replace('.', "_").to_uppercase());
            return Err(ValueError::Invalid(format!(
                "invalid place for `{name}`: expected the variable `{variable}` or `--set`, because \
                 a change to the project must not choose whose results you believe"
            )));
        }
        if (key.set)(&mut self.settings, value).is_none() {
            let max = match whole(value) {
                Some(number) if number > key.max => format!(" to {}", key.max),
                _ => String::new(),
            };
            let expected = format!("{}{max}", key.expected);
            return Err(ValueError::Invalid(invalid_value(value, key.name, &expected)));
        }
        self.origins.insert(key.name, origin);
        Ok(())
    }

    /// Checks that the pool may hold as many idle sessions as it must. Only the layer that sets
    /// `pool.min` is checked: a smaller `pool.size` from a later layer wins.
    fn check_pool(&self) -> Result<(), ValueError> {
        let (min, size) = (self.settings.pool.min, self.settings.pool.size);
        if min <= size {
            return Ok(());
        }
        Err(ValueError::Invalid(format!(
            "invalid value `{min}` for `pool.min`: expected a whole number from 0 to `pool.size`, which is {size}"
        )))
    }
}

/// Checks that a path names a directory.
fn check_directory(path: &Path) -> std::io::Result<()> {
    if path.metadata()?.is_dir() { Ok(()) } else { Err(std::io::ErrorKind::NotADirectory.into()) }
}

/// Returns the profile that the flag, the variable or the settings file chooses, with its source.
fn chosen_profile(
    document: Option<&Document>,
    root: Option<&mut Table<'_>>,
    overrides: &Overrides,
) -> Result<(&'static str, Option<Origin>), ConfigError> {
    let in_file = root.map(|root| root.text("profile")).transpose()?.flatten();
    let variable = overrides.variables.iter().find(|(name, _)| name == "GREENWAVE_PROFILE");
    let (name, origin, at) = if let Some(name) = &overrides.profile {
        (name.clone(), Origin::Flag("--profile".to_owned()), None)
    } else if let Some((name, value)) = variable {
        (value.clone(), Origin::Variable(name.clone()), None)
    } else if let (Some(name), Some(document)) = (in_file, document) {
        (name.value, Origin::File(document.path.clone()), Some((document, name.at)))
    } else {
        return Ok((PROFILES[0].0, None));
    };
    let names = PROFILES.map(|(name, _)| name);
    if let Some(profile) = names.into_iter().find(|profile| *profile == name) {
        return Ok((profile, Some(origin)));
    }
    let suggestion = suggestion(&name, &names);
    let error = ValueError::UnknownName { what: "profile", name, suggestion };
    match at {
        Some((document, at)) => Err(document.error(Range::clone(&at), error.to_string()).into()),
        None => Err(ConfigError::Value { origin, error }),
    }
}
