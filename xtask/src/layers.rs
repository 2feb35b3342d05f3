//! Checks the layers of `docs/architecture.md`. Each rule is an absence: what a crate does not depend on, and what
//! its code does not do. Knows nothing of what the crates are for.

use std::fmt::Write as _;
use std::path::Path;

use crate::Result;
use crate::metadata::{Dependency, Kind, Metadata, Package};
use crate::program::root;
use crate::source::{code, files_below, has, is_test_or_example};

/// Every package, the layer it stands in, and those of ours that it may be built from.
const LAYERS: [(&str, Layer, &[&str]); 18] = [
    (LOG, Layer::Ground, &[]),
    ("greenwave-process", Layer::Ground, &[]),
    ("greenwave-inputs", Layer::Ground, &[]),
    ("greenwave-sandbox", Layer::Library, &["greenwave-process"]),
    ("greenwave-retry", Layer::Ground, &[]),
    ("greenwave-cache", Layer::Library, &["greenwave-retry", "greenwave-segment"]),
    ("greenwave-scheduler", Layer::Library, &[LOG, "greenwave-process", "greenwave-retry"]),
    ("greenwave-storage", Layer::Library, &["greenwave-segment"]),
    ("greenwave-streaming", Layer::Library, &[LOG, "greenwave-retry"]),
    ("greenwave-pooling", Layer::Library, &[LOG, "greenwave-process", "greenwave-retry"]),
    ("greenwave-agents", Layer::Service, &["greenwave-streaming", "greenwave-pooling", "greenwave-process"]),
    (
        "greenwave-testing",
        Layer::Service,
        &[
            "greenwave-cache",
            "greenwave-scheduler",
            "greenwave-process",
            "greenwave-inputs",
            "greenwave-sandbox",
        ],
    ),
    ("greenwave-telemetry", Layer::Service, &[]),
    (
        "greenwave",
        Layer::Engine,
        &[
            "greenwave-segment",
            "greenwave-cache",
            "greenwave-scheduler",
            "greenwave-storage",
            "greenwave-streaming",
            "greenwave-pooling",
            "greenwave-agents",
            "greenwave-testing",
            "greenwave-telemetry",
        ],
    ),
    ("greenwave-cli", Layer::Program, &["greenwave", "greenwave-testing"]),
    ("greenwave-benches", Layer::Tool, ANYTHING),
    ("greenwave-versus", Layer::Tool, ANYTHING),
    ("xtask", Layer::Tool, &[]),
];

/// What everything durable stands on.
const LOG: &str = "greenwave-segment";

/// No restriction.
const ANYTHING: &[&str] = &["*"];

/// Optional dependencies that may be on by default. All others are asked for by those who need them.
const ON_BY_DEFAULT: [(&str, &str); 2] =
    [("greenwave-cache", "greenwave-segment"), ("greenwave-storage", "greenwave-segment")];

const HTTP_CLIENTS: &[&str] = &["reqwest", "ureq", "isahc", "attohttpc", "curl", "surf", "minreq", "awc"];
const HTTP_SERVERS: &[&str] =
    &["axum", "hyper", "warp", "actix-web", "tiny_http", "rouille", "poem", "salvo", "rocket", "tide"];
/// The one crate that serves HTTP.
const SERVER: &str = "greenwave-telemetry";

/// Clients of whole services, for a tier in one, behind a feature: what they speak inside is their own business.
const SERVICE_CLIENTS: &[&str] = &["object_store"];

/// What reads command lines and configuration files, and draws on terminals. For the program alone.
const FACE: &[&str] = &["clap", "toml", "toml_edit", "indicatif", "console"];

/// The one crate below the program that reads what other tools' manifests say, and where: its own settings it is handed as values.
const READS_MANIFESTS: (&str, &str) = ("greenwave-testing", "crates/greenwave-testing/src/harness/");
/// What their languages are read with.
const MANIFESTS: &[&str] = &["toml"];

/// Clients of services, and other libraries that are large or move fast: only ever optional.
const HEAVY: &[&str] = &[
    "redis",
    "memcache",
    "async-memcached",
    "object_store",
    "opendal",
    "reqwest",
    "tonic",
    "openssl",
    "async-nats",
    "rusqlite",
    "sqlx",
    "rocksdb",
    "aws-sdk-s3",
    "agent-client-protocol",
    "prometheus",
    "opentelemetry",
];

/// What code of layers 0 to 2 does not do.
const NEVER: [(&str, &[&str]); 4] = [
    ("prints", &["print!", "println!", "eprint!", "eprintln!", "dbg!", "io::stdout", "io::stderr"]),
    (
        "reads the environment",
        &["env::var", "env::vars", "env::var_os", "env::vars_os", "env::args", "env::args_os"],
    ),
    ("reads a configuration file", &["toml::", "\"greenwave.toml\""]),
    (
        "installs a global",
        &[
            "set_hook",
            "set_global_default",
            "set_default",
            "set_logger",
            "set_boxed_logger",
            "set_global_recorder",
        ],
    ),
];

/// Where a package stands, from the ground up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Layer {
    /// 0: the log under everything durable, and when to try again.
    Ground,
    /// 1: libraries that are useful alone.
    Library,
    /// 2: agents, tests, figures.
    Service,
    /// 3: what joins them.
    Engine,
    /// 4: what people run.
    Program,
    /// Beside them all.
    Tool,
}

/// Checks the workspace.
///
/// # Errors
/// Every rule that is broken, with where.
pub(crate) fn layers() -> Result<String> {
    let metadata = Metadata::of_workspace()?;
    let mut broken = check(&metadata);
    for package in metadata.members() {
        if place(&package.name).is_some_and(|(layer, _)| layer <= Layer::Service) {
            broken.extend(check_sources(&package.name, &package.folder)?);
        }
    }
    if broken.is_empty() {
        return Ok(format!("layers: {} packages keep to them", metadata.members().len()));
    }
    let text = broken.iter().fold(String::new(), |mut text, line| {
        let _ = write!(text, "\n  {line}");
        text
    });
    Err(format!("the layers of docs/architecture.md are broken:{text}").into())
}

fn place(name: &str) -> Option<(Layer, &'static [&'static str])> {
    LAYERS.into_iter().find(|(known, ..)| *known == name).map(|(_, layer, may_use)| (layer, may_use))
}

/// The rules on dependencies.
fn check(metadata: &Metadata) -> Vec<String> {
    let mut broken = Vec::new();
    for package in metadata.members() {
        let Some((layer, may_use)) = place(&package.name) else {
            broken.push(format!("{} stands in no layer: give it one in xtask/src/layers.rs", package.name));
            continue;
        };
        let dependencies = package.dependencies.iter().filter(|dependency| dependency.name != package.name);
        broken.extend(dependencies.filter_map(|it| check_dependency(package, layer, may_use, it)));
        broken.extend(package.on_by_default().filter_map(|it| check_default(package, it)));
        broken.extend(check_ways(metadata, package, layer));
    }
    broken
}

/// What one line of a manifest breaks. Tests may use what is above them, but for the tools.
fn check_dependency(package: &Package, layer: Layer, may_use: &[&str], it: &Dependency) -> Option<String> {
    let (who, whom) = (&package.name, &it.name);
    let ours = place(whom);
    if ours.is_some_and(|(other, _)| other == Layer::Tool) && layer != Layer::Tool {
        return Some(format!("{who} depends on {whom}: nothing but tools depends on the tools"));
    }
    if it.kind == Kind::Dev {
        return None;
    }
    if ours.is_some() && may_use != ANYTHING && !may_use.contains(&whom.as_str()) {
        return Some(format!("{who} depends on {whom}: of ours it may use {}", listed(may_use)));
    }
    if whom == LOG && layer == Layer::Library && !it.is_optional {
        return Some(format!("{who} depends on {whom} without a feature: what it keeps on disk is optional"));
    }
    if layer < Layer::Program && HEAVY.contains(&whom.as_str()) && !it.is_optional {
        return Some(format!("{who} depends on {whom} without a feature: it is too heavy for everybody"));
    }
    None
}

fn check_default(package: &Package, it: &Dependency) -> Option<String> {
    let pair = (package.name.as_str(), it.name.as_str());
    let is_allowed = ON_BY_DEFAULT.contains(&pair);
    (!is_allowed).then(|| format!("{} switches the optional {} on by default", pair.0, pair.1))
}

/// What a package is built from, however far away.
fn check_ways(metadata: &Metadata, package: &Package, layer: Layer) -> Vec<String> {
    let mut rules: Vec<(Vec<&str>, Vec<&str>, &str)> = Vec::new();
    if layer <= Layer::Library {
        rules.push((
            [HTTP_CLIENTS, HTTP_SERVERS].concat(),
            SERVICE_CLIENTS.to_vec(),
            "no HTTP below layer 2",
        ));
    } else if layer < Layer::Tool && package.name != SERVER {
        // A client may be built from the same parts as a server.
        let past = [HTTP_CLIENTS, SERVICE_CLIENTS, &[SERVER]].concat();
        rules.push((HTTP_SERVERS.to_vec(), past, "only greenwave-telemetry serves HTTP"));
    }
    if layer < Layer::Program {
        let reads = package.name == READS_MANIFESTS.0;
        let face = FACE.iter().copied().filter(|name| !(reads && MANIFESTS.contains(name))).collect();
        let past = if reads { vec![] } else { vec![READS_MANIFESTS.0] };
        rules.push((face, past, "only greenwave-cli reads command lines and files, and draws"));
    }
    let broken = |(wanted, past, rule): &(Vec<&str>, Vec<&str>, &str)| {
        let way = metadata.way_to(package, wanted, past)?;
        Some(format!("{}: {rule}", way.join(" -> ")))
    };
    rules.iter().filter_map(broken).collect()
}

/// The rules on code.
fn check_sources(package: &str, folder: &Path) -> Result<Vec<String>> {
    let mut broken = Vec::new();
    for path in files_below(&folder.join("src"))? {
        if path.extension().is_none_or(|extension| extension != "rs") || is_test_or_example(&path) {
            continue;
        }
        let file = folder.join("src").join(&path);
        let shown = file.strip_prefix(root()).unwrap_or(&file).display().to_string();
        broken.extend(check_code(package, &shown, &std::fs::read_to_string(&file)?));
    }
    Ok(broken)
}

fn check_code(package: &str, file: &str, text: &str) -> Vec<String> {
    let mut broken = fields_behind_features(file, text);
    for (number, line) in code(text) {
        for (does, patterns) in NEVER {
            let is_manifest = |pattern: &str| pattern == "toml::" && file.starts_with(READS_MANIFESTS.1);
            if let Some(pattern) = patterns.iter().find(|pattern| has(line, pattern) && !is_manifest(pattern))
            {
                broken.push(format!(
                    "{file}:{number}: `{pattern}`: {package} {does}, which layers 0 to 2 never do"
                ));
            }
        }
    }
    broken
}

/// Public fields that only exist with a feature. Whoever writes out all fields of such a struct can no
/// longer be compiled beside a package that turns the feature on: features only add.
fn fields_behind_features(file: &str, text: &str) -> Vec<String> {
    let mut is_behind = false;
    let mut broken = Vec::new();
    for (number, line) in code(text) {
        let line = line.trim();
        if line.is_empty() || (line.starts_with("#[") && !line.contains("feature")) {
            continue;
        }
        let field = line.strip_prefix("pub ").and_then(|rest| rest.split_once(": "));
        let name = field.map(|(name, _)| name).filter(|name| !name.contains([' ', '(', '<']));
        if let Some(name) = name.filter(|_| is_behind) {
            broken.push(format!("{file}:{number}: the public field `{name}` only exists with a feature"));
        }
        is_behind = line.starts_with("#[cfg(") && line.contains("feature");
    }
    broken
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests;
