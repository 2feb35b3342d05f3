//! The settings: their names, the values that they accept, and how they are read and shown.

use std::path::{Path, PathBuf};
use std::time::Duration;

use greenwave::{Compression, CopyMode, KeySource, Settings, nearest};
use greenwave_testing::{IncompleteMode, TraceMode, is_server};
use toml::de::DeValue;

use crate::password::masked;
use crate::planfile::confinement::MODES;
use crate::reader::{DURATION, DURATION_ABOVE_ZERO, bytes, duration, number, suggestion, whole};
use crate::text::list;

/// One setting.
pub(super) struct Key {
    pub(super) name: &'static str,
    /// Description of the accepted values.
    pub(super) expected: &'static str,
    /// Largest accepted whole number. Messages name it only if the value exceeds it.
    pub(super) max: u64,
    /// Sets the value. Returns `None` if it is not accepted.
    pub(super) set: fn(&mut Settings, &DeValue<'_>) -> Option<()>,
    /// Returns the value as TOML.
    pub(super) show: fn(&Settings) -> String,
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
pub(super) const KEYS: &[Key] = &[
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

/// Returns the names of the sections of settings.
pub(super) fn sections() -> Vec<&'static str> {
    let mut sections: Vec<&str> =
        KEYS.iter().filter_map(|key| key.name.split_once('.')).map(|(section, _)| section).collect();
    sections.dedup();
    sections
}

/// Returns the end of a message about an unknown key: the key with the same name in another
/// section, a key with a similar name, or all keys of the section.
pub(super) fn key_suggestion(name: &str) -> String {
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
