//! What the machine's load says about how many workers to use: a controller without a clock, and a reader of what Linux tells. Knows nothing of
//! tasks.
//!
//! Pressure figures (<https://docs.kernel.org/accounting/psi.html>) say how much of the time somebody waited for a processor or for memory. Unlike
//! the load average they do not count what waits for a disk or sleeps, and they look back a quarter of a second and not a minute.

use std::fmt;
use std::fs;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How the machine's load is followed.
#[derive(Clone)]
pub struct LoadOptions {
    /// So many workers are used however great the load; 0 counts as 1, and more than exist as all.
    /// Default 1.
    pub min: u32,
    /// How often the load is sampled; at least 1 ms, default 250 ms.
    pub every: Duration,
    /// Where the figures come from; the default reads `/proc` and the control group. After a sample that
    /// panics, or has NaN in it, the number of workers stays as it is.
    pub sampler: Arc<dyn Fn() -> LoadSample + Send + Sync>,
}

/// The machine's load at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LoadSample {
    /// The share of the time since the last sample in which some task waited for a processor, from 0 to 1.
    pub cpu_pressure: f64,
    /// The same for memory.
    pub memory_pressure: f64,
    /// The share of the memory that the control group may use that it does, from 0 to 1; 0 without a limit.
    pub memory_used: f64,
}

impl Default for LoadOptions {
    fn default() -> Self {
        let reader = Mutex::new(Reader::new());
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

/// Above these there are too many workers, below the others there may be more; in between nothing changes.
const CPU_HIGH: f64 = 0.4;
const CPU_LOW: f64 = 0.15;
const MEMORY_HIGH: f64 = 0.1;
const MEMORY_LOW: f64 = 0.02;
const MEMORY_USED_HIGH: f64 = 0.92;
const MEMORY_USED_LOW: f64 = 0.85;
/// As many calm samples in a row before there is one worker more.
const CALM_SAMPLES: u32 = 2;

/// Additive increase, multiplicative decrease, with hysteresis.
#[derive(Debug)]
pub(crate) struct Control {
    min: u32,
    max: u32,
    admitted: u32,
    calm: u32,
}

impl Control {
    /// Begins with as many workers as there are processors for this process, its control group's quota included.
    pub(crate) fn new(follow: &LoadOptions, max: u32) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u32);
        let min = follow.min.max(1).min(max);
        Self { min, max, admitted: processors.clamp(min, max.max(min)), calm: 0 }
    }

    pub(crate) fn admitted(&self) -> u32 {
        self.admitted
    }

    /// Takes note of a sample, of how many workers are in use, and of how many stages were started since the last sample: what has just begun
    /// does not show in the figures yet, so a wave of starts never makes room for another.
    pub(crate) fn sample(&mut self, sample: &LoadSample, used: u32, launched: u32) {
        let high = sample.cpu_pressure > CPU_HIGH
            || sample.memory_pressure > MEMORY_HIGH
            || sample.memory_used > MEMORY_USED_HIGH;
        let low = sample.cpu_pressure < CPU_LOW
            && sample.memory_pressure < MEMORY_LOW
            && sample.memory_used < MEMORY_USED_LOW;
        if high {
            // A quarter of those in use fewer. When fewer are in use than may be, it is not they that make the load.
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

/// Reads what Linux tells. Where it tells nothing, there is no load.
#[derive(Debug)]
struct Reader {
    last: Instant,
    cpu_micros: Option<u64>,
    memory_micros: Option<u64>,
    group: Option<String>,
}

impl Reader {
    fn new() -> Self {
        let group = fs::read_to_string("/proc/self/cgroup").ok();
        let group = group.as_deref().and_then(group_folder);
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

/// Microseconds since the system started in which some task waited for a resource.
fn stalled(resource: &str) -> Option<u64> {
    total_of_some(&fs::read_to_string(format!("/proc/pressure/{resource}")).ok()?)
}

fn total_of_some(text: &str) -> Option<u64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    some.split_whitespace().find_map(|field| field.strip_prefix("total="))?.parse().ok()
}

/// Without pressure figures: how many more tasks want a processor than there are.
fn queue_pressure() -> f64 {
    let running = fs::read_to_string("/proc/loadavg").ok().as_deref().and_then(running_of);
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as f64;
    // This very reader is one of them.
    running.map_or(0.0, |running| ((running - 1.0 - processors) / processors).clamp(0.0, 1.0))
}

fn running_of(loadavg: &str) -> Option<f64> {
    loadavg.split_whitespace().nth(3)?.split('/').next()?.parse().ok()
}

/// The folder of a control group of version 2.
fn group_folder(text: &str) -> Option<String> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(format!("/sys/fs/cgroup{}", path.trim_end_matches('/')))
}

fn memory_share(group: &str) -> Option<f64> {
    let number = |name: &str| fs::read_to_string(format!("{group}/{name}")).ok()?.trim().parse::<f64>().ok();
    // `max` is no number: no limit.
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

    fn control(max: u32) -> Control {
        Control { min: 1, max, admitted: 4, calm: 0 }
    }

    #[test]
    fn it_grows_by_one_when_calm_and_shrinks_by_a_quarter_under_pressure() {
        let mut control = control(8);
        for expected in [4, 5, 5, 6] {
            control.sample(&calm(), control.admitted(), 1);
            assert_eq!(control.admitted(), expected);
        }
        for expected in [4, 3, 2, 1, 1] {
            control.sample(&busy(), control.admitted(), 1);
            assert_eq!(control.admitted(), expected);
        }
        for _ in 0..100 {
            control.sample(&calm(), control.admitted(), 0);
        }
        assert_eq!(control.admitted(), 8);
    }

    #[test]
    fn between_high_and_low_nothing_changes() {
        let mut control = control(8);
        let between = LoadSample { cpu_pressure: 0.3, ..LoadSample::default() };
        for _ in 0..20 {
            control.sample(&between, control.admitted(), 1);
            assert_eq!(control.admitted(), 4);
            control.sample(&calm(), control.admitted(), 1);
        }
        assert_eq!(control.admitted(), 4, "calm has to last");
    }

    #[test]
    fn a_wave_of_starts_makes_no_room_for_another() {
        let mut control = control(64);
        for _ in 0..100 {
            control.sample(&calm(), control.admitted(), 1000);
        }
        assert_eq!(control.admitted(), 4);
    }

    #[test]
    fn what_is_not_used_does_not_grow() {
        let mut control = control(64);
        for _ in 0..100 {
            control.sample(&calm(), 3, 0);
        }
        assert_eq!(control.admitted(), 4);
    }

    #[test]
    fn memory_counts_as_well() {
        for sample in [
            LoadSample { memory_pressure: 0.2, ..LoadSample::default() },
            LoadSample { memory_used: 0.95, ..LoadSample::default() },
        ] {
            let mut control = control(8);
            control.sample(&sample, 4, 1);
            assert_eq!(control.admitted(), 3);
        }
    }

    #[test]
    fn what_linux_tells_is_read() {
        let text = "some avg10=1.00 avg60=0.50 avg300=0.10 total=123456\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        assert_eq!(total_of_some(text), Some(123_456));
        assert_eq!(total_of_some("nothing\n"), None);
        assert_eq!(running_of("0.20 0.18 0.12 3/80 11206\n"), Some(3.0));
        assert_eq!(
            group_folder("1:x:/y\n0::/user.slice/a\n").as_deref(),
            Some("/sys/fs/cgroup/user.slice/a")
        );
        assert_eq!(group_folder("0::/\n").as_deref(), Some("/sys/fs/cgroup"));
        let sample = (LoadOptions::default().sampler)();
        assert!((0.0..=1.0).contains(&sample.cpu_pressure), "{sample:?}");
    }
}
