//! What this program does to be sampled: work through several libraries, recursion among it.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::hint::black_box;
use std::time::{Duration, Instant};

use gimli::{BaseAddresses, CieOrFde, EhFrame, NativeEndian, UnwindContext, UnwindSection};
use object::{Object, ObjectSection, ObjectSymbol};

use super::random::Random;

/// Works for so long at most, should nobody end it before.
const MOST: Duration = Duration::from_secs(60);

pub(crate) fn work() {
    let begin = Instant::now();
    let exe = std::env::current_exe().expect("this program's path");
    let file = std::fs::read(exe).expect("this program");
    let file = &file[..];
    let mut random = Random::new(1);
    while begin.elapsed() < MOST {
        let tree = grow(&mut random, 12);
        black_box(tree.sum());
        let mut words: Vec<String> = (0..300).map(|_| format!("{:x}", random.below(1 << 20))).collect();
        sort(&mut words);
        black_box(by_c_library(&mut random));
        black_box(miniz_oxide::deflate::compress_to_vec(words.concat().as_bytes(), 6));
        black_box(symbols(file));
        black_box(rows(file, &mut random));
    }
}

struct Tree {
    value: u64,
    below: Vec<Tree>,
}

impl Tree {
    fn sum(&self) -> u64 {
        self.value + self.below.iter().map(Tree::sum).sum::<u64>()
    }
}

fn grow(random: &mut Random, depth: u32) -> Tree {
    let below = if depth == 0 { 0 } else { random.below(3) };
    Tree { value: random.below(9), below: (0..below).map(|_| grow(random, depth - 1)).collect() }
}

fn sort(words: &mut [String]) {
    let mut counts = BTreeMap::new();
    words.sort_by(|one, other| {
        *counts.entry(one.len()).or_insert(0) += 1;
        one.len().cmp(&other.len()).then_with(|| one.to_uppercase().cmp(&other.to_uppercase()))
    });
}

thread_local! {
    static COMPARED: Cell<u64> = const { Cell::new(0) };
}

/// The C library's sort, which calls back.
fn by_c_library(random: &mut Random) -> u64 {
    extern "C" fn compare(one: *const nix::libc::c_void, other: *const nix::libc::c_void) -> i32 {
        COMPARED.set(COMPARED.get() + 1);
        // SAFETY: qsort hands over pointers to two elements, which are u64.
        let (one, other) = unsafe { (*one.cast::<u64>(), *other.cast::<u64>()) };
        format!("{one}").cmp(&format!("{other}")) as i32
    }
    let mut numbers: Vec<u64> = (0..200).map(|_| random.below(10_000)).collect();
    // SAFETY: as many elements of this size are there.
    unsafe { nix::libc::qsort(numbers.as_mut_ptr().cast(), numbers.len(), 8, Some(compare)) };
    COMPARED.get() + numbers[0]
}

/// Symbols of an ELF file, by their sizes.
fn symbols(file: &[u8]) -> usize {
    let Ok(file) = object::File::parse(file) else { return 0 };
    let mut by_size: HashMap<u64, Vec<String>> = HashMap::new();
    for symbol in file.symbols().take(2_000) {
        by_size.entry(symbol.size()).or_default().push(symbol.name().unwrap_or_default().to_owned());
    }
    by_size.len()
}

/// Rows of its unwind tables.
fn rows(file: &[u8], random: &mut Random) -> usize {
    let Ok(file) = object::File::parse(file) else { return 0 };
    let Some(section) = file.section_by_name(".eh_frame") else { return 0 };
    let Ok(data) = section.data() else { return 0 };
    let eh_frame = EhFrame::new(data, NativeEndian);
    let bases = BaseAddresses::default().set_eh_frame(section.address());
    let mut entries = eh_frame.entries(&bases);
    let mut context = UnwindContext::new();
    let mut count = 0;
    while let Ok(Some(entry)) = entries.next() {
        let CieOrFde::Fde(partial) = entry else { continue };
        if random.below(20) != 0 {
            continue;
        }
        let Ok(fde) = partial.parse(EhFrame::cie_from_offset) else { continue };
        let Ok(mut rows) = fde.rows(&eh_frame, &bases, &mut context) else { continue };
        while let Ok(Some(row)) = rows.next_row() {
            count += black_box(row).registers().count();
        }
    }
    count
}
