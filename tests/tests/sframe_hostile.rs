//! SFrame sections that are odd, broken or made to do harm.
//!
//! Hazard 23 (`h23_…`) and what belongs to it, a named test each; and every sample cut short
//! everywhere and changed in many places. Each section also goes through
//! [`probe`](unwind_tests::sframe::probe), which does whatever an embedder can do.

#[path = "sframe/hostile_functions.rs"]
mod functions;
#[path = "sframe/hostile_header.rs"]
mod header;
#[path = "sframe/hostile_mutation.rs"]
mod mutation;
#[path = "sframe/hostile_rows.rs"]
mod rows;
#[path = "sframe/hostile_work.rs"]
mod work;

use unwind_core::sframe::{Abi, SFrameSection, SFrameSource, Version};
use unwind_core::{Broken, CfaRule, LookupError, Pc, Rule, SourceError};
use unwind_tests::sframe::{Function, RowBytes, Section, lookup, probe};

const VERSIONS: [Version; 3] = [Version::V1, Version::V2, Version::V3];
const ABIS: [Abi; 4] = [Abi::Amd64, Abi::Aarch64Little, Abi::Aarch64Big, Abi::S390x];

/// Where sections lie in these tests, and functions.
const SVMA: u64 = 0x40_2000;
const TEXT: u64 = 0x40_1000;

/// A function whose CFA is sp + `cfa` everywhere.
fn function(start: u64, size: u32, cfa: i32) -> Function {
    Function::new(start, size, vec![RowBytes::new(0, &[cfa])])
}

/// A section for AMD64.
fn section(version: Version, functions: Vec<Function>) -> Section {
    Section::new(version, Abi::Amd64, functions)
}

fn parse(bytes: &[u8]) -> SFrameSection<'_> {
    probe(bytes, SVMA);
    SFrameSection::parse(bytes, SVMA).unwrap()
}

fn refused(bytes: &[u8]) -> SourceError {
    probe(bytes, SVMA);
    SFrameSection::parse(bytes, SVMA).unwrap_err()
}

/// The offset of the CFA from its base at a pc; `None` where it is not covered.
fn cfa_at(bytes: &[u8], pc: u64) -> Result<Option<i32>, Broken> {
    let abi = Abi::from_number(bytes[4]).unwrap();
    match lookup(abi, &SFrameSource::new(bytes, SVMA), Pc::Exact(pc)) {
        Ok(None) => Ok(None),
        Ok(Some(found)) => match found.rule {
            Rule::Frame(frame) => match frame.cfa() {
                CfaRule::Offset { offset, .. } | CfaRule::Deref { offset, .. } => Ok(Some(offset)),
            },
            Rule::Evaluate => panic!("nothing to evaluate"),
        },
        Err(LookupError::Broken(error)) => Err(error.broken),
        Err(error) => panic!("{error:?}"),
    }
}
