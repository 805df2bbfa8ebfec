//! What is to be run, and what came of it.

use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use unwind_core::dwarf::DwarfSections;

use super::tracee::Stop;
use super::window::Window;
use crate::oracle::modules::Image;
use crate::oracle::tally::Tally;
use crate::oracle::truth::Seen;

/// Which tables walks use of an image.
pub type Tables = fn(&'static Image) -> DwarfSections<'static>;

/// Where stepping begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// At the first instruction of all: the dynamic loader's, where there is one.
    Loader,
    /// At the program's own entry.
    Program,
    /// At the first call of this function after the program's entry, whatever module it is in. The
    /// callers at that point are what a walk says, and are confirmed or refuted by the returns
    /// that follow.
    Function(&'static str),
    /// At the first instruction of the first thread that the program creates.
    Thread,
}

/// What is to be run, and how.
pub struct Case<'c> {
    /// Its name in reports.
    pub name: String,
    /// The program.
    pub command: Command,
    /// Files below this folder were made for the test.
    pub ours: &'c Path,
    /// Where stepping begins.
    pub begin: Begin,
    /// At which instructions walks are made.
    pub window: Window,
    /// Whether to walk by the architecture's conventions alone as well.
    pub conventions: bool,
    /// Whether return instructions may go elsewhere than where the call came from: context
    /// switches, exceptions.
    pub odd_returns: bool,
    /// Sends this signal at one in so many instructions inside the window, where it has a handler
    /// that is not running.
    pub inject: Option<(Signal, u64)>,
    /// Ends after this many instructions.
    pub most: u64,
    /// The tables that walks use: those of the image, but in a test of the oracle itself.
    pub tables: Tables,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The program ended.
    Stop(Stop),
    /// After the number of instructions that the case wanted.
    Enough,
}

/// What came of a case.
#[derive(Debug)]
pub struct Report {
    /// The case's name.
    pub name: String,
    /// Every comparison.
    pub tally: Tally,
    /// What the truth saw.
    pub seen: Seen,
    /// Signals sent by the oracle.
    pub injected: u64,
    /// How it ended.
    pub ended: Ended,
    /// Wrong walks.
    pub failures: Vec<Failure>,
    /// Broken invariants of the truth itself.
    pub doubts: Vec<String>,
}

/// A wrong walk that nothing explains.
#[derive(Debug)]
pub struct Failure {
    /// What the walk says and what is true, frame by frame; several lines.
    pub text: String,
    /// Whether the walk does what the table says, as gimli reads it: then the table is wrong.
    pub table_agrees: bool,
    /// Whether the rule that led astray is of a program that was made for the test.
    pub ours: bool,
}
