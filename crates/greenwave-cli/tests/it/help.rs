//! The help of each command, as snapshots.

use crate::snapshots;
use crate::test_dir::TestDir;

#[test]
fn each_command_has_help() {
    let commands: [&[&str]; 27] = [
        &[],
        &["demo"],
        &["run"],
        &["attempts"],
        &["dashboard"],
        &["approve"],
        &["reject"],
        &["forget"],
        &["clean"],
        &["test"],
        &["cache"],
        &["cache", "stats"],
        &["cache", "clear"],
        &["cache", "verify"],
        &["cache", "warm"],
        &["doctor"],
        &["history"],
        &["mcp"],
        &["init"],
        &["plan"],
        &["graph"],
        &["schema"],
        &["profile"],
        &["profile", "show"],
        &["completions"],
        &["man"],
        &["help", "help"],
    ];
    for command in commands {
        let args = command.iter().copied().chain((command != ["help", "help"]).then_some("--help"));
        let finished = TestDir::empty().greenwave(args).run().with_code(0);
        snapshots::check(
            &format!("help_{}", ["greenwave"].iter().chain(command).copied().collect::<Vec<_>>().join("_")),
            &finished.stdout,
        );
    }
}

#[test]
fn invalid_command_lines_are_errors() {
    let commands: [&[&str]; 7] = [
        &["rn"],
        &["run"],
        &["run", "a.toml", "b.toml"],
        &["graph", "plan.toml", "--format", "svg"],
        &["run", "a.toml", "--pace", "slow"],
        &["run", "a.toml", "--budget", "-1"],
        &["test", "--set", "cache.entries"],
    ];
    let mut all = String::new();
    for args in commands {
        let finished = TestDir::empty().greenwave(args.iter().copied()).run().with_code(2);
        assert_eq!(finished.stdout, "", "{args:?}");
        all.push_str(&format!("$ greenwave {}\n{}\n", args.join(" "), finished.stderr));
    }
    snapshots::check("invalid_command_lines", &all);
    let incomplete = TestDir::empty().greenwave(["profile"]).run().with_code(2).stderr;
    assert!(incomplete.starts_with("Show the effective settings"), "{incomplete}");
}
