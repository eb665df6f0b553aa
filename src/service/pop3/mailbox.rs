//! What a client who is in can ask: rows, messages, marks, and the commit at the end.

use super::expiry::Expiry;
use super::{Event, Message, Said, Service, Wanted, refused};
use crate::net::jobs::Kind;
use crate::net::stream::Done;
use crate::protocol::pop3::reply::Refusal;
use crate::protocol::pop3::{Answer, PAGE, Row, Totals};
use crate::service::Outcome;
use crate::store::maildrop::{self, Maildrop, MessageReader, Miss, Reach};

impl Service<'_> {
    /// The maildrop of a logged-in session. The machine asks about messages in no other state.
    pub(super) fn maildrop(&mut self) -> &mut Maildrop {
        self.session.maildrop.as_mut().expect("the machine asks about messages only between Opened and Commit")
    }

    pub(super) fn totals(&mut self) -> Totals {
        let maildrop = self.maildrop();
        let (totals, live) = (maildrop.totals(), maildrop.live_totals());
        let (bulletins, octets) = self.session.shown.as_ref().map_or((0, 0), |shown| shown.live());
        Totals { messages: live.messages + bulletins, octets: live.octets + octets, last_read: totals.last_read }
    }

    pub(super) fn rows(&mut self, from: u32, wanted: Wanted) -> Said {
        let most = if matches!(wanted, Wanted::Rows) { PAGE as usize } else { 1 };
        if let Some(rows) = self.session.shown.as_ref().and_then(|shown| shown.page(from, most)) {
            self.session.doings().wanted = wanted;
            return self.found(rows);
        }
        // One row is one small read, not a page.
        let rows = match wanted {
            Wanted::Rows => self.maildrop().page(from, Reach::Now),
            _ => self.maildrop().row(from, Reach::Now).map(|row| row.into_iter().collect()),
        };
        match rows {
            Ok(rows) => {
                self.session.doings().wanted = wanted;
                self.found(rows)
            }
            Err(Miss::Cold) => {
                self.session.doings().wanted = wanted;
                let lookup = self.maildrop().lookup(from);
                self.job(Kind::Read, self.session.volume, move || Outcome::Rows(lookup.run()))
            }
            Err(miss) => self.missed(&miss),
        }
    }

    pub(super) fn found(&mut self, rows: Vec<maildrop::Row>) -> Said {
        let row =
            |row: maildrop::Row| Row { number: row.number, octets: row.octets, uid: row.uid, deleted: row.deleted };
        match self.session.wanted() {
            Wanted::Rows => Done::Now(Answer::Rows(rows.into_iter().map(row).collect())),
            Wanted::Delete(number) => match rows.iter().find(|row| row.number == number) {
                Some(row) => {
                    match &mut self.session.shown {
                        Some(shown) if shown.page(number, 1).is_some() => shown.mark(number),
                        _ => self.maildrop().mark(row),
                    }
                    Done::Now(Answer::Done)
                }
                None => refused(Refusal::NoSuchMessage),
            },
            Wanted::Row(number) | Wanted::Message(number, _) => {
                let found = rows.into_iter().find(|row| row.number == number && !row.deleted);
                match found {
                    Some(found) => Done::Now(Answer::Rows(vec![row(found)])),
                    None => refused(Refusal::NoSuchMessage),
                }
            }
        }
    }

    pub(super) fn exists(&mut self, number: u32) -> Result<(), Refusal> {
        let bulletins = self.session.shown.as_ref().map_or(0, |shown| shown.count());
        let marked = self.session.shown.as_ref().is_some_and(|shown| shown.is_deleted(number));
        let maildrop = self.maildrop();
        if number == 0 || number > maildrop.totals().messages + bulletins {
            Err(Refusal::NoSuchMessage)
        } else if marked || maildrop.is_deleted(number) {
            Err(Refusal::AlreadyDeleted)
        } else {
            Ok(())
        }
    }

    pub(super) fn delete(&mut self, number: u32) -> Said {
        if let Err(refusal) = self.exists(number) {
            return refused(refusal);
        }
        self.rows(number, Wanted::Delete(number))
    }

    pub(super) fn retrieve(&mut self, number: u32, lines: Option<u64>) -> Said {
        if self.exists(number).is_err() {
            return refused(Refusal::NoSuchMessage);
        }
        self.session.doings().wanted = Wanted::Message(number, lines);
        let bulletin = self.session.shown.as_ref().and_then(|shown| shown.reader(number, lines, Reach::Now));
        match bulletin.unwrap_or_else(|| self.maildrop().reader(number, lines, Reach::Now)) {
            Ok(reader) => self.send(reader),
            Err(Miss::Cold) => {
                let volume = self.session.volume;
                if let Some((board, place)) = self.session.shown.as_ref().and_then(|shown| shown.lookup(number)) {
                    return self.job(Kind::Read, 0, move || {
                        let reader = board.mail.as_ref().ok_or(Miss::Changed);
                        Outcome::Reader(reader.and_then(|mail| mail.reader(place, lines, Reach::Wait)).map(Box::new))
                    });
                }
                let lookup = self.maildrop().lookup(number);
                self.job(Kind::Read, volume, move || Outcome::Reader(lookup.reader(lines).map(Box::new)))
            }
            Err(miss) => self.missed(&miss),
        }
    }

    pub(super) fn send(&mut self, reader: MessageReader) -> Said {
        let Wanted::Message(_, lines) = self.session.wanted() else { return refused(Refusal::Unavailable) };
        let octets = reader.octets();
        let body = Message { reader, whole: lines.is_none(), sent: 0, fault: None };
        Done::Send(Answer::Sending(octets), Box::new(body), Answer::Sent)
    }

    /// Something could not be read: for the log, and for the client.
    pub(super) fn missed(&mut self, miss: &Miss) -> Said {
        match miss {
            Miss::Cold => refused(Refusal::Unavailable),
            Miss::Changed => {
                self.shared.counts.changed += 1;
                if self.has_line(Event::Trouble) {
                    log::warn!("pop3 {} {}: the drop was changed by another program", self.id, self.who());
                }
                refused(Refusal::Changed)
            }
            Miss::Fault(fault) => {
                self.report(fault);
                refused(Refusal::Unavailable)
            }
        }
    }

    pub(super) fn commit(&mut self) -> Said {
        let Some(maildrop) = self.session.maildrop.take() else { return refused(Refusal::NotCommitted) };
        let mut maildrop = Box::new(maildrop);
        let volume = self.session.volume;
        let bulletins = self.session.shown.as_ref().and_then(|shown| shown.commit());
        maildrop.remember(bulletins.map(|(seen, _)| seen));
        let asked = maildrop.deletions() > 0 || bulletins.is_some();
        let expiry = Expiry::of(
            self.session.settings.expire_days,
            self.session.doings.as_mut().and_then(|doings| doings.fetched.take()),
        );
        if !maildrop.has_news() && (expiry.is_none() || maildrop.totals().messages == 0) {
            // What an earlier session deleted may still have to leave the drop.
            if maildrop.wants_compaction() {
                self.shared.compact(maildrop, volume);
            }
            return Done::Now(Answer::Committed { deleted: 0 });
        }
        let said = self.job(Kind::Sync, volume, move || {
            if let Some(Err(miss)) = expiry.map(|expiry| expiry.mark(&mut maildrop)) {
                let drop = maildrop.path().display();
                match miss {
                    Miss::Cold | Miss::Changed => {
                        log::info!("{drop}: what has expired stays, the drop is being changed")
                    }
                    Miss::Fault(fault) => log::error!("what has expired stays: {fault}"),
                }
            }
            let result = maildrop.commit();
            Outcome::Committed(Some((maildrop, volume)), result)
        });
        match said {
            Done::Later => Done::Later,
            // Nothing was asked for; what has expired goes another time, and what was read is news again.
            _ if !asked => Done::Now(Answer::Committed { deleted: 0 }),
            _ => refused(Refusal::NotCommitted),
        }
    }
}
