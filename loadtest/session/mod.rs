//! One client: a protocol machine, its socket, and what it checks.
