//! Which keys follow which: learned from the order in which they are asked for, within bounded memory. Fetches nothing itself.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::policy::S3Fifo;
use crate::{Cache, CacheOptions, Error, IdentityHasher, Key};

/// Successors that are remembered of one key.
const SUCCESSORS: usize = 4;
/// Counts are halved when one reaches this, so that what changed is learned anew.
const COUNT_MAX: u8 = 16;
/// A successor is foretold when it followed at least so often,
const COUNT_MIN: u8 = 2;
/// and in at least one of so many cases.
const ODDS: u16 = 3;
/// How far ahead a chain of the likeliest successors is followed.
const AHEAD_MAX: usize = 8;

/// Learns which keys follow which. Memory: about 250 bytes for each key that is remembered.
///
/// First-order Markov prediction, as by Vitter and Krishnan ("Optimal prefetching via data compression", JACM 1996) without the tree: what
/// tests are run in is mostly a fixed order.
#[derive(Debug)]
pub struct Predictor {
    successors: Cache<Key, Arc<Mutex<Successors>>, S3Fifo, IdentityHasher>,
    ahead: usize,
}

/// What one asker asked for last. Askers that take turns on one trail would teach nonsense: each has its own.
#[derive(Debug, Clone, Default)]
pub struct Trail {
    last: Option<Key>,
}

impl Predictor {
    /// Remembers the successors of at most so many keys, up to 4 294 967 295, and foretells so many keys
    /// ahead, 1 to 8.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`].
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

    /// Learns that `key` was asked for on this trail, and foretells what will be asked for next, the nearest first.
    pub fn observe(&self, trail: &mut Trail, key: &Key) -> Vec<Key> {
        if let Some(last) = trail.last.replace(*key).filter(|last| last != key) {
            self.learn(&last, key);
        }
        let mut foretold = Vec::with_capacity(self.ahead);
        let mut at = *key;
        while foretold.len() < self.ahead {
            let Some(next) = self.successor(&at).filter(|next| next != key && !foretold.contains(next))
            else {
                break;
            };
            foretold.push(next);
            at = next;
        }
        foretold
    }

    fn learn(&self, key: &Key, next: &Key) {
        let known = self.successors.get(key).unwrap_or_else(|| {
            let fresh = Arc::new(Mutex::default());
            self.successors.insert(*key, Arc::clone(&fresh));
            fresh
        });
        known.lock().count(next);
    }

    fn successor(&self, key: &Key) -> Option<Key> {
        self.successors.get(key)?.lock().likeliest()
    }
}

/// How often keys followed one key.
#[derive(Debug, Default)]
struct Successors([Option<(Key, u8)>; SUCCESSORS]);

impl Successors {
    fn count(&mut self, next: &Key) {
        if let Some((_, count)) = self.0.iter_mut().flatten().find(|(key, _)| key == next) {
            *count += 1;
            if *count >= COUNT_MAX {
                self.halve();
            }
            return;
        }
        // The rarest gives way when it is down to nothing: what happened once must not push out what happens every time.
        let rarest = self.0.iter_mut().min_by_key(|slot| slot.map_or(0, |(_, count)| count));
        match rarest.expect("there are slots") {
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
        (*count >= COUNT_MIN && u16::from(*count) * ODDS >= all).then_some(*key)
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
    fn an_order_that_repeats_is_foretold() {
        let (predictor, mut trail) = (Predictor::new(1000, 3).unwrap(), Trail::default());
        for _ in 0..3 {
            (0..20).for_each(|number| _ = predictor.observe(&mut trail, &key(number)));
        }
        assert_eq!(predictor.observe(&mut trail, &key(5)), [key(6), key(7), key(8)]);
        assert_eq!(predictor.observe(&mut Trail::default(), &key(18)), [key(19), key(0), key(1)]);
    }

    #[test]
    fn what_happened_once_or_by_chance_is_not() {
        let (predictor, mut trail) = (Predictor::new(1000, 1).unwrap(), Trail::default());
        (0..20).for_each(|number| assert_eq!(predictor.observe(&mut trail, &key(number)), []));
        assert_eq!(predictor.observe(&mut Trail::default(), &key(5)), []);
        for round in 0..50 {
            // Something else follows 100 every time.
            [100, 200 + round].iter().for_each(|number| _ = predictor.observe(&mut trail, &key(*number)));
        }
        assert_eq!(predictor.observe(&mut Trail::default(), &key(100)), []);
    }

    #[test]
    fn a_new_order_takes_the_old_ones_place() {
        let (predictor, mut trail) = (Predictor::new(1000, 1).unwrap(), Trail::default());
        for next in [1, 2] {
            for _ in 0..40 {
                [0, next].iter().for_each(|number| _ = predictor.observe(&mut trail, &key(*number)));
            }
            assert_eq!(predictor.observe(&mut Trail::default(), &key(0)), [key(next)]);
        }
    }

    #[test]
    fn two_trails_do_not_mix() {
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
