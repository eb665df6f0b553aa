//! What we write to senders: that a message could not be delivered.

/// The queue id of the bounce that tells of what came of message `id`, by the number that the queue gave it: the same whenever
/// it is made, so that a crash between its making and what is noted of it never makes two.
pub fn bounce_id(id: &str, number: u32) -> String {
    format!("{id}b{number}")
}
