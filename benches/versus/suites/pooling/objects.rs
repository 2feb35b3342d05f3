//! Pools of objects.

use std::hint::black_box;
use std::time::Instant;

use greenwave_benches::Row;
use greenwave_pooling::ObjectPool;

use crate::ROUNDS;

/// The allocator of opool.
struct Buffers;

impl opool::PoolAllocator<Vec<u8>> for Buffers {
    fn allocate(&self) -> Vec<u8> {
        Vec::with_capacity(4096)
    }

    fn reset(&self, buffer: &mut Vec<u8>) {
        buffer.clear();
    }
}

fn per_call(mut call: impl FnMut()) -> f64 {
    const TIMES: u32 = 100_000;
    let begun = Instant::now();
    (0..TIMES).for_each(|_| call());
    begun.elapsed().as_nanos() as f64 / f64::from(TIMES)
}

/// Measures taking and returning buffers.
pub(crate) fn objects(rows: &mut Vec<Row>) {
    let small = ObjectPool::new(
        64,
        || Vec::<u8>::with_capacity(4096),
        |buffer| {
            buffer.clear();
            true
        },
    );
    let large = ObjectPool::new(64, || vec![0_u8; 1 << 16], |_| true);
    let opool = opool::Pool::new(64, Buffers);
    let list = parking_lot::Mutex::new(Vec::<Vec<u8>>::new());
    let mut found: [Vec<f64>; 6] = Default::default();
    for _ in 0..ROUNDS {
        let times = [
            per_call(|| drop(black_box(small.get()))),
            per_call(|| drop(black_box(opool.get()))),
            per_call(|| {
                let taken = list.lock().pop();
                let mut buffer = black_box(taken.unwrap_or_else(|| Vec::with_capacity(4096)));
                buffer.clear();
                list.lock().push(buffer);
            }),
            per_call(|| drop(black_box(Vec::<u8>::with_capacity(4096)))),
            per_call(|| drop(black_box(large.get()))),
            per_call(|| {
                let mut buffer = vec![0_u8; 1 << 16];
                black_box(&mut buffer);
            }),
        ];
        found.iter_mut().zip(times).for_each(|(samples, time)| samples.push(time));
    }
    let names = [
        "4 KiB, Greenwave",
        "4 KiB, opool",
        "4 KiB, Mutex<Vec>",
        "4 KiB, malloc",
        "64 KiB, Greenwave",
        "64 KiB, zeroed by the allocator",
    ];
    for (name, samples) in names.iter().zip(found) {
        rows.push(Row::new(format!("object, {name}"), "ns", samples));
    }
}
