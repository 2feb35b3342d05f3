//! Tests of `ObjectPool`.

use greenwave_pooling::ObjectPool;

#[test]
fn objects_are_reset_and_reused_up_to_the_limit() {
    let words = ObjectPool::new(2, String::new, |word: &mut String| {
        let is_fit = word.capacity() < 1000;
        word.clear();
        is_fit
    });
    let mut three = [words.get(), words.get(), words.get()];
    three[0].push_str("used");
    drop(three);
    let stats = words.stats();
    assert_eq!((stats.idle, stats.created, stats.dropped), (2, 3, 1));
    let mut word = words.get();
    assert!(word.is_empty());
    word.reserve(5000);
    drop(word);
    let stats = words.stats();
    assert_eq!((stats.idle, stats.reused, stats.dropped), (1, 1, 2));
    assert_eq!(words.get().into_inner(), "");
    assert_eq!(words.stats().idle, 0);
}

#[test]
fn shards_share_the_limit_and_each_thread_uses_one() {
    let words = ObjectPool::sharded(4, 6, String::new, |_| true);
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let words = words.clone();
            std::thread::spawn(move || {
                for _ in 0..100 {
                    drop((words.get(), words.get(), words.get()));
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let stats = words.stats();
    assert!((1..=6).contains(&stats.idle), "{stats:?}");
    assert_eq!(stats.created + stats.reused, 2400);
    assert_eq!(stats.created, stats.dropped + stats.idle as u64);
}
