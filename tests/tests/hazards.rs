//! The conformance suite: one or more tests for every row of the project's list of hazards, named
//! after it. Rows about SFrame, EHABI and compiled tables have theirs beside those sources.
//!
//! What a hazard's test shows by an example, the property tests show for stacks and tables of every
//! form.

#[path = "hazards/cfi.rs"]
mod cfi;
#[path = "hazards/context.rs"]
mod context;
#[path = "hazards/expression.rs"]
mod expression;
#[path = "hazards/lookup.rs"]
mod lookup;
#[path = "hazards/malformed.rs"]
mod malformed;
#[path = "hazards/step.rs"]
mod step;
#[path = "hazards/table.rs"]
mod table;
