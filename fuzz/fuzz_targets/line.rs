//! Bytes on a connection with TLS, before its handshake and behind it: it ends, and nothing of ours panics.
#![no_main]

use hostler_fuzz::speak_to_listener;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| speak_to_listener(input));
