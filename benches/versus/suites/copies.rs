//! Compares the working copies of `greenwave run` with other ways to give each agent a copy of a
//! repository.

#[path = "copies/project.rs"]
mod project;
#[path = "copies/run.rs"]
mod run;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use greenwave_benches::{Page, Row, is_measuring};

use crate::project::{Project, disk_mb, number};
use crate::run::{Mode, Run, build_greenwave};

const ABOUT: &str = "
A git project, half text and half random, for 8 features. `COPIES_MB`, `COPIES_FILES` and
`COPIES_ROUNDS` set its size and the number of rounds; the rows *size* and *files* have them. One run
per row and round, each in new directories of one file system. Files are in the page cache.

*8 copies*: from the start until 8 agents have begun to work, each in a copy of its own. With
greenwave, this includes reading, hashing and storing the project, the red test of each feature, and
a repository in each copy in which no command of git reaches the user's. *first copy*: the same with
1 feature. *further copy*: their difference, divided by 7. `overlay` makes 2 directories for the
first copy: the base and the project in greenwave's store are not counted apart. *disk*: what is
allocated below the directory of the copies at that moment. Greenwave's store, in the project, is
listed by itself.

The rivals only make the copies: `cp -r` with a copy of the repository, `cp -r --reflink=auto`,
which is the same on file systems without reflinks, `git clone --shared`, and `git worktree add`,
whose copies share the user's refs and stash.

*whole run*: 8 agents that write a file each, with a test before and after, merged into the project.
The rival is a shell loop over worktrees that does the same, one after another: worktree, test,
agent, test, commit, merge, removal.";

/// Number of features, and of copies.
const FEATURES: usize = 8;
/// Number of rounds, unless `COPIES_ROUNDS` says otherwise.
const ROUNDS: usize = 3;

/// Expectations, from the issue that introduced the suite: a further copy takes at most 0.3 s and
/// 10 MB as an overlay, and otherwise at most 1.1 times the time of `cp`.
const OVERLAY_SECONDS: f64 = 0.3;
const OVERLAY_MB: f64 = 10.0;
const COPY_PERCENT: f64 = 110.0;
/// The first copy takes as long as the disk needs: reading and writing it, and storing it once.
const FIRST_PERCENT: f64 = 200.0;

/// A way to make a copy: its name, and a line of shell with the project as `$1`, the copy as `$2`,
/// and the number of the copy as `$3`.
const RIVALS: [(&str, &str); 4] = [
    ("cp -r", "cp -r \"$1\" \"$2\""),
    ("cp -r --reflink=auto", "cp -r --reflink=auto \"$1\" \"$2\""),
    ("git clone --shared", "git clone -q --shared \"$1\" \"$2\""),
    ("git worktree add", "git -C \"$1\" worktree add -q \"$2\" -b \"copy-$3\""),
];

/// The whole work of a run, one feature after another, with the project as `$1`.
const LOOP: &str = r#"
set -e
for i in 0 1 2 3 4 5 6 7; do
    git -C "$1" worktree add -q "$1-loop-$i" -b "loop-$i"
    cd "$1-loop-$i"
    if test -f "out-$i.txt"; then exit 1; fi
    echo "made $i" > "out-$i.txt"
    test -f "out-$i.txt"
    git add "out-$i.txt"
    git commit -q -m "Feature $i"
    git -C "$1" merge -q "loop-$i"
    cd "$1"
    git worktree remove "$1-loop-$i"
done"#;

fn main() {
    if !is_measuring() {
        return;
    }
    let program = build_greenwave();
    let mut rows = Vec::new();
    let mut rivals = vec![(Vec::new(), Vec::new()); RIVALS.len()];
    let mut modes: Vec<Measured> = Mode::ALL.into_iter().map(Measured::new).collect();
    let mut loops = Vec::new();
    for _ in 0..number("COPIES_ROUNDS", ROUNDS) {
        for ((seconds, megabytes), (_, line)) in rivals.iter_mut().zip(RIVALS) {
            let project = Project::create();
            let started = Instant::now();
            (0..FEATURES).for_each(|at| shell(line, &project, &at.to_string()));
            seconds.push(started.elapsed().as_secs_f64() / FEATURES as f64);
            megabytes.push(disk_mb(&project.copies()) / FEATURES as f64);
        }
        for mode in &mut modes {
            mode.measure(&program);
        }
        let project = Project::create();
        let started = Instant::now();
        shell(LOOP, &project, "loop");
        loops.push(started.elapsed().as_secs_f64());
    }
    let plain = Row::new("", "", rivals[1].0.iter().copied()).median();
    for ((seconds, megabytes), (name, _)) in rivals.into_iter().zip(RIVALS) {
        rows.push(Row::new(format!("{name}, a copy"), "s", seconds));
        rows.push(Row::new(format!("{name}, disk of a copy"), "MB", megabytes));
    }
    modes.into_iter().for_each(|mode| rows.extend(mode.rows(plain)));
    rows.push(Row::new("shell loop over worktrees, whole run", "s", loops));
    let (files, megabytes) = project::size();
    rows.push(Row::new("size", "MB", [megabytes as f64]));
    rows.push(Row::new("files", "files", [files as f64]));
    Page { suite: "versus-copies", about: ABOUT, rows }.publish();
}

/// Runs a line of shell with the project, a copy and a number.
fn shell(line: &str, project: &Project, number: &str) {
    let mut command = Command::new("sh");
    command.args(["-c", line, "sh"]).arg(project.root()).arg(project.copies().join(number)).arg(number);
    let status = command.stdin(Stdio::null()).status().expect("a shell can be started");
    assert!(status.success(), "{line}");
}

/// The samples of one way to make greenwave's copies.
struct Measured {
    mode: Mode,
    first: Vec<f64>,
    further: Vec<f64>,
    further_mb: Vec<f64>,
    whole: Vec<f64>,
    store_mb: Vec<f64>,
    memory_mb: Vec<f64>,
}

impl Measured {
    fn new(mode: Mode) -> Self {
        let (first, further, further_mb, whole) = Default::default();
        Self { mode, first, further, further_mb, whole, store_mb: Vec::new(), memory_mb: Vec::new() }
    }

    fn measure(&mut self, program: &Path) {
        let Some(one) = Run::of(program, self.mode, 1) else { return };
        let Some(all) = Run::of(program, self.mode, FEATURES) else { return };
        let further = (FEATURES - 1) as f64;
        self.first.push(one.begun_seconds);
        self.further.push((all.begun_seconds - one.begun_seconds).max(0.0) / further);
        self.further_mb.push((all.copies_mb - one.copies_mb).max(0.0) / further);
        self.whole.push(all.seconds);
        self.store_mb.push(all.store_mb);
        self.memory_mb.push(all.memory_mb);
    }

    /// Returns the rows. `plain` is the median time of a copy by `cp`, in seconds.
    fn rows(self, plain: f64) -> Vec<Row> {
        let name = self.mode.name();
        if self.first.is_empty() {
            return vec![Row::absent(format!("greenwave, {name}"), "not possible on this file system")];
        }
        let ratio = |samples: &[f64]| samples.iter().map(|it| it / plain * 100.0).collect::<Vec<_>>();
        let further = Row::new(format!("greenwave, {name}, further copy"), "s", self.further.clone());
        let further_mb =
            Row::new(format!("greenwave, {name}, disk of a further copy"), "MB", self.further_mb);
        let of_plain = Row::new(
            format!("greenwave, {name}, further copy / cp -r --reflink=auto"),
            "%",
            ratio(&self.further),
        );
        let (further, further_mb, of_plain) = match self.mode {
            Mode::Overlay => (further.at_most(OVERLAY_SECONDS), further_mb.at_most(OVERLAY_MB), of_plain),
            Mode::Reflink | Mode::Copy => (further, further_mb, of_plain.at_most(COPY_PERCENT)),
        };
        let first_ratio = ratio(&self.first);
        vec![
            further,
            further_mb,
            of_plain,
            Row::new(format!("greenwave, {name}, first copy"), "s", self.first),
            Row::new(format!("greenwave, {name}, first copy / cp -r --reflink=auto"), "%", first_ratio)
                .at_most(FIRST_PERCENT),
            Row::new(format!("greenwave, {name}, whole run"), "s", self.whole),
            Row::new(format!("greenwave, {name}, store"), "MB", self.store_mb),
            Row::new(format!("greenwave, {name}, peak memory"), "MB", self.memory_mb),
        ]
    }
}
