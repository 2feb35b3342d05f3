//! Breaks each rule of the layers with a workspace made for it.

use cargo_metadata::MetadataCommand;
use serde_json::{Value, json};

use super::*;

/// A workspace under construction. Dependencies that were not described become packages from the
/// registry.
struct TestWorkspace {
    packages: Vec<TestPackage>,
}

struct TestPackage {
    name: String,
    default_features: Vec<String>,
    /// The dependencies as `cargo metadata` prints them.
    dependencies: Vec<Value>,
}

impl TestWorkspace {
    fn new() -> Self {
        Self { packages: vec![] }
    }

    fn package(mut self, name: &str, dependencies: &[&str]) -> Self {
        let dependencies = dependencies.iter().map(|line| dependency(line)).collect();
        self.packages.push(TestPackage { name: name.to_owned(), default_features: vec![], dependencies });
        self
    }

    fn default(mut self, features: &[&str]) -> Self {
        let last = self.packages.last_mut().unwrap();
        last.default_features = features.iter().map(|feature| (*feature).to_owned()).collect();
        self
    }

    /// Adds the packages that are depended on but not described.
    fn complete(&mut self) {
        let is_described = |name: &str| self.packages.iter().any(|package| package.name == name);
        let dependencies = self.packages.iter().flat_map(|package| &package.dependencies);
        let names = dependencies.filter_map(|dependency| dependency["name"].as_str());
        let mut missing: Vec<_> = names.filter(|name| !is_described(name) && entry(name).is_none()).collect();
        missing.sort_unstable();
        missing.dedup();
        let missing = missing.into_iter().map(|name| TestPackage {
            name: name.to_owned(),
            default_features: vec![],
            dependencies: vec![],
        });
        let missing: Vec<_> = missing.collect();
        self.packages.extend(missing);
    }

    /// Parses the output that `cargo metadata` would print.
    fn workspace(mut self) -> Workspace {
        self.complete();
        let is_member =
            |package: &&TestPackage| entry(&package.name).is_some() || package.name.starts_with("greenwave");
        let members: Vec<_> =
            self.packages.iter().filter(is_member).map(|package| id(&package.name)).collect();
        let packages: Vec<_> = self.packages.iter().map(TestPackage::json).collect();
        let nodes: Vec<_> = self.packages.iter().map(TestPackage::node).collect();
        let metadata = json!({
            "packages": packages, "workspace_members": members, "workspace_default_members": members,
            "resolve": {"nodes": nodes, "root": null}, "workspace_root": "/ws", "target_directory": "/ws/target",
            "version": 1, "metadata": null,
        });
        Workspace::new(MetadataCommand::parse(metadata.to_string()).unwrap())
    }

    fn violations(self) -> Vec<String> {
        check_packages(&self.workspace())
    }
}

impl TestPackage {
    fn json(&self) -> Value {
        json!({
            "id": id(&self.name), "name": self.name, "version": "1.0.0", "source": null,
            "manifest_path": format!("/ws/crates/{}/Cargo.toml", self.name), "targets": [],
            "dependencies": self.dependencies, "features": {"default": self.default_features},
        })
    }

    fn node(&self) -> Value {
        let dependencies = self.dependencies.iter().map(|line| {
            let name = line["name"].as_str().unwrap();
            json!({"name": name, "pkg": id(name), "dep_kinds": [{"kind": line["kind"], "target": null}]})
        });
        json!({"id": id(&self.name), "deps": dependencies.collect::<Vec<_>>(), "dependencies": [], "features": []})
    }
}

fn id(name: &str) -> String {
    format!("id of {name}")
}

/// Parses `name`, `name?` (optional), `dev:name` and `build:name`.
fn dependency(line: &str) -> Value {
    let (kind, name) = line.split_once(':').map_or((None, line), |(kind, name)| (Some(kind), name));
    json!({
        "name": name.trim_end_matches('?'), "kind": kind, "optional": name.ends_with('?'), "rename": null,
        "source": null, "req": "*", "uses_default_features": true, "features": [], "target": null, "registry": null,
    })
}

#[track_caller]
fn check(workspace: TestWorkspace, expected: &str) {
    let violations = workspace.violations();
    assert_eq!(violations, [expected], "{violations:#?}");
}

#[test]
fn a_workspace_without_violations_passes() {
    let workspace = TestWorkspace::new()
        .package("greenwave-segment", &["zstd", "dev:proptest", "dev:greenwave-testkit"])
        .package("greenwave-cache", &["greenwave-segment?", "redis?", "dev:greenwave-cache"])
        .default(&["dep:greenwave-segment"])
        .package("greenwave-streaming", &["bytes", "dev:greenwave-agents"])
        .package("greenwave-retry", &["httpdate?"])
        .package("greenwave-process", &["libc"])
        .package("greenwave-sandbox", &["greenwave-process"])
        .package("greenwave-inputs", &["globset"])
        .package("greenwave-pooling", &["greenwave-retry", "greenwave-process"])
        .package("greenwave-agents", &["greenwave-streaming", "greenwave-pooling", "reqwest?"])
        .package("greenwave-testing", &["greenwave-sandbox", "greenwave-inputs", "greenwave-process"])
        .package("greenwave-telemetry", &["axum"])
        .package("greenwave", &["greenwave-agents", "greenwave-telemetry", "greenwave-cache"])
        .package("greenwave-cli", &["greenwave", "clap", "toml"])
        .package("greenwave-testkit", &["tempfile"])
        .package("greenwave-benches", &["greenwave-cache", "criterion"])
        .package("xtask", &["serde_json"])
        .package("axum", &["hyper"])
        .package("reqwest", &["hyper"])
        .package("criterion", &["clap"]);
    assert_eq!(workspace.violations(), [""; 0]);
}

#[test]
fn the_client_of_remote_execution_is_optional() {
    let workspace = || {
        let protocol = TestWorkspace::new().package("tonic", &["hyper"]);
        protocol.package("greenwave-remote", &["tonic", "greenwave-cache"])
    };
    assert_eq!(workspace().package("greenwave", &["greenwave-remote?"]).violations(), [""; 0]);
    check(
        workspace().package("greenwave", &["greenwave-remote"]),
        "greenwave depends on greenwave-remote without a feature: heavy dependencies are optional",
    );
    check(
        TestWorkspace::new().package("greenwave-agents", &["tonic"]),
        "greenwave-agents depends on tonic without a feature: heavy dependencies are optional",
    );
}

#[test]
fn plain_cargo_builds_all_crates_but_the_client_of_remote_execution() {
    let without = TestWorkspace::new().package("greenwave-cache", &[]);
    assert_eq!(check_default_members(&without.workspace()), [""; 0]);
    // The packages of these workspaces are all default members.
    let with = TestWorkspace::new().package("greenwave-cache", &[]).package("greenwave-remote", &["tonic"]);
    let expected = "greenwave-remote: the default members are all crates except greenwave-remote";
    assert_eq!(check_default_members(&with.workspace()), [expected]);
}

#[test]
fn the_libraries_of_layer_2_do_not_depend_on_each_other() {
    let workspace = TestWorkspace::new().package("greenwave-cache", &["greenwave-storage"]);
    check(
        workspace,
        "greenwave-cache depends on greenwave-storage: of the workspace it may use greenwave-retry, greenwave-segment, greenwave-dir",
    );
    let workspace = TestWorkspace::new().package("greenwave-cache", &["greenwave-segment"]);
    check(
        workspace,
        "greenwave-cache depends on greenwave-segment without a feature: persistence is optional",
    );
}

#[test]
fn lower_layers_do_not_depend_on_higher_ones() {
    let check_pair = |from: &str, to: &str, allowed: &str| {
        let workspace = TestWorkspace::new().package(from, &[to]);
        check(workspace, &format!("{from} depends on {to}: of the workspace it may use {allowed}"));
        assert_eq!(TestWorkspace::new().package(from, &[&format!("dev:{to}")]).violations(), [""; 0]);
    };
    check_pair("greenwave-segment", "greenwave-cache", "greenwave-dir");
    check_pair("greenwave-dir", "greenwave-segment", "nothing");
    check_pair("greenwave-process", "greenwave-sandbox", "nothing");
    check_pair("greenwave-sandbox", "greenwave-inputs", "greenwave-dir, greenwave-process");
    check_pair("greenwave-inputs", "greenwave-testing", "greenwave-dir");
    check_pair(
        "greenwave-agents",
        "greenwave-cache",
        "greenwave-streaming, greenwave-pooling, greenwave-process, greenwave-sandbox, greenwave-dir",
    );
    check_pair("greenwave-telemetry", "greenwave-scheduler", "nothing");
    check_pair("greenwave-cli", "greenwave-cache", "greenwave, greenwave-testing, greenwave-dir");
    check_pair("xtask", "greenwave", "nothing");
    check_pair("greenwave-testkit", "greenwave-cache", "nothing");
}

#[test]
fn only_tools_depend_on_tools() {
    let expected = "greenwave depends on xtask: only tools may depend on tools";
    check(TestWorkspace::new().package("greenwave", &["xtask"]), expected);
    check(TestWorkspace::new().package("greenwave", &["dev:xtask"]), expected);
}

#[test]
fn the_testkit_is_a_dev_dependency_only() {
    let workspace = TestWorkspace::new().package("greenwave", &["greenwave-testkit"]);
    check(workspace, "greenwave depends on greenwave-testkit: it may be a dev-dependency only");
    let workspace = TestWorkspace::new().package("greenwave", &["build:greenwave-testkit"]);
    check(workspace, "greenwave depends on greenwave-testkit: it may be a dev-dependency only");
    assert_eq!(TestWorkspace::new().package("greenwave", &["dev:greenwave-testkit"]).violations(), [""; 0]);
}

#[test]
fn a_package_without_a_layer_is_reported() {
    let workspace = TestWorkspace::new().package("greenwave-new", &[]);
    check(workspace, "greenwave-new has no layer: add it to LAYERS in xtask/src/layers.rs");
}

#[test]
fn a_chosen_package_without_a_user_is_reported() {
    let workspace = |names: &[&str]| TestWorkspace::new().package("greenwave", names).workspace();
    assert_eq!(check_chosen(&workspace(&CHOSEN)), [""; 0]);
    let through_another = TestWorkspace::new()
        .package("greenwave", &CHOSEN[1..])
        .package("greenwave-cli", &["mio"])
        .package("mio", &["tokio"]);
    assert_eq!(
        check_chosen(&through_another.workspace()),
        ["no member of the workspace depends on tokio directly"]
    );
    assert_eq!(check_chosen(&workspace(&["dev:tokio"])).len(), CHOSEN.len() - 1);
}

#[test]
fn http_is_found_through_other_packages() {
    let workspace = TestWorkspace::new().package("greenwave-pooling", &["sdk"]).package("sdk", &["ureq"]);
    check(workspace, "greenwave-pooling -> sdk -> ureq: no HTTP below layer 3");
    let workspace =
        TestWorkspace::new().package("greenwave-cache", &["reqwest?", "sdk"]).package("sdk", &["ureq"]);
    check(workspace, "greenwave-cache -> sdk -> ureq: no HTTP below layer 3");
    let workspace = TestWorkspace::new().package("greenwave-scheduler", &["reqwest?"]);
    check(workspace, "greenwave-scheduler -> reqwest: no HTTP below layer 3");
    let workspace =
        TestWorkspace::new().package("greenwave-agents", &["server"]).package("server", &["axum"]);
    check(workspace, "greenwave-agents -> server -> axum: only greenwave-telemetry serves HTTP");
    let workspace = TestWorkspace::new().package("greenwave", &["server"]).package("server", &["hyper"]);
    check(workspace, "greenwave -> server -> hyper: only greenwave-telemetry serves HTTP");
    let workspace = TestWorkspace::new()
        .package("greenwave", &["dev:server"])
        .package("server", &["hyper"])
        .package("greenwave-agents", &["hyper"]);
    assert_eq!(workspace.violations(), [""; 0]);
}

#[test]
fn user_interfaces_are_found_through_other_packages() {
    let workspace =
        TestWorkspace::new().package("greenwave-testing", &["runner"]).package("runner", &["clap"]);
    let rule = "only greenwave-cli has a command line, settings and a terminal";
    check(workspace, &format!("greenwave-testing -> runner -> clap: {rule}"));
    let workspace = TestWorkspace::new().package("greenwave", &["toml?"]).package("toml", &[]);
    check(workspace, &format!("greenwave -> toml: {rule}"));
}

#[test]
fn heavy_dependencies_are_optional_and_off_by_default() {
    let workspace = TestWorkspace::new().package("greenwave-cache", &["redis"]);
    check(workspace, "greenwave-cache depends on redis without a feature: heavy dependencies are optional");
    let enabled = "the default features of greenwave-cache enable the optional redis";
    let cache = || TestWorkspace::new().package("greenwave-cache", &["redis?"]);
    check(cache().default(&["dep:redis"]), enabled);
    check(cache().default(&["redis/tls"]), enabled);
    assert_eq!(cache().default(&["redis?/tls"]).violations(), [""; 0]);
    let workspace = TestWorkspace::new()
        .package("greenwave-scheduler", &["greenwave-segment?"])
        .default(&["dep:greenwave-segment"]);
    check(workspace, "the default features of greenwave-scheduler enable the optional greenwave-segment");
}

#[test]
fn forbidden_actions_in_code_are_reported() {
    let check = |line: &str, action: Option<&str>| {
        let found = check_code("a", "lib.rs", &format!("//! Docs.\n{line}\n"));
        let found: Vec<_> =
            found.iter().map(|text| text.split_once("a ").map_or(text.as_str(), |(_, rest)| rest)).collect();
        let expected = action.map(|action| format!("{action}, which layers 0 to 3 must not do"));
        assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "{line}");
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
fn a_public_field_behind_a_feature_is_reported() {
    let check = |text: &str, expected: &[&str]| {
        let found = check_code("a", "lib.rs", &format!("//! Docs.\n{text}\n"));
        assert_eq!(found, expected, "{text}");
    };
    let reported = "lib.rs:5: the public field `tokens` exists only with a feature";
    check("pub struct A {\n    #[cfg(feature = \"x\")]\n    /// Docs.\n    pub tokens: u32,\n}", &[reported]);
    check(
        "pub struct A {\n    #[cfg(not(feature = \"x\"))]\n    #[serde(skip)]\n    pub tokens: u32,\n}",
        &[reported],
    );
    check("pub struct A {\n    #[cfg(feature = \"x\")]\n    tokens: u32,\n    pub other: u32,\n}", &[]);
    check(
        "#[cfg(feature = \"x\")]\npub use tokens::Tokens;\n#[cfg(feature = \"x\")]\npub fn f(a: u32) {}",
        &[],
    );
}
