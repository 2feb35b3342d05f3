//! Tests that use kernel objects and leave them behind. Each test has a unique key.

#![expect(clippy::unwrap_used, reason = "a helper of tests is a test")]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use greenwave_cache::{MemoryBackend, Tier, Tiered, TieredOptions};
use greenwave_testing::{
    CacheDecision, Environment, Runner, RunnerOptions, SCHEMA, Source, Test, TraceMode, TraceStatus,
};
use greenwave_testkit::service::{compile, is_available};
use tempfile::TempDir;

/// A C program that runs its arguments as operations, in order. The first argument is a key.
///
/// `shm`, `sem` and `msg` open or create the object with the key, and `private-…` creates one
/// without a key. `remove` removes the last object, `use` uses it, `id` selects the semaphores with
/// the following number, and `wait` waits for the following file.
const SOURCE: &str = r#"
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <unistd.h>
int main(int count, char **words) {
    key_t key = atoi(words[1]);
    char kind = 0;
    int id = -1;
    for (int at = 2; at < count; at++) {
        char *word = words[at];
        if (!strcmp(word, "wait")) {
            at++;
            while (access(words[at], F_OK) != 0) usleep(1000);
        } else if (!strcmp(word, "id")) {
            id = atoi(words[++at]);
            kind = 's';
        } else if (!strcmp(word, "remove")) {
            if ((kind == 's' ? semctl(id, 0, IPC_RMID) : kind == 'm' ? msgctl(id, IPC_RMID, 0) : shmctl(id, IPC_RMID, 0)) != 0) return 1;
        } else if (!strcmp(word, "use")) {
            struct sembuf up = { 0, 1, 0 };
            struct msgbuf { long type; char text[1]; } message = { 1, "x" };
            if (kind == 's' && semop(id, &up, 1) != 0) return 2;
            if (kind == 'm' && msgsnd(id, &message, 1, IPC_NOWAIT) != 0) return 2;
            if (kind == 'h' && shmat(id, 0, 0) == (void *)-1) return 2;
        } else {
            int is_private = !strncmp(word, "private-", 8);
            key_t of = is_private ? IPC_PRIVATE : key;
            if (is_private) word += 8;
            kind = !strcmp(word, "sem") ? 's' : !strcmp(word, "msg") ? 'm' : 'h';
            id = kind == 's' ? semget(of, 1, IPC_CREAT | 0600)
               : kind == 'm' ? msgget(of, IPC_CREAT | 0600)
               : shmget(of, 4096, IPC_CREAT | 0600);
            if (id < 0) return 3;
        }
    }
    return 0;
}
"#;

/// A project that contains the program, and a unique key.
struct ObjectProject {
    directory: TempDir,
    key: u32,
}

impl ObjectProject {
    /// Returns `None` without tracing or a C compiler.
    fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let directory = tempfile::tempdir().unwrap();
        let traced = match TraceStatus::of(TraceMode::WhenPossible) {
            TraceStatus::Traced => Ok(()),
            other => Err(other.as_str()),
        };
        if !is_available("tracing", &traced) {
            return None;
        }
        compile(directory.path(), "object", SOURCE, &[])?;
        let key = 0x6800_0000 | (std::process::id() & 0xffff) << 8 | NEXT.fetch_add(1, Ordering::Relaxed);
        Some(Self { directory, key })
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn test(&self, name: &str, words: &str) -> Test {
        let command = format!("./object {} {words}", self.key);
        Test {
            inputs: vec!["object".to_owned()],
            ..Test::new(name, ["sh".to_owned(), "-c".to_owned(), command])
        }
    }

    /// Runs operations outside of a test.
    fn act(&self, words: &str) {
        let words = words.split(' ').map(str::to_owned);
        let words = std::iter::once(self.key.to_string()).chain(words);
        assert!(Command::new(self.path().join("object")).args(words).status().unwrap().success());
    }

    async fn stored(&self, runner: &Runner, words: &str) -> CacheDecision {
        let outcome = runner.run(self.path(), &self.test("t", words)).await.unwrap();
        assert!(outcome.passed(), "{}", String::from_utf8_lossy(&outcome.output));
        let Source::Ran(stored) = outcome.source else { panic!("{words} is cached") };
        stored
    }

    /// Returns the numbers of semaphores without a key.
    fn private_semaphores() -> Vec<String> {
        let list = std::fs::read_to_string("/proc/sysvipc/sem").unwrap();
        let words = list.lines().skip(1).map(|line| line.split_ascii_whitespace());
        words
            .filter_map(|mut words| (words.next()? == "0").then(|| words.next().unwrap().to_owned()))
            .collect()
    }
}

fn runner() -> Runner {
    let tier = Tier::new("memory", Arc::new(MemoryBackend::new(100, 1 << 20).unwrap()));
    let path = ("PATH".into(), std::env::var_os("PATH").unwrap());
    let options = RunnerOptions { trace: TraceMode::WhenPossible, ..RunnerOptions::default() };
    let cache = Tiered::new(vec![tier], TieredOptions::new(SCHEMA));
    Runner::with(Environment::new([path]), Some(cache), options)
}

#[tokio::test]
async fn a_test_that_leaves_an_object_behind_is_not_stored() {
    for (words, expected) in [
        ("shm", "System V shared memory"),
        ("sem", "System V semaphores"),
        ("msg use", "a System V message queue"),
    ] {
        let Some(project) = ObjectProject::new() else { return };
        let stored = project.stored(&runner(), words).await;
        let described = format!("{expected} with the key {:#x}", project.key);
        assert_eq!(stored, CacheDecision::LeftObject(described.clone()));
        assert_eq!(
            stored.reason().unwrap(),
            format!("the test left {described} behind (remove the object before the test exits)")
        );
        // The object of the first run exists before the second.
        let kind = words.split(' ').next().unwrap();
        let used = CacheDecision::UsedObject(format!("{described}, which existed before"));
        assert_eq!(project.stored(&runner(), kind).await, used);
        project.act(&format!("{kind} remove"));
    }
}

#[tokio::test]
async fn a_test_that_removes_its_objects_is_stored() {
    let Some(project) = ObjectProject::new() else { return };
    for words in
        ["shm use remove", "sem use remove", "msg use remove", "private-msg use remove", "private-shm remove"]
    {
        let runner = runner();
        assert_eq!(project.stored(&runner, words).await, CacheDecision::Stored, "{words}");
        assert!(runner.run(project.path(), &project.test("t", words)).await.unwrap().is_cached(), "{words}");
    }
}

#[tokio::test]
async fn a_new_object_with_the_key_makes_the_result_stale() {
    let Some(project) = ObjectProject::new() else { return };
    let (runner, words) = (runner(), "sem use remove");
    assert_eq!(project.stored(&runner, words).await, CacheDecision::Stored);
    project.act("sem");
    let found = runner.cached_result(project.path(), &project.test("t", words)).await.unwrap();
    assert!(found.is_none(), "the object exists now");
    project.act("sem remove");
    assert!(runner.cached_result(project.path(), &project.test("t", words)).await.unwrap().is_some());
}

#[tokio::test]
async fn an_object_that_is_used_by_number_existed_before() {
    let Some(project) = ObjectProject::new() else { return };
    let before = ObjectProject::private_semaphores();
    project.act("private-sem");
    let id = ObjectProject::private_semaphores().into_iter().find(|id| !before.contains(id)).unwrap();
    let stored = project.stored(&runner(), &format!("id {id} use")).await;
    project.act(&format!("id {id} remove"));
    let expected = format!("System V semaphores with the number {id}, which existed before");
    assert_eq!(stored, CacheDecision::UsedObject(expected));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_left_behind_is_attributed_to_one_of_concurrent_tests() {
    let (Some(guilty), Some(innocent), Some(bystander)) =
        (ObjectProject::new(), ObjectProject::new(), ObjectProject::new())
    else {
        return;
    };
    // The guilty test creates its object while the others run, and they end after it.
    let gate = tempfile::tempdir().unwrap();
    let (begun, left) = (gate.path().join("begun"), gate.path().join("left"));
    let runners = [runner(), runner(), runner()];
    let test = |project: &ObjectProject, command: String| Test {
        command: vec!["sh".to_owned(), "-c".to_owned(), command],
        ..project.test("t", "")
    };
    let waits = format!("wait {}", left.display());
    let key = innocent.key;
    let one = format!("./object {key} shm use remove; : > {}; ./object 1 {waits}", begun.display());
    let one = test(&innocent, one);
    let two = test(
        &guilty,
        format!("./object 1 wait {}; ./object {} sem && : > {}", begun.display(), guilty.key, left.display()),
    );
    let three = test(&bystander, format!("./object 1 {waits}"));
    let (one, two, three) = tokio::join!(
        runners[0].run(innocent.path(), &one),
        runners[1].run(guilty.path(), &two),
        runners[2].run(bystander.path(), &three),
    );
    guilty.act("sem remove");
    let left_behind = |outcome: &greenwave_testing::Outcome| {
        matches!(&outcome.source, Source::Ran(CacheDecision::LeftObject(_)))
    };
    let (one, two, three) = (one.unwrap(), two.unwrap(), three.unwrap());
    assert!(one.passed() && two.passed() && three.passed());
    assert!(left_behind(&two), "{:?}", two.source);
    assert!(!left_behind(&one) && !left_behind(&three), "{:?} {:?}", one.source, three.source);
}
