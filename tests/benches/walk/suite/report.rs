//! The figures, as tables in Markdown.

use std::time::{Duration, SystemTime};

use super::goals::{Bound, Goal};
use super::rounds::Measured;

/// When and on what this was measured.
pub(crate) fn print_heading() {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (year, month, day) = date(since.as_secs() / 86_400);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("Measured on {year}-{month:02}-{day:02}, {}, {cores} cores seen.", processor());
}

fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or_else(|| std::env::consts::ARCH.into(), |(_, name)| name.trim().into())
}

/// The date of a day since 1970 (the Gregorian calendar from March on, in periods of 400 years).
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (month_of_year, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + carry, month_of_year, day - (153 * month + 2) / 5 + 1)
}

/// Everybody's time per frame, and how many times that of the named ones it is.
pub(crate) fn print(measured: &[Measured], references: &[(&str, &Measured)]) {
    let names: String = references.iter().map(|(name, _)| format!(" × {name} |")).collect();
    println!("\n| contender | ns/frame, median | 10th percentile |{names} frames | |");
    println!("|---|---|---|{}---|---|", "---|".repeat(references.len()));
    for one in measured {
        let ratios: String = references
            .iter()
            .map(|(_, of)| format!(" {:.2} |", one.tenth_percentile() / of.tenth_percentile()))
            .collect();
        let note = one.note.as_deref().unwrap_or_default();
        println!(
            "| {} | {:.1} | {:.1} |{ratios} {} | {note} |",
            one.name,
            one.median(),
            one.tenth_percentile(),
            one.frames
        );
    }
}

/// Which goals were reached.
pub(crate) fn print_goals(goals: &[Goal]) {
    println!("For real stacks: one program after the other; the same, just copied; all programs mixed up.");
    println!(
        "At best: what it would be if ours did nothing but find rules by their pcs, and carry them out."
    );
    println!("\n| what | goal | measured | at best |\n|---|---|---|---|");
    for goal in goals {
        let (text, is_met): (String, &dyn Fn(f64) -> bool) = match &goal.bound {
            Bound::AtMost(bound) => (format!("≤ {bound}"), &|measured| measured <= *bound),
            Bound::AtLeast(bound) => (format!("≥ {bound}"), &|measured| measured >= *bound),
        };
        let measured = goal.measured.iter().map(|measured| {
            let met = if is_met(*measured) { "met" } else { "not met" };
            format!("{measured:.2} {met}")
        });
        let measured = measured.collect::<Vec<_>>().join("; ");
        let best: Vec<String> = goal.at_floor.iter().map(|best| format!("{best:.2}")).collect();
        println!("| {} | {text} | {measured} | {} |", goal.what, best.join("; "));
    }
}
