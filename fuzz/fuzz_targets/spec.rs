//! Specs: whatever is written is read or refused in words, never by a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match hostler_model::spec::parse(text) {
        Ok(specs) => assert!(specs.iter().all(|spec| spec.check().is_ok())),
        Err(refusal) => assert!(!refusal.sentence.is_empty()),
    }
});
