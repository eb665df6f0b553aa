//! Another host: an SMTP server that takes every message, notes whose it is, and only then says 250. For what a server under
//! test relays. One thread a connection; what it is not told rightly it answers with 500.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::journal::{Fact, Journal};
use super::reading;

/// A line may be so long.
const LINE: u64 = 64 * 1024;
/// A peer may be silent so long.
const SILENCE: Duration = Duration::from_secs(120);

/// Serves as long as the process lives.
pub fn listen(listener: TcpListener, journal: Arc<Journal>, run: u64) {
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let journal = journal.clone();
            // Who ends in the midst tries again.
            thread::spawn(move || drop(converse(&stream, &journal, run)));
        }
    });
}

fn converse(stream: &TcpStream, journal: &Journal, run: u64) -> io::Result<()> {
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_nodelay(true)?;
    let (mut lines, mut out) = (BufReader::new(stream), stream);
    let mut recipients: Vec<String> = Vec::new();
    out.write_all(b"220 sink ESMTP\r\n")?;
    loop {
        let Some(line) = next_line(&mut lines)? else { return Ok(()) };
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
        match &verb[..] {
            "EHLO" | "HELO" => out.write_all(b"250-sink\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n")?,
            "MAIL" | "RSET" => {
                recipients.clear();
                out.write_all(b"250 Ok\r\n")?;
            }
            "RCPT" => {
                recipients.extend(line.split(['<', '>']).nth(1).map(str::to_owned));
                out.write_all(b"250 Ok\r\n")?;
            }
            "DATA" if !recipients.is_empty() => {
                out.write_all(b"354 Go on\r\n")?;
                let mut seq = None;
                loop {
                    let Some(line) = next_line(&mut lines)? else { return Ok(()) };
                    if line == b".\r\n" {
                        break;
                    }
                    let mark = reading::mark(&line).filter(|mark| mark.run == run);
                    seq = seq.or(mark.map(|mark| mark.seq));
                }
                if let Some(seq) = seq {
                    recipients.iter().for_each(|to| journal.note(&Fact::Sunk { seq, to }));
                    journal.sync();
                }
                out.write_all(b"250 Ok\r\n")?;
            }
            "NOOP" => out.write_all(b"250 Ok\r\n")?,
            "QUIT" => return out.write_all(b"221 Bye\r\n"),
            _ => out.write_all(b"500 This is only a sink\r\n")?,
        }
    }
}

fn next_line(lines: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    lines.by_ref().take(LINE).read_until(b'\n', &mut line)?;
    Ok((!line.is_empty()).then_some(line))
}

#[cfg(test)]
mod tests {
    use super::super::journal;
    use super::*;

    #[test]
    fn what_is_taken_is_noted_for_each_recipient_before_the_answer() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Arc::new(Journal::create(dir.path()).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let door = listener.local_addr().unwrap();
        listen(listener, journal, 0xaa);
        let mut stream = TcpStream::connect(door).unwrap();
        stream
            .write_all(
                b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@far.test>\r\nRCPT TO:<b@far.test>\r\nDATA\r\n\
                  X-Loadtest: 00000000000000aa 9 0000000001 0000000000000000\r\n\r\nx\r\n.\r\nQUIT\r\n",
            )
            .unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        assert!(said.ends_with("354 Go on\r\n250 Ok\r\n221 Bye\r\n"), "{said}");
        let mut facts = Vec::new();
        journal::read(&dir.path().join(journal::NAME), |_, fact| facts.push(format!("{fact}"))).unwrap();
        assert_eq!(facts, ["sunk 9 a@far.test", "sunk 9 b@far.test"]);
    }
}
