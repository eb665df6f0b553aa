//! What operators are shown of sending: the places that mail is sent to. The senders fill it in, `showsend` and the queue's lists
//! print it.

/// A place that mail is sent to, or waits for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// What it is called: `mx example.org`, `relay.example.net:587`.
    pub key: String,
    /// How it is.
    pub state: State,
    /// Connections to it that are open.
    pub connections: usize,
    /// How many there may be just now: fewer when it refuses.
    pub bound: usize,
    /// Messages that wait for a connection to it.
    pub waiting: usize,
    /// Recipients for whom it took a message since it is known.
    pub taken: u64,
    /// Recipients for whom it took none, not yet.
    pub deferred: u64,
    /// Why it took nothing the last time; empty: it did.
    pub why: String,
    /// Seconds until it is tried again, where that is waited for.
    pub next_secs: Option<u64>,
}

/// How a place is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// Nothing is sent there now, and nothing waits.
    #[default]
    Idle,
    /// It is being looked up, or called.
    Calling,
    /// Mail is on its way there.
    Sending,
    /// It could not be reached, and is left alone for a while.
    Waiting,
    /// An operator wants nothing sent there.
    Paused,
}

impl State {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            State::Idle => "idle",
            State::Calling => "calling",
            State::Sending => "sending",
            State::Waiting => "waiting",
            State::Paused => "paused",
        }
    }
}
