//! Every call of every contract, streams included: whatever is sent is answered, and never by a fault of ours.
#![no_main]

use hostler_fuzz::{ask_doors, calls, judge_call};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| ask_doors(input, calls, judge_call));
