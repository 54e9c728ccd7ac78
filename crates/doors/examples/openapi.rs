//! Prints the description of the API as the handlers give it: what `cargo xtask openapi` writes into `docs`.

fn main() {
    print!("{}", hostler_doors::described());
}
