//! Dependencies are compiled once for all working copies.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use crate::shell_plan::{self, Report, ShellFeature};
use crate::test_dir::TestDir;

/// Time limit of runs that compile.
const COMPILING_BOUND: Duration = Duration::from_secs(600);

/// Creates a package with a dependency, tests that need features, and a wrapper of rustc that
/// records each call.
fn project() -> TestDir {
    let dir = TestDir::empty()
        .with(
            "project/Cargo.toml",
            "[package]\nname = \"tiny\"\nedition = \"2021\"\n[dependencies]\ndep = { path = \"dep\" }\n",
        )
        .with(
            "project/Cargo.lock",
            "version = 3\n[[package]]\nname = \"dep\"\nversion = \"0.0.0\"\n\
             [[package]]\nname = \"tiny\"\nversion = \"0.0.0\"\ndependencies = [\"dep\"]\n",
        )
        .with("project/.gitignore", "target\n")
        .with("project/src/lib.rs", "")
        .with("project/dep/Cargo.toml", "[package]\nname = \"dep\"\nedition = \"2021\"\n")
        .with("project/dep/src/lib.rs", "pub fn one() -> u32 { 1 }\n");
    for id in ["left", "right"] {
        let test = format!("#[test]\nfn {id}() {{ assert_eq!(tiny::{id}::{id}(), 1); }}\n");
        dir.write(&format!("project/tests/{id}.rs"), test);
    }
    let (wrapper, calls) = (dir.path("wrapper"), dir.path("calls"));
    dir.write("wrapper", format!("#!/bin/sh\necho \"$@\" >> '{}'\nexec \"$@\"\n", calls.display()));
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    dir.write("project/.cargo/config.toml", format!("[build]\nrustc-wrapper = {wrapper:?}\n"));
    let feature = |id: &str| {
        let script = format!(
            "echo 'pub fn {id}() -> u32 {{ dep::one() }}' > src/{id}.rs; echo 'pub mod {id};' >> src/lib.rs"
        );
        ShellFeature::new(id, &script, &format!("cargo test --offline --test {id}")).attempts(2)
    };
    // Its copy begins with sources that differ from those of the base.
    dir.write(
        "project/tests/third.rs",
        "#[test]\nfn third() { assert!(std::path::Path::new(\"third.txt\").exists()); tiny::left::left(); }\n",
    );
    let third = ShellFeature::new("third", "echo x > third.txt", "cargo test --offline --test third");
    let features = [feature("left"), feature("right").after("left"), third.after("right")];
    let plan = shell_plan::unconfined(&features);
    dir.write("plan.toml", format!("guards = \"off\"\n{plan}"));
    dir
}

#[test]
fn dependencies_are_compiled_once_for_all_copies() {
    for method in ["copy", "auto"] {
        let dir = project();
        let set = format!("run.copies={method}");
        let arguments = ["run", "plan.toml", "--no-metrics", "--format", "json", "--set", &set];
        let mut program = dir.greenwave(arguments).bound(COMPILING_BOUND);
        for (variable, directory) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
            let home = std::env::var_os("HOME").unwrap_or_default();
            let default = || std::path::Path::new(&home).join(directory).into_os_string();
            program = program.variable(variable, std::env::var_os(variable).unwrap_or_else(default));
        }
        let finished = program.run().with_code(0);
        let report = Report::of(&finished);
        assert_eq!(report.phases(), [("left", "green"), ("right", "green"), ("third", "green")], "{method}");
        assert_eq!(report.notes("built").len(), 1, "{method}");
        let calls = dir.read("calls");
        let of_dependency = calls.lines().filter(|call| call.contains("--crate-name dep ")).count();
        assert_eq!(of_dependency, 1, "{method}: {calls}");
        let files = dir.files("project");
        assert!(files.contains_key("src/left.rs") && files.contains_key("src/right.rs"), "{files:?}");
        assert!(!dir.path("project/target").exists(), "{method}");
    }
}
