//! The socket of one client: TCP that knows how slow its line is, from which address it comes, and how to die.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use dmail::net::TcpStream;
use dmail::net::stream::Socket;
use dmail::sys::socket::choose_port_late;
use socket2::{Domain, Protocol, SockRef, Socket as Raw, Type};

/// What a modem's kernel keeps of what it received: little, so that the server feels how slow the line is.
const MODEM_BUFFER: usize = 4096;
/// A modem hands over what came in so long, at most.
const BURST: Duration = Duration::from_millis(250);
/// How long a modem waits before it looks again.
const BEAT: Duration = Duration::from_millis(100);

/// A socket.
pub struct Wire {
    tcp: TcpStream,
    modem: Option<Modem>,
    pub octets_in: u64,
    pub octets_out: u64,
}

/// How fast the line is, and how much of that is not used yet.
struct Modem {
    octets_per_sec: f64,
    /// Octets that may pass now.
    credit: f64,
    counted: Instant,
    /// When something that had to wait may be tried again.
    resume: Option<Instant>,
}

impl Wire {
    /// Begins to connect. `source`: which of this machine's loopback addresses to come from, where the server is on one.
    pub fn connect(now: Instant, to: SocketAddr, speed: Option<u32>, source: usize) -> io::Result<Wire> {
        let raw = Raw::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        raw.set_nonblocking(true)?;
        raw.set_tcp_nodelay(true)?;
        if speed.is_some() {
            raw.set_recv_buffer_size(MODEM_BUFFER)?;
        }
        if let IpAddr::V4(address) = to.ip()
            && address.is_loopback()
            && source > 0
        {
            choose_port_late(&raw)?;
            let [high, low] = (source as u16).to_be_bytes();
            raw.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, high, low.max(1)), 0)).into())?;
        }
        match raw.connect(&to.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        let modem = speed.map(|speed| Modem {
            octets_per_sec: f64::from(speed.max(1)),
            credit: f64::from(speed.max(1)) * BURST.as_secs_f64(),
            counted: now,
            resume: None,
        });
        Ok(Wire { tcp: TcpStream::from_std(raw.into()), modem, octets_in: 0, octets_out: 0 })
    }

    /// To register it.
    pub fn tcp(&mut self) -> &mut TcpStream {
        &mut self.tcp
    }

    /// Its end of the line is cut when this is dropped: the server gets a reset.
    pub fn reset_on_close(&self) {
        // An error means that it is gone already.
        let _ = SockRef::from(&self.tcp).set_linger(Some(Duration::ZERO));
    }

    /// Whether it is slow on purpose.
    pub fn is_modem(&self) -> bool {
        self.modem.is_some()
    }

    /// When a modem can take or give more.
    pub fn resume(&self) -> Option<Instant> {
        self.modem.as_ref()?.resume
    }

    /// That time has come.
    pub fn resumed(&mut self) {
        if let Some(modem) = &mut self.modem {
            modem.resume = None;
        }
    }
}

/// Of Linux; std has no kind for it that is stable.
const EINPROGRESS: i32 = 115;

impl Modem {
    /// How many of `wanted` octets may pass now. Fewer: it will be resumed.
    fn allows(&mut self, wanted: usize) -> io::Result<usize> {
        let now = Instant::now();
        let most = (self.octets_per_sec * BURST.as_secs_f64()).max(1.0);
        let earned = now.saturating_duration_since(self.counted).as_secs_f64() * self.octets_per_sec;
        self.credit = (self.credit + earned).min(most);
        self.counted = now;
        let allowed = wanted.min(self.credit as usize);
        if allowed < wanted {
            self.resume = Some(now + BEAT);
        }
        if allowed == 0 && wanted > 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(allowed) }
    }

    fn used(&mut self, octets: usize) {
        self.credit -= octets as f64;
    }
}

impl Read for Wire {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let allowed = match &mut self.modem {
            Some(modem) => modem.allows(bytes.len())?,
            None => bytes.len(),
        };
        let count = self.tcp.read(&mut bytes[..allowed])?;
        self.octets_in += count as u64;
        if let Some(modem) = &mut self.modem {
            modem.used(count);
        }
        Ok(count)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let allowed = match &mut self.modem {
            Some(modem) => modem.allows(bytes.len())?,
            None => bytes.len(),
        };
        let count = self.tcp.write(&bytes[..allowed])?;
        self.octets_out += count as u64;
        if let Some(modem) = &mut self.modem {
            modem.used(count);
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Socket for Wire {
    fn shut_write(&self) -> io::Result<()> {
        self.tcp.shut_write()
    }

    fn is_connected(&self) -> io::Result<bool> {
        self.tcp.is_connected()
    }
}
