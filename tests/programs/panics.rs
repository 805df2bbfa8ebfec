// What rustc makes: closures, iterators, trait objects, panics that are caught. Exits with 0 if all went
// right.
use std::collections::BTreeMap;
use std::hint::black_box;
use std::panic::{catch_unwind, set_hook};

trait Shape {
    fn area(&self) -> u64;
}

struct Square(u64);
struct Guard<'g>(&'g mut u64, u64);

impl Shape for Square {
    #[inline(never)]
    fn area(&self) -> u64 {
        leaf(self.0) * self.0
    }
}

impl Drop for Guard<'_> {
    #[inline(never)]
    fn drop(&mut self) {
        *self.0 += leaf(self.1);
    }
}

#[inline(never)]
fn leaf(a: u64) -> u64 {
    black_box(a) * 3 + 1
}

#[inline(never)]
fn recurse(levels: u64, dropped: &mut u64, shape: &dyn Shape) -> u64 {
    let guard = Guard(dropped, levels);
    if levels == 0 {
        let table = [1u64, 2, 3];
        return table[black_box(3)] + shape.area();
    }
    recurse(levels - 1, &mut *guard.0, shape) + leaf(levels)
}

#[repr(align(64))]
struct Aligned([u64; 8]);

#[inline(never)]
fn aligned(a: u64) -> u64 {
    let kept = black_box(Aligned([a; 8]));
    leaf(kept.0[3]) + kept.0[7]
}

#[inline(never)]
fn calls_back(function: &dyn Fn(u64) -> u64, a: u64) -> u64 {
    function(a) + leaf(a)
}

#[inline(never)]
fn large(a: u64) -> u64 {
    let kept = black_box([a; 5000]);
    leaf(kept[4999])
}

fn main() {
    set_hook(Box::new(|_| {}));
    assert_eq!(leaf(2), 7);
    assert_eq!(aligned(2), 9);
    assert_eq!(large(3), 10);
    let captured = black_box(4);
    assert_eq!(calls_back(&|a| captured + leaf(a), 2), 18);
    let mut words = vec!["pear", "apple", "fig", "quince"];
    words.sort_by(|a, b| leaf(a.len() as u64).cmp(&leaf(b.len() as u64)).then(a.cmp(b)));
    assert_eq!(words, ["fig", "pear", "apple", "quince"]);
    let lengths: BTreeMap<_, _> = words.iter().map(|word| (*word, leaf(word.len() as u64))).collect();
    assert_eq!(lengths["fig"], 10);
    assert_eq!(format!("{:>5}|{:?}", 17, Some("x")), "   17|Some(\"x\")");
    let mut dropped = 0;
    let dropped_by_panic = std::panic::AssertUnwindSafe(&mut dropped);
    let result = catch_unwind(move || {
        let dropped = dropped_by_panic;
        recurse(3, dropped.0, &Square(2))
    });
    assert!(result.is_err());
    assert_eq!(dropped, 1 + 4 + 7 + 10);
}
