//! Every contract that an agent speaks: whatever it is answered, it goes on.
#![no_main]

use hostler_fuzz::answer_agent;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| answer_agent(input));
