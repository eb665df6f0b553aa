//! Where mail for an address of ours goes: aliases, forward lines, users, programs.

/// A program that is given mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The command: the program and its arguments.
    pub words: Vec<String>,
    /// The user whose own forward file says so; `None`: it is the operator's word.
    pub user: Option<u32>,
}
