//! Sorting in place, for indexes in room that the caller gave.
//!
//! The standard library's sort is faster, but links a panic for orders that contradict themselves.

/// Heapsort: no allocation, no recursion, `2 n log n` comparisons at the most.
pub(crate) fn sort<T: Copy + Ord>(values: &mut [T]) {
    let mut root = values.len() / 2;
    while let Some(next) = root.checked_sub(1) {
        root = next;
        sift_down(values, root);
    }
    let mut heap = values;
    while let Some((last, rest)) = heap.split_last_mut() {
        if let Some(largest) = rest.first_mut()
            && *largest > *last
        {
            core::mem::swap(largest, last);
            sift_down(rest, 0);
        }
        heap = rest;
    }
}

/// Moves the value at `root` down until no child is larger. The subtrees below it are heaps.
fn sift_down<T: Copy + Ord>(heap: &mut [T], mut root: usize) {
    let Some(value) = heap.get(root).copied() else { return };
    loop {
        let left = root.saturating_mul(2).saturating_add(1);
        let right = left.saturating_add(1);
        let (child, larger) = match (heap.get(left).copied(), heap.get(right).copied()) {
            (Some(a), Some(b)) if b > a => (right, b),
            (Some(a), _) => (left, a),
            (None, _) => break,
        };
        if larger <= value {
            break;
        }
        if let Some(slot) = heap.get_mut(root) {
            *slot = larger;
        }
        root = child;
    }
    if let Some(slot) = heap.get_mut(root) {
        *slot = value;
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "tests")]
mod tests {
    use std::vec::Vec;

    use super::sort;

    #[test]
    fn sorts_as_the_standard_library_does() {
        let mut state = 1u64;
        for len in (0..70).chain([1_000, 4_097]) {
            for range in [1, 2, 10, u64::MAX] {
                let mut values: Vec<u64> = (0..len)
                    .map(|_| {
                        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        (state >> 20) % range
                    })
                    .collect();
                let mut expected = values.clone();
                expected.sort_unstable();
                sort(&mut values);
                assert_eq!(values, expected);
                // Sorted and reversed input.
                sort(&mut values);
                assert_eq!(values, expected);
                values.reverse();
                sort(&mut values);
                assert_eq!(values, expected);
            }
        }
    }
}
