//! Gives freed memory back to the operating system. Knows nothing of what it was used for.

/// Makes the allocator return what it holds free.
///
/// After a spill the freed blobs lie scattered in glibc's heaps, which it keeps for later allocations: resident memory stays at its
/// peak. `malloc_trim` returns whole free pages in the middle of the heaps too. Other allocators have no call that is safe to make
/// without knowing which of them is in use, and most return memory by themselves.
pub(crate) fn reclaim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim takes the allocator's own locks and touches free memory only. If another allocator is linked in, glibc's
    // heaps are merely empty.
    unsafe {
        libc::malloc_trim(0);
    }
}
