//! Notices panics of the programs' tasks, which their runtimes would only log. A simulation is one thread, so
//! each thread counts for itself. Nothing fails here; the process's panic hook is wrapped once and kept.

use std::cell::Cell;
use std::panic;
use std::sync::Once;

thread_local! {
    static SEEN: Cell<u64> = const { Cell::new(0) };
}

static WATCHING: Once = Once::new();

/// Begins to count, in the whole process.
pub(crate) fn watch() {
    WATCHING.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panicked| {
            SEEN.set(SEEN.get() + 1);
            before(panicked);
        }));
    });
}

/// How many panics this thread has seen since it began to count.
pub(crate) fn seen() -> u64 {
    SEEN.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_counted_where_it_happens() {
        watch();
        let before = seen();
        let elsewhere = std::thread::spawn(|| panic!("as the test wants it"));
        assert!(elsewhere.join().is_err());
        assert_eq!(seen(), before);
        assert!(panic::catch_unwind(|| panic!("as the test wants it")).is_err());
        assert_eq!(seen(), before + 1);
    }
}
