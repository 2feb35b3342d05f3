//! Finds the kernel objects that a test without a trace leaves behind.
//!
//! A trace shows which objects a test has created. Without one, an object counts against each test
//! during which it appeared, even if another program has created it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use crate::run::blocking::blocking;

/// The kernel's lists of System V objects (`proc_sysvipc(5)`), with descriptions.
const SYSTEM_V: [(&str, &str); 3] = [
    ("/proc/sysvipc/shm", "System V shared memory"),
    ("/proc/sysvipc/sem", "System V semaphores"),
    ("/proc/sysvipc/msg", "a System V message queue"),
];

/// Directories of POSIX shared memory and semaphores, and of message queues if they are mounted
/// (`shm_overview(7)`, `mq_overview(7)`).
pub(super) const POSIX: [&str; 2] = ["/dev/shm", "/dev/mqueue"];

/// Time after which an object of another program has probably been removed again.
const TRANSIENT: Duration = Duration::from_millis(200);

/// The kernel objects of the user at one moment: descriptions by identity.
#[derive(Debug)]
pub(super) struct ObjectList(BTreeMap<String, String>);

impl ObjectList {
    /// Lists the objects. The superuser's tests can create objects of any user.
    pub(super) async fn now() -> Self {
        blocking(|| {
            let user = rustix::process::geteuid();
            let user = (!user.is_root()).then(|| user.as_raw());
            let system_v = SYSTEM_V.iter().flat_map(|(list, description)| {
                let text = fs::read_to_string(list).unwrap_or_default();
                parse(&text, user).into_iter().map(move |object| {
                    (format!("{list} {}", object.id), format!("{description} {}", object.key()))
                })
            });
            let posix = POSIX.into_iter().flat_map(|directory| files(directory, user));
            Self(system_v.chain(posix).collect())
        })
        .await
    }

    /// Returns a description of an object that appeared after this list and stays.
    pub(super) async fn first_left(&self) -> Option<String> {
        let appeared = self.new_in(Self::now().await);
        if appeared.is_empty() {
            return None;
        }
        tokio::time::sleep(TRANSIENT).await;
        let now = Self::now().await;
        appeared.into_iter().find(|(identity, _)| now.0.contains_key(identity)).map(|(_, text)| text)
    }

    fn new_in(&self, mut now: Self) -> BTreeMap<String, String> {
        now.0.retain(|identity, _| !self.0.contains_key(identity));
        now.0
    }
}

/// A System V object.
#[derive(Debug, PartialEq, Eq)]
struct Object {
    key: i32,
    id: i32,
}

impl Object {
    fn key(&self) -> String {
        if self.key == 0 { "without a key".to_owned() } else { format!("with the key {:#x}", self.key) }
    }
}

/// Returns the objects in a list of the kernel that a user has created, or all without a user. The
/// columns between key, identifier and creator differ by kind.
fn parse(list: &str, user: Option<u32>) -> Vec<Object> {
    let mut lines = list.lines();
    let mut names = lines.next().unwrap_or_default().split_ascii_whitespace();
    let Some(creator) = names.position(|name| name == "cuid") else { return Vec::new() };
    let object = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let creator: u32 = words.get(creator)?.parse().ok()?;
        let is_own = user.is_none_or(|user| user == creator);
        let object = Object { key: words.first()?.parse().ok()?, id: words.get(1)?.parse().ok()? };
        is_own.then_some(object)
    };
    lines.filter_map(object).collect()
}

/// Returns the POSIX objects of a user in a directory, or all without a user.
fn files(directory: &str, user: Option<u32>) -> Vec<(String, String)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let object = |entry: fs::DirEntry| {
        let metadata = entry.metadata().ok()?;
        let is_own = user.is_none_or(|user| user == metadata.uid());
        let path = entry.path().display().to_string();
        (!metadata.is_dir() && is_own).then(|| (format!("{path} {}", metadata.ino()), path))
    };
    entries.filter_map(object).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_those_that_the_user_created() {
        let list = "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n\
                    1728185088          3   600          1     7     7     7     7          0 1764400000\n\
                            -2          4   600          1     7     7     8     8          0 1764400000\n";
        let (one, two) = (Object { key: 1_728_185_088, id: 3 }, Object { key: -2, id: 4 });
        assert_eq!(parse(list, Some(8)), [Object { key: -2, id: 4 }]);
        assert_eq!(parse(list, None), [one, two]);
        assert_eq!(parse("key semid\n1 2\n", None), []);
        assert_eq!(parse("", None), []);
    }
}
