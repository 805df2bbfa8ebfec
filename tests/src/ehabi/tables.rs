//! Tables made from descriptions.

use unwind_core::ByteOrder;
use unwind_core::ehabi::{EhabiSections, EhabiSource, Section};

/// What the entry of a function says.
#[derive(Clone, Debug)]
pub enum Body {
    /// `EXIDX_CANTUNWIND`.
    CannotUnwind,
    /// Up to three instruction bytes, in the index.
    Inline(Vec<u8>),
    /// The same in `.ARM.extab`: personality routine 0.
    Short(Vec<u8>),
    /// Personality routine 1 or 2.
    Long(u8, Vec<u8>),
    /// A personality routine at an address, and instructions as GNU's are laid out.
    Generic(u32, Vec<u8>),
    /// Words of `.ARM.extab`, as they are.
    Words(Vec<u32>),
    /// The second word of the index, as it is.
    Second(u32),
}

/// Tables in the making: functions in the order in which they are added.
#[derive(Clone, Debug)]
pub struct Tables {
    pub order: ByteOrder,
    pub exidx_svma: u32,
    pub extab_svma: u32,
    pub text_start: u64,
    pub text_end: u64,
    functions: Vec<(u32, Body)>,
}

/// The bytes.
#[derive(Clone, Debug)]
pub struct Built {
    tables: Tables,
    pub exidx: Vec<u8>,
    pub extab: Vec<u8>,
}

impl Tables {
    /// No functions; code from 0x1_0000 to 0x2_0000, the index at 0x4_0000, entries at 0x3_0000.
    pub fn new(order: ByteOrder) -> Self {
        Tables {
            order,
            exidx_svma: 0x4_0000,
            extab_svma: 0x3_0000,
            text_start: 0x1_0000,
            text_end: 0x2_0000,
            functions: Vec::new(),
        }
    }

    /// A function that begins at an address.
    pub fn function(mut self, start: u32, body: Body) -> Self {
        self.functions.push((start, body));
        self
    }

    fn word(&self, into: &mut Vec<u8>, value: u32) {
        into.extend(match self.order {
            ByteOrder::Little => value.to_le_bytes(),
            ByteOrder::Big => value.to_be_bytes(),
        });
    }

    /// Lays them out.
    pub fn build(self) -> Built {
        let (mut exidx, mut extab) = (Vec::new(), Vec::new());
        for (start, body) in &self.functions {
            let place = self.exidx_svma.wrapping_add(u32::try_from(exidx.len()).unwrap());
            self.word(&mut exidx, prel31(*start, place));
            let entry = self.extab_svma.wrapping_add(u32::try_from(extab.len()).unwrap());
            let second = match words(body, entry) {
                Ok(words) => {
                    words.into_iter().for_each(|word| self.word(&mut extab, word));
                    prel31(entry, place.wrapping_add(4))
                }
                Err(second) => second,
            };
            self.word(&mut exidx, second);
        }
        Built { tables: self, exidx, extab }
    }
}

/// The words of `.ARM.extab` for an entry at an address, or the second word of the index.
fn words(body: &Body, place: u32) -> Result<Vec<u32>, u32> {
    Ok(match body {
        Body::CannotUnwind => return Err(1),
        Body::Second(second) => return Err(*second),
        Body::Inline(bytes) => return Err(packed(&[0x80], bytes)[0]),
        Body::Short(bytes) => packed(&[0x80], bytes),
        Body::Long(routine, bytes) => packed(&[0x80 | routine, count(bytes, 2)], bytes),
        Body::Generic(routine, bytes) => {
            let mut words = vec![prel31(*routine, place)];
            words.extend(packed(&[count(bytes, 3)], bytes));
            words
        }
        Body::Words(words) => words.clone(),
    })
}

/// How many words there are beyond the first, which has room for so many bytes.
fn count(bytes: &[u8], room: usize) -> u8 {
    u8::try_from(bytes.len().saturating_sub(room).div_ceil(4)).unwrap()
}

/// Bytes into words, most significant first, the last filled up with "finish".
fn packed(head: &[u8], bytes: &[u8]) -> Vec<u32> {
    let mut all = head.to_vec();
    all.extend(bytes);
    while !all.len().is_multiple_of(4) {
        all.push(0xb0);
    }
    all.chunks(4).map(|word| u32::from_be_bytes(word.try_into().unwrap())).collect()
}

/// The offset from one address to another, as 31 bits.
fn prel31(to: u32, from: u32) -> u32 {
    to.wrapping_sub(from) & 0x7fff_ffff
}

impl Built {
    /// The tables for the library.
    pub fn sections(&self) -> EhabiSections<'_> {
        let tables = &self.tables;
        EhabiSections::new(
            tables.order,
            Section { data: &self.exidx, svma: tables.exidx_svma.into() },
            Some(Section { data: &self.extab, svma: tables.extab_svma.into() }),
            tables.text_start,
            tables.text_end,
        )
    }

    /// A source over them.
    pub fn source(&self) -> EhabiSource<'_> {
        EhabiSource::new(self.sections())
    }
}
