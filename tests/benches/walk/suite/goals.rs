//! What is to be reached, and what was.

use unwind_core::{TopmostRegisters, UnwindUserState};

use super::loading::{Loaded, NAMED};
use super::rounds::Measured;

/// A goal and what was measured.
pub(crate) struct Goal {
    pub(crate) what: String,
    /// One value, or one for each way to walk the real stacks.
    pub(crate) measured: Vec<f64>,
    pub(crate) bound: Bound,
    /// What would be measured if ours did nothing but look rules up by their pcs, by SFrame nothing but search among
    /// functions and pass over rows, and carry them out; empty where the goal is not of that kind.
    pub(crate) at_floor: Vec<f64>,
}

#[derive(Clone, Copy)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

use Bound::{AtLeast, AtMost};

/// All that can be measured in one run.
pub(crate) fn all(deep: &[Measured], real: [&[Measured]; 3], loaded: &[Loaded]) -> Vec<Goal> {
    let mut goals = of_deep_stack(deep);
    goals.extend(of_real_stacks(&real));
    goals.extend(of_tables(loaded));
    goals.push(Goal {
        what: "bytes of a cursor".into(),
        measured: vec![size_of::<UnwindUserState<TopmostRegisters<'_>>>() as f64],
        bound: AtMost(256.0),
        at_floor: Vec::new(),
    });
    goals
}

fn of_deep_stack(deep: &[Measured]) -> Vec<Goal> {
    vec![
        ratio("deep stack", &[deep], "ours, frame pointer", "floor: bare", AtMost(1.5)),
        ratio("deep stack", &[deep], "ours, cache of 4096", "floor: bare", AtMost(3.0)),
        ratio("deep stack", &[deep], "framehop, warm", "ours, cache of 4096", AtLeast(2.0)),
    ]
}

fn of_real_stacks(real: &[&[Measured]]) -> Vec<Goal> {
    vec![
        ratio("real stacks", real, "ours, cache of 4096", "floor: rules", AtMost(1.1)),
        ratio("real stacks", real, "framehop, steady", "ours, cache of 4096", AtLeast(11.0)),
        ratio("real stacks", real, "ours, table", "floor: rules", AtMost(1.7)),
        ratio("real stacks", real, "framehop, missing", "ours, table", AtLeast(28.0)),
        ratio("real stacks", real, "framehop, missing", "ours, SFrame", AtLeast(10.0)),
        ratio("real stacks", real, "framehop, missing", "ours, DWARF", AtLeast(3.0)),
        ratio("real stacks", real, "gimli", "ours, DWARF", AtLeast(3.0)),
    ]
}

fn of_tables(loaded: &[Loaded]) -> Vec<Goal> {
    let mut goals = Vec::new();
    for one in loaded {
        let is_named = NAMED.iter().any(|name| one.name.starts_with(*name));
        let percent = match one.rows {
            _ if is_named => 60.0,
            800_000.. => 70.0,
            _ => continue,
        };
        goals.push(Goal {
            what: format!("{}: table, % of .eh_frame + .eh_frame_hdr", one.name),
            measured: vec![one.table_part() * 100.0],
            bound: AtMost(percent),
            at_floor: Vec::new(),
        });
        goals.push(Goal {
            what: format!("{}: MB of .eh_frame compiled per second", one.name),
            measured: vec![one.compile_speed()],
            bound: AtLeast(100.0),
            at_floor: Vec::new(),
        });
    }
    goals
}

fn ratio(workload: &str, of: &[&[Measured]], one: &str, other: &str, bound: Bound) -> Goal {
    let ratios = |one, other| {
        let ratio =
            |of: &&[Measured]| named(of, one).tenth_percentile() / named(of, other).tenth_percentile();
        of.iter().map(ratio).collect()
    };
    let [one_name, other_name] = [one, other].map(|name| of.first().map_or(name, |of| &named(of, name).name));
    let best = [one, other].map(|name| match name {
        // Who has to search the functions of a section, and to pass over rows.
        "ours, SFrame" => "floor: SFrame's rows",
        name if name.starts_with("ours") => "floor: rules by pc",
        name => name,
    });
    // The deep stack has no such floor.
    let is_floor_known = of.iter().all(|of| of.iter().any(|one| one.name.starts_with("floor: rules by pc")));
    Goal {
        what: format!("{workload}: {one_name} / {other_name}"),
        measured: ratios(one, other),
        bound,
        at_floor: if is_floor_known { ratios(best[0], best[1]) } else { Vec::new() },
    }
}

/// The contender whose name begins so.
fn named<'m>(measured: &'m [Measured], name: &str) -> &'m Measured {
    measured.iter().find(|one| one.name.starts_with(name)).expect("a contender")
}
