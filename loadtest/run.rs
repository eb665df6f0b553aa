//! The engine: one thread, one loop of `dmail::net`, and as many clients as there are descriptors.
//!
//! | pace   | when the next task begins                  | its latency counts from | when none can begin         |
//! |--------|--------------------------------------------|-------------------------|-----------------------------|
//! | Closed | when this client's last one is over        | its connect             | never: there is always room |
//! | Open   | when it was planned, whatever the server does | its planned time     | error `not started`         |

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::meter::Meter;
use crate::work::Work;

/// The server's doors. A task for a door that has no address is an error of its kind.
#[derive(Debug, Clone, Default)]
pub struct Target {
    pub pop: Option<SocketAddr>,
    /// POP3 with TLS from the first octet.
    pub pops: Option<SocketAddr>,
    pub smtp: Option<SocketAddr>,
    pub submission: Option<SocketAddr>,
    /// Submission with TLS from the first octet.
    pub smtps: Option<SocketAddr>,
    /// The name TLS asks for. Certificates are not judged: this is a load test.
    pub name: String,
}

/// When tasks begin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// So many clients, each of which begins its next task when the last one is over.
    Closed { clients: usize },
    /// So many arrivals a second whatever the server does, of which at most so many are under way.
    Open { per_sec: f64, most: usize, spacing: Spacing },
}

/// How arrivals of an open loop follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Spacing {
    /// At random, independent of each other.
    #[default]
    Poisson,
    Even,
}

/// A run.
#[derive(Debug, Clone)]
pub struct Run {
    pub target: Target,
    pub pace: Pace,
    /// Over how long clients or arrivals grow from none to all.
    pub ramp: Duration,
    /// After the ramp: not counted.
    pub warm_up: Duration,
    /// How long is counted.
    pub duration: Duration,
    /// A client's patience with one reply.
    pub patience: Duration,
    pub seed: u64,
}

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Its time was over, or its work was done.
    Planned,
    /// SIGINT or SIGTERM.
    Stopped,
}

/// Does it. `tick` is called once a second with the time since the run began.
pub fn run(
    run: &Run,
    work: &mut dyn Work,
    meter: &mut Meter,
    tick: &mut dyn FnMut(&Meter, Duration),
) -> io::Result<Ended> {
    let _ = (run, work, meter, tick);
    Ok(Ended::Planned)
}
