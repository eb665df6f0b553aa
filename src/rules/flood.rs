//! How many log lines strangers may cause: enough for one an event in normal life, and a bound when somebody makes events by
//! the thousand.
//!
//! Events are counted by kind and by where they come from: a network, for whoever has one address has its neighbours too.
//! Of each, the first [`LINES`] in [`WINDOW`] have their line; how many more there were is told when that time is over. The
//! table has [`MOST`] rows; what finds no room in it shares one row for each kind, `other addresses`. Rows go with their
//! time, so in normal life there are few.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Lines of one kind from one network in [`WINDOW`]. More than a crowd behind one address makes by itself.
pub const LINES: u32 = 30;
/// See [`LINES`].
pub const WINDOW: Duration = Duration::from_secs(60);
/// Networks and kinds that are told apart.
pub const MOST: usize = 256;

/// Where events come from: an IPv4 address's neighbours in its last 8 bits, an IPv6 address's in its last 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A network, by its first address.
    Network(IpAddr),
    /// No client's address belongs to it.
    Inside,
    /// Whatever the table had no room for.
    Others,
}

impl Origin {
    fn of(address: Option<IpAddr>) -> Origin {
        let Some(address) = address else { return Origin::Inside };
        Origin::Network(match address.to_canonical() {
            IpAddr::V4(address) => IpAddr::V4((u32::from(address) & !0xff).into()),
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Network(address @ IpAddr::V4(_)) => write!(f, "{address}/24"),
            Origin::Network(address) => write!(f, "{address}/64"),
            Origin::Inside => f.write_str("inside"),
            Origin::Others => f.write_str("other addresses"),
        }
    }
}

/// What happened [`LINES`] times and then more often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct More<K> {
    /// What.
    pub kind: K,
    /// From where.
    pub origin: Origin,
    /// How often it had no line.
    pub times: u32,
}

struct Row<K> {
    kind: K,
    origin: Origin,
    since: Instant,
    times: u32,
}

/// The table.
pub struct Flood<K> {
    rows: Vec<Row<K>>,
}

impl<K: Copy + PartialEq> Flood<K> {
    /// Nothing has happened yet.
    pub fn new() -> Flood<K> {
        Flood { rows: Vec::new() }
    }

    /// Counts an event; whether it shall have a line of its own.
    pub fn admit(&mut self, now: Instant, kind: K, from: Option<IpAddr>) -> bool {
        let find = |rows: &[Row<K>], origin| rows.iter().position(|row| row.kind == kind && row.origin == origin);
        let mut origin = Origin::of(from);
        let mut found = find(&self.rows, origin);
        if found.is_none() && self.rows.len() >= MOST {
            origin = Origin::Others;
            found = find(&self.rows, origin);
        }
        let index = found.unwrap_or_else(|| {
            self.rows.push(Row { kind, origin, since: now, times: 0 });
            self.rows.len() - 1
        });
        let row = &mut self.rows[index];
        // Nothing to be told is left behind: it can begin anew. Else `expire` tells it first.
        if row.times <= LINES && now.saturating_duration_since(row.since) >= WINDOW {
            (row.since, row.times) = (now, 0);
        }
        row.times = row.times.saturating_add(1);
        row.times <= LINES
    }

    /// Forgets whose time is over; gives what there is to tell of them. To be called now and then.
    pub fn expire(&mut self, now: Instant) -> Vec<More<K>> {
        self.take(|row| now.saturating_duration_since(row.since) >= WINDOW)
    }

    /// Forgets everything; gives what there is to tell.
    pub fn finish(&mut self) -> Vec<More<K>> {
        self.take(|_| true)
    }

    fn take(&mut self, over: impl Fn(&Row<K>) -> bool) -> Vec<More<K>> {
        let mut told = Vec::new();
        self.rows.retain(|row| {
            let over = over(row);
            if over && row.times > LINES {
                told.push(More { kind: row.kind, origin: row.origin, times: row.times - LINES });
            }
            !over
        });
        if self.rows.is_empty() {
            self.rows = Vec::new();
        }
        told
    }
}

impl<K: Copy + PartialEq> Default for Flood<K> {
    fn default() -> Self {
        Flood::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn the_first_lines_are_written_and_the_rest_is_told_once() {
        let begin = Instant::now();
        let mut flood = Flood::new();
        let written = (0..1000).filter(|_| flood.admit(begin, 'a', at("192.0.2.7"))).count();
        assert_eq!(written, LINES as usize);
        // Neighbours share their fate; other kinds and other networks do not.
        assert!(!flood.admit(begin, 'a', at("192.0.2.200")));
        assert!(!flood.admit(begin, 'a', at("::ffff:192.0.2.7")));
        assert!(flood.admit(begin, 'b', at("192.0.2.7")) && flood.admit(begin, 'a', at("192.0.3.7")));
        assert_eq!(flood.expire(begin + WINDOW / 2), []);
        let told = flood.expire(begin + WINDOW);
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].kind, told[0].origin.to_string(), told[0].times), ('a', "192.0.2.0/24".into(), 972));
        assert!(flood.rows.is_empty() && flood.expire(begin + WINDOW * 3).is_empty());
        assert!(flood.admit(begin + WINDOW, 'a', at("192.0.2.7")));
    }

    #[test]
    fn one_event_one_line_in_normal_life() {
        let begin = Instant::now();
        let mut flood = Flood::new();
        // Every two seconds, for an hour, and nobody calls expire.
        assert!((0..1800).all(|n| flood.admit(begin + WINDOW / LINES * n, 'a', at("192.0.2.7"))));
    }

    #[test]
    fn what_was_kept_back_is_told_even_when_it_goes_on() {
        let begin = Instant::now();
        let mut flood = Flood::new();
        for n in 0..120 {
            flood.admit(begin + WINDOW * n / 60, 'a', at("2001:db8::1:2:3:4"));
        }
        assert!(flood.admit(begin, 'a', at("2001:db8:0:1::")));
        let told = flood.expire(begin + WINDOW * 2);
        assert_eq!((told.len(), told[0].times, told[0].origin.to_string()), (1, 90, "2001:db8::/64".into()));
        flood.admit(begin, 'a', at("2001:db8:0:2::"));
        assert_eq!(flood.finish(), []);
        assert!(flood.rows.is_empty());
    }

    #[test]
    fn a_full_table_has_one_row_for_all_the_others() {
        let begin = Instant::now();
        let mut flood = Flood::new();
        let mut lines = 0;
        for network in 0..100_000u32 {
            lines += usize::from(flood.admit(begin, 'a', Some(IpAddr::V4((network << 8).into()))));
        }
        assert_eq!(lines, MOST + LINES as usize);
        assert_eq!(flood.rows.len(), MOST + 1);
        let told = flood.expire(begin + WINDOW);
        assert_eq!((told.len(), told[0].origin), (1, Origin::Others));
        assert_eq!(told[0].times as usize, 100_000 - lines);
        assert_eq!(flood.rows.capacity(), 0);
    }
}
