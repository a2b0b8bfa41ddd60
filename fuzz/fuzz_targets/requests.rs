//! What the native backend reads of a connection:
//!
//! ```text
//! cargo +nightly fuzz run requests -- -max_total_time=60
//! ```
//!
//! The property test in `src/server/native/fuzz.rs` reads the same with bytes of its own, in every run of the tests.
#![no_main]

use std::net::TcpStream;

use libfuzzer_sys::fuzz_target;
use long_polling::server::fuzz::{read_requests, silent_connection};

thread_local! {
    static CONNECTION: TcpStream = silent_connection().expect("a connection");
}

fuzz_target!(|bytes: &[u8]| {
    CONNECTION.with(|connection| {
        // In one piece, and byte by byte.
        let whole = read_requests(connection, bytes, 4096);
        assert_eq!(whole, read_requests(connection, bytes, 1));
    });
});
