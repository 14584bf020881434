//! commit
fn main() {}
