//! Sets whose elements are saved once for all sets: tests of one kind depend on mostly the same
//! paths.

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// The elements of several sets, with numbers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Table<T> {
    elements: Vec<T>,
    /// The number of each element, complete if it has as many entries as there are elements.
    #[serde(skip, default = "HashMap::new")]
    numbers: HashMap<T, u32>,
}

/// A set of elements of a [`Table`]: ranges of numbers, each with its start and its length.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct NumberSet(Vec<(u32, u32)>);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { elements: Vec::new(), numbers: HashMap::new() }
    }
}

impl<T: Clone + Eq + Hash + Ord> Table<T> {
    /// Returns the set of these elements, and adds the new ones.
    pub(crate) fn add(&mut self, elements: impl IntoIterator<Item = T>) -> NumberSet {
        if self.numbers.len() != self.elements.len() {
            let numbered = self.elements.iter().cloned().zip(0..);
            self.numbers = numbered.collect();
        }
        let Self { elements: all, numbers } = self;
        let number_of = |element: T| {
            let next = u32::try_from(all.len()).unwrap_or(u32::MAX);
            *numbers.entry(element).or_insert_with_key(|element| {
                all.push(element.clone());
                next
            })
        };
        NumberSet::new(elements.into_iter().map(number_of).collect())
    }

    /// Returns the elements of a set, in the order of their numbers.
    pub(crate) fn elements(&self, set: &NumberSet) -> impl Iterator<Item = &T> {
        set.ranges(self.elements.len()).flat_map(|range| &self.elements[range])
    }

    /// Returns a mark for each number.
    pub(crate) fn marks(&self) -> Vec<bool> {
        vec![false; self.elements.len()]
    }

    /// Returns for each number whether its element matches.
    pub(crate) fn matches(&self, matches: impl FnMut(&T) -> bool) -> Vec<bool> {
        self.elements.iter().map(matches).collect()
    }

    /// Removes elements that no set contains, and renumbers the others by the number of sets
    /// that contain them, so that each set consists of few ranges.
    pub(crate) fn compact<'s>(&mut self, sets: impl IntoIterator<Item = &'s mut NumberSet>) {
        let mut sets: Vec<&mut NumberSet> = sets.into_iter().collect();
        let end = self.elements.len();
        let mut counts = vec![0_u32; end];
        for range in sets.iter().flat_map(|set| set.ranges(end)) {
            counts[range].iter_mut().for_each(|count| *count += 1);
        }
        let mut order: Vec<usize> = (0..end).filter(|number| counts[*number] > 0).collect();
        order.sort_by(|one, other| {
            let by_count = counts[*other].cmp(&counts[*one]);
            by_count.then_with(|| self.elements[*one].cmp(&self.elements[*other]))
        });
        let mut numbers = vec![0; end];
        for (old, new) in order.iter().zip(0..) {
            numbers[*old] = new;
        }
        for set in &mut sets {
            let moved = set.ranges(end).flat_map(|range| numbers[range].iter().copied());
            **set = NumberSet::new(moved.collect());
        }
        self.elements = order.into_iter().map(|old| self.elements[old].clone()).collect();
        self.numbers.clear();
    }
}

impl NumberSet {
    fn new(mut numbers: Vec<u32>) -> Self {
        numbers.sort_unstable();
        numbers.dedup();
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for number in numbers {
            match ranges.last_mut() {
                Some((start, length)) if *start + *length == number => *length += 1,
                _ => ranges.push((number, 1)),
            }
        }
        Self(ranges)
    }

    /// Returns the ranges below `end`. A damaged file may have others.
    fn ranges(&self, end: usize) -> impl Iterator<Item = Range<usize>> {
        self.0.iter().map(move |(start, length)| {
            let start = (*start as usize).min(end);
            start..(start + *length as usize).min(end)
        })
    }

    /// Returns whether the set has a number for which `matches` is true.
    pub(crate) fn has_any(&self, matches: &[bool]) -> bool {
        self.ranges(matches.len()).any(|range| matches[range].contains(&true))
    }

    /// Returns the number of ranges.
    pub(crate) fn range_count(&self) -> usize {
        self.0.len()
    }

    /// Marks the numbers of the set. Returns how many were not marked before.
    pub(crate) fn mark(&self, marks: &mut [bool]) -> usize {
        let mut new = 0;
        for range in self.ranges(marks.len()) {
            for mark in &mut marks[range] {
                new += usize::from(!std::mem::replace(mark, true));
            }
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sets_with_the_same_elements_share_them() {
        let mut table = Table::default();
        let mut sets: Vec<NumberSet> = (0..100).map(|own| table.add((0..1000).chain([1000 + own]))).collect();
        table.compact(&mut sets);
        assert_eq!(table.elements.len(), 1100);
        assert!(sets.iter().all(|set| set.range_count() <= 2), "{sets:?}");
        table.compact(&mut sets[..1]);
        assert_eq!(table.elements.len(), 1001);
    }

    #[test]
    fn numbers_beyond_the_table_are_passed_over() {
        let mut table = Table::default();
        table.add([1, 2]);
        let set = NumberSet(vec![(1, 9), (u32::MAX, u32::MAX)]);
        assert_eq!(table.elements(&set).collect::<Vec<_>>(), [&2]);
    }

    proptest! {
        #[test]
        fn sets_keep_their_elements(
            sets in prop::collection::vec((prop::collection::btree_set(0_u8..40, 0..20), any::<bool>()), 0..8),
        ) {
            let mut table = Table::default();
            let mut numbered: Vec<(BTreeSet<u8>, NumberSet)> = Vec::new();
            for (set, compacts) in sets {
                let numbers = table.add(set.iter().copied());
                numbered.push((set, numbers));
                if compacts {
                    table.compact(numbered.iter_mut().map(|(_, numbers)| numbers));
                }
                let text = serde_json::to_string(&table).unwrap();
                table = serde_json::from_str(&text).unwrap();
                for (set, numbers) in &numbered {
                    prop_assert_eq!(table.elements(numbers).copied().collect::<BTreeSet<u8>>(), set.clone());
                    let has_odd = numbers.has_any(&table.matches(|element| element % 2 == 1));
                    prop_assert_eq!(has_odd, set.iter().any(|element| element % 2 == 1));
                }
            }
        }
    }
}
