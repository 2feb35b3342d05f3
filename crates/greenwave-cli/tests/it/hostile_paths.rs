//! Links, pipes and names by which a repository, an answer or an agent tries to have files written
//! elsewhere.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use crate::shell_plan::{self, Report, ShellFeature};
use crate::test_dir::TestDir;

fn feature() -> ShellFeature {
    ShellFeature::new("one", "answer one.txt x", "test -f one.txt")
}

/// Creates a project with a plan, and files of the user beside it.
fn dir(feature: ShellFeature) -> TestDir {
    TestDir::with_project()
        .with("plan.toml", shell_plan::plan(&[feature]))
        .with("home/notes", "precious")
        .with("work/thesis", "precious")
        .with("old-photos/1.jpg", "precious")
        .with("lock", "precious")
}

/// Runs something, after which the user's files are as they were.
#[track_caller]
fn check(dir: &TestDir, run: impl FnOnce()) {
    let mut before = dir.files("");
    run();
    let mut after = dir.files("");
    for files in [&mut before, &mut after] {
        files.retain(|path, _| !path.starts_with("project/"));
    }
    assert_eq!(after, before);
}

#[test]
fn a_run_refuses_links_in_the_place_of_its_state() {
    for (link, target) in [
        (".greenwave", ".."),
        (".greenwave/.gitignore", "../../home/notes"),
        (".greenwave/lock", "../../home/notes"),
        (".greenwave/lock", "../../home/new"),
        (".greenwave/store", "../../work"),
        (".greenwave/journal", "../../home"),
        (".greenwave/results", "../../home"),
    ] {
        let dir = dir(feature());
        let path = dir.path("project").join(link);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, &path).unwrap();
        check(&dir, || {
            let finished = dir.run_plan();
            assert_ne!(finished.status.code(), Some(0), "{link}");
            let name = link.rsplit('/').next().unwrap();
            let expected = format!("`{name}` is a symbolic link, expected a ");
            assert!(finished.stderr.contains(&expected), "{link}: {}", finished.stderr);
            assert!(finished.stderr.contains("hint: "), "{link}: {}", finished.stderr);
        });
        assert!(path.is_symlink());
    }
}

#[test]
fn a_run_works_through_links_that_the_user_has_made() {
    let dir = dir(feature());
    fs::create_dir(dir.path("elsewhere")).unwrap();
    fs::rename(dir.path("project"), dir.path("elsewhere/real")).unwrap();
    symlink("elsewhere/real", dir.path("project")).unwrap();
    fs::create_dir(dir.path("elsewhere/state")).unwrap();
    symlink("elsewhere/state", dir.path("state")).unwrap();
    dir.plan().variable("XDG_STATE_HOME", dir.path("state")).run().with_code(0);
    assert_eq!(dir.read("elsewhere/real/one.txt"), "x\n");
}

#[test]
fn an_answer_is_not_merged_through_an_ignored_link() {
    for (link, target) in [("build", "../work"), ("a/build", "../../work"), ("build", "keep.txt")] {
        let script = format!("answer {link}/profile x; answer one.txt x");
        let dir =
            dir(ShellFeature::new("one", &script, "test -f one.txt")).with("project/.gitignore", "build\n");
        let path = dir.path("project").join(link);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
        check(&dir, || {
            let report = Report::of(&dir.run_plan().with_code(1));
            let expected = format!(
                "`{link}/profile` is behind `{link}`, which is a symbolic link in the project: the agent may \
                 not change it"
            );
            assert_eq!(report.rejections("one"), [expected]);
        });
    }
}

#[test]
fn a_pipe_of_the_project_is_not_replaced() {
    let dir = dir(ShellFeature::new("one", "answer out/pipe x; answer one.txt x", "test -f one.txt"))
        .with("project/.gitignore", "out\n")
        .with("project/out/a", "");
    let pipe = dir.path("project/out/pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let report = Report::of(&dir.run_plan().with_code(1));
    assert_eq!(
        report.rejections("one"),
        ["`out/pipe` is a pipe in the project: the agent may not change it"]
    );
    use std::os::unix::fs::FileTypeExt;
    assert!(fs::symlink_metadata(pipe).unwrap().file_type().is_fifo());
}

#[test]
fn files_that_programs_trust_are_not_the_agents_to_change() {
    for path in [".github/workflows/ci.yml", ".envrc", "build.rs", ".vscode/tasks.json", ".husky/pre-commit"]
    {
        let script = format!("answer {path} x; answer one.txt x");
        let dir = dir(ShellFeature::new("one", &script, "test -f one.txt"));
        let report = Report::of(&dir.run_plan().with_code(1));
        let reason = "is run or trusted automatically by other programs: the agent may not change it";
        assert_eq!(report.rejections("one"), [format!("`{path}` {reason}")]);
        assert!(!dir.path("project").join(path).exists());
        let script = format!("answer {path} x; answer one.txt x");
        let dir = self::dir(
            ShellFeature::new("one", &script, "test -f one.txt").lines(&format!("may_edit = [\"{path}\"]")),
        );
        dir.run_plan().with_code(0);
    }
}

#[test]
fn instructions_of_agents_change_if_the_prompt_names_them() {
    let run = |path: &str, prompt: &str| {
        let script = format!("answer {path} x; answer one.txt x");
        let feature = ShellFeature::new("one", &script, "test -f one.txt");
        let plan = shell_plan::plan(&[feature]);
        let plan = plan.replacen("prompt = \"", &format!("prompt = \"{prompt} "), 1);
        TestDir::with_project().with("plan.toml", plan).run_plan()
    };
    let report = Report::of(&run("docs/AGENTS.md", "Write one.txt.").with_code(1));
    let reason = "instructs coding agents, and the prompt does not name it: the agent may not change it";
    assert_eq!(report.rejections("one"), [format!("`docs/AGENTS.md` {reason}")]);
    run("docs/AGENTS.md", "Say in AGENTS.md where one.txt is.").with_code(0);
    run(".mcp.json", "Write .mcp.json.").with_code(1);
}

#[test]
fn only_content_and_executability_are_merged() {
    // Commands for metadata that the user may not set fail.
    let script = "echo x > one.txt; echo x > old.txt; for f in one.txt old.txt; do chmod 6775 $f; \
                  chown 1:1 $f; chmod u+s $f; setcap cap_net_raw+ep $f; setfattr -n user.a -v 1 $f; \
                  python3 -c \"import os; os.setxattr('$f', 'user.b', b'1')\"; done 2>/dev/null; true";
    let dir = dir(ShellFeature::new("one", script, "test -f one.txt")).with("project/old.txt", "old\n");
    dir.run_plan().with_code(0);
    for name in ["project/one.txt", "project/old.txt"] {
        let path = dir.path(name);
        let metadata = path.metadata().unwrap();
        assert_eq!(metadata.permissions().mode() & 0o7000, 0, "{name}");
        assert_eq!(metadata.uid(), rustix::process::geteuid().as_raw(), "{name}");
        let mut attributes = [0; 4096];
        let length = rustix::fs::listxattr(&path, &mut attributes).unwrap_or(0);
        let attributes = String::from_utf8_lossy(&attributes[..length]);
        let is_of_system = |name: &str| name.is_empty() || name == "security.selinux";
        assert!(attributes.split('\0').all(is_of_system), "{name}: {attributes}");
    }
}

#[test]
fn merged_files_belong_to_the_user_of_the_project() {
    let script = "mkdir -p new/deep; for f in one.txt old.txt new/deep/f; do echo x > $f; done; \
                  ln -s one.txt link";
    let dir = dir(ShellFeature::new("one", script, "test -f one.txt")).with("project/old.txt", "old\n");
    // As another user, the project is that user's in any case.
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(dir.path("project"), Some(1234), Some(1235)).unwrap();
        std::os::unix::fs::chown(dir.path("project/old.txt"), Some(1236), Some(1235)).unwrap();
    }
    let old = dir.path("project/old.txt").metadata().unwrap();
    let project = dir.path("project").metadata().unwrap();
    dir.run_plan().with_code(0);
    let owner = |name: &str| {
        let metadata = dir.path("project").join(name).symlink_metadata().unwrap();
        (metadata.uid(), metadata.gid())
    };
    assert_eq!(owner("old.txt"), (old.uid(), old.gid()));
    for name in ["one.txt", "link", "new", "new/deep", "new/deep/f"] {
        assert_eq!(owner(name), (project.uid(), project.gid()), "{name}");
    }
}

#[test]
fn a_plan_in_the_project_is_not_the_agents_to_change() {
    let script = "answer plan.toml x; answer one.txt x";
    let plan = shell_plan::plan(&[ShellFeature::new("one", script, "test -f one.txt")]);
    let plan = plan.replace("project = \"project\"\n", "");
    let dir = TestDir::empty().with("project/plan.toml", &plan);
    let run = dir.greenwave(["run", "project/plan.toml", "--no-metrics", "--format", "json"]).run();
    let report = Report::of(&run.with_code(1));
    assert_eq!(report.rejections("one"), ["`plan.toml` is part of the plan: the agent may not change it"]);
    assert_eq!(dir.read("project/plan.toml"), plan);
}

#[test]
fn a_section_of_the_plan_changes_what_is_protected() {
    let script = "answer .envrc x; answer ops/a x; answer one.txt x";
    let with = |section: &str| {
        let plan = shell_plan::plan(&[ShellFeature::new("one", script, "test -f one.txt")]);
        let dir = TestDir::with_project().with("plan.toml", format!("{plan}\n{section}"));
        dir.run_plan().status.code()
    };
    assert_eq!(with(""), Some(1));
    assert_eq!(with("[protect]\nexcept = [\".envrc\"]"), Some(0));
    assert_eq!(with("[protect]\nexcept = [\".envrc\"]\nfiles = [\"/ops\"]"), Some(1));
    assert_eq!(with("[protect]\nexept = []"), Some(2));
}

#[test]
fn what_trusted_links_lead_to_is_not_the_agents_to_change() {
    for (link, target, written) in [
        (".envrc", "env/dev", "env/dev"),
        (".vscode", "tools/editor", "tools/editor/tasks.json"),
        ("CLAUDE.md", "docs/rules.txt", "docs/rules.txt"),
        ("check.sh", "scripts/real.sh", "scripts/real.sh"),
    ] {
        let script = format!("answer {written} x; answer one.txt x");
        let dir = dir(ShellFeature::new("one", &script, "test -f one.txt && ./check.sh"));
        dir.write(&format!("project/{written}"), "#!/bin/sh\n");
        fs::set_permissions(dir.path("project").join(written), fs::Permissions::from_mode(0o755)).unwrap();
        symlink(target, dir.path("project").join(link)).unwrap();
        if link != "check.sh" {
            dir.write("project/check.sh", "#!/bin/sh\n");
            fs::set_permissions(dir.path("project/check.sh"), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let report = Report::of(&dir.run_plan().with_code(1));
        let rejections = report.rejections("one");
        let expected = format!("`{written}` is what `{link}` leads to, which ");
        assert!(rejections.len() == 1 && rejections[0].starts_with(&expected), "{rejections:?}");
        assert_eq!(dir.read(&format!("project/{written}")), "#!/bin/sh\n");
    }
}

#[test]
fn a_check_of_the_plan_prints_what_is_protected() {
    let printed = |section: &str| {
        let dir = dir(feature());
        dir.write("plan.toml", format!("{}\n{section}", dir.read("plan.toml")));
        let text = dir.greenwave(["run", "--check", "plan.toml"]).run().with_code(0).stdout;
        let (_, list) = text.split_once("Protected from agents").expect("the check prints the list");
        let list = list.split_once("\n  ").unwrap().1.lines().next().unwrap();
        list.split(' ').map(str::to_owned).collect::<Vec<_>>()
    };
    let usual = printed("");
    for name in [".git*", ".greenwave", "greenwave.toml", ".vscode", ".envrc", ".husky", "build.rs", ".cargo"]
    {
        assert!(usual.iter().any(|found| found == name), "{name} in {usual:?}");
    }
    let changed = printed("[protect]\nexcept = [\".envrc\"]\nfiles = [\"/ops\"]");
    let added: Vec<_> = changed.iter().filter(|name| !usual.contains(name)).collect();
    assert!(added.iter().any(|name| name.contains("ops")), "{added:?}");
    assert!(added.iter().any(|name| name.contains(".envrc")) || !changed.iter().any(|name| name == ".envrc"));
}

#[test]
fn tests_refuse_links_in_the_place_of_their_state() {
    let tests = "[[test]]\nname = \"t\"\ncommand = [\"true\"]\n";
    for (link, target) in [
        (".greenwave", ".."),
        (".greenwave/.gitignore", "../../home/new"),
        (".greenwave/tests", "../../home"),
    ] {
        let dir = dir(feature()).with("project/greenwave.toml", tests);
        let path = dir.path("project").join(link);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, &path).unwrap();
        check(&dir, || {
            let finished = dir.greenwave(["test"]).within(&dir.path("project")).run();
            assert_ne!(finished.status.code(), Some(0), "{link}");
            assert!(finished.stderr.contains("is a symbolic link"), "{link}: {}", finished.stderr);
        });
    }
}

/// Creates a named pipe, and its directory.
fn make_pipe(dir: &TestDir, path: &str) {
    let pipe = dir.path(path);
    fs::create_dir_all(pipe.parent().unwrap()).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(pipe).status().unwrap().success());
}

fn make_link(dir: &TestDir, target: &str, path: &str) {
    let link = dir.path(path);
    fs::create_dir_all(link.parent().unwrap()).unwrap();
    symlink(target, link).unwrap();
}

#[test]
fn a_run_refuses_links_and_pipes_among_its_files() {
    for entry in ["store/segment", "journal/lock", "results/leases/leases", "results/a/b/c"] {
        let name = entry.split_once('/').unwrap().1;
        let path = format!("project/.greenwave/{entry}");
        let dir = dir(feature());
        make_link(&dir, "../../../home/new", &path);
        check(&dir, || {
            let finished = dir.run_plan().with_code(2);
            let expected = format!("`{name}` is a symbolic link, expected a file");
            assert!(finished.stderr.contains(&expected), "{entry}: {}", finished.stderr);
        });
        fs::remove_file(dir.path(&path)).unwrap();
        make_pipe(&dir, &path);
        let finished = dir.run_plan().with_code(2);
        let expected = format!("`{name}` is a pipe, expected a file\nhint: rename or remove it");
        assert!(finished.stderr.contains(&expected), "{entry}: {}", finished.stderr);
    }
}

#[test]
fn attempts_are_not_read_through_links_and_pipes() {
    for entry in ["store", "store/segment"] {
        let dir = dir(feature());
        make_link(&dir, "../../../home", &format!("project/.greenwave/{entry}"));
        check(&dir, || {
            let finished = dir.greenwave(["attempts", "plan.toml"]).run().with_code(2);
            assert!(finished.stderr.contains("is a symbolic link"), "{entry}: {}", finished.stderr);
        });
    }
    let dir = dir(feature());
    make_pipe(&dir, "project/.greenwave/store/segment");
    let finished = dir.greenwave(["attempts", "plan.toml"]).run().with_code(2);
    assert!(finished.stderr.contains("`segment` is a pipe"), "{}", finished.stderr);
}

/// A project with one test, whose results are in `project/results`.
fn tested() -> TestDir {
    let settings =
        "[cache]\ndirectory = \"results\"\n[[test]]\nname = \"t\"\ncommand = [\"true\"]\ninputs = []\n";
    dir(feature()).with("project/greenwave.toml", settings)
}

#[test]
fn tests_refuse_links_and_pipes_among_their_results() {
    for entry in ["leases/leases", "ports/1", "segment"] {
        let dir = tested();
        make_link(&dir, "../../../home/new", &format!("project/results/{entry}"));
        check(&dir, || {
            let finished = dir.greenwave(["test"]).within(&dir.path("project")).run();
            let expected = format!("`{entry}` is a symbolic link");
            assert!(finished.stderr.contains(&expected), "{entry}: {}", finished.stderr);
        });
        let dir = tested();
        make_pipe(&dir, &format!("project/results/{entry}"));
        let finished = dir.greenwave(["test"]).within(&dir.path("project")).run();
        assert!(finished.stderr.contains(&format!("`{entry}` is a pipe")), "{entry}: {}", finished.stderr);
    }
}

#[test]
fn reports_are_not_written_through_links_of_the_project() {
    for option in ["--junit", "--summary", "--save-timings"] {
        for (link, target, report) in [
            ("report", "../home/notes", "report"),
            ("report", "../home/new", "report"),
            // A clone must not have reports written to a device, such as a disk.
            ("report", "/dev/null", "report"),
            ("out", "../home", "out/new"),
        ] {
            let dir = tested();
            make_link(&dir, target, &format!("project/{link}"));
            check(&dir, || {
                let test = dir.greenwave(["test", option, report]).within(&dir.path("project"));
                let finished = test.run().with_code(2);
                let expected = format!("`{link}` is a symbolic link");
                assert!(finished.stderr.contains(&expected), "{option}: {}", finished.stderr);
            });
        }
    }
}

#[test]
fn a_report_is_not_written_through_a_link_that_appears_during_the_run() {
    let dir = tested();
    let settings = dir.read("project/greenwave.toml").replace("[\"true\"]", "\"ln -s ../home/new report\"");
    dir.write("project/greenwave.toml", settings);
    check(&dir, || {
        let test = dir.greenwave(["test", "--junit", "report"]).within(&dir.path("project"));
        let finished = test.run().with_code(2);
        assert!(finished.stderr.contains("`report` is a symbolic link"), "{}", finished.stderr);
    });
}

#[test]
fn a_report_goes_through_a_pipe_that_has_a_reader() {
    use std::os::unix::fs::FileTypeExt;
    let dir = tested();
    make_pipe(&dir, "project/report");
    let run = || dir.greenwave(["test", "--junit", "report"]).within(&dir.path("project")).run();
    // Nobody reads: an error, and no endless wait.
    assert!(run().with_code(2).stderr.contains("cannot write report report"));
    let pipe = dir.path("project/report");
    let both = fs::File::options().read(true).write(true).open(&pipe).unwrap();
    run().with_code(0);
    let mut start = [0; 5];
    std::io::Read::read_exact(&mut &both, &mut start).unwrap();
    assert_eq!(&start, b"<?xml");
    assert!(fs::symlink_metadata(pipe).unwrap().file_type().is_fifo());
}

#[test]
fn a_demo_is_unpacked_into_its_own_directory_only() {
    let dir = dir(feature());
    make_link(&dir, "../home", "demo/project");
    check(&dir, || {
        let finished = dir.greenwave(["demo", "--dir", "demo"]).run().with_code(2);
        assert!(finished.stderr.contains("hint: choose an empty directory"), "{}", finished.stderr);
    });
}

#[test]
fn init_creates_no_file_through_a_link() {
    let dir = dir(feature());
    make_link(&dir, "home/new", "new.toml");
    make_link(&dir, "../home/new", "project/greenwave.toml");
    make_link(&dir, "home", "linked");
    check(&dir, || {
        dir.greenwave(["init", "new.toml"]).run().with_code(2);
        dir.greenwave(["init", "linked/new.toml"]).run().with_code(2);
        dir.greenwave(["test", "--init"]).within(&dir.path("project")).run().with_code(2);
    });
}
