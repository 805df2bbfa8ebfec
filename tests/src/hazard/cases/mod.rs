//! The cases of every hazard. Beside each, what goes wrong elsewhere, and who says what is right.

pub mod cfi;
pub mod context;
pub mod expression;
pub mod found;
pub mod lookup;
pub mod place;
pub mod sections;
pub mod step;
pub mod tables;
