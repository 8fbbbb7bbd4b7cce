//! The Rust code of the book in `docs/`, as documentation tests.
//!
//! `docs/tutorial/rust.md` is missing: its program needs a web framework, so the package
//! keytally-server has it as an example. So is `docs/how-to/tower.md`, whose code is in the
//! examples and tests of keytally-tower. A test of `vectors/tests/readme.rs` checks that every
//! other page with Rust code is here.

macro_rules! pages {
    ($($name:ident $path:literal)*) => {
        $(#[doc = include_str!(concat!("../../docs/", $path))]
        mod $name {})*
    };
}

pages! {
    addresses "how-to/addresses.md"
    embedded "how-to/embedded.md"
    exact_counts "explanation/exact-counts.md"
    fixed_time "how-to/fixed-time.md"
    full_table "how-to/full-table.md"
    governor "migrate/governor.md"
    growing "how-to/growing.md"
    import "how-to/import.md"
    keys "how-to/keys.md"
    plans "how-to/plans.md"
    processes "how-to/processes.md"
    together "how-to/together.md"
    usage "how-to/usage.md"
    windows "explanation/windows.md"
}
