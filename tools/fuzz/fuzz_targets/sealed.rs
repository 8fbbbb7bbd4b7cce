#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| keytally_fuzz_targets::sealed(bytes));
