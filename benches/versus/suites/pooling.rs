//! Compares connection pools: one task, many tasks on few connections, and recovery after the peer
//! restarts. Also measures object pools, batches, and many requests on one connection.

#[path = "pooling/objects.rs"]
mod objects;
#[path = "pooling/peer.rs"]
mod peer;
#[path = "pooling/pools.rs"]
mod pools;
#[path = "pooling/requests.rs"]
mod requests;
#[path = "pooling/rivals.rs"]
mod rivals;
#[path = "pooling/workloads.rs"]
mod workloads;

use greenwave_benches::{Page, Result, is_measuring};

const ABOUT: &str = "
*Pools*: 8 connections that cost nothing to open and check, on a runtime of two threads. Time limits
are off in every pool, which is its fastest configuration; *Greenwave, defaults* has all of
Greenwave's defaults. Every round measures all pools.

- *one task*: one task checks a connection out and returns it.
- *64 on 8, yield*: each of 64 tasks checks out a connection, yields once and returns it, 500 times.
  Rows show the time per checkout, and percentiles and the maximum of the wait for a connection over
  all checkouts of a round. *unfinished*: tasks that did not finish within 20 s. In bb8 and
  fast_pool, new requests overtake waiting ones, which gives a low median and a high maximum.
- *64 on 8, 100 us*: the same 20 times, with each connection held for 100 us, yielding meanwhile.
- *storm*: connecting takes 2 ms, and all 8 connections have just been lost. Time until each of 64
  tasks has been served once.

*Objects*: take and return a buffer with 4 KiB of capacity, cleared, or one of 64 KiB, which the
allocator zeroes.
*Batcher*: each of 64 tasks submits a number 500 times, to a handler that returns it. Time per
request.

*Requests*: each of 64 tasks requests 64 bytes 200 times on the loopback, over 8 connections. A
connection is either lent to one request at a time, or carries many. The peer responds at once to
everything that it has read.";

const TASKS: usize = 64;
const ROUNDS: usize = 7;

fn main() -> Result<()> {
    if !is_measuring() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut rows = Vec::new();
    pools::pools(&runtime, &mut rows);
    objects::objects(&mut rows);
    requests::batches(&runtime, &mut rows);
    requests::requests(&runtime, &mut rows)?;
    Page { suite: "versus-pooling", about: ABOUT, rows }.publish();
    Ok(())
}
