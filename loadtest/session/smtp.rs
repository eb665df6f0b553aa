//! What an SMTP client brings and is told.

use std::io;
use std::time::Instant;

use dmail::mail::address::{self, Address};
use dmail::mail::dots::DotEncoder;
use dmail::net::stream::{Body, Done, Flow, Pull};
use dmail::net::tls::Secure;
use dmail::protocol::sasl::Login;
use dmail::protocol::smtp::client::reply::Reply;
use dmail::protocol::smtp::client::{Answer, Ask, Client, Envelope, Form, Over, Recipient, Sender, Told, Why};
use dmail::text::bytes::Output;
use dmail::text::secret::Secret;

use super::{Doing, Life, Talk};
use crate::letter::{Heading, Letter, State};
use crate::run::Shared;
use crate::work::{End, Event, Mail, Port, SmtpTask, Task, Verdict};

/// The text of a message on its way: made as it goes.
pub struct Text {
    letter: Letter,
    at: u64,
    /// None: the last of it has been made.
    dots: Option<DotEncoder>,
    /// Where its client's fate comes.
    until: Option<u64>,
}

impl Body for Text {
    fn pull(&mut self, scratch: &mut [u8], out: &mut Output) -> Pull {
        let most = self.until.map_or(scratch.len() as u64, |until| until.saturating_sub(self.at));
        let most = scratch.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        if most == 0 {
            return Pull::Cold;
        }
        let count = self.letter.read_at(self.at, &mut scratch[..most]);
        let Some(dots) = self.dots.as_mut().filter(|_| count > 0) else { return Pull::Last };
        dots.push(&scratch[..count], out.tail(count + count / 8));
        self.at += count as u64;
        Pull::More
    }
}

/// One mail on its way.
struct Under {
    at: usize,
    /// Reply codes by recipient.
    codes: Vec<u16>,
    /// Its text was asked for.
    begun: bool,
    /// The server's last word on it.
    end: Option<End>,
    words: String,
}

/// A client that brings mail.
pub struct Smtp {
    task: SmtpTask,
    /// For STARTTLS.
    secure: Option<Secure>,
    /// The greeting and EHLO are behind us.
    greeted: bool,
    logged_in: bool,
    /// Logging in failed: nothing more is brought.
    shut_out: bool,
    /// How many have been begun.
    begun: usize,
    under: Option<Under>,
}

impl Smtp {
    pub fn new(task: SmtpTask, secure: Option<Secure>) -> Smtp {
        Smtp { task, secure, greeted: false, logged_in: false, shut_out: false, begun: 0, under: None }
    }

    fn next(&mut self, life: &mut Life, shared: &mut Shared<'_>, now: Instant) -> Doing<Smtp> {
        if !self.greeted {
            self.greeted = true;
            life.step(shared, "hello", now);
        }
        self.settle(life, shared, now);
        if let Some(account) = self.task.auth.as_ref().filter(|_| !self.logged_in && !self.shut_out) {
            life.restart(now);
            let password = Secret::new(account.password.clone().into_bytes());
            return Done::Now(Answer::Login(Box::new(Login { user: account.login.clone().into_bytes(), password })));
        }
        while let Some(mail) = self.task.mails.get(self.begun).filter(|_| !self.shut_out) {
            self.under = Some(Under {
                at: self.begun,
                codes: vec![0; mail.to.len()],
                begun: false,
                end: None,
                words: String::new(),
            });
            self.begun += 1;
            match envelope(mail) {
                Ok(envelope) => {
                    life.restart(now);
                    return Done::Now(Answer::Envelope(Box::new(envelope)));
                }
                Err(why) => {
                    life.error(shared, "address", &why);
                    self.conclude(shared, End::Unsent);
                }
            }
        }
        // Whoever was to die in the midst of a text, and had none so long, dies here.
        if life.meet_fate() {
            return Done::Later;
        }
        life.complete = !self.shut_out;
        Done::Now(Answer::Quit)
    }

    /// The mail under way has its last word, or the machine says by going on that it was the last.
    fn settle(&mut self, life: &mut Life, shared: &mut Shared<'_>, now: Instant) {
        let Some(under) = &self.under else { return };
        let end = under.end.unwrap_or(End::Unsent);
        if end == End::Acked {
            life.messages += 1;
            life.step(shared, "message", now);
        }
        self.conclude(shared, end);
    }

    fn conclude(&mut self, shared: &mut Shared<'_>, end: End) {
        if let Some(Under { at, codes, words, .. }) = self.under.take() {
            let verdict = Verdict { recipients: codes, end, words };
            shared.work.told(&Event::Told { mail: &self.task.mails[at], verdict: &verdict });
        }
    }

    fn hear(&mut self, life: &mut Life, shared: &mut Shared<'_>, now: Instant, told: Told) {
        let refused = |reply: &Reply| (!reply.is_good()).then(|| End::Refused(reply.code()));
        if let (
            Some(under),
            Told::Sender(reply)
            | Told::Recipient(_, reply)
            | Told::Refused(reply)
            | Told::Message(reply)
            | Told::Delivered(_, reply),
        ) = (&mut self.under, &told)
        {
            under.words = reply.to_string();
        }
        match told {
            Told::Login(reply) => {
                life.step(shared, "login", now);
                self.logged_in = reply.is_good();
                self.shut_out = !reply.is_good();
                self.judge(life, shared, "AUTH", &reply);
            }
            Told::Unfit(unfit) => {
                self.shut_out |= !self.logged_in && self.task.auth.is_some();
                life.error(shared, "unfit", &format!("the server cannot be asked: {unfit:?}"));
            }
            Told::Sender(reply) => {
                self.judge(life, shared, "MAIL", &reply);
                if let (Some(under), Some(end)) = (&mut self.under, refused(&reply)) {
                    under.codes.fill(reply.code());
                    under.end = Some(end);
                }
            }
            Told::Recipient(at, reply) => {
                self.judge(life, shared, "RCPT", &reply);
                if let Some(code) = self.under.as_mut().and_then(|under| under.codes.get_mut(at as usize)) {
                    *code = reply.code();
                }
                if let (Some(under), Some(end)) = (&mut self.under, refused(&reply)) {
                    // A word on the message, if one comes, takes its place.
                    under.end = Some(end);
                }
            }
            Told::Refused(reply) | Told::Message(reply) => {
                self.judge(life, shared, "DATA", &reply);
                if let Some(under) = &mut self.under {
                    under.end = Some(refused(&reply).unwrap_or(End::Acked));
                }
            }
            Told::Delivered(at, reply) => {
                self.judge(life, shared, "DATA", &reply);
                if let Some(under) = &mut self.under {
                    if let Some(code) = under.codes.get_mut(at as usize) {
                        *code = reply.code();
                    }
                    under.end = Some(refused(&reply).unwrap_or(End::Acked));
                }
            }
            Told::Over(over) => self.over(life, shared, &over),
        }
    }

    fn judge(&self, life: &mut Life, shared: &mut Shared<'_>, verb: &str, reply: &Reply) {
        if !reply.is_good() && reply.code() != 354 {
            let what = if reply.is_permanent() { "5xx" } else { "4xx" };
            life.error(shared, what, &format!("{verb}: {reply}"));
        }
    }

    fn over(&mut self, life: &mut Life, shared: &mut Shared<'_>, over: &Over) {
        match &over.why {
            Why::Refused(reply) | Why::Closing(reply) => self.judge(life, shared, &format!("{:?}", over.state), reply),
            Why::Nonsense(nonsense) => life.error(shared, "nonsense", &nonsense.to_string()),
            Why::NoTls => life.error(shared, "tls", "the server offers no STARTTLS"),
            // The connection's end says why.
            Why::NoText | Why::Ended(_) | Why::Lost => {}
        }
        let end = match &self.under {
            Some(Under { end: Some(end), .. }) => *end,
            Some(Under { begun: true, .. }) if over.possibly => End::Unknown,
            _ => End::Unsent,
        };
        self.conclude(shared, end);
    }
}

impl Talk for Smtp {
    type Machine = Client;
    type Body = Text;

    fn perform(&mut self, life: &mut Life, shared: &mut Shared<'_>, now: Instant, ask: Ask) -> Doing<Smtp> {
        match ask {
            Ask::StartTls => match self.secure.take() {
                Some(secure) => Done::StartTls(secure, Answer::Go),
                None => Done::Now(Answer::Failed),
            },
            Ask::Next(_) => self.next(life, shared, now),
            Ask::Told(told) => {
                self.hear(life, shared, now, told);
                Done::Now(Answer::Go)
            }
            Ask::Text => {
                let Some(under) = &mut self.under else { return Done::Now(Answer::Failed) };
                under.begun = true;
                if self.task.port == Port::Lmtp {
                    // Each has an answer of its own to come.
                    under.codes.iter_mut().filter(|code| **code < 400).for_each(|code| *code = 0);
                }
                let mail = &self.task.mails[under.at];
                life.step(shared, "envelope", now);
                shared.work.told(&Event::Sending { mail });
                let text =
                    Text { letter: letter(mail), at: 0, dots: Some(DotEncoder::whole(false)), until: life.after() };
                Done::Send(Answer::Text, Box::new(text), Answer::Sent)
            }
        }
    }

    fn data(&mut self, _life: &mut Life, _bytes: &[u8]) -> Flow {
        Flow::More
    }

    fn woken(&mut self, _life: &mut Life, _shared: &mut Shared<'_>, _now: Instant) -> Option<Doing<Smtp>> {
        None
    }

    fn ended(&mut self, life: &mut Life, shared: &mut Shared<'_>, machine: &Client, _fault: Option<&io::Error>) {
        if let Some(over) = machine.lost() {
            self.over(life, shared, &over);
        }
    }

    fn task(self) -> Task {
        Task::Smtp(self.task)
    }
}

/// The letter of a mail: the same whenever it is made.
pub fn letter(mail: &Mail) -> Letter {
    let to = mail.to.first().map_or("", String::as_str);
    let heading = Heading { from: &mail.from, to, written_secs: mail.written_secs, state: State::Sent };
    Letter::new(mail.stamp, mail.bytes, &heading)
}

fn envelope(mail: &Mail) -> Result<Envelope, String> {
    let recipients: Result<Vec<_>, _> = mail
        .to
        .iter()
        .map(|to| Ok::<_, String>(Recipient { path: path(to)?.ok_or("nobody to send to")?, notify: None, orcpt: None }))
        .collect();
    // What the text has is 8-bit; its length is what it would be with CRLF, which is no more than this.
    let sender = Sender { path: path(&mail.from)?, eight_bit: true, ..Sender::default() };
    Ok(Envelope { sender, recipients: recipients?, form: Form::Lines })
}

fn path(address: &str) -> Result<Option<Address>, String> {
    match address::path(format!("<{address}>").as_bytes(), true) {
        Ok((path, b"")) => Ok(path),
        _ => Err(format!("{address}: no address that can be said in SMTP")),
    }
}
