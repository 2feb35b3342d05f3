//! Settings from everywhere: profiles, the project's file, variables, flags, in this order, each value with its
//! origin. Knows nothing of what the values are used for.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use greenwave::{Compression, Settings, nearest};
use greenwave_testing::{RESULTS_VARIABLE, TraceMode};
use toml::de::DeValue;

use crate::diagnostic::{Diagnostic, Document};
use crate::reader::{DURATION, Table, bytes, describe, duration, list, number, whole};
use crate::testfile::TestFile;

/// The project's own file.
pub(crate) const FILE: &str = "greenwave.toml";
/// What variables begin with.
pub(crate) const VARIABLE: &str = "GREENWAVE_";
/// Variables that are ours and no settings.
const OTHER_VARIABLES: [&str; 5] = [
    "GREENWAVE_PROFILE",
    "GREENWAVE_REQUIRE_SERVICES",
    // What a run tells its tests, which may be runs themselves.
    "GREENWAVE_PORT_FIRST",
    "GREENWAVE_PORT_COUNT",
    RESULTS_VARIABLE,
];

/// The shipped profiles. Each gives every key a value.
pub(crate) const PROFILES: [(&str, &str); 3] = [
    ("development", include_str!("../profiles/development.toml")),
    ("production", include_str!("../profiles/production.toml")),
    ("memory-constrained", include_str!("../profiles/memory-constrained.toml")),
];

/// One thing that can be set: how it is called, what it accepts, and where it goes.
struct Key {
    name: &'static str,
    accepted: &'static str,
    /// The largest whole number that fits, told only to those who exceed it.
    most: u64,
    set: fn(&mut Settings, &DeValue<'_>) -> Option<()>,
    show: fn(&Settings) -> String,
}

/// A key of a whole number, a truth value, and so on; the last words are its place in [`Settings`].
macro_rules! key {
    ($name:literal, $accepted:expr, $most:expr, $read:expr, $show:expr, $($field:ident).+) => {
        Key {
            name: $name,
            accepted: $accepted,
            most: $most,
            set: |settings, value| {
                settings.$($field).+ = $read(value)?;
                Some(())
            },
            show: |settings| $show(&settings.$($field).+),
        }
    };
    ($name:literal, count from $least:literal, $($field:ident).+) => {
        key!($name, concat!("a whole number from ", $least), u32::MAX as u64, |value: &DeValue<'_>| {
            u32::try_from(whole(value).filter(|n| ($least..).contains(n))?).ok()?.try_into().ok()
        }, ToString::to_string, $($field).+)
    };
    ($name:literal, flag, $($field:ident).+) => {
        key!($name, "true or false", u64::MAX, DeValue::as_bool, ToString::to_string, $($field).+)
    };
    ($name:literal, duration, $($field:ident).+) => {
        key!($name, DURATION, u64::MAX, duration, show_duration, $($field).+)
    };
    ($name:literal, duration above zero, $($field:ident).+) => {
        key!($name, DURATION, u64::MAX, |value: &DeValue<'_>| duration(value).filter(|it| !it.is_zero()),
             show_duration, $($field).+)
    };
    ($name:literal, bytes from $least:literal, $($field:ident).+) => {
        key!($name, concat!("a size like \"50 MB\" or \"64 MiB\", or a whole number of bytes, from ", $least), u64::MAX,
             |value: &DeValue<'_>| bytes(value).filter(|size| *size >= $least), ToString::to_string, $($field).+)
    };
}

fn show_duration(value: &Duration) -> String {
    format!("\"{}\"", humantime::format_duration(*value))
}

/// Everything that can be set.
const KEYS: &[Key] = &[
    key!("cache.enabled", flag, cache.enabled),
    key!("cache.entries", count from 1, cache.entries),
    key!("cache.ttl", duration, cache.ttl),
    Key {
        name: "cache.directory",
        accepted: "the path of a folder, or \"\" for the project's own .greenwave folder,",
        most: u64::MAX,
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
        accepted: "\"off\", \"zstd\", or \"zstd 1\" to \"zstd 19\"",
        most: u64::MAX,
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
        accepted: "a number above 0 and up to 1",
        most: u64::MAX,
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
    key!("metrics.enabled", flag, metrics.enabled),
    Key {
        name: "metrics.address",
        accepted: "an IP address like \"127.0.0.1\" or \"::1\"",
        most: u64::MAX,
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
        accepted: "an address like \"redis://host:6379\" or \"memcached://host:11211\", or \"\" for none,",
        most: u64::MAX,
        set: |settings, value| {
            let address = value.as_str()?;
            let is_known = address.is_empty() || REMOTES.iter().any(|scheme| address.starts_with(scheme));
            settings.testing.remote = Some(address).filter(|_| is_known)?.to_owned();
            Some(())
        },
        show: |settings| format!("{:?}", settings.testing.remote),
    },
    key!("testing.remote_write", flag, testing.remote_write),
    Key {
        name: "testing.trace",
        accepted: "true, false or \"required\"",
        most: u64::MAX,
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
    key!("testing.follow_load", flag, testing.follow_load),
    Key {
        name: "testing.audit",
        accepted: "a number from 0 to 1, or a percentage like \"1%\"",
        most: u64::MAX,
        set: |settings, value| {
            settings.testing.audit = share(value)?;
            Some(())
        },
        show: |settings| format!("{:?}", settings.testing.audit),
    },
];

/// What addresses of servers begin with.
const REMOTES: [&str; 4] = ["redis://", "rediss://", "unix://", "memcached://"];

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

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Profile(&'static str),
    File(PathBuf),
    Variable(String),
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Profile(name) => write!(out, "profile {name}"),
            Origin::File(path) => write!(out, "{}", path.display()),
            Origin::Variable(name) => write!(out, "variable {name}"),
            Origin::Flag(flag) => write!(out, "flag {flag}"),
        }
    }
}

/// What is wrong with a setting.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("{0}")]
    InFile(Box<Diagnostic>),
    #[error("the project's folder {} does not exist", path.display())]
    NoProject { path: PathBuf },
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{origin}: {problem}")]
    Value { origin: Origin, problem: String },
}

impl From<Diagnostic> for ConfigError {
    fn from(diagnostic: Diagnostic) -> Self {
        ConfigError::InFile(Box::new(diagnostic))
    }
}

/// Values that were given outside files.
#[derive(Debug, Default)]
pub(crate) struct Overrides {
    /// `--profile`.
    pub(crate) profile: Option<String>,
    /// Variables of the environment, ours and others.
    pub(crate) variables: Vec<(String, String)>,
    /// Flags with the key each stands for and its value.
    pub(crate) flags: Vec<(String, String, String)>,
}

/// The settings with the origin of each value.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) settings: Settings,
    pub(crate) profile: &'static str,
    /// The project's own tests.
    pub(crate) tests: TestFile,
    /// What the project's file says, word for word; `None` if there is none.
    pub(crate) text: Option<String>,
    profile_origin: Option<Origin>,
    origins: BTreeMap<&'static str, Origin>,
}

impl Config {
    /// Puts the settings for a project together.
    pub(crate) fn load(project: &Path, overrides: &Overrides) -> Result<Self, ConfigError> {
        if !project.is_dir() {
            return Err(ConfigError::NoProject { path: project.to_owned() });
        }
        let path = project.join(FILE);
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
        config.text = document.map(|document| document.text);
        Ok(config)
    }

    /// All keys with their values as TOML has them, and where each comes from.
    pub(crate) fn values(&self) -> impl Iterator<Item = (&'static str, String, String)> + '_ {
        KEYS.iter().map(|key| {
            let origin = self.origins.get(key.name).map(ToString::to_string).unwrap_or_default();
            (key.name, (key.show)(&self.settings), origin)
        })
    }

    /// Whether a key has the value that the profile gives it, and nobody chose that profile.
    pub(crate) fn is_profiles(&self, key: &str) -> bool {
        self.profile_origin.is_none() && matches!(self.origins.get(key), None | Some(Origin::Profile(_)))
    }

    /// Where the choice of the profile comes from, if it was chosen.
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
        let sections: Vec<_> = KEYS.iter().filter_map(|key| key.name.split_once('.')).collect();
        for section in root.keys() {
            let known = || sections.iter().map(|(section, _)| *section);
            if !known().any(|name| name == section.value) {
                let hint = hint(&section.value, &mut known());
                return Err(document
                    .mistake(section.at, format!("unknown section `{}`; {hint}", section.value))
                    .into());
            }
            let Some(name) = known().find(|name| *name == section.value) else { continue };
            let Some(mut table) = root.table(name)? else { continue };
            for key in table.keys() {
                let full = format!("{}.{}", section.value, key.value);
                let Some(value) = table.any_named(&key.value) else { continue };
                if full == "pool.min" {
                    pool_min = Some(value.at.clone());
                }
                match self.set(&full, &value.value, origin.clone()) {
                    Ok(()) => {}
                    Err(Problem::UnknownKey(problem)) => {
                        return Err(document.mistake(key.at, problem).into());
                    }
                    Err(Problem::WrongValue(problem)) => {
                        return Err(document.mistake(value.at, problem).into());
                    }
                }
            }
        }
        match (pool_min, self.check_pool()) {
            (Some(at), Err(Problem::WrongValue(problem))) => Err(document.mistake(at, problem).into()),
            _ => Ok(()),
        }
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
                let known: Vec<String> = KEYS.iter().map(|key| of_key(key.name)).collect();
                let found = nearest(short, &mut known.iter().map(String::as_str));
                let hint =
                    found.map(|known| format!("; did you mean `{VARIABLE}{known}`?")).unwrap_or_default();
                Err(ConfigError::Value { origin, problem: format!("no setting has this name{hint}") })
            }
        }
    }

    /// Sets a value that is given as bare text: as TOML has it, or a text without its quotation marks.
    fn set_text(&mut self, key: &str, text: &str, origin: Origin) -> Result<(), ConfigError> {
        let parsed = DeValue::parse(text).map(toml::Spanned::into_inner);
        let as_text = DeValue::String(text.into());
        let first = match &parsed {
            Ok(value) => self.set(key, value, origin.clone()),
            Err(_) => self.set(key, &as_text, origin.clone()),
        };
        // What looks like a number may be meant as a text, and the other way round.
        let result = first.or_else(|problem| self.set(key, &as_text, origin.clone()).map_err(|_| problem));
        let result = result.and_then(|()| if key == "pool.min" { self.check_pool() } else { Ok(()) });
        result.map_err(|(Problem::UnknownKey(problem) | Problem::WrongValue(problem))| ConfigError::Value {
            origin,
            problem,
        })
    }

    fn set(&mut self, name: &str, value: &DeValue<'_>, origin: Origin) -> Result<(), Problem> {
        let Some(key) = KEYS.iter().find(|key| key.name == name) else {
            return Err(Problem::UnknownKey(format!("unknown key `{name}`; {}", hint_for_key(name))));
        };
        if (key.set)(&mut self.settings, value).is_none() {
            return Err(Problem::WrongValue(wrong_value(key, value)));
        }
        self.origins.insert(key.name, origin);
        Ok(())
    }

    /// More sessions kept than there may be: wrong where somebody asks for it, and no matter where two layers meet.
    fn check_pool(&self) -> Result<(), Problem> {
        let (min, size) = (self.settings.pool.min, self.settings.pool.size);
        if min <= size {
            return Ok(());
        }
        let problem = format!(
            "`pool.min` is the number {min}; a whole number up to `pool.size`, which is {size}, is wanted"
        );
        Err(Problem::WrongValue(problem))
    }
}

fn wrong_value(key: &Key, value: &DeValue<'_>) -> String {
    let is_zero = key.accepted == DURATION && duration(value).is_some_and(|it| it.is_zero());
    let described = if is_zero { "zero".to_owned() } else { describe(value) };
    let accepted = key.accepted.trim_end_matches(',');
    let most = match whole(value) {
        Some(number) if number > key.most => format!(" to {}", key.most),
        _ => String::new(),
    };
    format!("`{}` is {described}; {accepted}{most} is wanted", key.name)
}

/// What an unknown key was probably meant to be: the same name in another section, one much like it, or one of
/// those that its section has.
fn hint_for_key(name: &str) -> String {
    let (section, last) = name.split_once('.').unwrap_or((name, ""));
    let elsewhere = KEYS.iter().find(|key| key.name.split_once('.').is_some_and(|(_, other)| other == last));
    if let Some(key) = elsewhere {
        return format!("did you mean `{}`?", key.name);
    }
    let keys = || KEYS.iter().filter_map(|key| key.name.split_once('.'));
    let within: Vec<_> = keys().filter(|(other, _)| *other == section).map(|(_, key)| key).collect();
    if within.is_empty() {
        return hint(section, &mut keys().map(|(section, _)| section));
    }
    let full: Vec<String> = within.iter().map(|key| format!("{section}.{key}")).collect();
    match nearest(last, &mut within.iter().copied()) {
        Some(nearest) => format!("did you mean `{section}.{nearest}`?"),
        None => format!("known are {}", list(&full.iter().map(String::as_str).collect::<Vec<_>>())),
    }
}

enum Problem {
    UnknownKey(String),
    WrongValue(String),
}

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
    if let Some((known, _)) = PROFILES.into_iter().find(|(known, _)| *known == name) {
        return Ok((known, Some(origin)));
    }
    let hint = hint(&name, &mut PROFILES.iter().map(|(known, _)| *known));
    let problem = format!("there is no profile `{name}`; {hint}");
    match at {
        Some((document, at)) => Err(document.mistake(Range::clone(&at), problem).into()),
        None => Err(ConfigError::Value { origin, problem }),
    }
}

fn hint(name: &str, known: &mut dyn Iterator<Item = &'static str>) -> String {
    let mut known: Vec<&str> = known.collect();
    known.dedup();
    match nearest(name, &mut known.iter().copied()) {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => format!("known are {}", list(&known)),
    }
}
