//! Letters that can be checked one by one, wherever they are found.

/// Which letter it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stamp {
    /// What the maker calls it.
    pub id: u64,
    /// Which one of several with that id.
    pub seq: u64,
}
