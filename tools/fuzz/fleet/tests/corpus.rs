//! Calls the target with the inputs of its corpus.

use std::fs;
use std::path::PathBuf;

use keytally_fuzz_fleet::store_replies;

#[test]
fn inputs_of_the_corpus_break_nothing() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../corpus/store_replies");
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{folder} holds no input");
    for file in files {
        println!("{}", file.display());
        store_replies(&fs::read(&file).unwrap());
    }
    store_replies(&[]);
}
