//! The settings: their names, the values that they accept, and how they are read and shown.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use greenwave::{Candidates, Compression, ConfineMode, CopyMode, KeySource, RemoteScope, Settings, nearest};
use greenwave_testing::{IncompleteMode, TraceMode, is_server};
use toml::de::DeValue;

use crate::notify_words::runs_placeholder;
use crate::password::masked;
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
    // First, because the words after `choice` are no expression.
    ($name:literal, choice {
        $first:literal => $($first_value:ident)::+,
        $($word:literal => $($value:ident)::+,)*
        or $last:literal => $($last_value:ident)::+
    }, $($field:ident).+) => {
        Key {
            name: $name,
            expected: concat!("\"", $first, "\"", $(", \"", $word, "\"",)* " or \"", $last, "\""),
            max: u64::MAX,
            set: |settings, value| {
                settings.$($field).+ = match value.as_str()? {
                    $first => $($first_value)::+,
                    $($word => $($value)::+,)*
                    $last => $($last_value)::+,
                    _ => return None,
                };
                Some(())
            },
            show: |settings| format!("{:?}", match settings.$($field).+ {
                $($first_value)::+ => $first,
                $($($value)::+ => $word,)*
                $($last_value)::+ => $last,
            }),
        }
    };
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
    ($name:literal, directory, $($field:ident).+) => {
        key!($name, "the path of a directory, or \"\" for the default", u64::MAX,
             |value: &DeValue<'_>| Some(Some(value.as_str()?).filter(|path| !path.is_empty()).map(PathBuf::from)),
             |path: &Option<PathBuf>| show_directory(path.as_deref()), $($field).+)
    };
}

fn show_duration(value: &Duration) -> String {
    format!("\"{}\"", humantime::format_duration(*value))
}

fn show_directory(path: Option<&Path>) -> String {
    format!("{:?}", path.unwrap_or(Path::new("")).display().to_string())
}

/// All settings.
pub(super) const KEYS: &[Key] = &[
    key!("cache.enabled", flag, cache.enabled),
    key!("cache.entries", count from 1, cache.entries),
    key!("cache.ttl", duration, cache.ttl),
    key!("cache.directory", directory, cache.directory),
    key!("parallel.workers", count from 1, parallel.workers),
    key!("parallel.agents", count from 1, parallel.agents),
    key!("parallel.features", count from 1, parallel.features),
    key!("storage.memory_limit", bytes from 65536, storage.memory_limit),
    key!(
        "storage.compression",
        "\"off\", \"zstd\", or \"zstd 1\" to \"zstd 19\"",
        u64::MAX,
        compression,
        |compression: &Compression| show_compression(*compression),
        storage.compression
    ),
    key!(
        "storage.spillover_threshold",
        "a number above 0 and up to 1",
        u64::MAX,
        |value: &DeValue<'_>| number(value).filter(|share| *share > 0.0 && *share <= 1.0),
        |share: &f64| format!("{share:?}"),
        storage.spillover_threshold
    ),
    key!("storage.promote_after", count from 1, storage.promote_after),
    key!("memory.reclaim", flag, memory.reclaim),
    key!("pool.size", count from 1, pool.size),
    key!("pool.min", count from 0, pool.min),
    key!("pool.idle_timeout", duration, pool.idle_timeout),
    key!("agent.time_limit", duration above zero, agent.time_limit),
    key!("agent.answer_limit", bytes from 1, agent.answer_limit),
    key!("run.directory", directory, run.directory),
    key!("run.confine", choice {
        "auto" => ConfineMode::Auto,
        "mount" => ConfineMode::Mount,
        "landlock" => ConfineMode::Landlock,
        or "off" => ConfineMode::Off
    }, run.confine),
    key!("run.copies", choice {
        "auto" => CopyMode::Auto,
        "overlay" => CopyMode::Overlay,
        "reflink" => CopyMode::Reflink,
        or "copy" => CopyMode::Copy
    }, run.copies),
    Key {
        name: "run.notify",
        expected: "a list of strings, a program and its arguments (with variables instead of placeholders \
            in the text of a shell), or \"\" for none",
        max: u64::MAX,
        set: |settings, value| {
            settings.run.notify = match value.as_str() {
                Some("") => Vec::new(),
                Some(_) => return None,
                None => {
                    let words = value.as_array()?.iter();
                    let words = words.map(|word| Some(word.get_ref().as_str()?.to_owned()));
                    words.collect::<Option<Vec<_>>>().filter(|words| runs_placeholder(words).is_none())?
                }
            };
            Some(())
        },
        show: |settings| format!("{:?}", settings.run.notify),
    },
    key!(
        "run.candidates",
        "a whole number from 1 to 16",
        u64::MAX,
        |value: &DeValue<'_>| {
            let count = u32::try_from(whole(value)?).ok()?;
            (1..=Candidates::CANDIDATES_MAX).contains(&count).then_some(count)
        },
        ToString::to_string,
        run.candidates
    ),
    key!("metrics.enabled", flag, metrics.enabled),
    key!(
        "metrics.address",
        "an IP address like \"127.0.0.1\" or \"::1\"",
        u64::MAX,
        |value: &DeValue<'_>| value.as_str()?.parse::<IpAddr>().ok(),
        |address: &IpAddr| format!("\"{address}\""),
        metrics.address
    ),
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
        expected: "an address like \"redis://host:6379\", \"memcached://host:11211\", \"grpc://host:9092\", \"s3://bucket/directory\" or \"file:///directory\", or \"\" for none",
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
        name: "testing.trust",
        expected: "a public key like \"ed25519:…\", a list of these, or \"\" for everybody",
        max: u64::MAX,
        set: |settings, value| {
            settings.testing.trust = match (value.as_str(), value.as_array()) {
                (Some(""), _) => Vec::new(),
                (Some(key), _) => vec![key.parse().ok()?],
                (None, keys) => {
                    keys?.iter().map(|key| key.get_ref().as_str()?.parse().ok()).collect::<Option<_>>()?
                }
            };
            Some(())
        },
        show: |settings| {
            let keys: Vec<String> = settings.testing.trust.iter().map(|key| format!("\"{key}\"")).collect();
            if keys.is_empty() { "\"\"".to_owned() } else { format!("[{}]", keys.join(", ")) }
        },
    },
    Key {
        name: "testing.remote_scope",
        expected: "\"auto\", \"main\" or \"branch:NAME\"",
        max: u64::MAX,
        set: |settings, value| {
            settings.testing.remote_scope = match value.as_str()? {
                "auto" => RemoteScope::Auto,
                "main" => RemoteScope::Main,
                other => {
                    let name = other.strip_prefix("branch:").filter(|name| !name.is_empty())?;
                    RemoteScope::Branch(name.to_owned())
                }
            };
            Some(())
        },
        show: |settings| match &settings.testing.remote_scope {
            RemoteScope::Auto => "\"auto\"".to_owned(),
            RemoteScope::Main => "\"main\"".to_owned(),
            RemoteScope::Branch(name) => format!("{:?}", format!("branch:{name}")),
        },
    },
    key!(
        "testing.trunk",
        "the name of a branch, or \"\" to find it",
        u64::MAX,
        |value: &DeValue<'_>| value.as_str().map(str::to_owned),
        |name: &String| format!("{name:?}"),
        testing.trunk
    ),
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
    key!("testing.incomplete", choice {
        "coarse" => IncompleteMode::Coarse,
        or "refuse" => IncompleteMode::Refuse
    }, testing.incomplete),
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
    key!(
        "testing.audit",
        "a number from 0 to 1, or a percentage like \"1%\"",
        u64::MAX,
        share,
        |share: &f64| format!("{share:?}"),
        testing.audit
    ),
    key!(
        "testing.retries",
        "a whole number from 0 to 100",
        u64::MAX,
        |value: &DeValue<'_>| u32::try_from(whole(value).filter(|count| *count <= 100)?).ok(),
        ToString::to_string,
        testing.retries
    ),
    key!("testing.flaky", choice { "pass" => false, or "fail" => true }, testing.flaky_fails),
];

/// Returns the name of each setting, and a description of the values that it accepts.
#[cfg(test)]
pub(crate) fn keys() -> impl Iterator<Item = (&'static str, &'static str)> {
    KEYS.iter().map(|key| (key.name, key.expected))
}

/// Schemes of the accepted server addresses.
const REMOTES: [&str; 10] = [
    "redis://",
    "rediss://",
    "unix://",
    "memcached://",
    "grpc://",
    "grpcs://",
    "file:///",
    "s3://",
    "gs://",
    "az://",
];

/// Returns a number from 0 to 1, given as a number or a percentage.
fn share(value: &DeValue<'_>) -> Option<f64> {
    let share = match value.as_str() {
        Some(text) => text.strip_suffix('%')?.trim().parse::<f64>().ok()? / 100.0,
        None => number(value)?,
    };
    Some(share).filter(|share| (0.0..=1.0).contains(share))
}

fn compression(value: &DeValue<'_>) -> Option<Compression> {
    let text = value.as_str()?;
    match text.split_once(' ') {
        None if text == "off" => Some(Compression::Off),
        None if text == "zstd" => Some(Compression::Zstd(6)),
        Some(("zstd", level)) => {
            level.parse().ok().filter(|level| (1..=19).contains(level)).map(Compression::Zstd)
        }
        _ => None,
    }
}

fn show_compression(compression: Compression) -> String {
    match compression {
        Compression::Off => "\"off\"".to_owned(),
        Compression::Zstd(level) => format!("\"zstd {level}\""),
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
