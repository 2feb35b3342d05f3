//! Each rule of the layers, broken by a workspace made for it.

use serde_json::{Value, json};

use super::*;

/// A workspace of packages: name, default features, and lines of its manifest. What is not a member is from elsewhere.
struct Workspace {
    packages: Vec<(String, Vec<String>, Vec<Value>)>,
}

impl Workspace {
    fn new() -> Self {
        Self { packages: vec![] }
    }

    fn package(mut self, name: &str, dependencies: &[&str]) -> Self {
        let lines = dependencies.iter().map(|line| dependency(line)).collect();
        self.packages.push((name.to_owned(), vec![], lines));
        self
    }

    fn default(mut self, features: &[&str]) -> Self {
        let last = self.packages.last_mut().unwrap();
        last.1 = features.iter().map(|feature| (*feature).to_owned()).collect();
        self
    }

    /// Adds what is depended on and was not described: packages from elsewhere that depend on nothing.
    fn complete(&mut self) {
        let is_there = |name: &str| self.packages.iter().any(|(known, ..)| known == name);
        let lines = self.packages.iter().flat_map(|(_, _, lines)| lines);
        let mut missing: Vec<_> =
            lines.filter_map(|line| line["name"].as_str()).filter(|name| !is_there(name)).collect();
        missing.sort_unstable();
        missing.dedup();
        let missing: Vec<_> = missing.into_iter().map(|name| (name.to_owned(), vec![], vec![])).collect();
        self.packages.extend(missing.into_iter().filter(|(name, ..)| place(name).is_none()));
    }

    /// What `cargo metadata` would say of it.
    fn metadata(&self) -> Metadata {
        let id = |name: &str| format!("id of {name}");
        let packages = self.packages.iter().map(|(name, default, lines)| {
            json!({
                "id": id(name), "name": name, "manifest_path": format!("/ws/crates/{name}/Cargo.toml"),
                "dependencies": lines, "features": {"default": default},
            })
        });
        let packages: Vec<_> = packages.collect();
        let nodes = self.packages.iter().map(|(name, _, lines)| {
            let deps = lines.iter().map(|line| {
                json!({"pkg": id(line["name"].as_str().unwrap()), "dep_kinds": [{"kind": line["kind"]}]})
            });
            json!({"id": id(name), "deps": deps.collect::<Vec<_>>()})
        });
        let is_ours = |name: &&str| place(name).is_some() || name.starts_with("greenwave");
        let names = self.packages.iter().map(|(name, ..)| name.as_str());
        let members: Vec<_> = names.filter(is_ours).map(id).collect();
        let nodes: Vec<_> = nodes.collect();
        let value = json!({"packages": packages, "workspace_members": members, "resolve": {"nodes": nodes}});
        Metadata::parse(&value.to_string()).unwrap()
    }

    fn broken(mut self) -> Vec<String> {
        self.complete();
        check(&self.metadata())
    }
}

/// `name`, `name?` for an optional one, `dev:name`, `build:name`.
fn dependency(line: &str) -> Value {
    let (kind, name) = line.split_once(':').map_or((None, line), |(kind, name)| (Some(kind), name));
    json!({"name": name.trim_end_matches('?'), "kind": kind, "optional": name.ends_with('?'), "rename": null})
}

#[track_caller]
fn caught(workspace: Workspace, expected: &str) {
    let broken = workspace.broken();
    assert_eq!(broken, [expected], "{broken:#?}");
}

#[test]
fn a_workspace_that_keeps_to_them_passes() {
    let workspace = Workspace::new()
        .package("greenwave-segment", &["zstd", "dev:proptest"])
        .package("greenwave-cache", &["greenwave-segment?", "redis?", "dev:greenwave-cache"])
        .default(&["dep:greenwave-segment"])
        .package("greenwave-streaming", &["bytes", "dev:greenwave-agents"])
        .package("greenwave-retry", &["httpdate?"])
        .package("greenwave-pooling", &["greenwave-retry"])
        .package("greenwave-agents", &["greenwave-streaming", "greenwave-pooling", "reqwest?"])
        .package("greenwave-telemetry", &["axum"])
        .package("greenwave", &["greenwave-agents", "greenwave-telemetry", "greenwave-cache"])
        .package("greenwave-cli", &["greenwave", "clap", "toml"])
        .package("greenwave-benches", &["greenwave-cache", "criterion"])
        .package("xtask", &["serde_json"])
        .package("axum", &["hyper"])
        .package("reqwest", &["hyper"])
        .package("criterion", &["clap"]);
    assert_eq!(workspace.broken(), [""; 0]);
}

#[test]
fn layer_1_knows_nothing_of_itself() {
    let workspace = Workspace::new().package("greenwave-cache", &["greenwave-storage"]);
    caught(
        workspace,
        "greenwave-cache depends on greenwave-storage: of ours it may use greenwave-retry, greenwave-segment",
    );
    let workspace = Workspace::new().package("greenwave-cache", &["greenwave-segment"]);
    caught(
        workspace,
        "greenwave-cache depends on greenwave-segment without a feature: what it keeps on disk is optional",
    );
}

#[test]
fn lower_layers_know_nothing_of_higher_ones() {
    let check = |who: &str, whom: &str, may: &str| {
        let workspace = Workspace::new().package(who, &[whom]);
        caught(workspace, &format!("{who} depends on {whom}: of ours it may use {may}"));
        assert_eq!(Workspace::new().package(who, &[&format!("dev:{whom}")]).broken(), [""; 0]);
    };
    check("greenwave-segment", "greenwave-cache", "nothing");
    check("greenwave-testing", "greenwave-storage", "greenwave-cache, greenwave-scheduler");
    check("greenwave-agents", "greenwave-cache", "greenwave-streaming, greenwave-pooling");
    check("greenwave-telemetry", "greenwave-scheduler", "nothing");
    check("greenwave-cli", "greenwave-cache", "greenwave, greenwave-testing");
    check("xtask", "greenwave", "nothing");
}

#[test]
fn nothing_depends_on_the_tools() {
    let expected = "greenwave depends on xtask: nothing but tools depends on the tools";
    caught(Workspace::new().package("greenwave", &["xtask"]), expected);
    caught(Workspace::new().package("greenwave", &["dev:xtask"]), expected);
}

#[test]
fn a_package_without_a_layer_is_caught() {
    let workspace = Workspace::new().package("greenwave-new", &[]);
    caught(workspace, "greenwave-new stands in no layer: give it one in xtask/src/layers.rs");
}

#[test]
fn http_is_caught_however_far_away() {
    let workspace = Workspace::new().package("greenwave-pooling", &["sdk"]).package("sdk", &["ureq"]);
    caught(workspace, "greenwave-pooling -> sdk -> ureq: no HTTP below layer 2");
    let workspace = Workspace::new().package("greenwave-agents", &["server"]).package("server", &["hyper"]);
    caught(workspace, "greenwave-agents -> server -> hyper: only greenwave-telemetry serves HTTP");
    let workspace =
        Workspace::new().package("greenwave-agents", &["dev:server"]).package("server", &["hyper"]);
    assert_eq!(workspace.broken(), [""; 0]);
}

#[test]
fn faces_are_caught_however_far_away() {
    let workspace = Workspace::new().package("greenwave-testing", &["runner"]).package("runner", &["clap"]);
    let rule = "only greenwave-cli reads command lines and files, and draws";
    caught(workspace, &format!("greenwave-testing -> runner -> clap: {rule}"));
    let workspace = Workspace::new().package("greenwave", &["toml?"]).package("toml", &[]);
    caught(workspace, &format!("greenwave -> toml: {rule}"));
}

#[test]
fn heavy_dependencies_are_optional_and_off() {
    let workspace = Workspace::new().package("greenwave-cache", &["redis"]);
    caught(workspace, "greenwave-cache depends on redis without a feature: it is too heavy for everybody");
    let workspace = Workspace::new().package("greenwave-cache", &["redis?"]).default(&["dep:redis"]);
    caught(workspace, "greenwave-cache switches the optional redis on by default");
    let workspace = Workspace::new().package("greenwave-cache", &["redis?"]).default(&["redis/tls"]);
    caught(workspace, "greenwave-cache switches the optional redis on by default");
    let workspace = Workspace::new()
        .package("greenwave-scheduler", &["greenwave-segment?"])
        .default(&["dep:greenwave-segment"]);
    caught(workspace, "greenwave-scheduler switches the optional greenwave-segment on by default");
    assert_eq!(
        Workspace::new().package("greenwave-cache", &["redis?"]).default(&["redis?/tls"]).broken(),
        [""; 0]
    );
}

#[test]
fn code_that_does_what_it_never_does_is_caught() {
    let check = |line: &str, does: Option<&str>| {
        let found = check_code("a", "lib.rs", &format!("//! Docs.\n{line}\n"));
        let found: Vec<_> =
            found.iter().map(|text| text.split_once("a ").map_or(text.as_str(), |(_, does)| does)).collect();
        let expected: Vec<_> =
            does.map(|does| format!("{does}, which layers 0 to 2 never do")).into_iter().collect();
        assert_eq!(found, expected, "{line}");
    };
    check("    println!(\"green\");", Some("prints"));
    check("    let mut out = std::io::stdout();", Some("prints"));
    check("    let home = std::env::var(\"HOME\")?;", Some("reads the environment"));
    check("    let value: toml::Value = todo;", Some("reads a configuration file"));
    check("    std::panic::set_hook(hook);", Some("installs a global"));
    check("    // println!(\"green\");", None);
    check("//! println!(\"green\");", None);
    check("    let paths = std::env::split_paths(path);", None);
    check("#[cfg(test)]\nmod tests {\n    println!();\n}", None);
}

#[test]
fn a_public_field_behind_a_feature_is_caught() {
    let check = |text: &str, expected: &[&str]| {
        let found = check_code("a", "lib.rs", &format!("//! Docs.\n{text}\n"));
        assert_eq!(found, expected, "{text}");
    };
    let caught = "lib.rs:5: the public field `tokens` only exists with a feature";
    check("pub struct A {\n    #[cfg(feature = \"x\")]\n    /// Docs.\n    pub tokens: u32,\n}", &[caught]);
    let caught = "lib.rs:5: the public field `tokens` only exists with a feature";
    check(
        "pub struct A {\n    #[cfg(not(feature = \"x\"))]\n    #[serde(skip)]\n    pub tokens: u32,\n}",
        &[caught],
    );
    check("pub struct A {\n    #[cfg(feature = \"x\")]\n    tokens: u32,\n    pub other: u32,\n}", &[]);
    check(
        "#[cfg(feature = \"x\")]\npub use tokens::Tokens;\n#[cfg(feature = \"x\")]\npub fn f(a: u32) {}",
        &[],
    );
}
