//! Memory that is free but that the allocator still holds, given back to the system; how much there
//! may be (`budget`), and what is to be done when it runs short (`level`).
//!
//! glibc by itself gives back what lies free at the end of a heap. After a burst free pages lie
//! between what lives on, and stay. Called by the control thread (`server::control`), seldom: every
//! arena is locked in its turn, for some 60 µs for each MiB that goes. On floor 0.

pub mod budget;
pub mod level;

/// Gives every free page back to the system. Where the allocator is not glibc's, nothing is done.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::malloc_trim(0);
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code, reason = "only a foreign function does it")]
mod glibc {
    use std::ffi::c_int;

    // SAFETY: the signature is that of malloc_trim(3). It takes a number and no pointer, locks what
    // it works on (MT-Safe in its manual page), and touches no memory that is allocated.
    unsafe extern "C" {
        /// `pad`: bytes to leave at the end of the main heap. 1: something was given back.
        pub(super) safe fn malloc_trim(pad: usize) -> c_int;
    }
}
