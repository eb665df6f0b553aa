//! Another host: an SMTP server that takes every message, has it noted, and only then says 250. For what a server under
//! test relays. One thread a connection; what it is not told rightly it answers with 500.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::ledger::reading::{self, Mark};

/// A line may be so long.
const LINE: u64 = 64 * 1024;
/// A peer may be silent so long.
const SILENCE: Duration = Duration::from_secs(120);

/// What becomes of a letter for these recipients.
pub type Take = dyn Fn(Mark, &[String]) + Send + Sync;

/// Serves as long as the process lives.
pub fn listen(listener: TcpListener, take: Arc<Take>) {
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let take = take.clone();
            // Who ends in the midst tries again.
            thread::spawn(move || drop(converse(&stream, &*take)));
        }
    });
}

fn converse(stream: &TcpStream, take: &Take) -> io::Result<()> {
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_nodelay(true)?;
    let (mut lines, mut out) = (BufReader::new(stream), stream);
    let mut recipients: Vec<String> = Vec::new();
    let mut line = Vec::new();
    out.write_all(b"220 sink ESMTP\r\n")?;
    while next_line(&mut lines, &mut line)? {
        let words = String::from_utf8_lossy(&line);
        let verb = words.get(..4).unwrap_or_default().to_ascii_uppercase();
        match &verb[..] {
            "EHLO" | "HELO" => out.write_all(b"250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n")?,
            "MAIL" | "RSET" => {
                recipients.clear();
                out.write_all(b"250 Ok\r\n")?;
            }
            "RCPT" => {
                recipients.extend(words.split(['<', '>']).nth(1).map(str::to_owned));
                out.write_all(b"250 Ok\r\n")?;
            }
            "DATA" if !recipients.is_empty() => {
                out.write_all(b"354 Go on\r\n")?;
                let mut mark = None;
                loop {
                    if !next_line(&mut lines, &mut line)? {
                        return Ok(());
                    }
                    if line == b".\r\n" {
                        break;
                    }
                    mark = mark.or_else(|| reading::mark(&line));
                }
                if let Some(mark) = mark {
                    take(mark, &recipients);
                }
                out.write_all(b"250 Ok\r\n")?;
            }
            "NOOP" => out.write_all(b"250 Ok\r\n")?,
            "QUIT" => return out.write_all(b"221 Bye\r\n"),
            _ => out.write_all(b"500 This is only a sink\r\n")?,
        }
    }
    Ok(())
}

/// The next line is there; else the peer has gone.
fn next_line(lines: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    lines.by_ref().take(LINE).read_until(b'\n', line)?;
    Ok(!line.is_empty())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn what_is_taken_is_told_with_its_recipients_before_the_answer() {
        let taken = Arc::new(Mutex::new(Vec::new()));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let door = listener.local_addr().unwrap();
        let notes = taken.clone();
        listen(listener, Arc::new(move |mark, to| notes.lock().unwrap().push((mark.run, mark.seq, to.join(" ")))));
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
        assert_eq!(*taken.lock().unwrap(), [(0xaa, 9, "a@far.test b@far.test".to_owned())]);
    }
}
