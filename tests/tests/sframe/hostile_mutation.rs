//! Every sample, cut short everywhere and changed in many places.

use unwind_core::sframe::SFrameSections;
use unwind_tests::sframe::{Elf, Probe, files, probe_at};

use super::*;

/// The section of every sample, relocated, with its address.
fn sections() -> Vec<(String, Vec<u8>, u64)> {
    files()
        .into_iter()
        .map(|(name, path)| {
            let elf = Elf::read(&path);
            (name, elf.relocated(), elf.svma)
        })
        .collect()
}

#[test]
fn every_truncation_of_every_sample() {
    let mut cuts = 0;
    for (name, data, svma) in sections() {
        let whole = probe(&data, svma);
        let first =
            SFrameSections::new(&data, svma).next().map_or(0, |section| section.unwrap().data().len());
        for length in 0..data.len() {
            let cut = probe(&data[..length], svma);
            // A section that is not there as a whole is not there at all.
            assert_eq!(cut.functions > 0, length >= first && whole.functions > 0, "{name} {length}");
            cuts += 1;
        }
    }
    println!("{cuts} cuts");
    assert!(cuts > 20_000);
}

/// Changes of one byte: every value in headers, every bit elsewhere; of those, one in 151, or with
/// `UNWIND_SFRAME_CHANGES=N` one in `N`.
#[test]
fn changed_bytes() {
    let step = std::env::var("UNWIND_SFRAME_CHANGES").map_or(151, |step| step.parse().unwrap());
    let mut total = Probe::default();
    let (mut possible, mut changes) = (0, 0);
    for (_, mut data, svma) in sections() {
        for at in 0..data.len() {
            let old = data[at];
            let values = if at < 28 { 256 } else { 8 };
            for value in 0..values {
                possible += 1;
                if possible % step != 0 {
                    continue;
                }
                data[at] = if at < 28 { value as u8 } else { old ^ 1 << value };
                let probe = probe_at(&data, svma, 40);
                total.valid += probe.valid;
                total.functions += probe.functions;
                total.rows += probe.rows;
                total.lookups += probe.lookups;
                changes += 1;
            }
            data[at] = old;
        }
    }
    println!("{changes} changes of {possible}: {total:?}");
    assert!(changes > 3_000 && total.valid > 500 && total.lookups > 50_000);
}
