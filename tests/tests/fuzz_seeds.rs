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
fn ehabi_over_its_seeds() {
    assert!(seeds("ehabi", fuzzing::ehabi) >= 20);
}

#[test]
fn sframe_over_its_seeds() {
    assert!(seeds("sframe", fuzzing::sframe) >= 20);
}

#[test]
fn sframe_roundtrip_over_its_seeds() {
    assert!(seeds("sframe_roundtrip", fuzzing::sframe_roundtrip) >= 30);
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
fn ehabi_over_random_bytes() {
    (0..2000).for_each(|number| fuzzing::ehabi(&random(number)));
}

/// A header that fits the bytes behind it, of every version and ABI: or hardly anything would be read.
fn with_sframe_header(number: u64, body: &[u8]) -> Vec<u8> {
    let [version, abi] = [number % 3 + 1, number / 3 % 4 + 1].map(|number| number as u8);
    let is_little = matches!(abi, 2 | 3);
    let fde_size = [17, 20, 16][usize::from(version) - 1];
    let fdes = (number / 12 % 6).min(body.len() as u64 / fde_size);
    let rows = body.len() as u64 - fdes * fde_size;
    let magic = if is_little { [0xe2, 0xde] } else { [0xde, 0xe2] };
    let mut data = vec![number as u8];
    data.extend(magic);
    data.extend([version, mix(number) as u8 % 8, abi, 0, if abi == 3 { 0xf8 } else { 0 }, 0]);
    for field in [fdes, rows / 8, rows, 0, fdes * fde_size] {
        let field = field as u32;
        data.extend(if is_little { field.to_le_bytes() } else { field.to_be_bytes() });
    }
    data.extend(body);
    data
}

#[test]
fn sframe_over_random_bytes() {
    (0..2000).for_each(|number| fuzzing::sframe(&with_sframe_header(number, &random(number))));
}

#[test]
fn sframe_roundtrip_over_random_bytes() {
    (0..2000).for_each(|number| fuzzing::sframe_roundtrip(&random(number)));
}

#[test]
fn table_over_its_seeds() {
    assert!(seeds("table", fuzzing::table) >= 10);
}

#[test]
fn table_over_random_bytes() {
    (0..2000).for_each(|number| fuzzing::table(&random(number)));
}

#[test]
fn compile_over_its_seeds() {
    assert!(seeds("compile", fuzzing::compile) >= 10);
}

#[test]
fn compile_over_random_bytes() {
    (0..2000).for_each(|number| fuzzing::compile(&random(number)));
}

#[test]
fn core_over_its_seeds() {
    assert!(seeds("core", fuzzing::core) >= 10);
}

#[test]
fn core_over_random_bytes() {
    (0..2000).for_each(|number| fuzzing::core(&random(number)));
}

#[test]
fn eh_frame_hdr_over_its_seeds() {
    assert!(seeds("eh_frame_hdr", fuzzing::eh_frame_hdr) >= 10);
}

#[test]
fn eh_frame_hdr_over_random_bytes() {
    (0..2000).for_each(|number| fuzzing::eh_frame_hdr(&random(number)));
}

#[test]
fn expression_over_its_seeds() {
    assert!(seeds("expression", fuzzing::expression) >= 10);
}

#[test]
fn expression_over_random_bytes() {
    (0..2000).for_each(|number| fuzzing::expression(&random(number)));
}

#[test]
fn maps_over_its_seeds() {
    assert!(seeds("maps", fuzzing::maps) >= 10);
}

#[test]
fn maps_over_random_bytes() {
    (0..2000).for_each(|number| fuzzing::maps(&random(number)));
}

#[test]
#[cfg(target_has_atomic = "64")]
fn memory_over_its_seeds() {
    assert!(seeds("memory", fuzzing::memory) >= 10);
}

#[test]
#[cfg(target_has_atomic = "64")]
fn memory_over_random_bytes() {
    (0..2000).for_each(|number| fuzzing::memory(&random(number)));
}
