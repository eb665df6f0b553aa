//! Orders about one user's mail, in the steps that each of them takes: an authenticator is asked where the mail is, then
//! a job works on the files there. Nothing is begun for somebody who does not wait any more; what a job began it ends.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use super::account::{self, Name};
use super::{Outcome, Shared};
use crate::control::Report;
use crate::net::jobs::{self, Kind};
use crate::net::turn::Ticket;
use crate::protocol::helper::{Account, Question, Verdict};
use crate::settings::Settings;
use crate::store::maildrop::Place;
use crate::text::printable::{printable, visible};

/// What is to be done about a user's mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Say where it is.
    Lookup,
}

/// A deed, and how far it has come.
pub struct Errand {
    deed: Deed,
    settings: Arc<Settings>,
    user: Name,
}

/// A user's mail.
struct Home {
    user: String,
    place: Place,
    uid: Option<Vec<u8>>,
    info: Vec<u8>,
    /// The path is the authenticator's own word, not what follows from the settings.
    named: bool,
}

impl Errand {
    /// A deed for a user whom an operator named. Refuses what is no name.
    pub fn new(deed: Deed, user: &str, settings: &Arc<Settings>) -> Result<Errand, String> {
        let user = named(user, settings)?;
        Ok(Errand { deed, settings: settings.clone(), user })
    }

    /// Asks an authenticator; the verdict comes with this ticket.
    pub fn ask(&self, now: std::time::Instant, ticket: Ticket, shared: &mut Shared) -> Result<(), String> {
        let question = Question::Lookup { user: self.user.asked.clone() };
        let helpers = shared.helpers.last_mut().ok_or_else(unavailable)?;
        helpers.pool.submit(now, ticket, question);
        Ok(())
    }

    /// An authenticator has spoken: the rest is a job's, and its report comes with this ticket.
    pub fn go_on(self, verdict: Verdict, ticket: Ticket, shared: &mut Shared) -> Result<(), String> {
        let user = self.user.user;
        let account = match verdict {
            Verdict::Accepted(account) => account,
            Verdict::Refused => {
                return Err(format!("{}: the authenticator knows no such user", printable(user.as_bytes())));
            }
            Verdict::Unavailable => return Err(unavailable()),
        };
        let place = account::place(&user, &account, &self.settings).map_err(|why| visible(&why))?;
        let volume = shared.volume_of(&place.drop);
        let Account { path, uid, info, .. } = account;
        let home = Home { user, place, uid, info, named: path.is_some() };
        let (deed, min_uid) = (self.deed, self.settings.min_uid);
        let work = move |_: &jobs::Pulse| Outcome::Told(home.done(deed, min_uid).map_err(|why| vec![why]));
        shared.jobs.submit(Some(ticket), Kind::Read, volume, work).map_err(|busy| match busy {
            jobs::Busy::Full => "too much waits for the disks: try again later".to_owned(),
            jobs::Busy::Stuck => "the volume of this user's mail does not answer: see `status`".to_owned(),
        })
    }
}

impl Home {
    /// The deed itself. In a job.
    fn done(mut self, deed: Deed, min_uid: u32) -> Result<Report, String> {
        if let Some(uid) = &self.uid {
            self.place.owner = Some(account::owner(uid, min_uid)?);
        }
        match deed {
            Deed::Lookup => self.described(),
        }
    }

    fn described(&self) -> Result<Report, String> {
        let shown = |path: &Path| visible(&path.display().to_string());
        let mut report = Report::default();
        report.add("user", printable(self.user.as_bytes()));
        report.add("drop", shown(&self.place.drop));
        report.add("drop_from", if self.named { "authenticator" } else { "settings" });
        report.add("owner", self.place.owner);
        report.add("info", printable(&self.info));
        // Not followed: a link there is no drop.
        match fs::symlink_metadata(&self.place.drop) {
            Ok(about) => {
                report.add("found", if about.is_file() { "file" } else { "no file" });
                report.add("bytes", about.len());
                report.add("file_owner", about.uid());
                report.add("file_mode", format!("{:04o}", about.mode() & 0o7777));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => report.add("found", "nothing: an empty mailbox"),
            Err(error) => return Err(format!("{}: {error}", shown(&self.place.drop))),
        }
        Ok(report)
    }
}

/// The user that an operator's word means, in the form that everything else compares.
pub fn named(word: &str, settings: &Settings) -> Result<Name, String> {
    account::name(word.as_bytes(), settings)
        .ok_or_else(|| format!("{}: no user can have this name", printable(word.as_bytes())))
}

fn unavailable() -> String {
    "no authenticator could tell just now: see `status` and the log".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(folder: &Path, uid: Option<&str>) -> Home {
        let settings = Settings::for_tests(folder);
        let account = Account {
            user: b"fred".to_vec(),
            path: None,
            uid: uid.map(|uid| uid.as_bytes().to_vec()),
            info: Vec::new(),
        };
        let place = account::place("fred", &account, &settings).unwrap();
        Home { user: "fred".into(), place, uid: account.uid, info: b"fwd=\"x@y\"".to_vec(), named: false }
    }

    #[test]
    fn a_lookup_says_what_is_there_and_what_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let text = home(folder.path(), None).done(Deed::Lookup, 100).unwrap().text();
        assert!(text.contains("nothing: an empty mailbox") && text.contains("fwd=\"x@y\""), "{text}");
        fs::create_dir(folder.path().join("drop")).unwrap();
        fs::write(folder.path().join("drop/fred"), "12345").unwrap();
        let json = home(folder.path(), Some("1000")).done(Deed::Lookup, 100).unwrap().json();
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&value["bytes"], &value["owner"], &value["found"]), (&5.into(), &1000.into(), &"file".into()));
        let why = home(folder.path(), Some("0")).done(Deed::Lookup, 100).unwrap_err();
        assert!(why.contains("min_uid"), "{why}");
    }

    #[test]
    fn what_no_user_can_be_called_is_refused() {
        let settings = Settings::for_tests(Path::new("/srv/mail"));
        assert_eq!(named("Fred@example.TEST", &settings).unwrap().user, "fred");
        for word in ["../root", "a b/c", ""] {
            assert!(named(word, &settings).unwrap_err().contains("no user can have this name"), "{word:?}");
        }
    }
}
