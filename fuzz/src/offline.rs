//! No input makes this process dial. A node says where it is reached, and the control plane would go there: here
//! these two take the place of the system's, and nobody is there.
#![allow(non_camel_case_types, reason = "names of the system")]

use std::ffi::{c_char, c_int, c_void};

unsafe extern "C" {
    /// Where Linux keeps the cause of a call's failure.
    fn __errno_location() -> *mut c_int;
}
/// `ECONNREFUSED`.
const REFUSED: c_int = 111;

/// `EAI_FAIL`: the name cannot be found, whoever is asked.
const NOT_FOUND: c_int = -4;

#[unsafe(no_mangle)]
extern "C" fn connect(_: c_int, _: *const c_void, _: u32) -> c_int {
    // SAFETY: it is a valid place of this thread's own.
    unsafe { *__errno_location() = REFUSED };
    -1
}

#[unsafe(no_mangle)]
extern "C" fn getaddrinfo(
    _: *const c_char,
    _: *const c_char,
    _: *const c_void,
    _: *mut *mut c_void,
) -> c_int {
    NOT_FOUND
}
