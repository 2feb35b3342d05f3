//! Compares turns with a model server with a plain loop over reqwest, and with async-openai.
//!
//! `cargo bench -p greenwave-versus --features agents --bench agents -- Greenwave` prints the rows
//! of one contestant, without a page.
#![expect(clippy::print_stdout, reason = "a benchmark's result is what it prints")]

#[path = "agents/contestants.rs"]
mod contestants;
#[path = "agents/memory.rs"]
mod memory;
#[path = "agents/server.rs"]
mod server;
#[path = "agents/workloads.rs"]
mod workloads;

use greenwave_benches::{Page, Result, Row, is_measuring};
use tokio::runtime::Runtime;

use crate::contestants::{AsyncOpenAi, Bare, Contestant, Greenwave};
use crate::server::Server;
use crate::workloads::{Fast, Paced, percentile};

const ABOUT: &str = "
64 tasks take turns at once with a server of chat completions on the loopback. The server is a
process of its own with one thread; the client has a runtime of two threads. Every round measures
all contestants in turns. Contestants use HTTP/1.1 without TLS, reuse connections, and hand on the
text of each event.

- *plain loop*: chunks of `reqwest` 0.13, split at empty lines with `memchr`, decoded by `serde`
  into text. It handles no errors, usage, tool calls or limits.
- *async-openai*: 0.43, with the same `reqwest` client.
- *Greenwave*: `HttpAgent`, one session for each turn.

*fast*: a response of 100 events of about 300 bytes, in one write, and the last chunk in another.
The prompt has 4,000 bytes. Each task takes 40 turns. *processor* is the time of both threads per turn, without the server's;
the rate of turns contains the server's work, too. *peak* is the largest memory per stream, which
contains the buffers that `hyper` enlarges where much arrives at once.

*paced*: each event is sent 20 ms after the last one, as a model does, and the responses begin at
different times. *first* is the time from before the server's write until the text of the first
event of a turn is handed on, *all* that of every event. *open* is the memory per stream once all
have begun. *burst*: all 64 responses send their events at the same moment, which two processors
cannot handle in the time of one.

Memory is counted by the allocator: all bytes of the client, connections included. A median of the
percentiles of all rounds is judged.";

/// Expected time until a first event is handed on, from the issue that introduced the suite.
const FIRST_MS: f64 = 1.0;
/// Expected memory per open stream, from the same issue.
const OPEN_KB: f64 = 100.0;
/// Expected share of the plain loop's time, from the same issue.
const OF_PLAIN: f64 = 105.0;

const ROUNDS: usize = 15;

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

/// The figures of one contestant, round by round.
struct Figures {
    name: &'static str,
    fast: Vec<Fast>,
    paced: Vec<Paced>,
    burst: Vec<Paced>,
}

impl Figures {
    fn new(name: &'static str) -> Self {
        Self { name, fast: Vec::new(), paced: Vec::new(), burst: Vec::new() }
    }

    fn round<C: Contestant>(&mut self, runtime: &Runtime, server: &Server) -> Result<()> {
        self.fast.push(workloads::fast::<C>(runtime, server)?);
        self.paced.push(workloads::paced::<C>(runtime, server, "paced")?);
        self.burst.push(workloads::paced::<C>(runtime, server, "burst")?);
        Ok(())
    }

    fn rows(&self) -> Vec<Row> {
        let row =
            |name: &str, unit, samples: Vec<f64>| Row::new(format!("{name}, {}", self.name), unit, samples);
        let fast = |of: fn(&Fast) -> f64| self.fast.iter().map(of).collect::<Vec<_>>();
        let paced = |of: fn(&Paced) -> f64| self.paced.iter().map(of).collect::<Vec<_>>();
        let burst = |of: fn(&Paced) -> f64| self.burst.iter().map(of).collect::<Vec<_>>();
        vec![
            row("fast, turns per second", "turns", fast(|it| it.turns_per_second)),
            row("fast, processor per turn", "us", fast(|it| it.processor_us)),
            row("fast, peak per stream", "kB", fast(|it| it.peak_kb)),
            row("fast, connections", "connections", fast(|it| it.connections)),
            row("paced, first, p50", "ms", paced(|it| percentile(&it.first_ms, 50))),
            row("paced, first, p99", "ms", paced(|it| percentile(&it.first_ms, 99))),
            row("paced, all, p50", "ms", paced(|it| percentile(&it.all_ms, 50))),
            row("paced, all, p99", "ms", paced(|it| percentile(&it.all_ms, 99))),
            row("paced, open, per stream", "kB", paced(|it| it.open_kb)),
            row("burst, first, p50", "ms", burst(|it| percentile(&it.first_ms, 50))),
            row("burst, first, p99", "ms", burst(|it| percentile(&it.first_ms, 99))),
        ]
    }
}

/// Returns the expectations: of Greenwave alone, and beside the plain loop in the same round.
fn expected(ours: &mut [Row], all: &[Figures; 3]) -> Vec<Row> {
    for (at, limit) in [(2, OPEN_KB), (5, FIRST_MS), (8, OPEN_KB)] {
        ours[at] = ours[at].clone().at_most(limit);
    }
    let [ours, plain, openai] = all;
    let ratio = |one: &Figures, other: &Figures, of: fn(&Fast) -> f64| {
        let rounds = one.fast.iter().zip(&other.fast);
        rounds.map(|(one, other)| 100.0 * of(one) / of(other)).collect::<Vec<_>>()
    };
    let time: fn(&Fast) -> f64 = |it| 1.0 / it.turns_per_second;
    let processor: fn(&Fast) -> f64 = |it| it.processor_us;
    vec![
        Row::new("fast, time per turn, Greenwave of plain loop's", "%", ratio(ours, plain, time))
            .at_most(OF_PLAIN),
        Row::new("fast, processor per turn, Greenwave of plain loop's", "%", ratio(ours, plain, processor))
            .at_most(OF_PLAIN),
        Row::new("fast, time per turn, Greenwave of async-openai's", "%", ratio(ours, openai, time))
            .at_most(100.0),
        Row::new(
            "fast, processor per turn, Greenwave of async-openai's",
            "%",
            ratio(ours, openai, processor),
        )
        .at_most(100.0),
    ]
}

fn main() -> Result<()> {
    if server::is_server() {
        return server::serve();
    }
    if !is_measuring() {
        return Ok(());
    }
    let rounds = std::env::var("AGENTS_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    let filter: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let is_wanted = |it: &Figures| filter.is_empty() || filter.iter().any(|part| it.name.contains(part));
    let server = Server::start()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut all = ["Greenwave", "plain loop", "async-openai"].map(Figures::new);
    for round in 0..rounds {
        // Each contestant is the first one in a third of the rounds.
        for place in 0..all.len() {
            let at = (round + place) % all.len();
            match at {
                _ if !is_wanted(&all[at]) => {}
                0 => all[0].round::<Greenwave>(&runtime, &server)?,
                1 => all[1].round::<Bare>(&runtime, &server)?,
                _ => all[2].round::<AsyncOpenAi>(&runtime, &server)?,
            }
        }
    }
    if !filter.is_empty() {
        let rows = all.iter().filter(|it| is_wanted(it)).flat_map(Figures::rows).collect();
        println!("{}", Page { suite: "versus-agents", about: ABOUT, rows }.to_markdown());
        return Ok(());
    }
    let mut rows = all[0].rows();
    let ratios = expected(&mut rows, &all);
    rows.extend(ratios);
    rows.extend(all[1..].iter().flat_map(Figures::rows));
    Page { suite: "versus-agents", about: ABOUT, rows }.publish();
    Ok(())
}
