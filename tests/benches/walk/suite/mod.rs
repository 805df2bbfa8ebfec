//! The benchmark, where it can be run.

mod busy;
mod capture;
mod chain;
mod contender;
mod counted;
mod deep;
mod floor;
mod floor_search;
mod goals;
mod loading;
mod mixed;
mod modules;
mod ours;
mod peer_framehop;
mod peer_gimli;
mod peer_in_process;
mod programs;
mod random;
mod report;
mod rounds;
mod store;
mod tables;
mod workload;

use std::path::PathBuf;
use std::time::Duration;

use capture::Limits;
use contender::{Contender, room};
use floor::{Chase, RulesKnown};
use peer_in_process::InProcess;
use rounds::{Measured, Stacks};
use tables::Tables;
use workload::{Sample, Workload};

const ROUNDS_DEEP: usize = 80;
const ROUNDS_REAL: usize = 15;
const LIMITS: Limits = Limits { samples: 500, time: Duration::from_secs(5) };

pub(crate) fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse().expect("a number of passes");
    match &arguments[..] {
        [] => everything(),
        ["--busy"] => busy::work(),
        ["--count", name, passes] => {
            with_deep_stack(|_, contenders| count(contenders, name, number(passes)));
        }
        ["--count-real", name, passes] => {
            let (workload, tables) = real_stacks();
            mixed::with_contenders(&workload, &tables, |contenders| count(contenders, name, number(passes)));
        }
        _ => panic!("nothing, --count NAME PASSES, or --count-real NAME PASSES"),
    }
}

fn everything() {
    report::print_heading();
    let deep = with_deep_stack(|path, contenders| {
        let mut measured = Vec::new();
        deep::descend(path, &mut || measured = rounds::measure(ROUNDS_DEEP, Stacks::AsTheyAre, contenders));
        measured
    });
    println!("\n## One deep stack: {} frames, 64 different functions, no frame pointers", deep[0].frames);
    report::print(&deep, &[("floor", &deep[0]), ("rules known", &deep[1])]);

    println!("\n## Real stacks");
    let (mut workload, tables) = real_stacks();
    let in_order = real("One program after the other", &workload, &tables, Stacks::AsTheyAre);
    let fresh = real("The same, stacks just copied", &workload, &tables, Stacks::Fresh);
    mixed::shuffle(&mut workload);
    workload.arrange();
    let shuffled = real("All programs mixed up", &workload, &tables, Stacks::AsTheyAre);
    println!("\n## Modules");
    let loaded = loading::run(&workload, &tables);
    loading::print(&loaded);
    println!("\n## Reach");
    report::print_goals(&goals::all(&deep, [&in_order, &fresh, &shuffled], &loaded));
}

/// Stacks of real programs that everybody walks alike: from the file that `WALK_SAMPLES` names, where it is
/// there; else captured, and stored there.
fn real_stacks() -> (Workload, Tables) {
    let file = std::env::var_os("WALK_SAMPLES").map(PathBuf::from);
    let stored = file.as_deref().filter(|path| path.exists());
    let mut workload = match stored {
        Some(path) => store::load(path).expect("a stored workload"),
        None => {
            let folder = programs::Folder::new().expect("a folder for temporary files");
            let mut programs = programs::all(&folder);
            if let Ok(wanted) = std::env::var("WALK_PROGRAMS") {
                programs.retain(|program| wanted.split(',').any(|wanted| wanted == program.name));
            }
            capture::capture(&programs, LIMITS)
        }
    };
    if let Some(path) = file.as_deref().filter(|_| stored.is_none()) {
        store::store(&workload, path).expect("a file that can be written");
    }
    if let Some(most) = std::env::var_os("WALK_MOST") {
        mixed::thin_out(&mut workload, most.to_str().and_then(|most| most.parse().ok()).expect("a number"));
    }
    let tables = Tables::new(&workload);
    mixed::keep_agreed(&mut workload, &tables);
    mixed::print_programs(&workload);
    workload.arrange();
    (workload, tables)
}

fn real(heading: &str, workload: &Workload, tables: &Tables, stacks: Stacks) -> Vec<Measured> {
    println!("\n### {heading}\n");
    mixed::print_hits(workload, tables);
    let measured = mixed::run(workload, tables, ROUNDS_REAL, stacks);
    report::print(&measured, &[("rules known", &measured[0]), ("rules by pc", &measured[1])]);
    measured
}

/// The addresses of a stack's frames.
fn pcs(contender: &mut dyn Contender, sample: &Sample) -> Vec<u64> {
    let mut pcs = room();
    let count = contender.walk(0, sample, &mut pcs);
    pcs.truncate(count);
    pcs
}

/// Lends out everybody with the deep stack, all of whom agree on it, and the chain of functions that led
/// to it.
fn with_deep_stack<T>(use_them: impl FnOnce(&[usize], &mut [(&mut dyn Contender, &Workload)]) -> T) -> T {
    let mut workload = deep::modules();
    let path = {
        let mut dwarf = ours::dwarf(&workload);
        deep::without_collisions(|sample| pcs(&mut dwarf, sample))
    };
    workload.samples.push(deep::sample(&path));
    let workload = &workload;
    let tables = &Tables::new(workload);
    let mut dwarf = ours::dwarf(workload);
    let chain = &chain::of(workload, &dwarf.unwinders[0]);
    let truth = pcs(&mut dwarf, &workload.samples[0]);
    let mut known = RulesKnown::record(workload, &dwarf.unwinders);
    let mut chase = Chase;
    let mut frame_pointer = ours::frame_pointer(chain);
    let mut sframe = ours::sframe(workload, tables);
    let mut table = ours::table(workload, tables);
    let mut cached = ours::cached(workload, tables, 4096);
    let mut small = ours::cached(workload, tables, 512);
    let mut framehop_warm = peer_framehop::cached("framehop, warm", workload);
    let mut framehop_missing = peer_framehop::missing(workload);
    let mut direct = peer_gimli::Direct::new(workload);
    let mut in_process = InProcess;
    let mut contenders: Vec<(&mut dyn Contender, &Workload)> = vec![
        (&mut chase, chain),
        (&mut known, workload),
        (&mut frame_pointer, chain),
        (&mut cached, workload),
        (&mut small, workload),
        (&mut table, workload),
        (&mut sframe, workload),
        (&mut dwarf, workload),
        (&mut framehop_warm, workload),
        (&mut framehop_missing, workload),
        (&mut direct, workload),
    ];
    for (contender, workload) in &mut contenders {
        let found = pcs(*contender, &workload.samples[0]);
        assert_eq!(found, truth, "{}", contender.name());
    }
    contenders.push((&mut in_process, workload));
    use_them(&path, &mut contenders)
}

/// Has one contender walk its stacks so many times.
#[inline(never)]
fn count(contenders: &mut [(&mut dyn Contender, &Workload)], name: &str, passes: u64) {
    let mut pcs = room();
    let named = contenders.iter_mut().find(|(contender, _)| contender.name().contains(name));
    let (contender, workload) = named.expect("a contender of this name");
    let begin = rounds::thread_time();
    let frames: u64 = (0..passes).map(|_| contender.pass(workload, &mut pcs)).sum();
    let each = (rounds::thread_time() - begin) / frames.max(1) as f64;
    println!("{}: {frames} frames, {each:.1} ns each", contender.name());
}
