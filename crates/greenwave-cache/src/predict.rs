//! Predicts the next keys from the order of earlier accesses, within bounded memory.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::policy::S3Fifo;
use crate::{Cache, CacheOptions, Error, IdentityHasher, Key};

/// Maximum number of successors recorded per key.
const SUCCESSORS_MAX: usize = 4;
/// Counts are halved when one reaches this, so that the predictor adapts to changes.
const COUNT_MAX: u8 = 16;
/// A successor is predicted if it followed at least this often,
const PREDICTED_COUNT_MIN: u8 = 2;
/// and in at least one of this many cases.
const TOTAL_PER_COUNT_MAX: u16 = 3;
/// Maximum length of a predicted chain of keys.
const AHEAD_MAX: usize = 8;

/// Predicts which keys will be accessed next. Uses about 250 bytes of memory per recorded key.
///
/// A first-order Markov predictor, as in Vitter and Krishnan ("Optimal prefetching via data
/// compression", JACM 1996), without their tree. It suits tests because they usually run in a fixed
/// order.
#[derive(Debug)]
pub struct Predictor {
    successors: Cache<Key, Arc<Mutex<Successors>>, S3Fifo, IdentityHasher>,
    ahead: usize,
}

/// Last access of one caller. Give each caller its own trail: interleaved accesses on one trail
/// would teach the predictor a meaningless order.
#[derive(Debug, Clone, Default)]
pub struct Trail {
    last: Option<Key>,
}

impl Predictor {
    /// Creates a predictor that records the successors of at most `keys_max` keys (up to 4 294 967
    /// 295), and predicts `ahead` keys (1 to 8).
    ///
    /// # Errors
    ///
    /// Returns [`Error::InvalidOption`] if a value is out of range.
    pub fn new(keys_max: usize, ahead: usize) -> Result<Self, Error> {
        if !(1..=AHEAD_MAX).contains(&ahead) {
            return Err(Error::InvalidOption {
                option: "ahead",
                value: ahead.to_string(),
                expected: "1 to 8",
            });
        }
        if u32::try_from(keys_max).is_err() {
            let (option, value, expected) = ("keys_max", keys_max.to_string(), "at most 4294967295");
            return Err(Error::InvalidOption { option, value, expected });
        }
        let options = CacheOptions { entries_max: keys_max, ..CacheOptions::default() };
        Ok(Self { successors: Cache::with(options)?, ahead })
    }

    /// Records an access to `key` on this trail and returns the predicted next keys, the nearest
    /// first.
    pub fn observe(&self, trail: &mut Trail, key: &Key) -> Vec<Key> {
        if let Some(last) = trail.last.replace(*key).filter(|last| last != key) {
            self.learn(&last, key);
        }
        let mut predicted = Vec::with_capacity(self.ahead);
        let mut at = *key;
        while predicted.len() < self.ahead {
            let Some(next) = self.successor(&at).filter(|next| next != key && !predicted.contains(next))
            else {
                break;
            };
            predicted.push(next);
            at = next;
        }
        predicted
    }

    fn learn(&self, key: &Key, next: &Key) {
        let successors = self.successors.get(key).unwrap_or_else(|| {
            let fresh = Arc::new(Mutex::default());
            self.successors.insert(*key, Arc::clone(&fresh));
            fresh
        });
        successors.lock().count(next);
    }

    fn successor(&self, key: &Key) -> Option<Key> {
        self.successors.get(key)?.lock().likeliest()
    }
}

/// Keys that followed one key, with their counts.
#[derive(Debug, Default)]
struct Successors([Option<(Key, u8)>; SUCCESSORS_MAX]);

impl Successors {
    fn count(&mut self, next: &Key) {
        if let Some((_, count)) = self.0.iter_mut().flatten().find(|(key, _)| key == next) {
            *count += 1;
            if *count >= COUNT_MAX {
                self.halve();
            }
            return;
        }
        // The rarest successor is replaced once its count is down to 1: a single access must not
        // displace a successor that follows every time.
        let rarest = self.0.iter_mut().min_by_key(|slot| slot.map_or(0, |(_, count)| count));
        match rarest.expect("the array is not empty") {
            Some((_, count)) if *count > 1 => *count -= 1,
            slot => *slot = Some((*next, 1)),
        }
    }

    fn halve(&mut self) {
        self.0.iter_mut().flatten().for_each(|(_, count)| *count /= 2);
    }

    fn likeliest(&self) -> Option<Key> {
        let all: u16 = self.0.iter().flatten().map(|(_, count)| u16::from(*count)).sum();
        let (key, count) = self.0.iter().flatten().max_by_key(|(_, count)| *count)?;
        (*count >= PREDICTED_COUNT_MIN && u16::from(*count) * TOTAL_PER_COUNT_MAX >= all).then_some(*key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KeyBuilder;

    fn key(number: u64) -> Key {
        KeyBuilder::new("predict", 1).number(number).finish()
    }

    #[test]
    fn a_repeated_order_is_predicted() {
        let (predictor, mut trail) = (Predictor::new(1000, 3).unwrap(), Trail::default());
        for _ in 0..3 {
            (0..20).for_each(|number| _ = predictor.observe(&mut trail, &key(number)));
        }
        assert_eq!(predictor.observe(&mut trail, &key(5)), [key(6), key(7), key(8)]);
        assert_eq!(predictor.observe(&mut Trail::default(), &key(18)), [key(19), key(0), key(1)]);
    }

    #[test]
    fn rare_and_random_successors_are_not_predicted() {
        let (predictor, mut trail) = (Predictor::new(1000, 1).unwrap(), Trail::default());
        (0..20).for_each(|number| assert_eq!(predictor.observe(&mut trail, &key(number)), []));
        assert_eq!(predictor.observe(&mut Trail::default(), &key(5)), []);
        for round in 0..50 {
            // Another key follows 100 every time.
            [100, 200 + round].iter().for_each(|number| _ = predictor.observe(&mut trail, &key(*number)));
        }
        assert_eq!(predictor.observe(&mut Trail::default(), &key(100)), []);
    }

    #[test]
    fn a_new_order_replaces_the_old_one() {
        let (predictor, mut trail) = (Predictor::new(1000, 1).unwrap(), Trail::default());
        for next in [1, 2] {
            for _ in 0..40 {
                [0, next].iter().for_each(|number| _ = predictor.observe(&mut trail, &key(*number)));
            }
            assert_eq!(predictor.observe(&mut Trail::default(), &key(0)), [key(next)]);
        }
    }

    #[test]
    fn trails_are_independent() {
        let predictor = Predictor::new(1000, 1).unwrap();
        let (mut one, mut two) = (Trail::default(), Trail::default());
        for _ in 0..3 {
            for number in 0..10 {
                predictor.observe(&mut one, &key(number));
                predictor.observe(&mut two, &key(100 - number));
            }
        }
        assert_eq!(predictor.observe(&mut one, &key(3)), [key(4)]);
        assert_eq!(predictor.observe(&mut two, &key(93)), [key(92)]);
    }

    #[test]
    fn memory_is_bounded_and_options_are_checked() {
        let (predictor, mut trail) = (Predictor::new(100, 1).unwrap(), Trail::default());
        (0..10_000).for_each(|number| _ = predictor.observe(&mut trail, &key(number)));
        assert!(predictor.successors.len() <= 100);
        assert!(Predictor::new(100, 0).is_err() && Predictor::new(100, 9).is_err());
    }
}
