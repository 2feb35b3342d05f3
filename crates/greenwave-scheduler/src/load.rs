//! Adapts the number of workers to the machine's load: a controller without a clock, and a reader
//! of Linux's load figures.
//!
//! Pressure stall information (<https://docs.kernel.org/accounting/psi.html>) measures the fraction
//! of time in which some task waited for a processor or for memory. Unlike the load average, it
//! ignores tasks that wait for a disk or sleep, and it covers the last 250 ms rather than the last
//! minute.

use std::fmt;
use std::fs;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Options for adapting the number of workers to the machine's load.
#[derive(Clone)]
pub struct LoadOptions {
    /// Minimum number of workers, regardless of load. 0 counts as 1, and numbers above the limit of
    /// the pool count as that limit. Default 1.
    pub min: u32,
    /// Interval between samples; at least 1 ms, default 250 ms.
    pub every: Duration,
    /// Source of the samples; by default `/proc` and the control group. A sample that panics or
    /// contains NaN leaves the number of workers unchanged.
    pub sampler: Arc<dyn Fn() -> LoadSample + Send + Sync>,
}

/// The machine's load at one time.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LoadSample {
    /// Fraction of the time since the last sample in which some task waited for a processor, from 0
    /// to 1.
    pub cpu_pressure: f64,
    /// Fraction of the time since the last sample in which some task waited for memory, from 0 to
    /// 1.
    pub memory_pressure: f64,
    /// Fraction of the control group's memory limit that is in use, from 0 to 1; 0 without a
    /// limit.
    pub memory_used: f64,
}

impl Default for LoadOptions {
    fn default() -> Self {
        let reader = Mutex::new(LoadReader::new());
        let sampler = move || reader.lock().unwrap_or_else(PoisonError::into_inner).sample();
        Self { min: 1, every: Duration::from_millis(250), sampler: Arc::new(sampler) }
    }
}

impl fmt::Debug for LoadOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadOptions")
            .field("min", &self.min)
            .field("every", &self.every)
            .finish_non_exhaustive()
    }
}

/// Above the `HIGH` thresholds the number of workers decreases, below the `LOW` thresholds it
/// increases, and in between it stays.
const CPU_HIGH: f64 = 0.4;
const CPU_LOW: f64 = 0.15;
const MEMORY_HIGH: f64 = 0.1;
const MEMORY_LOW: f64 = 0.02;
const MEMORY_USED_HIGH: f64 = 0.92;
const MEMORY_USED_LOW: f64 = 0.85;
/// Number of consecutive calm samples before a worker is added.
const CALM_SAMPLES: u32 = 2;

/// Additive increase, multiplicative decrease, with hysteresis.
#[derive(Debug)]
pub(crate) struct LoadController {
    min: u32,
    max: u32,
    admitted: u32,
    calm: u32,
}

impl LoadController {
    /// Starts with one worker for each processor available to this process, including the quota of
    /// its control group.
    pub(crate) fn new(follow: &LoadOptions, max: u32) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u32);
        let min = follow.min.max(1).min(max);
        Self { min, max, admitted: processors.clamp(min, max.max(min)), calm: 0 }
    }

    pub(crate) fn admitted(&self) -> u32 {
        self.admitted
    }

    /// Handles a sample, given the number of workers in use and the number of stages started since
    /// the last sample. Recently started stages do not show in the figures yet, so the number of
    /// workers does not increase after a burst of starts.
    pub(crate) fn sample(&mut self, sample: &LoadSample, used: u32, launched: u32) {
        let high = sample.cpu_pressure > CPU_HIGH
            || sample.memory_pressure > MEMORY_HIGH
            || sample.memory_used > MEMORY_USED_HIGH;
        let low = sample.cpu_pressure < CPU_LOW
            && sample.memory_pressure < MEMORY_LOW
            && sample.memory_used < MEMORY_USED_LOW;
        if high {
            // Removes a quarter of the workers in use. If fewer are in use than permitted, they are
            // not the cause of the load.
            self.calm = 0;
            let fewer = (used.min(self.admitted) * 3 / 4).max(self.min);
            self.admitted = self.admitted.min(fewer.max(self.min));
        } else if low && used >= self.admitted && launched < self.admitted.max(2) {
            self.calm += 1;
            if self.calm >= CALM_SAMPLES {
                self.calm = 0;
                self.admitted = (self.admitted + 1).min(self.max);
            }
        } else {
            self.calm = 0;
        }
    }
}

/// Reads Linux's load figures. Missing figures count as no load.
#[derive(Debug)]
struct LoadReader {
    last: Instant,
    cpu_micros: Option<u64>,
    memory_micros: Option<u64>,
    group: Option<String>,
}

impl LoadReader {
    fn new() -> Self {
        let group = fs::read_to_string("/proc/self/cgroup").ok();
        let group = group.as_deref().and_then(group_directory);
        Self { last: Instant::now(), cpu_micros: stalled("cpu"), memory_micros: stalled("memory"), group }
    }

    fn sample(&mut self) -> LoadSample {
        let elapsed = std::mem::replace(&mut self.last, Instant::now()).elapsed().as_secs_f64() * 1e6;
        let share = |now: Option<u64>, before: &mut Option<u64>| {
            let stalled =
                now.zip(std::mem::replace(before, now)).map(|(now, before)| now.saturating_sub(before));
            stalled.map(|micros| (micros as f64 / elapsed.max(1.0)).min(1.0))
        };
        let cpu = share(stalled("cpu"), &mut self.cpu_micros);
        LoadSample {
            cpu_pressure: cpu.unwrap_or_else(queue_pressure),
            memory_pressure: share(stalled("memory"), &mut self.memory_micros).unwrap_or(0.0),
            memory_used: self.group.as_deref().and_then(memory_share).unwrap_or(0.0),
        }
    }
}

/// Returns the microseconds since boot in which some task waited for a resource.
fn stalled(resource: &str) -> Option<u64> {
    total_of_some(&fs::read_to_string(format!("/proc/pressure/{resource}")).ok()?)
}

fn total_of_some(text: &str) -> Option<u64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    some.split_whitespace().find_map(|field| field.strip_prefix("total="))?.parse().ok()
}

/// Estimates the pressure from the number of runnable tasks beyond the number of processors, for
/// kernels without pressure figures.
fn queue_pressure() -> f64 {
    let running = fs::read_to_string("/proc/loadavg").ok().as_deref().and_then(running_of);
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as f64;
    // This thread is one of the running tasks.
    running.map_or(0.0, |running| ((running - 1.0 - processors) / processors).clamp(0.0, 1.0))
}

fn running_of(loadavg: &str) -> Option<f64> {
    loadavg.split_whitespace().nth(3)?.split('/').next()?.parse().ok()
}

/// Returns the directory of a control group of version 2.
fn group_directory(text: &str) -> Option<String> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(format!("/sys/fs/cgroup{}", path.trim_end_matches('/')))
}

fn memory_share(group: &str) -> Option<f64> {
    let number = |name: &str| fs::read_to_string(format!("{group}/{name}")).ok()?.trim().parse::<f64>().ok();
    // `max` means no limit and does not parse.
    Some(number("memory.current")? / number("memory.max")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calm() -> LoadSample {
        LoadSample::default()
    }

    fn busy() -> LoadSample {
        LoadSample { cpu_pressure: 0.9, ..LoadSample::default() }
    }

    fn controller(max: u32) -> LoadController {
        LoadController { min: 1, max, admitted: 4, calm: 0 }
    }

    #[test]
    fn the_limit_grows_by_one_when_calm_and_shrinks_by_a_quarter_under_pressure() {
        let mut controller = controller(8);
        for expected in [4, 5, 5, 6] {
            controller.sample(&calm(), controller.admitted(), 1);
            assert_eq!(controller.admitted(), expected);
        }
        for expected in [4, 3, 2, 1, 1] {
            controller.sample(&busy(), controller.admitted(), 1);
            assert_eq!(controller.admitted(), expected);
        }
        for _ in 0..100 {
            controller.sample(&calm(), controller.admitted(), 0);
        }
        assert_eq!(controller.admitted(), 8);
    }

    #[test]
    fn the_limit_is_stable_between_the_thresholds() {
        let mut controller = controller(8);
        let between = LoadSample { cpu_pressure: 0.3, ..LoadSample::default() };
        for _ in 0..20 {
            controller.sample(&between, controller.admitted(), 1);
            assert_eq!(controller.admitted(), 4);
            controller.sample(&calm(), controller.admitted(), 1);
        }
        assert_eq!(controller.admitted(), 4, "several calm samples in a row are required");
    }

    #[test]
    fn a_burst_of_starts_does_not_raise_the_limit() {
        let mut controller = controller(64);
        for _ in 0..100 {
            controller.sample(&calm(), controller.admitted(), 1000);
        }
        assert_eq!(controller.admitted(), 4);
    }

    #[test]
    fn an_unused_limit_does_not_grow() {
        let mut controller = controller(64);
        for _ in 0..100 {
            controller.sample(&calm(), 3, 0);
        }
        assert_eq!(controller.admitted(), 4);
    }

    #[test]
    fn memory_pressure_and_usage_lower_the_limit() {
        for sample in [
            LoadSample { memory_pressure: 0.2, ..LoadSample::default() },
            LoadSample { memory_used: 0.95, ..LoadSample::default() },
        ] {
            let mut controller = controller(8);
            controller.sample(&sample, 4, 1);
            assert_eq!(controller.admitted(), 3);
        }
    }

    #[test]
    fn linux_load_figures_are_parsed() {
        let text = "some avg10=1.00 avg60=0.50 avg300=0.10 total=123456\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        assert_eq!(total_of_some(text), Some(123_456));
        assert_eq!(total_of_some("nothing\n"), None);
        assert_eq!(running_of("0.20 0.18 0.12 3/80 11206\n"), Some(3.0));
        assert_eq!(
            group_directory("1:x:/y\n0::/user.slice/a\n").as_deref(),
            Some("/sys/fs/cgroup/user.slice/a")
        );
        assert_eq!(group_directory("0::/\n").as_deref(), Some("/sys/fs/cgroup"));
        let sample = (LoadOptions::default().sampler)();
        assert!((0.0..=1.0).contains(&sample.cpu_pressure), "{sample:?}");
    }
}
