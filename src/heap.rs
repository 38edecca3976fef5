//! What the allocator does with memory that is given back: keeps what a busy run takes again at once.
//!
//! A lane fills a frame of a megabyte and a sink drops it, over and over. By default glibc hands such a piece back to the
//! kernel at once and takes fresh pages for the next, each of which the kernel clears: a quarter of the CPU time of a busy
//! run. Bound: at most [`KEPT_BYTES`] stay with each of the allocator's arenas (one per busy thread). Elsewhere than on
//! glibc nothing is done.

/// What a memory hub of the usual size holds, all of which may be given back at once: 32 MiB. It was in use before.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_BYTES: i32 = 32 << 20;
/// Pieces from this size on are mapped and given back on their own: a huge line must not stay.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPED_BYTES: i32 = 8 << 20;

/// Call once, before there are threads.
pub fn keep_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const M_TRIM_THRESHOLD: i32 = -1;
        const M_MMAP_THRESHOLD: i32 = -3;
        #[expect(unsafe_code, reason = "two settings of the C library, made while there is one thread; it takes any value")]
        unsafe {
            // Refused settings leave the defaults: slower, not wrong.
            mallopt(M_TRIM_THRESHOLD, KEPT_BYTES);
            mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES);
        }
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "the declaration of malloc.h")]
unsafe extern "C" {
    fn mallopt(parameter: i32, value: i32) -> i32;
}
