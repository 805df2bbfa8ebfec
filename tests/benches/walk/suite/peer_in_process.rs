//! The crate `backtrace`, which is libgcc's `_Unwind_Backtrace` where that is: it can walk nothing but the
//! stack that it is called on.

use super::contender::Contender;
use super::workload::Sample;

pub(crate) struct InProcess;

impl Contender for InProcess {
    fn name(&self) -> String {
        "crate backtrace (libgcc), in process".into()
    }

    #[inline]
    fn walk(&mut self, _: usize, _: &Sample, pcs: &mut [u64]) -> usize {
        let mut count = 0;
        backtrace::trace(|frame| {
            let Some(entry) = pcs.get_mut(count) else { return false };
            *entry = frame.ip() as u64;
            count += 1;
            true
        });
        count
    }
}
