//! Reuses threads for supervisors: creating a thread with its stack and heap arena costs more than
//! the whole trace of a small command.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::ThreadId;
use std::time::Duration;

use parking_lot::Mutex;

/// Time after which an idle thread ends.
const IDLE_MAX: Duration = Duration::from_secs(5);

type Job = Box<dyn FnOnce() + Send>;

struct IdleThread {
    id: ThreadId,
    jobs: SyncSender<Job>,
}

/// Idle threads. The last to become idle is used first, so that the others reach
/// [`IDLE_MAX`].
static IDLE: Mutex<Vec<IdleThread>> = Mutex::new(Vec::new());

/// Runs a job on an idle thread, or on a new one if none is idle.
///
/// The number of threads is not limited: each job serves a running command, which would stop at its
/// next system call if the job had to wait.
pub(super) fn run(job: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let job: Job = Box::new(job);
    let idle = IDLE.lock().pop();
    let Some(thread) = idle else { return start(job) };
    match thread.jobs.send(job) {
        Ok(()) => Ok(()),
        Err(refused) => start(refused.0),
    }
}

fn start(job: Job) -> io::Result<()> {
    let thread = std::thread::Builder::new().name("greenwave-trace".to_owned());
    thread.spawn(move || work(job)).map(drop)
}

fn work(first: Job) {
    let id = std::thread::current().id();
    let (sender, receiver) = sync_channel(1);
    first();
    loop {
        IDLE.lock().push(IdleThread { id, jobs: sender.clone() });
        match next(id, &receiver) {
            Some(job) => job(),
            None => return,
        }
    }
}

fn next(id: ThreadId, jobs: &Receiver<Job>) -> Option<Job> {
    if let Ok(job) = jobs.recv_timeout(IDLE_MAX) {
        return Some(job);
    }
    let mut idle = IDLE.lock();
    match idle.iter().position(|thread| thread.id == id) {
        Some(at) => {
            idle.remove(at);
            None
        }
        None => {
            // `run` has just taken this thread from the list and is about to send a job.
            drop(idle);
            jobs.recv().ok()
        }
    }
}
