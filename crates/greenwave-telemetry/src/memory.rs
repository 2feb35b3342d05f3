//! Measures the resident memory of this process.

use crate::MemoryMetrics;

/// Returns the current and peak resident memory, read from `/proc/self/status`. Returns zeros on
/// systems without that file.
pub fn memory_usage(spillover_active: bool) -> MemoryMetrics {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let (used_mb, peak_mb) = (megabytes(&status, "VmRSS:"), megabytes(&status, "VmHWM:"));
    // The kernel updates the two values at different times.
    MemoryMetrics { used_mb, peak_mb: peak_mb.max(used_mb), spillover_active }
}

fn megabytes(status: &str, field: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kibibytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    (kibibytes.unwrap_or(0) * 1024).div_ceil(1_000_000)
}
