//! Discovers the tests of npm, pnpm, yarn and bun packages without running them.

use std::fs;
use std::path::Path;

use greenwave_testing::Discovery;

use crate::discover::{Project, of, paths};

/// A script that is a test.
const TEST: &str = r#"{"scripts":{"test":"node --test"}}"#;

/// Returns the manifest of a workspace root with this script and members in `packages`.
fn root(script: &str) -> String {
    serde_json::json!({"name": "root", "workspaces": ["packages/*"], "scripts": {"test": script}}).to_string()
}

/// Returns the manifest of a package.
fn package(name: &str, script: &str) -> String {
    serde_json::json!({"name": name, "scripts": {"test": script}}).to_string()
}

fn names(found: &Discovery) -> Vec<&str> {
    found.tests.iter().map(|test| test.name.as_str()).collect()
}

fn notes(found: &Discovery) -> Vec<String> {
    found.notes.iter().map(ToString::to_string).collect()
}

/// Checks the tests and the notes of a workspace of `a` and `b` whose root has this script.
#[track_caller]
fn check_root(script: &str, more: &[(&str, &str)], tests: &[&str], expected: &[&str]) {
    let (root, a, b) = (root(script), package("a", "node a.js"), package("b", "node b.js"));
    let mut files =
        vec![("package.json", &*root), ("packages/a/package.json", &*a), ("packages/b/package.json", &*b)];
    files.extend(more);
    let found = Project::new(&files).find();
    assert_eq!(names(&found), tests, "{script}");
    assert_eq!(notes(&found), expected, "{script}");
}

#[test]
fn npm_test_scripts_are_discovered() {
    let project = Project::new(&[
        (
            "package.json",
            r#"{"name":"root","workspaces":["packages/*","!packages/out"],"scripts":{"test":"npm test --workspaces --if-present"}}"#,
        ),
        ("package-lock.json", "{}"),
        ("tsconfig.json", "{}"),
        (
            "packages/web/package.json",
            r#"{"name":"web","scripts":{"test":"vitest run"},"dependencies":{"ui":"*"},"devDependencies":{"x":"file:../../tools/x"}}"#,
        ),
        ("packages/ui/package.json", r#"{"name":"ui","peerDependencies":{"core":"workspace:^"}}"#),
        ("packages/core/package.json", r#"{"name":"core","scripts":{"test":"node node_modules/.bin/jest"}}"#),
        ("packages/out/package.json", r#"{"scripts":{"test":"node --test","build":"x"}}"#),
        ("packages/core/fixtures/package.json", "{ not JSON"),
        ("packages/plain/package.json", "{}"),
    ]);
    project.check(&["npm:core test", "npm:web test"]);
    let found = project.find();
    let web = of(&found, "npm:web test");
    assert_eq!(
        (web.command.as_slice(), web.directory.as_path()),
        (&["npm".into(), "test".into()][..], Path::new("packages/web"))
    );
    assert_eq!(web.directories, paths(&["packages/web", "packages/ui", "tools/x", "packages/core"]));
    assert_eq!(web.inputs, ["/package.json", "/package-lock.json", "/tsconfig.json"]);
    assert!(web.outputs.contains(&"/packages/web/node_modules/.vite/".to_owned()));
    assert_eq!(of(&found, "npm:core test").outputs, ["/packages/core/coverage/"]);
    assert!(of(&found, "npm:core test").env.contains(&"npm_config_*".to_owned()));
    assert_eq!(
        notes(&found),
        [
            "packages/out/package.json is left out: package.json excludes it by `!packages/out`",
            "package.json is left out: `npm test --workspaces --if-present` runs the tests of packages that are listed themselves"
        ]
    );
}

#[test]
fn the_nearest_lock_file_selects_the_package_manager() {
    let script = r#"{"scripts":{"test":"node --test"}}"#;
    let command = |files: &[(&str, &str)]| {
        let mut all = files.to_vec();
        all.push(("a/package.json", script));
        Project::new(&all).find().tests[0].command.clone()
    };
    assert_eq!(command(&[]), ["npm", "test"]);
    assert_eq!(command(&[("yarn.lock", "")]), ["yarn", "test"]);
    assert_eq!(command(&[("yarn.lock", ""), ("a/package-lock.json", "")]), ["npm", "test"]);
    assert_eq!(command(&[("pnpm-lock.yaml", "")]), ["pnpm", "test"]);
    let workspace = "catalog:\n  x: 1\npackages:\n  # ours\n  - 'a'  # one\n  - \"b/*\"\nother: 1\n";
    let root = ("package.json", r#"{"scripts":{"test":"pnpm -r test"}}"#);
    let a = ("a/package.json", script);
    let b = ("b/c/package.json", r#"{"name":"c","dependencies":{"d":"link:../d"},"scripts":{"test":"x"}}"#);
    for text in [workspace, "packages: [a, 'b/*']\n"] {
        let project = Project::new(&[("pnpm-workspace.yaml", text), root, a, b]);
        project.check(&["npm:a test", "npm:c test"]);
        assert_eq!(of(&project.find(), "npm:c test").directories, paths(&["b/c", "b/d"]));
    }
}

#[test]
fn directories_of_tools_are_outputs_even_if_they_have_files() {
    let package = ("package.json", r#"{"name":"root","scripts":{"test":"nyc --report-dir cov mocha"}}"#);
    let files = [package, (".nyc_output/1.json", ""), ("coverage/x.js", ""), ("a.js", "")];
    let found = Project::new(&files).find();
    assert_eq!(found.tests[0].outputs, ["/.nyc_output/", "/cov/"]);
}

#[test]
fn bun_finds_tests_without_a_script() {
    let lock = ("bun.lock", "{}");
    let (root, test) = (("package.json", r#"{"name":"root"}"#), ("src/a.test.ts", ""));
    let project = Project::new(&[root, lock, test, ("packages/b/package.json", r#"{"name":"b"}"#)]);
    project.check(&["npm:root test"]);
    assert_eq!(project.find().tests[0].command, ["bun", "test"]);
    // A package with a script is run by its script, and those beside it by bun.
    let b = ("packages/b/package.json", r#"{"name":"b","scripts":{"test":"bun test ./b.ts"}}"#);
    let c = ("packages/c/package.json", r#"{"name":"c"}"#);
    let project = Project::new(&[root, lock, test, b, c, ("packages/c/c_spec.js", "")]);
    project.check(&["npm:b test", "npm:c test"]);
    assert_eq!(of(&project.find(), "npm:b test").command, ["bun", "run", "test"]);
    assert_eq!(of(&project.find(), "npm:c test").command, ["bun", "test"]);
    // Other files are not tests, and other package managers find none.
    Project::new(&[root, lock, ("src/a.ts", ""), ("node_modules/x/a.test.ts", "")]).check(&[]);
    Project::new(&[root, test]).check(&[]);
}

#[test]
fn the_field_package_manager_precedes_lock_files_beside_it() {
    let command = |files: &[(&str, &str)]| Project::new(files).find().tests[0].command.clone();
    let pnpm = r#"{"packageManager":"pnpm@9.1.0+sha512.abc","scripts":{"test":"x"}}"#;
    assert_eq!(command(&[("package.json", pnpm), ("package-lock.json", "{}")]), ["pnpm", "test"]);
    let root = r#"{"packageManager":"yarn@4.1.0"}"#;
    assert_eq!(command(&[("package.json", root), ("a/package.json", TEST)]), ["yarn", "test"]);
    let unknown = r#"{"packageManager":"other@1","scripts":{"test":"x"}}"#;
    assert_eq!(command(&[("package.json", unknown), ("bun.lockb", "")]), ["bun", "run", "test"]);
    assert_eq!(command(&[("package.json", TEST), (".yarnrc.yml", "")]), ["yarn", "test"]);
}

#[test]
fn flags_of_other_programs_do_not_make_a_script_one_of_a_workspace() {
    let all = ["npm:root test", "npm:a test", "npm:b test"];
    for script in
        ["node -r ./setup.js root-test.js", "mocha -r esm --recursive", "jest --workspaces", "x turbo"]
    {
        check_root(script, &[], &all, &[]);
    }
}

#[test]
fn a_script_that_does_more_than_run_the_tests_of_members_runs_as_one_test() {
    let reason = "it runs more than the tests of packages";
    for script in ["npm run lint && npm test -ws --if-present", "npm test -ws --if-present; true"] {
        let note = format!("package.json runs as one test, `{script}`: {reason}");
        check_root(script, &[], &["npm:root test"], &[&note]);
    }
    let choosing = "pnpm --filter ./packages/** test";
    let note =
        format!("package.json runs as one test, `{choosing}`: it chooses the packages whose tests it runs");
    check_root(choosing, &[], &["npm:root test"], &[&note]);
    // Other members run by themselves.
    let named = "eslint . && npm test -w a";
    let note = format!("package.json runs as one test, `{named}`: {reason}");
    check_root(named, &[], &["npm:root test", "npm:b test"], &[&note]);
    let only = "npm test -w a -w packages/b";
    let note =
        format!("package.json is left out: `{only}` runs the tests of packages that are listed themselves");
    check_root(only, &[], &["npm:a test", "npm:b test"], &[&note]);
}

#[test]
fn a_script_fails_as_a_whole_if_members_have_no_test() {
    let c = ("packages/c/package.json", r#"{"name":"c"}"#);
    let note = "package.json runs as one test, `npm test -ws`: not every package has a test script";
    check_root("npm test -ws", &[c], &["npm:root test"], &[note]);
    let placeholder = package("c", "echo \"Error: no test specified\" && exit 1");
    let c = ("packages/c/package.json", &*placeholder);
    let note =
        "package.json runs as one test, `npm test -ws --if-present`: not every package has a test script";
    check_root("npm test -ws --if-present", &[c], &["npm:root test"], &[note]);
}

#[test]
fn tests_that_need_a_build_run_by_the_tool_that_builds() {
    let builds = (
        "turbo.json",
        "{ /* x */ \"tasks\": {\"test\": {\"dependsOn\": [\"^build\"]}, \"build\": {\"outputs\": [\"dist/**\", \"!dist/x\"]}} }",
    );
    let local = ("node_modules/.bin/turbo", "");
    let whole = "package.json runs as one test, `turbo run test`: it builds what the tests of packages need";
    check_root("turbo run test", &[builds, local], &["npm:root test"], &[whole]);
    let separate =
        "package.json is left out: `turbo run test` runs the tests of packages that are listed themselves";
    let plain = ("turbo.json", r#"{"tasks": {"test": {}}}"#);
    check_root("turbo run test", &[plain, local], &["npm:a test", "npm:b test"], &[separate]);
    // Neither declared nor installed.
    let unbuilt = "package.json: `turbo run test` cannot run, since `turbo` is not installed: the tests of packages run by themselves, and nothing builds what they need";
    check_root("turbo run test", &[builds], &["npm:a test", "npm:b test"], &[unbuilt]);

    let root = r#"{"name":"root","workspaces":["packages/*"]}"#;
    let files =
        [("package.json", root), builds, local, ("packages/a/package.json", TEST), ("packages/b/x.js", "")];
    let found = Project::new(&files).find();
    assert_eq!(names(&found), ["npm:root test"]);
    assert_eq!(found.tests[0].command, ["node_modules/.bin/turbo", "run", "test"]);
    assert!(found.tests[0].outputs.contains(&"/packages/a/dist/".to_owned()), "{:?}", found.tests[0].outputs);
    assert!(!found.tests[0].outputs.iter().any(|it| it.contains("dist/x")));
    let nx = ("nx.json", r#"{"targetDefaults": {"test": {"dependsOn": ["^build"]}}}"#);
    let files = [("package.json", root), nx, ("node_modules/.bin/nx", ""), files[3]];
    assert_eq!(
        Project::new(&files).find().tests[0].command,
        ["node_modules/.bin/nx", "run-many", "-t", "test"]
    );
}

#[test]
fn members_are_members_whatever_their_directory_is_called() {
    let files = |globs: &str| {
        let root = format!(r#"{{"name":"root","workspaces":{globs}}}"#);
        let files = [
            ("package.json", root.as_str()),
            ("fixtures/x/package.json", r#"{"name":"x","scripts":{"test":"t"}}"#),
            ("vendor/y/package.json", r#"{"name":"y","scripts":{"test":"t"}}"#),
            ("templates/package.json", "{ not JSON"),
            ("node_modules/z/package.json", r#"{"name":"z","scripts":{"test":"t"}}"#),
        ];
        Project::new(&files)
    };
    files("[\"fixtures/*\", \"./vendor/y/\"]").check(&["npm:x test", "npm:y test"]);
    files("{\"packages\": [\"{fixtures,vendor}/*\", \"!vendor/*\"]}").check(&["npm:x test"]);
    files("[\"**\", \"!vendor/*\", \"vendor/y\"]").check(&["npm:x test", "npm:y test"]);
    files("[]").check(&[]);
    files("7").check(&[]);
    let lerna = ("lerna.json", "{}");
    let member = ("packages/fixtures/package.json", TEST);
    Project::new(&[("package.json", "{}"), lerna, member]).check(&["npm:packages/fixtures test"]);
    let flow = ("pnpm-workspace.yaml", "packages:\n  [\n    'fixtures/*',\n  ]\n");
    Project::new(&[("package.json", "{}"), flow, ("fixtures/a/package.json", TEST)])
        .check(&["npm:fixtures/a test"]);
}

#[test]
fn scripts_that_watch_run_so_that_they_end() {
    let manifest = r#"{"name":"w","scripts":{"test":"jest --watch","pretest":"tsc"}}"#;
    let found = Project::new(&[("package.json", manifest)]).find();
    assert_eq!(found.tests[0].command, ["npm", "exec", "--call", "npm run pretest && jest"]);
    assert_eq!(notes(&found), ["npm:w test runs without `--watch`, since it would not end"]);
    let pnpm = [("package.json", r#"{"scripts":{"test":"vitest watch"}}"#), ("pnpm-lock.yaml", "")];
    assert_eq!(Project::new(&pnpm).find().tests[0].command, ["pnpm", "--shell-mode", "exec", "vitest"]);
}

#[test]
fn packages_that_are_not_installed_are_noted_once() {
    let root = r#"{"name":"root","workspaces":["packages/*"],"devDependencies":{"jest":"29"}}"#;
    let member = |name: &str| {
        format!(
            r#"{{"name":"{name}","scripts":{{"test":"jest"}},"dependencies":{{"other":"*","jest":"1"}}}}"#
        )
    };
    let (one, other) = (member("one"), member("other"));
    let files = [
        ("package.json", root),
        ("package-lock.json", "{}"),
        ("packages/one/package.json", one.as_str()),
        ("packages/other/package.json", other.as_str()),
        ("alone/package.json", r#"{"scripts":{"test":"x"},"dependencies":{"x":"file:../x"}}"#),
        ("yarn/package.json", r#"{"scripts":{"test":"x"},"devDependencies":{"x":"1"}}"#),
        ("yarn/yarn.lock", ""),
    ];
    let project = Project::new(&files);
    let root_note = "the packages that tests need are not installed: run `npm ci`";
    let yarn_note = "the packages that tests need are not installed: run `yarn install` in yarn";
    assert_eq!(notes(&project.find()), [root_note, yarn_note]);
    fs::create_dir_all(project.root().join("node_modules")).unwrap();
    assert_eq!(notes(&project.find()), [""; 0]);
}

#[test]
fn a_package_that_its_test_builds_runs_alone_if_others_need_it() {
    let files = [
        ("a/package.json", r#"{"name":"a","scripts":{"pretest":"tsc","test":"t"}}"#),
        ("b/package.json", r#"{"name":"b","scripts":{"pretest":"tsc","test":"t"},"dependencies":{"a":"*"}}"#),
    ];
    let found = Project::new(&files).find();
    assert!(!of(&found, "npm:a test").parallel_safe);
    assert!(of(&found, "npm:b test").parallel_safe);
}

#[test]
fn manifests_that_cannot_be_read_are_notes() {
    let good = ("good/package.json", r#"{"name":"good","scripts":{"test":"t"}}"#);
    let project = Project::new(&[
        good,
        ("bad/package.json", "{\n  \"scripts\": {,}\n}"),
        ("encoded/package.json", ""),
        ("odd/package.json", "\"text\""),
        ("glob/package.json", r#"{"workspaces":["packages/[*"],"scripts":{"test":"t"},"name":"glob"}"#),
        // Package managers ignore fields of other types.
        ("types/package.json", r#"{"name":7,"scripts":1,"dependencies":[],"workspaces":false}"#),
    ]);
    fs::write(project.root().join("encoded/package.json"), b"\xff\xfe{\0}\0").unwrap();
    let found = project.find();
    assert_eq!(names(&found), ["npm:glob test", "npm:good test"]);
    assert_eq!(
        notes(&found),
        [
            "bad/package.json is skipped: cannot parse `package.json` at line 2, column 15: key must be a string",
            "encoded/package.json is skipped: cannot read `package.json`: expected UTF-8",
            "odd/package.json is skipped: cannot parse `package.json` at line 1, column 6: invalid type: string \"text\", expected struct Package",
            "glob/package.json is skipped: invalid pattern in `package.json`",
        ]
    );
    assert_eq!(of(&found, "npm:good test").directory, Path::new("good"));
}
