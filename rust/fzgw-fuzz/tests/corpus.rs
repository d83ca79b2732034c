//! Every target over its corpus: what fuzzing once found stays found, on stable Rust.

use std::path::Path;
use std::{fs, panic};

/// Each file of each corpus goes through its target, and no target is without.
#[test]
fn every_target_holds_over_its_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut broken = Vec::new();
    for (name, run) in fzgw_fuzz::TARGETS {
        let mut files: Vec<_> = fs::read_dir(corpus.join(name))
            .expect("a corpus of its own")
            .map(|entry| entry.expect("a readable folder").path())
            .collect();
        files.sort();
        assert!(!files.is_empty(), "{name} has no corpus");
        for file in files {
            let data = fs::read(&file).expect("a readable file");
            if panic::catch_unwind(|| run(&data)).is_err() {
                broken.push(file);
            }
        }
    }
    assert!(broken.is_empty(), "what broke is told above, file by file: {broken:#?}");
}

/// A folder that belongs to no target is a misspelt one.
#[test]
fn every_corpus_has_a_target() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for entry in fs::read_dir(corpus).expect("the corpus") {
        let name = entry.expect("a readable folder").file_name();
        let known = fzgw_fuzz::TARGETS.iter().any(|(target, _)| name == *target);
        assert!(known, "{name:?} is no target");
    }
}
