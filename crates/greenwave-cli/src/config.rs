//! Collects settings from profiles, the settings file, environment variables and flags, in this
//! order, with the source of each value.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use greenwave::{Compression, CopyMode, KeySource, Settings, nearest};
use greenwave_testing::{IncompleteMode, RESULTS_VARIABLE, TOOL_HOMES_VARIABLE, TraceMode, is_server};
use toml::de::DeValue;

use crate::diagnostic::{Diagnostic, Document};
use crate::password::masked;
use crate::planfile::confinement::MODES;
use crate::reader::{
    DURATION, DURATION_ABOVE_ZERO, SETTINGS_FILE, Table, bytes, duration, invalid_value, number, suggestion,
    whole,
};
use crate::testfile::TestFile;
use crate::text::list;

/// Prefix of the environment variables that are settings.
pub(crate) const VARIABLE: &str = "GREENWAVE_";
/// Variables with the prefix that are not settings.
const OTHER_VARIABLES: [&str; 9] = [
    "GREENWAVE_PROFILE",
    "GREENWAVE_REQUIRE_SERVICES",
    // A run sets these for its tests, which may be runs themselves.
    "GREENWAVE_PORT_FIRST",
    "GREENWAVE_PORT_COUNT",
    // Set for agents.
    "GREENWAVE_FEATURE",
    "GREENWAVE_ATTEMPT",
    "GREENWAVE_PROMPT_FILE",
    RESULTS_VARIABLE,
    TOOL_HOMES_VARIABLE,
];

/// The built-in profiles, with their files. Each sets every key.
pub(crate) const PROFILES: [(&str, &str); 3] = [
    ("development", include_str!("../profiles/development.toml")),
    ("production", include_str!("../profiles/production.toml")),
    ("memory-constrained", include_str!("../profiles/memory-constrained.toml")),
];

/// One setting.
struct Key {
    name: &'static str,
    /// Description of the accepted values.
    expected: &'static str,
    /// Largest accepted whole number. Messages name it only if the value exceeds it.
    max: u64,
    /// Sets the value. Returns `None` if it is not accepted.
    set: fn(&mut Settings, &DeValue<'_>) -> Option<()>,
    /// Returns the value as TOML.
    show: fn(&Settings) -> String,
}

/// Creates a [`Key`] from its name, its type and its field in [`Settings`].
macro_rules! key {
    ($name:literal, $expected:expr, $max:expr, $read:expr, $show:expr, $($field:ident).+) => {
        Key {
            name: $name,
            expected: $expected,
            max: $max,
            set: |settings, value| {
                settings.$($field).+ = $read(value)?;
                Some(())
            },
            show: |settings| $show(&settings.$($field).+),
        }
    };
    ($name:literal, count from $min:literal, $($field:ident).+) => {
        key!($name, concat!("a whole number from ", $min), u32::MAX as u64, |value: &DeValue<'_>| {
            u32::try_from(whole(value).filter(|n| ($min..).contains(n))?).ok()?.try_into().ok()
        }, ToString::to_string, $($field).+)
    };
    ($name:literal, flag, $($field:ident).+) => {
        key!($name, "true or false", u64::MAX, DeValue::as_bool, ToString::to_string, $($field).+)
    };
    ($name:literal, duration, $($field:ident).+) => {
        key!($name, DURATION, u64::MAX, duration, show_duration, $($field).+)
    };
    ($name:literal, duration above zero, $($field:ident).+) => {
        key!($name, DURATION_ABOVE_ZERO, u64::MAX,
             |value: &DeValue<'_>| duration(value).filter(|it| !it.is_zero()),
             show_duration, $($field).+)
    };
    ($name:literal, bytes from $min:literal, $($field:ident).+) => {
        key!($name, concat!("a size like \"50 MB\" or \"64 MiB\", or a whole number of bytes, from ", $min), u64::MAX,
             |value: &DeValue<'_>| bytes(value).filter(|size| *size >= $min), ToString::to_string, $($field).+)
    };
}

fn show_duration(value: &Duration) -> String {
    format!("\"{}\"", humantime::format_duration(*value))
}

/// All settings.
const KEYS: &[Key] = &[
    key!("cache.enabled", flag, cache.enabled),
    key!("cache.entries", count from 1, cache.entries),
    key!("cache.ttl", duration, cache.ttl),
    Key {
        name: "cache.directory",
        expected: "the path of a directory, or \"\" for the default",
        max: u64::MAX,
        set: |settings, value| {
            settings.cache.directory =
                Some(value.as_str()?).filter(|path| !path.is_empty()).map(PathBuf::from);
            Some(())
        },
        show: |settings| {
            let path = settings.cache.directory.as_deref().unwrap_or(Path::new(""));
            format!("{:?}", path.display().to_string())
        },
    },
    key!("parallel.workers", count from 1, parallel.workers),
    key!("parallel.agents", count from 1, parallel.agents),
    key!("parallel.features", count from 1, parallel.features),
    key!("storage.memory_limit", bytes from 65536, storage.memory_limit),
    Key {
        name: "storage.compression",
        expected: "\"off\", \"zstd\", or \"zstd 1\" to \"zstd 19\"",
        max: u64::MAX,
        set: |settings, value| {
            settings.storage.compression = compression(value.as_str()?)?;
            Some(())
        },
        show: |settings| match settings.storage.compression {
            Compression::Off => "\"off\"".to_owned(),
            Compression::Zstd(level) => format!("\"zstd {level}\""),
        },
    },
    Key {
        name: "storage.spillover_threshold",
        expected: "a number above 0 and up to 1",
        max: u64::MAX,
        set: |settings, value| {
            settings.storage.spillover_threshold =
                number(value).filter(|share| *share > 0.0 && *share <= 1.0)?;
            Some(())
        },
        show: |settings| format!("{:?}", settings.storage.spillover_threshold),
    },
    key!("storage.promote_after", count from 1, storage.promote_after),
    key!("memory.reclaim", flag, memory.reclaim),
    key!("pool.size", count from 1, pool.size),
    key!("pool.min", count from 0, pool.min),
    key!("pool.idle_timeout", duration, pool.idle_timeout),
    key!("agent.time_limit", duration above zero, agent.time_limit),
    key!("agent.answer_limit", bytes from 1, agent.answer_limit),
    Key {
        name: "run.directory",
        expected: "the path of a directory, or \"\" for the default",
        max: u64::MAX,
        set: |settings, value| {
            settings.run.directory = Some(value.as_str()?).filter(|path| !path.is_empty()).map(PathBuf::from);
            Some(())
        },
        show: |settings| {
            let path = settings.run.directory.as_deref().unwrap_or(Path::new(""));
            format!("{:?}", path.display().to_string())
        },
    },
    Key {
        name: "run.confine",
        expected: "\"auto\", \"mount\", \"landlock\" or \"off\"",
        max: u64::MAX,
        set: |settings, value| {
            let name = value.as_str()?;
            settings.run.confine = MODES.iter().find(|(mode, _)| *mode == name)?.1;
            Some(())
        },
        show: |settings| {
            let mode = MODES.iter().find(|(_, mode)| *mode == settings.run.confine);
            format!("{:?}", mode.map_or("auto", |(name, _)| name))
        },
    },
    Key {
        name: "run.copies",
        expected: "\"auto\", \"overlay\", \"reflink\" or \"copy\"",
        max: u64::MAX,
        set: |settings, value| {
            let name = value.as_str()?;
            settings.run.copies = COPIES.iter().find(|(mode, _)| *mode == name)?.1;
            Some(())
        },
        show: |settings| {
            let mode = COPIES.iter().find(|(_, mode)| *mode == settings.run.copies);
            format!("{:?}", mode.map_or("auto", |(name, _)| name))
        },
    },
    key!("metrics.enabled", flag, metrics.enabled),
    Key {
        name: "metrics.address",
        expected: "an IP address like \"127.0.0.1\" or \"::1\"",
        max: u64::MAX,
        set: |settings, value| {
            settings.metrics.address = value.as_str()?.parse().ok()?;
            Some(())
        },
        show: |settings| format!("\"{}\"", settings.metrics.address),
    },
    key!(
        "metrics.port",
        "a whole number from 0 to 65535",
        u64::MAX,
        |value: &DeValue<'_>| u16::try_from(whole(value)?).ok(),
        ToString::to_string,
        metrics.port
    ),
    key!("testing.ttl", duration above zero, testing.ttl),
    key!("testing.disk_limit", bytes from 1048576, testing.disk_limit),
    Key {
        name: "testing.remote",
        expected: "an address like \"redis://host:6379\", \"rediss://host:6379\" or \"memcached://host:11211\", or \"\" for none",
        max: u64::MAX,
        set: |settings, value| {
            let address = value.as_str()?;
            let is_accepted = address.is_empty() || REMOTES.iter().any(|scheme| address.starts_with(scheme));
            settings.testing.remote = Some(address).filter(|_| is_accepted)?.to_owned();
            Some(())
        },
        show: |settings| format!("{:?}", masked(&settings.testing.remote)),
    },
    key!("testing.remote_write", flag, testing.remote_write),
    Key {
        name: "testing.remote_key",
        expected: "\"file:PATH\" or \"env:NAME\", a list of these, or \"\" for none",
        max: u64::MAX,
        set: |settings, value| {
            settings.testing.remote_key = match (value.as_str(), value.as_array()) {
                (Some(""), _) => Vec::new(),
                (Some(source), _) => vec![KeySource::parse(source)?],
                (None, sources) => sources?
                    .iter()
                    .map(|source| KeySource::parse(source.get_ref().as_str()?))
                    .collect::<Option<_>>()?,
            };
            Some(())
        },
        show: |settings| {
            let sources: Vec<String> = settings
                .testing
                .remote_key
                .iter()
                .map(|source| format!("{:?}", source.to_string()))
                .collect();
            match sources.as_slice() {
                [] => "\"\"".to_owned(),
                [source] => source.clone(),
                sources => format!("[{}]", sources.join(", ")),
            }
        },
    },
    Key {
        name: "testing.trace",
        expected: "true, false or \"required\"",
        max: u64::MAX,
        set: |settings, value| {
            settings.testing.trace = match (value.as_bool(), value.as_str()) {
                (Some(true), _) => TraceMode::WhenPossible,
                (Some(false), _) => TraceMode::Off,
                (None, Some("required")) => TraceMode::Required,
                _ => return None,
            };
            Some(())
        },
        show: |settings| match settings.testing.trace {
            TraceMode::Off => "false".to_owned(),
            TraceMode::WhenPossible => "true".to_owned(),
            TraceMode::Required => "\"required\"".to_owned(),
        },
    },
    Key {
        name: "testing.incomplete",
        expected: "\"coarse\" or \"refuse\"",
        max: u64::MAX,
        set: |settings, value| {
            settings.testing.incomplete = match value.as_str()? {
                "coarse" => IncompleteMode::Coarse,
                "refuse" => IncompleteMode::Refuse,
                _ => return None,
            };
            Some(())
        },
        show: |settings| match settings.testing.incomplete {
            IncompleteMode::Coarse => "\"coarse\"".to_owned(),
            IncompleteMode::Refuse => "\"refuse\"".to_owned(),
        },
    },
    Key {
        name: "testing.servers",
        expected: "a list of addresses such as \"localhost:5432\", absolute paths, and abstract names \
            such as \"@name\"",
        max: u64::MAX,
        set: |settings, value| {
            let server = |text: &str| is_server(text).then(|| text.to_owned());
            settings.testing.servers = match value.as_str() {
                Some("") => Vec::new(),
                Some(one) => vec![server(one)?],
                None => {
                    let all = value.as_array()?.iter();
                    all.map(|one| server(one.get_ref().as_str()?)).collect::<Option<_>>()?
                }
            };
            Some(())
        },
        show: |settings| format!("{:?}", settings.testing.servers),
    },
    key!("testing.protect_state", flag, testing.protect_state),
    key!("testing.follow_load", flag, testing.follow_load),
    Key {
        name: "testing.audit",
        expected: "a number from 0 to 1, or a percentage like \"1%\"",
        max: u64::MAX,
        set: |settings, value| {
            settings.testing.audit = share(value)?;
            Some(())
        },
        show: |settings| format!("{:?}", settings.testing.audit),
    },
    Key {
        name: "testing.retries",
        expected: "a whole number from 0 to 100",
        max: u64::MAX,
        set: |settings, value| {
            settings.testing.retries = u32::try_from(whole(value).filter(|count| *count <= 100)?).ok()?;
            Some(())
        },
        show: |settings| settings.testing.retries.to_string(),
    },
    Key {
        name: "testing.flaky",
        expected: "\"pass\" or \"fail\"",
        max: u64::MAX,
        set: |settings, value| {
            settings.testing.flaky_fails = match value.as_str()? {
                "pass" => false,
                "fail" => true,
                _ => return None,
            };
            Some(())
        },
        show: |settings| if settings.testing.flaky_fails { "\"fail\"" } else { "\"pass\"" }.to_owned(),
    },
];

/// Accepted values of `run.copies`.
const COPIES: [(&str, CopyMode); 4] = [
    ("auto", CopyMode::Auto),
    ("overlay", CopyMode::Overlay),
    ("reflink", CopyMode::Reflink),
    ("copy", CopyMode::Copy),
];

/// Returns the name of each setting, and a description of the values that it accepts.
#[cfg(test)]
pub(crate) fn keys() -> impl Iterator<Item = (&'static str, &'static str)> {
    KEYS.iter().map(|key| (key.name, key.expected))
}

/// Schemes of the accepted server addresses.
const REMOTES: [&str; 4] = ["redis://", "rediss://", "unix://", "memcached://"];

/// Returns a number from 0 to 1, given as a number or a percentage.
fn share(value: &DeValue<'_>) -> Option<f64> {
    let share = match value.as_str() {
        Some(text) => text.strip_suffix('%')?.trim().parse::<f64>().ok()? / 100.0,
        None => number(value)?,
    };
    Some(share).filter(|share| (0.0..=1.0).contains(share))
}

fn compression(text: &str) -> Option<Compression> {
    match text.split_once(' ') {
        None if text == "off" => Some(Compression::Off),
        None if text == "zstd" => Some(Compression::Zstd(6)),
        Some(("zstd", level)) => {
            level.parse().ok().filter(|level| (1..=19).contains(level)).map(Compression::Zstd)
        }
        _ => None,
    }
}

/// The source of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Profile(&'static str),
    File(PathBuf),
    Variable(String),
    /// The environment, where the message names the variable itself.
    Environment,
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Profile(name) => write!(out, "profile {name}"),
            Origin::File(path) => write!(out, "{}", path.display()),
            Origin::Variable(name) => write!(out, "variable {name}"),
            Origin::Environment => write!(out, "environment"),
            Origin::Flag(flag) => write!(out, "flag {flag}"),
        }
    }
}

/// An error of a setting.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The settings file is invalid.
    #[error("{0}")]
    InFile(Box<Diagnostic>),
    /// The project does not exist, or is not a directory.
    #[error("cannot open project directory {}", path.display())]
    NoProject { path: PathBuf, source: std::io::Error },
    /// The settings file cannot be read.
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// A variable or flag is invalid.
    #[error("{origin}: {error}")]
    Value { origin: Origin, error: ValueError },
}

/// The reason why a name or value is rejected.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ValueError {
    /// No setting or profile has the name.
    #[error("unknown {what} `{name}`{suggestion}")]
    UnknownName { what: &'static str, name: String, suggestion: String },
    /// The setting does not accept the value; the text says which values it accepts.
    #[error("{0}")]
    Invalid(String),
    /// The value of a variable is not text.
    #[error("invalid value: expected UTF-8")]
    NotUtf8,
}

impl From<Diagnostic> for ConfigError {
    fn from(diagnostic: Diagnostic) -> Self {
        ConfigError::InFile(Box::new(diagnostic))
    }
}

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

/// Returns the names of the sections of settings.
fn sections() -> Vec<&'static str> {
    let mut sections: Vec<&str> =
        KEYS.iter().filter_map(|key| key.name.split_once('.')).map(|(section, _)| section).collect();
    sections.dedup();
    sections
}

/// Returns the end of a message about an unknown key: the key with the same name in another
/// section, a key with a similar name, or all keys of the section.
fn key_suggestion(name: &str) -> String {
    let (section, last) = name.split_once('.').unwrap_or((name, ""));
    let elsewhere = KEYS.iter().find(|key| key.name.split_once('.').is_some_and(|(_, other)| other == last));
    if let Some(key) = elsewhere {
        return format!("; did you mean `{}`?", key.name);
    }
    let keys = || KEYS.iter().filter_map(|key| key.name.split_once('.'));
    let within: Vec<_> = keys().filter(|(other, _)| *other == section).map(|(_, key)| key).collect();
    if within.is_empty() {
        return suggestion(section, &sections());
    }
    let full: Vec<String> = within.iter().map(|key| format!("{section}.{key}")).collect();
    match nearest(last, &mut within.iter().copied()) {
        Some(nearest) => format!("; did you mean `{section}.{nearest}`?"),
        None => format!(": expected one of {}", list(full.iter().map(String::as_str))),
    }
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
