//! Which program is meant, by the name we were called with or by the first word; nothing else.

fn main() {}
