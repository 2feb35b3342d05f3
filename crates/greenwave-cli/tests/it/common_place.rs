//! Agents and tests see every working copy at the same path, where mounts are available.

use std::process::Command;

use serde_json::Value;

use crate::shell_plan::{self, Report, ShellFeature};
use crate::test_dir::TestDir;

/// Returns how a run was confined, from its events.
fn strength(events: &[Value]) -> &str {
    let confinement = events.iter().find(|event| event["event"] == "confinement");
    confinement.and_then(|event| event["strength"].as_str()).unwrap_or_default()
}

fn git(dir: &TestDir, args: &[&str]) {
    let mut call = Command::new("git");
    call.current_dir(dir.path("project")).args(["-c", "user.name=u", "-c", "user.email=u@u"]).args(args);
    assert!(call.status().unwrap().success(), "{args:?}");
}

/// A setup whose result names its directory is shared between copies, and is valid in each. Copies
/// that have their own paths are set up one by one.
#[test]
fn build_output_with_absolute_paths_is_shared() {
    for confine in ["auto", "landlock"] {
        let dir = TestDir::with_project().with("project/.gitignore", "/build/\n");
        let test = |id: &str| {
            format!(
                "test -f {id}.txt && test \"$(head -1 build/config)\" = \"$(pwd -P)\" && cat build/config >&2"
            )
        };
        // The directory of the copy is still named after the feature.
        let script = |id: &str| {
            format!(
                "test \"$(basename \"$PWD\")\" = {id} && test \"$(head -1 build/config)\" = \"$(pwd -P)\" && \
                 tail -1 build/config > {id}.txt"
            )
        };
        let features = ["one", "two"].map(|id| ShellFeature::new(id, &script(id), &test(id)));
        let setup = "setup = [[\"sh\", \"-c\", 'mkdir -p build && { pwd; date +%s%N; } > build/config']]";
        let plan = shell_plan::plan(&features);
        dir.write("plan.toml", format!("confine = \"{confine}\"\n{setup}\n{plan}"));
        git(&dir, &["init", "-q"]);
        let finished = dir.run_plan();
        if finished.stderr.contains("confinement") {
            eprintln!("skipped: {confine}: {}", finished.stderr);
            continue;
        }
        let (report, events) = (Report::of(&finished), finished.events());
        assert_eq!(report.phases(), [("one", "green"), ("two", "green")], "{confine}: {finished:?}");
        let is_same = dir.read("project/one.txt") == dir.read("project/two.txt");
        assert_eq!(is_same, strength(&events) == "mount", "{confine}: {finished:?}");
    }
}

/// Output of CMake works in the copy of its directory only if the path is the same.
#[test]
fn output_of_cmake_is_shared() {
    if !Command::new("cmake").arg("--version").output().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: cmake is missing");
        return;
    }
    let dir = TestDir::with_project().with("project/.gitignore", "/build/\n").with("project/in.txt", "0\n");
    dir.write(
        "project/CMakeLists.txt",
        "cmake_minimum_required(VERSION 3.10)\nproject(p NONE)\nfile(APPEND \
         \"${CMAKE_BINARY_DIR}/configured\" \"x\")\nadd_custom_target(made ALL COMMAND ${CMAKE_COMMAND} -E \
         copy ${CMAKE_SOURCE_DIR}/in.txt ${CMAKE_BINARY_DIR}/out.txt)\n",
    );
    let test = |id: &str| {
        format!(
            "cmake -S . -B build && cmake --build build && cmp build/out.txt in.txt && grep -q {id} in.txt"
        )
    };
    let one = ShellFeature::new("one", "echo one >> in.txt; cmake -S . -B build >&2", &test("one"));
    let two = ShellFeature::new("two", "echo two >> in.txt; cmake --build build >&2", &test("two"));
    let setup = "setup = [[\"cmake\", \"-S\", \".\", \"-B\", \"build\"]]";
    let plan = shell_plan::plan(&[one, two.after("one")]);
    dir.write("plan.toml", format!("{setup}\n{plan}"));
    git(&dir, &["init", "-q"]);
    let finished = dir.run_plan();
    let report = Report::of(&finished);
    assert_eq!(report.phases(), [("one", "green"), ("two", "green")], "{finished:?}");
    assert_eq!(dir.read("project/in.txt"), "0\none\ntwo\n");
}

/// Messages of tests name files by their paths in the project, as ever.
#[test]
fn feedback_names_files_of_the_project() {
    let dir = TestDir::with_project().with("project/src/a.txt", "a\n");
    let test = "test -f one.txt && exit; echo \"error: $(pwd -P)/src/a.txt:1: wrong\"; exit 1";
    let script =
        "cp \"$GREENWAVE_PROMPT_FILE\" prompt.txt; test $GREENWAVE_ATTEMPT = 2 && touch one.txt; true";
    let one = ShellFeature::new("one", script, test).attempts(2);
    dir.write("plan.toml", shell_plan::plan(&[one]));
    let finished = dir.run_plan().with_code(0);
    let prompt = dir.read("project/prompt.txt");
    assert!(prompt.contains("error: src/a.txt:1: wrong"), "{prompt}\n{finished:?}");
}

/// An agent that is not confined sees the copy at its own path, so tests do as well.
#[test]
fn all_programs_of_a_run_see_the_same_path() {
    for lines in ["confine = \"off\"", ""] {
        let dir = TestDir::with_project().with("project/.gitignore", "/place\n");
        let script = "pwd -P > place; touch one.txt";
        let test = "test -f one.txt && { test ! -f place || test \"$(cat place)\" = \"$(pwd -P)\"; }";
        let one = ShellFeature::new("one", script, test).agent(lines);
        dir.write("plan.toml", shell_plan::plan(&[one]));
        let finished = dir.run_plan();
        assert_eq!(Report::of(&finished).phases(), [("one", "green")], "{finished:?}");
    }
}
