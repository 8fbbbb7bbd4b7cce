//! Every status of the C interface is expected by a test.

use keytally_ffi::kt_status;

/// The tests that expect statuses. Those of a Rust module follow its code.
const TESTS: &[&str] = &[
    include_str!("c/bare.c"),
    include_str!("c/calls.c"),
    include_str!("c/fleet.c"),
    include_str!("c/hostile.c"),
    include_str!("c/sections.c"),
    include_str!("c/vectors.c"),
    include_str!("cpp/calls.cpp"),
];
const MODULES: &[&str] = &[include_str!("../src/guard.rs"), include_str!("../src/status.rs")];

#[test]
fn every_status_is_expected_by_a_test() {
    let of_modules = MODULES.iter().filter_map(|text| text.split_once("mod tests {"));
    let tests: Vec<&str> =
        TESTS.iter().copied().chain(of_modules.map(|(_, tests)| tests)).collect();
    for status in kt_status::ALL {
        let name = format!("{status:?}");
        let is_expected = tests.iter().any(|text| {
            let mut words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            words.any(|word| word == name)
        });
        assert!(is_expected, "no test expects {name}");
    }
}
