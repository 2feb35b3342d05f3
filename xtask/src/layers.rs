//! Checks the layers that `docs/architecture.md` describes. Each rule forbids something: a
//! dependency, or an action in product code.

mod circles;
mod default_build;
mod imports;
mod public_futures;

use cargo_metadata::{Dependency, DependencyKind, Package};

use crate::Result;
use crate::process::root;
use crate::source::{code, contains_word, files_below, has_extension, is_test_or_example};
use crate::workspace::{Workspace, directory, enabled_by_default};

/// Every package, its layer, and the workspace's packages that it may depend on.
const LAYERS: [(&str, Layer, &[&str]); 21] = [
    (DIR, Layer::Foundation, &[]),
    (SEGMENT, Layer::Foundation, &[DIR]),
    ("greenwave-process", Layer::Foundation, &[]),
    ("greenwave-retry", Layer::Foundation, &[]),
    ("greenwave-sandbox", Layer::System, &[DIR, "greenwave-process"]),
    ("greenwave-inputs", Layer::System, &[DIR]),
    ("greenwave-cache", Layer::Library, &["greenwave-retry", SEGMENT, DIR]),
    ("greenwave-scheduler", Layer::Library, &[SEGMENT, "greenwave-retry", "greenwave-process"]),
    ("greenwave-storage", Layer::Library, &[SEGMENT]),
    ("greenwave-streaming", Layer::Library, &[SEGMENT, "greenwave-retry"]),
    ("greenwave-pooling", Layer::Library, &[SEGMENT, "greenwave-retry", "greenwave-process"]),
    (
        "greenwave-agents",
        Layer::Service,
        &["greenwave-streaming", "greenwave-pooling", "greenwave-process", "greenwave-sandbox", DIR],
    ),
    (
        "greenwave-testing",
        Layer::Service,
        &[
            DIR,
            "greenwave-cache",
            "greenwave-scheduler",
            "greenwave-inputs",
            "greenwave-sandbox",
            "greenwave-process",
        ],
    ),
    ("greenwave-telemetry", Layer::Service, &[]),
    (REMOTE, Layer::Service, &["greenwave-cache", "greenwave-process", "greenwave-retry", DIR]),
    (
        "greenwave",
        Layer::Engine,
        &[
            DIR,
            SEGMENT,
            "greenwave-process",
            "greenwave-sandbox",
            "greenwave-inputs",
            "greenwave-cache",
            "greenwave-scheduler",
            "greenwave-storage",
            "greenwave-streaming",
            "greenwave-pooling",
            "greenwave-agents",
            "greenwave-testing",
            "greenwave-telemetry",
            REMOTE,
        ],
    ),
    ("greenwave-cli", Layer::Program, &["greenwave", "greenwave-testing", DIR]),
    (TESTKIT, Layer::Tool, &[]),
    ("greenwave-benches", Layer::Tool, ANYTHING),
    ("greenwave-versus", Layer::Tool, ANYTHING),
    ("xtask", Layer::Tool, &[]),
];

/// The log that every durable structure is stored in.
const SEGMENT: &str = "greenwave-segment";

/// Directory handles: everything that writes files in directories of others.
const DIR: &str = "greenwave-dir";

/// Servers, disks and other code that the tests of several crates share. A dev-dependency only.
const TESTKIT: &str = "greenwave-testkit";

/// The client of the Remote Execution API, which is nothing without its heavy dependency. So it is
/// heavy itself, and no default member.
const REMOTE: &str = "greenwave-remote";

/// No restriction.
const ANYTHING: &[&str] = &["*"];

/// Packages that the workspace is committed to: each stays a direct dependency of some member.
const CHOSEN: [&str; 10] =
    ["tokio", "async-trait", "lru", "blake3", "zstd", "daggy", "bytes", "thiserror", "criterion", "insta"];

/// Optional dependencies that default features may enable.
const ON_BY_DEFAULT: [(&str, &str); 2] = [("greenwave-cache", SEGMENT), ("greenwave-storage", SEGMENT)];

const HTTP_CLIENTS: &[&str] = &["reqwest", "ureq", "isahc", "attohttpc", "curl", "surf", "minreq", "awc"];
const HTTP_SERVERS: &[&str] =
    &["axum", "hyper", "warp", "actix-web", "tiny_http", "rouille", "poem", "salvo", "rocket", "tide"];
/// Reads the errors of hyper, which its client of HTTP wraps. It enables no server.
const HTTP_ERROR_READER: (&str, &str) = ("greenwave-agents", "hyper");
/// Serves the Model Context Protocol over HTTP, with the feature `mcp`.
const PROTOCOL_SERVER: (&str, &str) = ("greenwave-cli", "hyper");
/// The only crate that serves HTTP otherwise.
const SERVER: &str = "greenwave-telemetry";

/// Clients of whole services, behind a feature each. The protocol that they use internally does not
/// count.
const SERVICE_CLIENTS: &[&str] = &["object_store", "tonic"];

/// Crates that choose the implementation of TLS of their client of a service, which is a feature of
/// the client of HTTP beneath it. Only a direct dependency can enable it.
const TLS_CHOOSERS: (&[&str], &str) = (&["greenwave-cache", "greenwave-storage"], "reqwest");

/// Command lines, configuration files and terminal drawing: for the program only.
const USER_INTERFACE: &[&str] = &["clap", "toml", "toml_edit", "indicatif", "console"];

/// The only crate below the program that parses manifests of other tools. Its own settings reach it
/// as values.
const MANIFEST_READER: &str = "greenwave-testing";
/// The directory where it does so.
const MANIFEST_READER_DIRECTORY: &str = "crates/greenwave-testing/src/harness/";
/// Parsers of manifests.
const MANIFEST_PARSERS: &[&str] = &["toml"];

/// Clients of services and other libraries that are large or change often. They must be optional.
const HEAVY: &[&str] = &[
    "redis",
    "memcache",
    "async-memcached",
    "object_store",
    "opendal",
    "reqwest",
    "tonic",
    REMOTE,
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

/// Actions that the code of layers 0 to 3 must not take, each with the calls that take them.
const FORBIDDEN: [(&str, &[&str]); 4] = [
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

/// The layer of a package, from the bottom up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Layer {
    /// 0: the segment log, child processes, retry policies.
    Foundation,
    /// 1: what programs observe and which files they depend on.
    System,
    /// 2: libraries that are useful alone.
    Library,
    /// 3: agents, tests, telemetry.
    Service,
    /// 4: the engine that combines them.
    Engine,
    /// 5: the program.
    Program,
    /// Outside the layers: tests, benchmarks and tasks.
    Tool,
}

/// Checks the workspace.
///
/// # Errors
/// Lists every violation with its place.
pub(crate) fn layers() -> Result<String> {
    let workspace = Workspace::load()?;
    let mut violations = check_packages(&workspace);
    violations.extend(check_chosen(&workspace));
    violations.extend(check_default_members(&workspace));
    let (built, slow) = default_build::check()?;
    violations.extend(slow);
    for package in workspace.members() {
        violations.extend(check_circles(package)?);
        violations.extend(check_each(package, public_futures::violations)?);
        if entry(&package.name).is_some_and(|(layer, _)| layer <= Layer::Service) {
            violations.extend(check_each(package, check_code)?);
        }
    }
    if violations.is_empty() {
        return Ok(format!(
            "layers: {} packages checked; the default build compiles {built}",
            workspace.members().len()
        ));
    }
    Err(format!("the layers of docs/architecture.md are violated:\n  {}", violations.join("\n  ")).into())
}

fn entry(name: &str) -> Option<(Layer, &'static [&'static str])> {
    LAYERS.into_iter().find(|(package, ..)| *package == name).map(|(_, layer, allowed)| (layer, allowed))
}

/// Applies the rules about dependencies.
fn check_packages(workspace: &Workspace) -> Vec<String> {
    let mut violations = Vec::new();
    for package in workspace.members() {
        let Some((layer, allowed)) = entry(&package.name) else {
            violations
                .push(format!("{} has no layer: add it to LAYERS in xtask/src/layers.rs", package.name));
            continue;
        };
        let dependencies = package.dependencies.iter().filter(|dependency| dependency.name != *package.name);
        violations.extend(dependencies.filter_map(|it| check_dependency(package, layer, allowed, it)));
        violations.extend(enabled_by_default(package).filter_map(|it| check_default(package, it)));
        violations.extend(check_paths(workspace, package, layer));
    }
    violations
}

/// Applies the rules about one dependency of a manifest. Dev-dependencies may point upward, but not
/// to the tools.
fn check_dependency(package: &Package, layer: Layer, allowed: &[&str], it: &Dependency) -> Option<String> {
    let (from, to) = (&package.name, &it.name);
    let is_dev = it.kind == DependencyKind::Development;
    let target = entry(to);
    if to == TESTKIT {
        return (!is_dev).then(|| format!("{from} depends on {to}: it may be a dev-dependency only"));
    }
    if target.is_some_and(|(other, _)| other == Layer::Tool) && layer != Layer::Tool {
        return Some(format!("{from} depends on {to}: only tools may depend on tools"));
    }
    if is_dev {
        return None;
    }
    if target.is_some() && allowed != ANYTHING && !allowed.contains(&to.as_str()) {
        return Some(format!("{from} depends on {to}: of the workspace it may use {}", listed(allowed)));
    }
    if to == SEGMENT && layer == Layer::Library && !it.optional {
        return Some(format!("{from} depends on {to} without a feature: persistence is optional"));
    }
    let is_heavy = HEAVY.contains(&to.as_str()) && from.as_str() != REMOTE;
    if layer < Layer::Program && is_heavy && !it.optional {
        return Some(format!("{from} depends on {to} without a feature: heavy dependencies are optional"));
    }
    None
}

fn check_default(package: &Package, it: &Dependency) -> Option<String> {
    let pair = (package.name.as_str(), it.name.as_str());
    let is_allowed = ON_BY_DEFAULT.contains(&pair);
    (!is_allowed).then(|| format!("the default features of {} enable the optional {}", pair.0, pair.1))
}

/// Applies the rules about transitive dependencies.
fn check_paths(workspace: &Workspace, package: &Package, layer: Layer) -> Vec<String> {
    let mut rules: Vec<(Vec<&str>, Vec<&str>, &str)> = Vec::new();
    if layer <= Layer::Library {
        let (choosers, client) = TLS_CHOOSERS;
        let mut forbidden = [HTTP_CLIENTS, HTTP_SERVERS].concat();
        let mut boundaries = SERVICE_CLIENTS.to_vec();
        if choosers.contains(&package.name.as_str()) {
            forbidden.retain(|name| *name != client);
            boundaries.push(client);
        } else {
            boundaries.extend(choosers);
        }
        rules.push((forbidden, boundaries, "no HTTP below layer 3"));
    } else if layer < Layer::Tool && package.name != SERVER {
        // HTTP clients are built from the same parts as servers.
        let boundaries = [HTTP_CLIENTS, SERVICE_CLIENTS, &[SERVER, HTTP_ERROR_READER.0]].concat();
        let is_server =
            |name: &&str| ![HTTP_ERROR_READER, PROTOCOL_SERVER].contains(&(package.name.as_str(), *name));
        let servers = HTTP_SERVERS.iter().copied().filter(is_server).collect();
        // A boundary is not searched, also where the search begins.
        let boundaries = boundaries.into_iter().filter(|name| *name != package.name.as_str()).collect();
        rules.push((servers, boundaries, "only greenwave-telemetry serves HTTP"));
    }
    if layer < Layer::Program {
        let reads_manifests = package.name == MANIFEST_READER;
        let is_forbidden = |name: &&str| !(reads_manifests && MANIFEST_PARSERS.contains(name));
        let forbidden = USER_INTERFACE.iter().copied().filter(is_forbidden).collect();
        let boundaries = if reads_manifests { vec![] } else { vec![MANIFEST_READER] };
        rules.push((forbidden, boundaries, "only greenwave-cli has a command line, settings and a terminal"));
    }
    let violation = |(wanted, boundaries, rule): &(Vec<&str>, Vec<&str>, &str)| {
        let path = workspace.path_to(package, wanted, boundaries)?;
        Some(format!("{}: {rule}", path.join(" -> ")))
    };
    rules.iter().filter_map(violation).collect()
}

/// Checks that every chosen package is a direct dependency of some member.
fn check_chosen(workspace: &Workspace) -> Vec<String> {
    let members = workspace.members();
    let is_used =
        |name: &str| members.iter().any(|member| member.dependencies.iter().any(|it| it.name == name));
    let unused = CHOSEN.into_iter().filter(|name| !is_used(name));
    unused.map(|name| format!("no member of the workspace depends on {name} directly")).collect()
}

/// Checks that plain `cargo build` and `cargo test` include every crate but the client of the
/// Remote Execution API.
fn check_default_members(workspace: &Workspace) -> Vec<String> {
    let defaults = workspace.default_members();
    let is_wrong = |member: &&Package| {
        let is_crate = directory(member).parent().is_some_and(|parent| parent.ends_with("crates"));
        (is_crate && member.name.as_str() != REMOTE) != defaults.contains(&member.name.as_str())
    };
    let wrong = workspace.members().into_iter().filter(is_wrong);
    wrong
        .map(|member| format!("{}: the default members are all crates except {REMOTE}", member.name))
        .collect()
}

/// Applies a rule about product code to the files of a crate. The rule gets the name of the
/// package, the path of the file and its text.
fn check_each(package: &Package, rule: fn(&str, &str, &str) -> Vec<String>) -> Result<Vec<String>> {
    let sources = directory(package).join("src");
    let mut violations = Vec::new();
    for path in files_below(&sources)? {
        if !has_extension(&path, "rs") || is_test_or_example(&path) {
            continue;
        }
        let file = sources.join(&path);
        let shown = file.strip_prefix(root()).unwrap_or(&file).display().to_string();
        violations.extend(rule(&package.name, &shown, &std::fs::read_to_string(&file)?));
    }
    Ok(violations)
}

/// Reports the circles of files in a package.
fn check_circles(package: &Package) -> Result<Vec<String>> {
    let found = circles::circles(directory(package))?;
    Ok(found.iter().map(|circle| format!("{}: circle of files: {circle}", package.name)).collect())
}

fn check_code(package: &str, file: &str, text: &str) -> Vec<String> {
    let mut violations = feature_gated_fields(file, text);
    for (number, line) in code(text) {
        for (action, patterns) in FORBIDDEN {
            let reads_manifest =
                |pattern: &str| pattern == "toml::" && file.starts_with(MANIFEST_READER_DIRECTORY);
            let is_violated = |pattern: &&&str| contains_word(line, pattern) && !reads_manifest(pattern);
            if let Some(pattern) = patterns.iter().find(is_violated) {
                violations.push(format!(
                    "{file}:{number}: `{pattern}`: {package} {action}, which layers 0 to 3 must not do"
                ));
            }
        }
    }
    violations
}

/// Finds public fields that exist only with a feature. Code that names all fields of such a struct
/// stops compiling when another package enables the feature, while features must only add.
fn feature_gated_fields(file: &str, text: &str) -> Vec<String> {
    let mut is_gated = false;
    let mut violations = Vec::new();
    for (number, line) in code(text) {
        let line = line.trim();
        if line.is_empty() || (line.starts_with("#[") && !line.contains("feature")) {
            continue;
        }
        let field = line.strip_prefix("pub ").and_then(|rest| rest.split_once(": "));
        let name = field.map(|(name, _)| name).filter(|name| !name.contains([' ', '(', '<']));
        if let Some(name) = name.filter(|_| is_gated) {
            violations.push(format!("{file}:{number}: the public field `{name}` exists only with a feature"));
        }
        is_gated = line.starts_with("#[cfg(") && line.contains("feature");
    }
    violations
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests;
