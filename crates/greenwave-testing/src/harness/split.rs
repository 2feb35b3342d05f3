//! Replaces discovered tests by the single tests in them.

use super::discovery::{Discovery, DiscoveryNote};
use super::guarded::guarded;
use super::listing::{Listing, ListingContext};
use super::registry::Harnesses;
use crate::boxed::boxed;
use crate::{Error, Test};

impl Discovery {
    /// Returns the commands whose output [`split`](Self::split) needs, to be run as a
    /// [`Suite`](crate::Suite) before it.
    pub fn listing_commands(&self, harnesses: &Harnesses, context: &ListingContext<'_>) -> Vec<Test> {
        let commands = |test: &Test| harnesses.get(&test.harness).listing_commands(test, context);
        self.tests.iter().flat_map(commands).collect()
    }

    /// Replaces each test by the single tests in it, as its harness lists them.
    ///
    /// A test that cannot be listed stays whole, with a note.
    ///
    /// # Errors
    /// [`Error::Discover`] if a harness cannot list its tests at all; the discovery is then
    /// unchanged.
    pub fn split<'a>(
        &'a mut self,
        harnesses: &'a Harnesses,
        context: &'a ListingContext<'a>,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'a {
        boxed(self.list_and_replace(harnesses, context))
    }

    async fn list_and_replace(
        &mut self,
        harnesses: &Harnesses,
        context: &ListingContext<'_>,
    ) -> Result<(), Error> {
        let mut listings: Vec<Listing> = vec![Listing::Whole; self.tests.len()];
        for harness in harnesses.iter() {
            let is_own = |test: &Test| test.harness.as_str() == harness.name();
            let (ids, own): (Vec<usize>, Vec<&Test>) =
                self.tests.iter().enumerate().filter(|(_, test)| is_own(test)).unzip();
            let listed = guarded(&**harness, async { harness.list(&own, context).await }).await?;
            for (id, listing) in ids.into_iter().zip(listed) {
                listings[id] = listing;
            }
        }
        for (test, listing) in std::mem::take(&mut self.tests).into_iter().zip(listings) {
            match listing {
                Listing::Whole => self.tests.push(test),
                Listing::Single(single) => self.tests.extend(single),
                Listing::Failed(problem) => {
                    self.notes.push(DiscoveryNote::ListingFailed { test: test.name.clone(), problem });
                    self.tests.push(test);
                }
            }
        }
        Ok(())
    }
}
