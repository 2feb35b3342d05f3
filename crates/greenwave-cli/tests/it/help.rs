//! The help of each command, as snapshots.

use insta::assert_snapshot;

use crate::snapshots;
use crate::test_dir::TestDir;

#[test]
fn each_command_has_help() {
    let commands: [&[&str]; 14] = [
        &[],
        &["demo"],
        &["run"],
        &["test"],
        &["cache"],
        &["cache", "stats"],
        &["cache", "clear"],
        &["cache", "verify"],
        &["cache", "warm"],
        &["init"],
        &["graph"],
        &["profile"],
        &["profile", "show"],
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
    let check = |args: &[&str]| {
        let finished = TestDir::empty().greenwave(args.iter().copied()).run().with_code(2);
        assert_eq!(finished.stdout, "", "{args:?}");
        finished.stderr
    };
    assert_snapshot!(check(&["rn"]), @"");
    assert_snapshot!(check(&["run"]), @"");
    assert_snapshot!(check(&["run", "a.toml", "b.toml"]), @"");
    assert_snapshot!(check(&["graph", "plan.toml", "--format", "svg"]), @"");
    assert_snapshot!(check(&["run", "a.toml", "--pace", "slow"]), @"");
    assert_snapshot!(check(&["test", "--set", "cache.entries"]), @"");
    assert!(check(&["profile"]).starts_with("Show the effective configuration"));
}
