//! Prints the description of the API as the handlers give it: what `cargo xtask openapi` writes into `docs`.
#![expect(clippy::print_stdout, reason = "it says so to whoever runs it")]

fn main() {
    print!("{}", hostler_doors::described());
}
