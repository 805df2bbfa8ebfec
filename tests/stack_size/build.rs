//! The C library's start-up code and `memcpy`, which a program without the standard library does not
//! get by itself.
fn main() {
    println!("cargo:rustc-link-arg=-lc");
    println!("cargo:rerun-if-changed=build.rs");
}
