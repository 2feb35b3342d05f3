//! Runs simulated processes as coroutines that stop before every file operation.

use std::cell::Cell;
use std::fmt;
use std::ptr;
use std::rc::Rc;

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};

use super::{Process, WaitingFor};

/// Stack size of a coroutine in bytes. Compression needs most of it.
const STACK_BYTES: usize = 512 << 10;
/// Simulated duration of a clock call in nanoseconds.
const TICK: u64 = 1000;

thread_local! {
    /// Yielder of the coroutine that runs on this thread; null outside of one.
    static RUNNING: Cell<*const Yielder<(), WaitingFor>> = const { Cell::new(ptr::null()) };
    static NOW: Cell<u64> = const { Cell::new(0) };
    static AHEAD: Cell<i64> = const { Cell::new(0) };
    /// Stacks for reuse.
    static STACKS: Cell<Vec<DefaultStack>> = const { Cell::new(Vec::new()) };
}

/// Simulated processes that run step by step. Dropping the schedule kills the unfinished ones.
#[derive(Default)]
pub struct Schedule {
    entries: Vec<ScheduledProcess>,
}

struct ScheduledProcess {
    coroutine: Option<Coroutine<(), WaitingFor, (), DefaultStack>>,
    yielder: Rc<Cell<*const Yielder<(), WaitingFor>>>,
    process: Process,
    wait: WaitingFor,
}

/// Returns the simulated time of the running process in nanoseconds; for
/// [`Options::clock`](crate::Options::clock). Increases with every call on the same thread, except
/// for the clock offsets of processes.
pub fn clock() -> u64 {
    NOW.set(NOW.get() + TICK);
    (1_u64 << 60).saturating_add(NOW.get()).saturating_add_signed(AHEAD.get())
}

/// Stops the running process, like a file operation. Does nothing outside of a [`Schedule`].
pub fn pause() {
    wait(WaitingFor::Turn);
}

pub(super) fn reset_clock() {
    NOW.set(0);
}

/// Stops the running process until it is stepped again. Does nothing outside of a [`Schedule`].
pub(super) fn wait(wait: WaitingFor) {
    let yielder = RUNNING.get();
    if !yielder.is_null() {
        // SAFETY: `step` sets the pointer to the yielder of the coroutine that it resumes, which
        // lives as long as the coroutine runs, and clears it before it returns. Nothing else runs
        // on this thread meanwhile.
        unsafe { (*yielder).suspend(wait) };
    }
}

impl Schedule {
    /// Creates a schedule without processes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds code that a process runs, from its first step on; returns the number of the process.
    /// Panics propagate through [`step`](Self::step).
    pub fn spawn(&mut self, process: &Process, code: impl FnOnce() + 'static) -> usize {
        let yielder: Rc<Cell<*const Yielder<(), WaitingFor>>> = Rc::new(Cell::new(ptr::null()));
        let here = yielder.clone();
        let mut stacks = STACKS.take();
        let stack =
            stacks.pop().unwrap_or_else(|| DefaultStack::new(STACK_BYTES).expect("memory for a stack"));
        STACKS.set(stacks);
        let coroutine = Coroutine::with_stack(stack, move |yielder: &Yielder<(), WaitingFor>, ()| {
            here.set(yielder);
            RUNNING.set(yielder);
            code();
        });
        let coroutine = Some(coroutine);
        self.entries.push(ScheduledProcess {
            coroutine,
            yielder,
            process: process.clone(),
            wait: WaitingFor::Turn,
        });
        self.entries.len() - 1
    }

    /// Returns the numbers of the processes that can continue; `None` once all have finished.
    ///
    /// # Panics
    ///
    /// Panics on a deadlock: some processes have not finished, and all of these wait for locks.
    pub fn runnable(&self) -> Option<Vec<usize>> {
        let unfinished = || self.entries.iter().enumerate().filter(|(_, entry)| entry.coroutine.is_some());
        let can = unfinished().filter(|(_, entry)| match entry.wait {
            WaitingFor::Turn => true,
            WaitingFor::Lock(inode) => entry.process.state.lock().is_free(inode),
        });
        let can: Vec<usize> = can.map(|(number, _)| number).collect();
        unfinished().next()?;
        assert!(!can.is_empty(), "processes wait for each other's locks");
        Some(can)
    }

    /// Lets a process perform its next file operation and run up to the one after it; returns
    /// whether the process has finished.
    pub fn step(&mut self, number: usize) -> bool {
        let Some(entry) = self.entries.get_mut(number) else { return true };
        let Some(coroutine) = &mut entry.coroutine else { return true };
        AHEAD.set(entry.process.clock_ahead());
        RUNNING.set(entry.yielder.get());
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| coroutine.resume(())));
        RUNNING.set(ptr::null());
        AHEAD.set(0);
        match result {
            Ok(CoroutineResult::Yield(wait)) => {
                entry.wait = wait;
                false
            }
            Ok(CoroutineResult::Return(())) => {
                if let Some(coroutine) = entry.coroutine.take() {
                    recycle_stack(coroutine.into_stack());
                }
                true
            }
            Err(panic) => {
                entry.coroutine = None;
                std::panic::resume_unwind(panic)
            }
        }
    }

    /// Returns whether a process has finished.
    pub fn has_finished(&self, number: usize) -> bool {
        self.entries.get(number).is_none_or(|entry| entry.coroutine.is_none())
    }

    /// Kills a process, as SIGKILL does.
    pub fn kill(&mut self, number: usize) {
        if let Some(entry) = self.entries.get_mut(number) {
            entry.process.kill();
            unwind(entry);
        }
    }
}

/// Unwinds the stack of a killed process. Its file operations do not reach the disk.
fn unwind(entry: &mut ScheduledProcess) {
    if let Some(mut coroutine) = entry.coroutine.take() {
        RUNNING.set(ptr::null());
        if !coroutine.done() {
            coroutine.force_unwind();
        }
        recycle_stack(coroutine.into_stack());
    }
}

fn recycle_stack(stack: DefaultStack) {
    let mut stacks = STACKS.take();
    stacks.push(stack);
    STACKS.set(stacks);
}

impl Drop for Schedule {
    fn drop(&mut self) {
        for entry in &mut self.entries {
            if entry.coroutine.is_some() {
                entry.process.kill();
                unwind(entry);
            }
        }
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schedule").field("processes", &self.entries.len()).finish_non_exhaustive()
    }
}
