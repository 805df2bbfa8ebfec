//! The fuzz targets as ordinary tests: over the seeds that are kept in `fuzz/seeds`, over every
//! finding so far, and over some bytes that nobody has chosen.

use std::path::Path;

use unwind_tests::fuzzing;
use unwind_tests::synthetic::chaos::mix;

/// Runs a target over its seeds, and returns how many there are.
fn seeds(target: &str, run: fn(&[u8])) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).expect("the folder of seeds") {
        let path = entry.expect("an entry of the folder").path();
        let data = std::fs::read(&path).expect("a seed");
        println!("{}", path.display());
        run(&data);
        count += 1;
    }
    count
}

/// Bytes that differ by their number: some are dense, some mostly small numbers.
fn random(number: u64) -> Vec<u8> {
    let len = mix(number) % 600;
    (0..len)
        .map(|at| {
            let [byte, kind, ..] = mix(number << 16 | at).to_le_bytes();
            if kind.is_multiple_of(2) { byte % 4 } else { byte }
        })
        .collect()
}

#[test]
fn walk_over_its_seeds() {
    assert!(seeds("walk", fuzzing::walk) >= 10);
}

#[test]
fn dwarf_over_its_seeds() {
    assert!(seeds("dwarf", fuzzing::dwarf) >= 10);
}

#[test]
fn sframe_over_its_seeds() {
    assert!(seeds("sframe", fuzzing::sframe) >= 20);
}

#[test]
fn sframe_roundtrip_over_its_seeds() {
    assert!(seeds("sframe_roundtrip", fuzzing::sframe_roundtrip) >= 1);
}

#[test]
fn walk_over_random_bytes() {
    (0..2000).for_each(|number| fuzzing::walk(&random(number)));
}

#[test]
fn dwarf_over_random_bytes() {
    (0..2000).for_each(|number| fuzzing::dwarf(&random(number)));
}

#[test]
fn sframe_over_random_bytes() {
    // A header that parses, or hardly anything would be read.
    (0..2000).for_each(|number| {
        let mut data = random(number);
        let header =
            [0, 0xe2, 0xde, [1, 2, 3][number as usize % 3], number as u8 & 7, 3 - (number / 8) as u8 % 2];
        let len = data.len().min(header.len());
        data[..len].copy_from_slice(&header[..len]);
        fuzzing::sframe(&data);
    });
}

#[test]
fn sframe_roundtrip_over_random_bytes() {
    (0..2000).for_each(|number| fuzzing::sframe_roundtrip(&random(number)));
}
