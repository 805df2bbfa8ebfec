//! What it takes to add a module, and to compile one.

use std::hint::black_box;

use framehop::Unwinder as _;
use gimli::{BaseAddresses, CieOrFde, EhFrame, NativeEndian, UnwindContext, UnwindSection};
use unwind_arch::host::HostArch;
use unwind_core::{Module, ModuleMap};

use super::counted::kept;
use super::peer_framehop;
use super::rounds::thread_time;
use super::tables::{Tables, compile};
use super::workload::{Image, Workload};

/// What was measured of an image. Times in nanoseconds.
pub(crate) struct Loaded {
    pub(crate) name: String,
    /// Bytes of `.eh_frame`, and with `.eh_frame_hdr`.
    eh_frame: usize,
    size: usize,
    pub(crate) rows: u64,
    table: usize,
    sframe: usize,
    add: f64,
    compile: f64,
    naive: f64,
    framehop: f64,
    framehop_memory: u64,
}

impl Loaded {
    /// Of what the table is made of.
    pub(crate) fn table_part(&self) -> f64 {
        self.table as f64 / self.size as f64
    }

    /// Megabytes of `.eh_frame` compiled in a second.
    pub(crate) fn compile_speed(&self) -> f64 {
        self.eh_frame as f64 * 1e3 / self.compile
    }

    fn naive_speed(&self) -> f64 {
        self.eh_frame as f64 * 1e3 / self.naive
    }
}

/// How many images are measured.
const MOST: usize = 8;
/// And these, for which there are goals.
pub(crate) const NAMED: [&str; 3] = ["libc.so", "libstdc++.so", "libcrypto.so"];
const ROUNDS: usize = 5;

/// The largest images, and those with goals.
pub(crate) fn run(workload: &Workload, tables: &Tables) -> Vec<Loaded> {
    let mut images: Vec<usize> = (0..workload.images.len()).collect();
    images.sort_by_key(|image| std::cmp::Reverse(workload.images[*image].size()));
    let is_named = |image: usize| NAMED.iter().any(|name| workload.images[image].name().starts_with(name));
    let mut place = 0..;
    images.retain(|image| place.next().is_some_and(|place: usize| place < MOST) || is_named(*image));
    images.into_iter().map(|image| load(&workload.images[image], tables, image)).collect()
}

fn load(image: &Image, tables: &Tables, index: usize) -> Loaded {
    let start = image.text.start;
    let range = start..image.text.end;
    let add = || {
        let modules = [Module { start, end: range.end, bias: 0, source: image.dwarf() }];
        black_box(ModuleMap::new(&HostArch::host(), &modules).is_ok());
    };
    let framehop = || {
        let mut unwinder = framehop::UnwinderNative::<&[u8], framehop::MayAllocateDuringUnwind>::new();
        unwinder.add_module(peer_framehop::module(image, range.clone(), 0));
        unwinder
    };
    let (unwinder, framehop_memory) = kept(framehop);
    drop(unwinder);
    Loaded {
        name: image.name(),
        eh_frame: image.eh_frame.data.len(),
        size: image.size(),
        rows: naive(image).len() as u64,
        table: tables.compiled(index).len(),
        sframe: tables.sframe_size(index),
        add: time(1_000, add),
        compile: time(1, || drop(black_box(compile(image)))),
        naive: time(1, || drop(black_box(naive(image)))),
        framehop: time(20, || drop(black_box(framehop()))),
        framehop_memory,
    }
}

/// The time of `work`, done so many times in a round: the best of some rounds.
fn time(times: u32, mut work: impl FnMut()) -> f64 {
    let round = |_| {
        let begin = thread_time();
        (0..times).for_each(|_| work());
        (thread_time() - begin) / f64::from(times)
    };
    (0..ROUNDS).map(round).fold(f64::INFINITY, f64::min)
}

/// Every row with gimli, sorted: where it begins, the CFA and the places of the return address and the
/// frame pointer.
fn naive(image: &Image) -> Vec<(u64, Naive)> {
    use unwind_core::Arch;
    let mut bases = BaseAddresses::default().set_eh_frame(image.eh_frame.svma);
    if let Some(text) = image.text_svma {
        bases = bases.set_text(text);
    }
    if let Some(got) = image.got_svma {
        bases = bases.set_got(got);
    }
    let mut eh_frame = EhFrame::new(&image.eh_frame.data, NativeEndian);
    eh_frame.set_address_size(8);
    let [ra, fp] = [HostArch::host().ra(), HostArch::host().fp()].map(|number| gimli::Register(number.0));
    let mut context = UnwindContext::new();
    let mut found = Vec::new();
    let mut entries = eh_frame.entries(&bases);
    while let Ok(Some(entry)) = entries.next() {
        let CieOrFde::Fde(partial) = entry else { continue };
        let Ok(fde) = partial.parse(EhFrame::cie_from_offset) else { continue };
        let Ok(mut rows) = fde.rows(&eh_frame, &bases, &mut context) else { continue };
        while let Ok(Some(row)) = rows.next_row() {
            let rule = (row.cfa().clone(), row.register(ra), row.register(fp));
            found.push((row.start_address(), rule));
        }
    }
    found.sort_by_key(|(address, _)| *address);
    found
}

type Place = Option<gimli::RegisterRule<usize>>;
type Naive = (gimli::CfaRule<usize>, Place, Place);

/// Table in Markdown.
pub(crate) fn print(loaded: &[Loaded]) {
    println!(
        "\n| library | .eh_frame + hdr | rows | table | of it | SFrame | compile | MB/s | gimli, rows and sort | MB/s | add | framehop, add | it keeps |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    for one in loaded {
        println!(
            "| {} | {} kB | {} | {} kB | {:.0} % | {} kB | {:.1} ms | {:.0} | {:.1} ms | {:.0} | {:.0} ns | {:.1} µs | {} B |",
            one.name,
            one.size / 1000,
            one.rows,
            one.table / 1000,
            one.table_part() * 100.0,
            one.sframe / 1000,
            one.compile / 1e6,
            one.compile_speed(),
            one.naive / 1e6,
            one.naive_speed(),
            one.add,
            one.framehop / 1e3,
            one.framehop_memory,
        );
    }
}
