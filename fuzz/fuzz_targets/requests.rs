//! What the native backend reads of a connection:
//!
//! ```text
//! cargo +nightly fuzz run requests -- -max_total_time=60
//! ```
//!
//! The property test in `src/server/native/fuzz.rs` reads the same with bytes of its own, in every run of the tests.
#![no_main]

use libfuzzer_sys::fuzz_target;
use long_polling::server::fuzz::read_requests;

fuzz_target!(|bytes: &[u8]| {
    // In one piece, and byte by byte.
    assert_eq!(read_requests(bytes, usize::MAX), read_requests(bytes, 1));
});
