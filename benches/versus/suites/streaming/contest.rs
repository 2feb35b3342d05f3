//! Runs contestants on the same work, in turns.

use std::hint::black_box;
use std::time::Instant;

use greenwave_benches::Row;

use crate::allocations;

/// Does the work once, and returns a sum that must be equal for all contestants.
pub(crate) type Run = Box<dyn FnMut() -> usize>;

/// Number of measured rounds. Two more precede them.
const ROUNDS: usize = 15;

/// Several contestants that do the same work.
pub(crate) struct Contest {
    name: &'static str,
    unit: &'static str,
    /// Nanoseconds in a unit.
    scale: f64,
    /// Number of repetitions in a round, for work that is too short to measure once.
    repeats: usize,
    bytes: Option<usize>,
    limit: Option<f64>,
    of_rival: Option<f64>,
    allocations: Option<(usize, f64)>,
    contestants: Vec<Contestant>,
}

struct Contestant {
    name: &'static str,
    role: Role,
    run: Run,
    /// Time of each round, in nanoseconds.
    times: Vec<f64>,
    /// Number of allocations in the last round.
    allocations: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Greenwave,
    Rival,
    /// Does similar work that cannot be compared.
    Reference,
}

impl Contest {
    pub(crate) fn new(name: &'static str, unit: &'static str, scale: f64) -> Self {
        Self {
            name,
            unit,
            scale,
            repeats: 1,
            bytes: None,
            limit: None,
            of_rival: None,
            allocations: None,
            contestants: Vec::new(),
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn repeated(self, repeats: usize) -> Self {
        Self { repeats, ..self }
    }

    pub(crate) fn greenwave(self, run: Run) -> Self {
        self.with("greenwave", Role::Greenwave, run)
    }

    pub(crate) fn rival(self, name: &'static str, run: Run) -> Self {
        self.with(name, Role::Rival, run)
    }

    pub(crate) fn reference(self, name: &'static str, run: Run) -> Self {
        self.with(name, Role::Reference, run)
    }

    fn with(mut self, name: &'static str, role: Role, run: Run) -> Self {
        self.contestants.push(Contestant { name, role, run, times: Vec::new(), allocations: 0 });
        self
    }

    /// Sets the number of bytes that are read, to report a rate.
    pub(crate) fn bytes(self, bytes: usize) -> Self {
        Self { bytes: Some(bytes), ..self }
    }

    /// Sets Greenwave's expected time, in units of this contest.
    pub(crate) fn at_most(self, limit: f64) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// Sets Greenwave's expected time as a multiple of the fastest rival's.
    pub(crate) fn of_rival(self, ratio: f64) -> Self {
        Self { of_rival: Some(ratio), ..self }
    }

    /// Sets Greenwave's expected number of allocations for each of `units`.
    pub(crate) fn allocations_per(self, units: usize, limit: f64) -> Self {
        Self { allocations: Some((units, limit)), ..self }
    }

    /// Measures all contestants and returns the rows.
    pub(crate) fn run(mut self) -> Vec<Row> {
        let sums: Vec<_> = self.contestants.iter_mut().map(|it| (it.role, it.name, (it.run)())).collect();
        for (role, name, sum) in &sums {
            let is_same = *role == Role::Reference || *sum == sums[0].2;
            assert!(is_same, "{}: {name} returned {sum} instead of {}", self.name, sums[0].2);
        }
        for round in 0..ROUNDS + 2 {
            // The order changes, since each contestant starts with the processor's caches filled by
            // the previous one.
            let count = self.contestants.len();
            for turn in 0..count {
                let contestant = &mut self.contestants[(round + turn) % count];
                contestant.measure(self.repeats, round >= 2);
            }
        }
        self.rows()
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for contestant in &self.contestants {
            let times = contestant.times.iter().map(|time| time / self.scale);
            let row = Row::new(
                format!("{}: {}{}", self.name, contestant.name, self.rate(contestant)),
                self.unit,
                times,
            );
            let limit = self.limit.filter(|_| contestant.role == Role::Greenwave);
            rows.push(limit.map_or(row.clone(), |limit| row.at_most(limit)));
            rows.extend(self.allocation_row(contestant));
        }
        rows.extend(self.rival_row());
        rows
    }

    fn rate(&self, contestant: &Contestant) -> String {
        let Some(bytes) = self.bytes else { return String::new() };
        let median = Row::new("", "", contestant.times.iter().copied()).median();
        format!(" ({:.0} MB/s)", bytes as f64 * 1e3 / median)
    }

    fn allocation_row(&self, contestant: &Contestant) -> Option<Row> {
        let (units, limit) = self.allocations?;
        let each = contestant.allocations as f64 / units as f64;
        let row = Row::new(format!("{}: {}, allocations per event", self.name, contestant.name), "", [each]);
        Some(if contestant.role == Role::Greenwave { row.at_most(limit) } else { row })
    }

    /// Returns the ratio to the rival with the best median, round by round.
    fn rival_row(&self) -> Option<Row> {
        let limit = self.of_rival?;
        let median = |it: &Contestant| Row::new("", "", it.times.iter().copied()).median();
        let rivals = self.contestants.iter().filter(|it| it.role == Role::Rival);
        let best = rivals.min_by(|a, b| median(a).total_cmp(&median(b)))?;
        let greenwave = self.contestants.iter().find(|it| it.role == Role::Greenwave)?;
        let ratios = greenwave.times.iter().zip(&best.times).map(|(greenwave, best)| greenwave / best);
        let name = format!("{}: greenwave, of the best rival ({})", self.name, best.name);
        Some(Row::new(name, "x", ratios).at_most(limit))
    }
}

impl Contestant {
    fn measure(&mut self, repeats: usize, counts: bool) {
        let (before, begun) = (allocations::count(), Instant::now());
        for _ in 0..repeats {
            black_box((self.run)());
        }
        let nanoseconds = begun.elapsed().as_nanos() as f64 / repeats as f64;
        if counts {
            self.times.push(nanoseconds);
            self.allocations = allocations::count() - before;
        }
    }
}
