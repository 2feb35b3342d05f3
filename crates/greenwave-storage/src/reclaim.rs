//! Returns freed memory to the operating system.

/// Makes the allocator return its free memory.
///
/// After a spill, the freed blobs are scattered over glibc's heaps, which it retains for later
/// allocations, so resident memory stays at its peak. `malloc_trim` also returns whole free pages
/// in the middle of the heaps. Other allocators have no call that is safe without knowing which of
/// them is in use, and most return memory on their own.
pub(crate) fn reclaim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `malloc_trim` takes the allocator's locks and only touches free memory. If another
    // allocator is linked in, glibc's heaps are empty.
    unsafe {
        libc::malloc_trim(0);
    }
}
