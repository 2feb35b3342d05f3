//! Scripts: values that describe a plan, the behaviour of its agents and tests, and the
//! interruptions of its runs. Scripts can be drawn at random, shrunk and printed.

use std::fmt;

use greenwave_testkit::random::Random;

/// An answer of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// A file that passes the test.
    Good,
    /// A file that passes the test, and a line in a file that other features change in the same
    /// place.
    Shared,
    /// A file that passes the test, and a file that breaks the test of another feature.
    Breaks(usize),
    /// A file that passes the test, and the removal of another file.
    Deletes,
    /// A file whose test fails at first on each merge, and passes when it is repeated.
    Flaky,
    /// A file that passes the test, and a change of the test itself.
    Protected,
    /// A file that passes the test, and a file that breaks the guard.
    Unguarded,
    /// A file that fails the test.
    Bad,
    /// A file that passes alone and fails after merging.
    BadJoined,
    /// A file that the review refuses, if there is a review.
    Unreviewed,
    /// A file that makes the test hang.
    TestHangs,
    /// A file that makes the test runner panic.
    TestPanics,
    /// A file that makes the test fail to start.
    TestBroken,
    /// Text without a file.
    Garbage,
    /// A search/replace block instead of a whole file.
    Edit,
    /// A unified diff.
    Diff,
    /// A file that contains fences as long as the one around it.
    Nested,
    /// A file outside of the project.
    Outside,
    /// An unclosed file, then the end of the stream without the end of the answer.
    BreaksOff,
    /// A whole file, then the end of the stream without the end of the answer.
    BreaksOffLate,
    /// A temporary refusal, such as a rate limit.
    Refuses,
    /// A permanent refusal.
    RefusesForGood,
    /// The call panics.
    CallPanics,
    /// The stream panics after a file. The answer ends there, like one that breaks off.
    StreamPanics,
    /// The call never returns.
    CallHangs,
    /// The stream never ends.
    StreamHangs,
}

impl Answer {
    pub(super) const ALL: [Answer; 26] = [
        Answer::Good,
        Answer::Shared,
        Answer::Breaks(0),
        Answer::Deletes,
        Answer::Flaky,
        Answer::Protected,
        Answer::Unguarded,
        Answer::Bad,
        Answer::BadJoined,
        Answer::Unreviewed,
        Answer::TestHangs,
        Answer::TestPanics,
        Answer::TestBroken,
        Answer::Garbage,
        Answer::Edit,
        Answer::Diff,
        Answer::Nested,
        Answer::Outside,
        Answer::BreaksOff,
        Answer::BreaksOffLate,
        Answer::Refuses,
        Answer::RefusesForGood,
        Answer::CallPanics,
        Answer::StreamPanics,
        Answer::CallHangs,
        Answer::StreamHangs,
    ];
}

/// An answer of the agent that writes the tests of a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TestAnswer {
    /// A file with a test that fails without the feature.
    Good,
    /// A file with a test that passes without the feature.
    Passing,
    /// A file without a test.
    Empty,
    /// A file with a test that cannot run.
    Broken,
    /// A file that no harness finds.
    Lost,
    /// A file with a test, and the code.
    WithCode,
    /// Text without a file.
    Garbage,
    /// A file, then the end of the stream without the end of the answer.
    BreaksOff,
    /// A temporary refusal.
    Refuses,
}

impl TestAnswer {
    pub(super) const ALL: [TestAnswer; 9] = [
        TestAnswer::Good,
        TestAnswer::Passing,
        TestAnswer::Empty,
        TestAnswer::Broken,
        TestAnswer::Lost,
        TestAnswer::WithCode,
        TestAnswer::Garbage,
        TestAnswer::BreaksOff,
        TestAnswer::Refuses,
    ];
}

/// Behaviour of a feature's agent when a session opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Connect {
    Opens,
    /// Fails for the first time.
    FailsOnce,
    Fails,
    Panics,
    Hangs,
}

/// Result of a feature's test before any code is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Red {
    Fails,
    Passes,
    RunsNothing,
    Panics,
    Hangs,
    Broken,
}

/// The user's decisions about the answers of a feature, before their merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// Nobody is asked.
    No,
    /// Every answer is approved.
    Approved,
    /// The first answer is rejected, and the others are approved.
    Rejected,
    /// The user never decides.
    Undecided,
}

/// The guard of a plan: a test that passes before the run, unless it fails from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guard {
    None,
    Passes,
    FailsAtStart,
}

/// A feature, its agent and its test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FeatureScript {
    /// Indices of features, all smaller than its own.
    pub(super) depends_on: Vec<usize>,
    pub(super) attempts_max: u32,
    /// Answers by attempt. The last one repeats.
    pub(super) answers: Vec<Answer>,
    /// Answers of further candidates, the same at each attempt.
    pub(super) rivals: Vec<Answer>,
    pub(super) connect: Connect,
    /// Number of requests that find the agent overloaded, before the first answer.
    pub(super) overloads: u32,
    pub(super) red: Red,
    /// Answers of the agent that writes the tests, by attempt. The last one repeats. Empty if the
    /// plan has the tests.
    pub(super) written: Vec<TestAnswer>,
    pub(super) review: bool,
    pub(super) hold: Hold,
    /// Units that the test holds of the only resource, which has two.
    pub(super) units: u32,
    pub(super) answer_ms: u64,
    pub(super) test_ms: u64,
}

/// Kind of interruption of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interruption {
    /// Operations from this step on have no effect, as after SIGKILL.
    Kill,
    /// The run is stopped through its `Stopper`.
    Stop,
    /// The future of the run and its runtime are dropped.
    Drop,
    /// The next file of the project cannot be written.
    Fault,
    /// The user adds a line to the file that features share.
    Edit,
    /// The user adds a line where features add theirs, and moves it away some time later.
    Overlap,
    /// The user creates the file of a feature that is not green, and removes it some time later.
    Create,
    /// The user changes the file that a feature may remove, and undoes that some time later.
    Change,
    /// The user removes the file that a feature may remove.
    Remove,
    /// The user rewrites the file that features share, in one of [`REWRITES`] ways, and restores
    /// its lines some time later.
    Rewrite(u8),
    /// From this step on the guard fails with all files.
    Unguard,
}

/// Number of ways to rewrite a file.
pub(super) const REWRITES: u8 = 7;

/// Time until the user undoes an edit, or `None` if that is after the run.
pub(super) type Patience = Option<u64>;

impl Interruption {
    pub(super) const ALL: [Interruption; 12] = [
        Interruption::Kill,
        Interruption::Stop,
        Interruption::Drop,
        Interruption::Fault,
        Interruption::Edit,
        Interruption::Overlap,
        Interruption::Create,
        Interruption::Change,
        Interruption::Remove,
        Interruption::Rewrite(0),
        Interruption::Rewrite(4),
        Interruption::Unguard,
    ];
}

impl Interruption {
    /// Returns whether the user edits files that a feature may change.
    pub(super) fn is_edit(self) -> bool {
        matches!(self, Self::Overlap | Self::Create | Self::Change | Self::Remove | Self::Rewrite(_))
    }
}

/// A plan and its runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Script {
    pub(super) workers: u32,
    pub(super) agents: u32,
    pub(super) features_max: u32,
    pub(super) features: Vec<FeatureScript>,
    /// Interruptions of the first runs, one for each, with the step at which they happen.
    pub(super) interruptions: Vec<(Interruption, usize)>,
    /// Numbers of the runs before which all cached test results are lost.
    pub(super) forgetful: Vec<usize>,
    pub(super) guard: Guard,
    /// Milliseconds until the user undoes an edit that may overlap.
    pub(super) patience_ms: Patience,
    /// Whether the results are commits on a branch instead of files.
    pub(super) on_branch: bool,
}

impl Script {
    pub(super) fn random(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let count = 1 + random.index(6);
        let mut features: Vec<FeatureScript> = (0..count).map(|at| feature(&mut random, at, count)).collect();
        let mut of_tests = Random::new(!seed);
        for feature in features.iter_mut().filter(|it| it.red == Red::Fails && it.connect == Connect::Opens) {
            feature.written = written(&mut of_tests);
        }
        let interruptions = (0..random.index(4)).map(|_| {
            let kinds = Interruption::ALL;
            let kind = match kinds[random.index(kinds.len())] {
                Interruption::Rewrite(_) => Interruption::Rewrite(random.index(REWRITES.into()) as u8),
                other => other,
            };
            (kind, random.index(5 + 20 * count))
        });
        let interruptions: Vec<_> = interruptions.collect();
        let forgetful = (1..=interruptions.len() + 1).filter(|_| random.chance(15)).collect();
        Self {
            workers: 1 + random.index(3) as u32,
            agents: 1 + random.index(3) as u32,
            features_max: 1 + random.index(count) as u32,
            features,
            interruptions,
            forgetful,
            guard: *[Guard::None, Guard::None, Guard::Passes, Guard::FailsAtStart]
                .get(random.index(4))
                .unwrap(),
            patience_ms: random.chance(60).then(|| 1 + random.index(20_000) as u64),
            on_branch: false,
        }
    }

    /// Returns whether the user decides about every answer that is held, so that a run can wait.
    pub(super) fn waits_for_approval(&self) -> bool {
        self.features.iter().all(|feature| feature.hold != Hold::Undecided)
    }

    /// Returns whether there are more features than can be in progress at once.
    pub(super) fn is_crowded(&self) -> bool {
        self.features.len() > self.features_max as usize
    }

    /// Returns scripts that are a little simpler, the simplest first.
    pub(super) fn simpler(&self) -> Vec<Script> {
        let mut simpler = Vec::new();
        let mut with = |change: &dyn Fn(&mut Script)| {
            let mut script = self.clone();
            change(&mut script);
            if script != *self {
                simpler.push(script);
            }
        };
        for gone in 0..self.features.len() {
            with(&|script| script.remove(gone));
        }
        for gone in 0..self.interruptions.len() {
            with(&|script| {
                script.interruptions.remove(gone);
            });
        }
        with(&|script| script.forgetful.clear());
        with(&|script| script.guard = Guard::None);
        with(&|script| script.patience_ms = None);
        with(&|script| script.on_branch = false);
        for at in 0..self.features.len() {
            with(&|script| script.features[at].depends_on.clear());
            with(&|script| script.features[at].answers = vec![Answer::Good]);
            with(&|script| script.features[at].answers.truncate(1));
            with(&|script| {
                if script.features[at].answers.len() > 1 {
                    script.features[at].answers.remove(0);
                }
            });
            with(&|script| script.features[at].rivals.clear());
            with(&|script| script.features[at].written.clear());
            with(&|script| {
                if script.features[at].written.len() > 1 {
                    script.features[at].written.remove(0);
                }
            });
            with(&|script| script.features[at].rivals.truncate(1));
            with(&|script| script.features[at].connect = Connect::Opens);
            with(&|script| script.features[at].overloads = 0);
            with(&|script| script.features[at].red = Red::Fails);
            with(&|script| script.features[at].review = false);
            with(&|script| script.features[at].hold = Hold::No);
            with(&|script| script.features[at].units = 0);
            with(&|script| script.features[at].attempts_max = 1);
            with(&|script| script.features[at].attempts_max = script.features[at].attempts_max.min(2));
        }
        for at in 0..self.interruptions.len() {
            with(&|script| script.interruptions[at].1 /= 2);
            with(&|script| script.interruptions[at].1 = script.interruptions[at].1.saturating_sub(1));
        }
        with(&|script| (script.workers, script.agents, script.features_max) = (1, 1, 1));
        simpler
    }

    fn remove(&mut self, gone: usize) {
        if self.features.len() == 1 {
            return;
        }
        self.features.remove(gone);
        let moved = |other: usize| if other > gone { other - 1 } else { other };
        for feature in &mut self.features {
            feature.depends_on.retain(|&other| other != gone);
            feature.depends_on.iter_mut().for_each(|other| *other = moved(*other));
            for answer in &mut feature.answers {
                match answer {
                    Answer::Breaks(other) if *other == gone => *answer = Answer::Good,
                    Answer::Breaks(other) => *other = moved(*other),
                    _ => {}
                }
            }
        }
    }
}

fn feature(random: &mut Random, at: usize, count: usize) -> FeatureScript {
    let mut depends_on: Vec<usize> = (0..at).filter(|_| random.chance(35)).collect();
    depends_on.truncate(3);
    let mut answers: Vec<Answer> =
        (0..random.index(3)).map(|_| Answer::ALL[random.index(Answer::ALL.len())]).collect();
    // Fatal answers are rarer than answers that cost an attempt, and most features end green.
    // Otherwise runs would hardly merge anything.
    let is_fatal = |answer: &Answer| {
        use Answer as A;
        matches!(answer, A::TestPanics | A::TestBroken | A::RefusesForGood | A::CallPanics)
    };
    answers.retain(|answer| !is_fatal(answer) || random.chance(25));
    answers.push(match random.index(20) {
        0 => Answer::ALL[random.index(Answer::ALL.len())],
        1..=8 => Answer::Shared,
        _ => Answer::Good,
    });
    for answer in &mut answers {
        if let Answer::Breaks(other) = answer {
            *other = random.index(count);
            if *other == at {
                *answer = Answer::Good;
            }
        }
    }
    let rarely = random.index(60);
    FeatureScript {
        written: Vec::new(),
        depends_on,
        attempts_max: [1, 2, 3, 4, 4, 5, 6, 8][random.index(8)],
        answers,
        rivals: rivals(random),
        connect: match rarely {
            0 => Connect::Fails,
            1 => Connect::Hangs,
            2 => Connect::Panics,
            _ => Connect::Opens,
        },
        overloads: if random.chance(20) { 1 + random.index(3) as u32 } else { 0 },
        red: match rarely {
            3 => Red::Passes,
            4 => Red::RunsNothing,
            5 => Red::Panics,
            6 => Red::Hangs,
            7 => Red::Broken,
            _ => Red::Fails,
        },
        review: random.chance(30),
        units: [0, 0, 1, 2][random.index(4)],
        answer_ms: 1 + random.index(5000) as u64,
        test_ms: 1 + random.index(3000) as u64,
        hold: match random.index(24) {
            0..=2 => Hold::Approved,
            3..=4 => Hold::Rejected,
            5 => Hold::Undecided,
            _ => Hold::No,
        },
    }
}

/// Returns answers of an agent that writes tests, if there is one. The last one is mostly good.
fn written(random: &mut Random) -> Vec<TestAnswer> {
    if !random.chance(25) {
        return Vec::new();
    }
    let any = |random: &mut Random| TestAnswer::ALL[random.index(TestAnswer::ALL.len())];
    let mut answers: Vec<TestAnswer> = (0..random.index(3)).map(|_| any(random)).collect();
    answers.push(if random.chance(90) { TestAnswer::Good } else { any(random) });
    answers
}

/// Returns answers of further candidates that do not pass, so that the first one is chosen if it
/// passes.
fn rivals(random: &mut Random) -> Vec<Answer> {
    let kinds = [Answer::Bad, Answer::Garbage, Answer::Refuses, Answer::RefusesForGood, Answer::BreaksOff];
    let count = if random.chance(15) { 1 + random.index(2) } else { 0 };
    (0..count).map(|_| kinds[random.index(kinds.len())]).collect()
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} workers, {} agents, {} features at once; interrupted {:?}, undone after {:?} ms; results lost \
             before runs {:?}; guard {:?}, on a branch: {}",
            self.workers,
            self.agents,
            self.features_max,
            self.interruptions,
            self.patience_ms,
            self.forgetful,
            self.guard,
            self.on_branch
        )?;
        self.features.iter().enumerate().try_for_each(|(at, feature)| writeln!(f, "  f{at}: {feature:?}"))
    }
}
