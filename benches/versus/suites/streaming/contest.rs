//! Ours and its rivals on the same work, round by round in turn. Knows nothing of what the work is.

use std::hint::black_box;
use std::time::Instant;

use greenwave_benches::Row;

use crate::allocations;

/// Does the work once, and returns a sum by which to see that all do the same.
pub(crate) type Run = Box<dyn FnMut() -> usize>;

/// After two rounds that are not counted.
const ROUNDS: usize = 15;

/// The same work for all.
pub(crate) struct Contest {
    name: &'static str,
    unit: &'static str,
    /// Nanoseconds in a unit.
    scale: f64,
    /// How often the work is done in a round, where once is too short to be measured.
    repeats: usize,
    bytes: Option<usize>,
    limit: Option<f64>,
    of_rival: Option<f64>,
    allocations: Option<(usize, f64)>,
    contenders: Vec<Contender>,
}

struct Contender {
    name: &'static str,
    role: Role,
    run: Run,
    /// Nanoseconds of each round.
    times: Vec<f64>,
    /// Allocations of the last round.
    allocations: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Ours,
    Rival,
    /// Does something similar, but not the same.
    Beside,
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
            contenders: Vec::new(),
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn repeated(self, repeats: usize) -> Self {
        Self { repeats, ..self }
    }

    pub(crate) fn ours(self, name: &'static str, run: Run) -> Self {
        self.with(name, Role::Ours, run)
    }

    pub(crate) fn rival(self, name: &'static str, run: Run) -> Self {
        self.with(name, Role::Rival, run)
    }

    pub(crate) fn beside(self, name: &'static str, run: Run) -> Self {
        self.with(name, Role::Beside, run)
    }

    fn with(mut self, name: &'static str, role: Role, run: Run) -> Self {
        self.contenders.push(Contender { name, role, run, times: Vec::new(), allocations: 0 });
        self
    }

    /// How much is read, to give a rate.
    pub(crate) fn bytes(self, bytes: usize) -> Self {
        Self { bytes: Some(bytes), ..self }
    }

    /// What ours may take.
    pub(crate) fn at_most(self, limit: f64) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// What ours may take in multiples of the fastest rival's time.
    pub(crate) fn of_rival(self, ratio: f64) -> Self {
        Self { of_rival: Some(ratio), ..self }
    }

    /// What ours may allocate for each of `units`.
    pub(crate) fn allocations_per(self, units: usize, limit: f64) -> Self {
        Self { allocations: Some((units, limit)), ..self }
    }

    /// Measures, and gives the figures.
    pub(crate) fn run(mut self) -> Vec<Row> {
        let sums: Vec<_> = self.contenders.iter_mut().map(|it| (it.role, it.name, (it.run)())).collect();
        for (role, name, sum) in &sums {
            let is_same = *role == Role::Beside || *sum == sums[0].2;
            assert!(is_same, "{}: {name} has found {sum} and not {}", self.name, sums[0].2);
        }
        for round in 0..ROUNDS + 2 {
            // Whoever is first in a round has another's data in the processor's caches: turns change.
            let count = self.contenders.len();
            for turn in 0..count {
                let contender = &mut self.contenders[(round + turn) % count];
                contender.measure(self.repeats, round >= 2);
            }
        }
        self.rows()
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for contender in &self.contenders {
            let times = contender.times.iter().map(|time| time / self.scale);
            let row = Row::new(
                format!("{}: {}{}", self.name, contender.name, self.rate(contender)),
                self.unit,
                times,
            );
            let limit = self.limit.filter(|_| contender.role == Role::Ours);
            rows.push(limit.map_or(row.clone(), |limit| row.at_most(limit)));
            rows.extend(self.allocation_row(contender));
        }
        rows.extend(self.rival_row());
        rows
    }

    fn rate(&self, contender: &Contender) -> String {
        let Some(bytes) = self.bytes else { return String::new() };
        let median = Row::new("", "", contender.times.iter().copied()).median();
        format!(" ({:.0} MB/s)", bytes as f64 * 1e3 / median)
    }

    fn allocation_row(&self, contender: &Contender) -> Option<Row> {
        let (units, limit) = self.allocations?;
        let each = contender.allocations as f64 / units as f64;
        let row = Row::new(format!("{}: {}, allocations per event", self.name, contender.name), "", [each]);
        Some(if contender.role == Role::Ours { row.at_most(limit) } else { row })
    }

    /// Ours as a multiple of the rival with the best median, round by round.
    fn rival_row(&self) -> Option<Row> {
        let limit = self.of_rival?;
        let median = |it: &Contender| Row::new("", "", it.times.iter().copied()).median();
        let rivals = self.contenders.iter().filter(|it| it.role == Role::Rival);
        let best = rivals.min_by(|a, b| median(a).total_cmp(&median(b)))?;
        let ours = self.contenders.iter().find(|it| it.role == Role::Ours)?;
        let ratios = ours.times.iter().zip(&best.times).map(|(ours, best)| ours / best);
        let name = format!("{}: greenwave, of the best rival ({})", self.name, best.name);
        Some(Row::new(name, "x", ratios).at_most(limit))
    }
}

impl Contender {
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
