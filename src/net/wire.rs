//! Plain or TLS under the driver. A machine cannot tell the difference.
//!
//! TLS is rustls's unbuffered API: records are decrypted out of one scratch buffer of the whole loop and encrypted into
//! another. A connection owns only what is left over: the front of a record not yet whole, and ciphertext the socket
//! would not take. Never more is read than the plaintext buffer has room for, so a whole record is never left over and
//! the connection can always be written to.
//!
//! What a handshake has to say and the first reply after it leave in one write: parted, Nagle and a delayed ACK would
//! cost 40 ms each. A client begins: its hello is there to be written before anything was read.

use std::io::{self, Read, Write};

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};

use super::tls::Secure;
use crate::text::bytes::{INPUT_ROOM, Input, Output};

/// Plaintext of one record.
const RECORD: usize = 16 * 1024;
/// A record's plaintext plus what encryption adds, generously.
const SEALED: usize = RECORD + 512;

/// What came of reading.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Got {
    /// So many bytes came from the socket; how many of them the machine can see is another matter.
    Bytes(usize),
    /// As `Bytes`, and fewer than there was room for.
    Drained(usize),
    /// The peer will send nothing more.
    Eof,
}

impl Got {
    fn of(count: usize, asked: usize) -> Got {
        match count {
            0 => Got::Eof,
            count if count < asked => Got::Drained(count),
            count => Got::Bytes(count),
        }
    }
}

/// The loop's buffers for ciphertext.
pub(super) struct Cipher {
    incoming: Box<[u8]>,
    outgoing: Output,
}

impl Default for Cipher {
    fn default() -> Cipher {
        Cipher { incoming: vec![0; INPUT_ROOM].into_boxed_slice(), outgoing: Output::default() }
    }
}

impl Cipher {
    pub(super) fn held(&self) -> usize {
        self.incoming.len() + self.outgoing.capacity()
    }

    pub(super) fn clear(&mut self) {
        self.outgoing.clear();
    }
}

/// What lies between the socket and the machine.
pub(super) enum Wire {
    Plain,
    Tls(Box<Tls>),
}

/// The state of one TLS connection.
pub(super) struct Tls {
    conn: Conn,
    /// The front of a record, or of a handshake message in several records, that is not whole yet. Never longer than
    /// [`INPUT_ROOM`].
    partial: Vec<u8>,
    /// Ciphertext that the socket would not take.
    unsent: Vec<u8>,
    at: At,
}

/// Either side's connection. Nobody pays for the other's: they are of nearly the same size, the server's a little larger.
enum Conn {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

/// How far a connection is.
struct At {
    /// It is for us to begin, and we have not.
    begins: bool,
    established: bool,
    peer_closed: bool,
    close: Close,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Close {
    Open,
    Wanted,
    Said,
}

impl Wire {
    /// TLS from here on.
    pub(super) fn tls(secure: Secure) -> io::Result<Wire> {
        let conn = match secure {
            Secure::Server(config) => UnbufferedServerConnection::new(config).map(Conn::Server),
            Secure::Client(client) => UnbufferedClientConnection::new(client.0, client.1).map(Conn::Client),
        };
        let conn = conn.map_err(io::Error::other)?;
        let begins = matches!(conn, Conn::Client(_));
        let at = At { begins, established: false, peer_closed: false, close: Close::Open };
        Ok(Wire::Tls(Box::new(Tls { conn, partial: Vec::new(), unsent: Vec::new(), at })))
    }

    /// Reads once.
    pub(super) fn read(
        &mut self,
        sock: &mut impl Read,
        input: &mut Input,
        output: &mut Output,
        cipher: &mut Cipher,
    ) -> io::Result<Got> {
        match self {
            Wire::Plain => {
                let room = input.room();
                let (count, asked) = (sock.read(room)?, room.len());
                input.filled(count);
                Ok(Got::of(count, asked))
            }
            Wire::Tls(tls) => tls.read(sock, input, output, cipher),
        }
    }

    /// Writes once; says how much left us. Zero: there was nothing that could be sent.
    pub(super) fn write(
        &mut self,
        sock: &mut impl Write,
        input: &mut Input,
        output: &mut Output,
        cipher: &mut Cipher,
    ) -> io::Result<usize> {
        match self {
            Wire::Plain => {
                let count = sock.write(output.bytes())?;
                if count == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                output.sent(count);
                Ok(count)
            }
            Wire::Tls(tls) => tls.write(sock, input, output, cipher),
        }
    }

    /// Whether a write would have something to do, given what the machine wrote.
    pub(super) fn has_to_write(&self, output: &Output) -> bool {
        match self {
            Wire::Plain => !output.is_empty(),
            Wire::Tls(tls) => {
                !tls.unsent.is_empty()
                    || tls.at.begins
                    || tls.at.established && (!output.is_empty() || tls.at.close == Close::Wanted)
            }
        }
    }

    /// Whether it holds what was sealed and the socket would not take.
    pub(super) fn has_unsent(&self) -> bool {
        matches!(self, Wire::Tls(tls) if !tls.unsent.is_empty())
    }

    /// Bytes of half records and of what the socket would not take.
    pub(super) fn buffered(&self) -> usize {
        match self {
            Wire::Plain => 0,
            Wire::Tls(tls) => tls.partial.capacity() + tls.unsent.capacity(),
        }
    }

    /// Whether this is TLS.
    pub(super) fn is_tls(&self) -> bool {
        matches!(self, Wire::Tls(_))
    }

    /// Whether everything the machine wrote is in the socket.
    pub(super) fn is_flushed(&self, output: &Output) -> bool {
        match self {
            Wire::Plain => output.is_empty(),
            Wire::Tls(tls) => output.is_empty() && tls.unsent.is_empty() && tls.at.close != Close::Wanted,
        }
    }

    /// Says goodbye in the layer below the machine's.
    pub(super) fn close(&mut self) {
        if let Wire::Tls(tls) = self
            && tls.at.established
            && tls.at.close == Close::Open
        {
            tls.at.close = Close::Wanted;
        }
    }

    /// After an error: one last try to send the alert that explains it. Nothing depends on it.
    pub(super) fn last_words(&mut self, sock: &mut impl Write) {
        if let Wire::Tls(tls) = self
            && !tls.unsent.is_empty()
        {
            let _ = sock.write(&tls.unsent);
            tls.unsent = Vec::new();
        }
    }

    /// Whether a handshake is under way.
    pub(super) fn is_shaking_hands(&self) -> bool {
        matches!(self, Wire::Tls(tls) if !tls.at.established)
    }

    /// Bytes of records not yet whole that this connection holds.
    pub(super) fn partial_bytes(&self) -> usize {
        match self {
            Wire::Plain => 0,
            Wire::Tls(tls) => tls.partial.len(),
        }
    }
}

impl Tls {
    fn read(
        &mut self,
        sock: &mut impl Read,
        input: &mut Input,
        output: &mut Output,
        cipher: &mut Cipher,
    ) -> io::Result<Got> {
        if self.at.peer_closed {
            return Ok(Got::Eof);
        }
        let kept = self.partial.len();
        let limit = input.room().len().min(cipher.incoming.len());
        if limit <= kept {
            // A line and a record's front fit side by side, so this is a handshake message in many records: rustls
            // leaves them here until it is whole, and would wait for 64 KiB of it.
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a TLS handshake message that is too long"));
        }
        let count = sock.read(&mut cipher.incoming[kept..limit])?;
        if count == 0 {
            return Ok(Got::Eof);
        }
        cipher.incoming[..kept].copy_from_slice(&self.partial);
        self.partial = Vec::new();
        let Cipher { incoming, outgoing } = cipher;
        outgoing.load(&mut self.unsent);
        let records = &mut incoming[..kept + count];
        let outcome = self.pump(records, input, output, outgoing);
        let outcome = outcome.map(|consumed| self.partial = records[consumed..].to_vec());
        if outcome.is_err() {
            // The alert that explains it: once, and without waiting.
            self.unsent = outgoing.bytes().to_vec();
            outgoing.clear();
        }
        outgoing.save(&mut self.unsent);
        outcome?;
        // After the peer's goodbye the next read is our own word for it: no edge will come for that one.
        Ok(if self.at.peer_closed { Got::Bytes(count) } else { Got::of(count, limit - kept) })
    }

    fn write(
        &mut self,
        sock: &mut impl Write,
        input: &mut Input,
        output: &mut Output,
        cipher: &mut Cipher,
    ) -> io::Result<usize> {
        let outgoing = &mut cipher.outgoing;
        outgoing.load(&mut self.unsent);
        if outgoing.is_empty() {
            let mut partial = std::mem::take(&mut self.partial);
            let consumed = self.pump(&mut partial, input, output, outgoing)?;
            partial.drain(..consumed);
            self.partial = partial;
        }
        if outgoing.is_empty() {
            return Ok(0);
        }
        let outcome = sock.write(outgoing.bytes());
        if let Ok(count) = outcome {
            outgoing.sent(count);
        }
        outgoing.save(&mut self.unsent);
        match outcome? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            count => Ok(count),
        }
    }

    /// Runs the connection as far as these records carry it: plaintext to `input`, what it has to say and up to four
    /// records of `output` to `outgoing`. Gives how many bytes of `records` are done with.
    fn pump(
        &mut self,
        records: &mut [u8],
        input: &mut Input,
        output: &mut Output,
        outgoing: &mut Output,
    ) -> io::Result<usize> {
        match &mut self.conn {
            Conn::Server(conn) => self.at.pump(conn, records, input, output, outgoing),
            Conn::Client(conn) => self.at.pump(conn, records, input, output, outgoing),
        }
    }
}

/// One side's connection: rustls has a type for each.
trait Side {
    type Data;

    fn process<'c, 'r>(&'c mut self, records: &'r mut [u8]) -> UnbufferedStatus<'c, 'r, Self::Data>;
    /// Whether records of its own wait to be encoded. After a failure it must not be asked for anything else: rustls would
    /// look for the rest of what failed where it is no more, and panic.
    fn has_to_say(&self) -> bool;
}

impl Side for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'r>(&'c mut self, records: &'r mut [u8]) -> UnbufferedStatus<'c, 'r, Self::Data> {
        self.process_tls_records(records)
    }

    fn has_to_say(&self) -> bool {
        self.wants_write()
    }
}

impl Side for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'r>(&'c mut self, records: &'r mut [u8]) -> UnbufferedStatus<'c, 'r, Self::Data> {
        self.process_tls_records(records)
    }

    fn has_to_say(&self) -> bool {
        self.wants_write()
    }
}

impl At {
    fn pump(
        &mut self,
        conn: &mut impl Side,
        records: &mut [u8],
        input: &mut Input,
        output: &mut Output,
        outgoing: &mut Output,
    ) -> io::Result<usize> {
        self.begins = false;
        let (mut done, mut failure) = (0, None);
        loop {
            if failure.is_some() && !conn.has_to_say() {
                break;
            }
            // After a failure there is nothing more to be read, and the alert that explains it to be had.
            let rest = if failure.is_none() { &mut records[done..] } else { &mut [] };
            let UnbufferedStatus { mut discard, state, .. } = conn.process(rest);
            let mut stop = false;
            match state {
                Err(error) => failure = Some(error),
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(io::Error::other)?;
                        discard += record.discard;
                        let taken = input.push(record.payload);
                        assert_eq!(taken, record.payload.len(), "no more was read than there is room for");
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    seal(outgoing, |buffer| {
                        data.encode(buffer).map_err(|error| match error {
                            EncodeError::InsufficientSize(size) => Some(size.required_size),
                            EncodeError::AlreadyEncoded => None,
                        })
                    })?;
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    self.established = true;
                    let size = |error| match error {
                        EncryptError::InsufficientSize(size) => Some(size.required_size),
                        EncryptError::EncryptExhausted => None,
                    };
                    while !output.is_empty() && !outgoing.is_high() {
                        let plain = &output.bytes()[..output.len().min(RECORD)];
                        seal(outgoing, |buffer| traffic.encrypt(plain, buffer).map_err(size))?;
                        let count = plain.len();
                        output.sent(count);
                    }
                    if self.close == Close::Wanted && output.is_empty() {
                        seal(outgoing, |buffer| traffic.queue_close_notify(buffer).map_err(size))?;
                        self.close = Close::Said;
                    }
                    stop = true;
                }
                Ok(ConnectionState::PeerClosed) => self.peer_closed = true,
                Ok(_) => stop = true,
            }
            done += discard;
            if stop {
                break;
            }
        }
        match failure {
            None => Ok(done),
            Some(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }
}

/// Lets `write` append to `outgoing`: it gets a buffer, and says what it wrote or how much it needs.
fn seal(outgoing: &mut Output, mut write: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>) -> io::Result<()> {
    let bytes = outgoing.tail(SEALED);
    let start = bytes.len();
    let mut size = SEALED;
    loop {
        bytes.resize(start + size, 0);
        match write(&mut bytes[start..]) {
            Ok(written) => {
                bytes.truncate(start + written);
                return Ok(());
            }
            Err(Some(needed)) if needed > size => size = needed,
            Err(_) => {
                bytes.truncate(start);
                return Err(io::Error::other("this TLS connection can seal no more"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a server's connection needs, and not a byte for being able to be a client's.
    #[test]
    fn a_servers_connection_is_no_larger_for_the_clients() {
        assert!(size_of::<Conn>() <= size_of::<UnbufferedServerConnection>(), "{}", size_of::<Conn>());
        assert!(size_of::<Tls>() <= size_of::<UnbufferedServerConnection>() + 56, "{}", size_of::<Tls>());
    }
}
