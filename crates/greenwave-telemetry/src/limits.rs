//! Limits the number of connections by the descriptors that the process may have, and their age.

use std::time::Duration;

/// Age of a connection from which a response is its last one, and at which a stream of events ends.
/// The client connects again. The endpoint closes connections shortly after it.
pub(crate) const LAST_RESPONSE_AGE: Duration = Duration::from_secs(50);

/// Maximum number of open connections.
const CONNECTIONS_MAX: usize = 64;
/// The endpoint uses at most one in this many of the descriptors that the process may have.
const DESCRIPTORS_SHARE: u64 = 8;

/// Returns the maximum number of open connections, from 1 to 64.
///
/// A flood of connections must leave enough descriptors for the work that the metrics are about.
pub(crate) fn connections_max() -> usize {
    of_limit(descriptors_max())
}

fn of_limit(descriptors: Option<u64>) -> usize {
    let share = descriptors.map_or(u64::MAX, |limit| limit / DESCRIPTORS_SHARE);
    usize::try_from(share).unwrap_or(usize::MAX).clamp(1, CONNECTIONS_MAX)
}

#[cfg(unix)]
fn descriptors_max() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

#[cfg(not(unix))]
fn descriptors_max() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::of_limit;

    #[test]
    fn a_low_limit_of_descriptors_lowers_the_number_of_connections() {
        let cases = [(None, 64), (Some(1024), 64), (Some(256), 32), (Some(7), 1), (Some(0), 1)];
        for (limit, connections) in cases {
            assert_eq!(of_limit(limit), connections, "{limit:?}");
        }
    }
}
