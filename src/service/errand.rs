//! Orders about one user's mail, in the steps that each of them takes: an authenticator is asked where the mail is, then
//! a job works on the files there.
//!
//! | step    | what it waits for                           | what ends it early                                   |
//! |---------|----------------------------------------------|------------------------------------------------------|
//! | asking  | a verdict, for each user that is named       | no such user, nobody can tell                        |
//! | working | a job                                        | a volume that does not answer                        |
//! | parked  | [`LOCK_RETRY`], while the drop is in use     | [`LOCK_PATIENCE`]                                    |
//!
//! Nothing is begun for somebody who does not wait any more; what a job began it ends.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::{LOCK_PATIENCE, LOCK_RETRY, Outcome, Shared, account};
use crate::control::Report;
use crate::net::jobs::{self, Kind};
use crate::net::turn::Ticket;
use crate::protocol::helper::{Account, Question, Verdict};
use crate::rules::domains::{Home as Domain, Name};
use crate::settings::Settings;
use crate::store::disk::RealDisk;
use crate::store::maildrop::{self, Place, Refused};
use crate::text::printable::{printable, visible};

/// What is to be done about a user's mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Say where it is.
    Lookup,
    /// Call back what was deleted and is still in the drop.
    Undelete,
    /// Take the mailbox away.
    Erase,
    /// Give the first user's mailbox to the second.
    Rename,
}

impl Deed {
    /// Whether it needs the mailbox for itself, so that nobody may be logged in.
    pub fn is_alone(self) -> bool {
        self != Deed::Lookup
    }

    /// Whether a mailbox may be meant that its authenticator knows no more, or not yet: it lies where the settings say.
    fn takes_strangers(self) -> bool {
        matches!(self, Deed::Erase | Deed::Rename)
    }

    /// Whether answers about these users may be wrong afterwards.
    fn changes_accounts(self) -> bool {
        matches!(self, Deed::Erase | Deed::Rename)
    }
}

/// A deed, and how far it has come.
pub struct Errand {
    deed: Deed,
    settings: Arc<Settings>,
    users: Vec<Name>,
    /// Where the mail of the first of them is, as far as that is known.
    homes: Vec<Home>,
    /// Until when a drop that is in use is tried again; set when work begins.
    patience: Option<Instant>,
}

/// A user's mail.
struct Home {
    user: String,
    place: Place,
    uid: Option<Vec<u8>>,
    info: Vec<u8>,
    /// The authenticator knows him.
    known: bool,
    /// The path is the authenticator's own word, not what follows from the settings.
    named: bool,
}

/// Why a job did not do it.
enum Trouble {
    /// Somebody has the drop: try again.
    Busy(String),
    /// A sentence.
    Failed(String),
}

impl Errand {
    /// A deed for users whom an operator named. Refuses what is no name.
    pub fn new(deed: Deed, users: &[&str], settings: &Arc<Settings>) -> Result<Errand, String> {
        let users = users.iter().map(|user| named(user, settings)).collect::<Result<Vec<Name>, String>>()?;
        if deed == Deed::Rename && users[0].shown() == users[1].shown() {
            return Err(format!("{}: both names mean the same user", printable(users[0].shown().as_bytes())));
        }
        Ok(Errand { deed, settings: settings.clone(), users, homes: Vec::new(), patience: None })
    }

    /// What is to be done.
    pub fn deed(&self) -> Deed {
        self.deed
    }

    /// Whose mail it is about.
    pub fn users(&self) -> impl Iterator<Item = &str> {
        self.users.iter().map(Name::shown)
    }

    /// Asks an authenticator about the next user; the verdict comes with this ticket.
    pub fn ask(&self, now: Instant, ticket: Ticket, shared: &mut Shared) -> Result<(), String> {
        let user = self.users[self.homes.len()].asked.clone();
        let helpers = shared.helpers.last_mut().ok_or_else(unavailable)?;
        helpers.pool.submit(now, ticket, Question::Lookup { user });
        Ok(())
    }

    /// An authenticator has spoken. Gives the errand back when it is to be asked about one more; otherwise a job has it
    /// now, and its outcome comes with this ticket.
    pub fn go_on(
        mut self: Box<Self>,
        now: Instant,
        verdict: Verdict,
        ticket: Ticket,
        shared: &mut Shared,
    ) -> Result<Option<Box<Errand>>, String> {
        let name = self.users[self.homes.len()].clone();
        let user = name.shown().to_owned();
        let (account, known) = match verdict {
            Verdict::Accepted(account) => (account, true),
            Verdict::Refused if self.deed.takes_strangers() => {
                (Account { user: user.clone().into(), path: None, uid: None, info: Vec::new() }, false)
            }
            Verdict::Refused => return Err(unknown(&user)),
            // A verifier is no answer to this question.
            Verdict::Unavailable | Verdict::Verifier(..) => return Err(unavailable()),
        };
        let place = account::place(&name, &account, &self.settings).map_err(|why| visible(&why))?;
        let Account { path, uid, info, .. } = account;
        self.homes.push(Home { user, place, uid, info, known, named: path.is_some() });
        if self.homes.len() < self.users.len() {
            self.ask(now, ticket, shared)?;
            return Ok(Some(self));
        }
        if self.deed == Deed::Rename && !self.homes.iter().any(|home| home.known) {
            return Err(format!("{}, nor {}", unknown(&self.homes[0].user), printable(self.homes[1].user.as_bytes())));
        }
        self.work(now, ticket, shared)?;
        Ok(None)
    }

    /// Has a job do it.
    pub fn work(mut self: Box<Self>, now: Instant, ticket: Ticket, shared: &mut Shared) -> Result<(), String> {
        self.patience.get_or_insert(now + LOCK_PATIENCE);
        if self.deed.changes_accounts() {
            for name in &self.users {
                shared.cache.forget(name.shown());
            }
        }
        let volume = shared.volume_of(&self.homes[0].place.drop);
        let kind = if self.deed.is_alone() { Kind::Sync } else { Kind::Read };
        let disk = shared.disk();
        let work = move |_: &jobs::Pulse| match self.done(&disk) {
            Ok(report) => Outcome::Told(Ok(report)),
            Err(Trouble::Failed(why)) => Outcome::Told(Err(vec![why])),
            Err(Trouble::Busy(why)) => Outcome::InUse(self, why),
        };
        shared.jobs.submit(Some(ticket), kind, volume, work).map_err(|busy| match busy {
            jobs::Busy::Full => "too much waits for the disks: try again later".to_owned(),
            jobs::Busy::Stuck => "the volume of this user's mail does not answer: see `status`".to_owned(),
        })
    }

    /// When to try again, after somebody was found to have the drop; `None` when that has been done for long enough.
    pub fn again(&self, now: Instant, shared: &Shared) -> Option<Instant> {
        let patient = !shared.stopping && self.patience.is_some_and(|until| now < until);
        patient.then(|| now + LOCK_RETRY)
    }

    /// The deed itself. In a job.
    fn done(&mut self, disk: &RealDisk) -> Result<Report, Trouble> {
        for home in &mut self.homes {
            if let Some(uid) = &home.uid {
                home.place.owner = Some(account::owner(uid, self.settings.min_uid).map_err(Trouble::Failed)?);
            } else if !home.known && disk.hand.is_some() {
                // Nobody says whose it is: then it is the file's own, which the launcher judges as it does all.
                home.place.owner = fs::symlink_metadata(&home.place.drop).ok().map(|about| about.uid());
            }
        }
        if let [from, to] = &mut self.homes[..]
            && !to.known
            && to.place.owner.is_none()
        {
            to.place.owner = from.place.owner;
        }
        let home = &self.homes[0];
        let mut report = Report::default();
        let refused = |refused: Refused| trouble(home, refused);
        report.add("user", printable(home.user.as_bytes()));
        match self.deed {
            Deed::Lookup => home.describe(&mut report).map_err(Trouble::Failed)?,
            Deed::Undelete => {
                let undeleted = maildrop::undelete_on(disk, &home.place).map_err(refused)?;
                report.add("messages", undeleted.messages);
                report.add("octets", undeleted.octets);
            }
            Deed::Erase => {
                let erased = maildrop::erase_on(disk, &home.place).map_err(refused)?;
                report.add("drop", shown(&home.place.drop));
                report.add("bytes", erased.bytes);
                report.add("known_to_authenticator", home.known);
            }
            Deed::Rename => {
                let to = &self.homes[1];
                let renamed = maildrop::rename_user_on(disk, &home.place, &to.place).map_err(refused)?;
                report.add("now", printable(to.user.as_bytes()));
                report.add("drop", shown(&to.place.drop));
                report.add("bytes", renamed.bytes);
                // The authenticator's part is somebody else's: it should know the new name and not the old one.
                report.add("old_known_to_authenticator", home.known);
                report.add("new_known_to_authenticator", to.known);
            }
        }
        Ok(report)
    }
}

fn trouble(home: &Home, refused: Refused) -> Trouble {
    let user = printable(home.user.as_bytes());
    match refused {
        Refused::InUse => {
            Trouble::Busy(format!("{user}: the maildrop is in use: see `users {user}`, and `kick {user}`"))
        }
        Refused::Locked => Trouble::Busy(format!("{user}: another program has {} locked", shown(&home.place.drop))),
        Refused::Unsafe(fault) | Refused::Fault(fault) => Trouble::Failed(visible(&fault.to_string())),
    }
}

impl Home {
    fn describe(&self, report: &mut Report) -> Result<(), String> {
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
        Ok(())
    }
}

fn shown(path: &Path) -> String {
    visible(&path.display().to_string())
}

fn unknown(user: &str) -> String {
    format!("{}: the authenticator knows no such user", printable(user.as_bytes()))
}

/// The user that an operator's word means, in the form that everything else compares.
pub fn named(word: &str, settings: &Settings) -> Result<Name, String> {
    account::name(word.as_bytes(), Domain::default(), settings)
        .ok_or_else(|| format!("{}: no user can have this name", printable(word.as_bytes())))
}

fn unavailable() -> String {
    "no authenticator could tell just now: see `status` and the log".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errand(folder: &Path, deed: Deed, users: &[&str], uid: Option<&str>) -> Errand {
        let settings = Arc::new(Settings::for_tests(folder));
        let mut errand = Errand::new(deed, users, &settings).unwrap();
        for name in &errand.users {
            let uid = uid.map(|uid| uid.as_bytes().to_vec());
            let account = Account { user: name.shown().into(), path: None, uid, info: b"fwd=\"x@y\"".to_vec() };
            let place = account::place(name, &account, &settings).unwrap();
            let Account { uid, info, .. } = account;
            errand.homes.push(Home { user: name.shown().to_owned(), place, uid, info, known: true, named: false });
        }
        errand
    }

    fn done(folder: &Path, deed: Deed, users: &[&str], uid: Option<&str>) -> Result<serde_json::Value, String> {
        match errand(folder, deed, users, uid).done(&RealDisk::default()) {
            Ok(report) => Ok(serde_json::from_str(&report.json()).unwrap()),
            Err(Trouble::Busy(why) | Trouble::Failed(why)) => Err(why),
        }
    }

    #[test]
    fn a_lookup_says_what_is_there_and_what_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let found = done(folder.path(), Deed::Lookup, &["fred"], None).unwrap();
        assert_eq!((&found["found"], &found["info"]), (&"nothing: an empty mailbox".into(), &"fwd=\"x@y\"".into()));
        fs::create_dir(folder.path().join("drop")).unwrap();
        fs::write(folder.path().join("drop/fred"), "12345").unwrap();
        let found = done(folder.path(), Deed::Lookup, &["fred"], Some("1000")).unwrap();
        assert_eq!((&found["bytes"], &found["owner"], &found["found"]), (&5.into(), &1000.into(), &"file".into()));
        let why = done(folder.path(), Deed::Lookup, &["fred"], Some("0")).unwrap_err();
        assert!(why.contains("min_uid"), "{why}");
    }

    #[test]
    fn a_mailbox_is_renamed_and_erased_but_not_under_somebodys_hands() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["drop", "work"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let (drop, text) = (folder.path().join("drop/fred"), "From a@b Thu Jan  1 00:00:00 1970\n\nhello\n");
        fs::write(&drop, text).unwrap();
        let held =
            maildrop::Maildrop::open(&errand(folder.path(), Deed::Erase, &["fred"], None).homes[0].place).unwrap();
        for deed in [Deed::Undelete, Deed::Erase] {
            let why = done(folder.path(), deed, &["fred"], None).unwrap_err();
            assert!(why.contains("in use") && why.contains("kick fred"), "{deed:?}: {why}");
        }
        std::mem::drop(held);
        let report = done(folder.path(), Deed::Rename, &["fred", "frida"], None).unwrap();
        assert_eq!((&report["now"], &report["bytes"]), (&"frida".into(), &text.len().into()));
        assert!(!drop.exists());
        let report = done(folder.path(), Deed::Erase, &["frida"], None).unwrap();
        assert_eq!(report["bytes"], text.len());
        let report = done(folder.path(), Deed::Undelete, &["frida"], None).unwrap();
        assert_eq!(report["messages"], 0);
    }

    #[test]
    fn what_no_user_can_be_called_is_refused() {
        let settings = Arc::new(Settings::for_tests(Path::new("/srv/mail")));
        assert_eq!(named("Fred@example.TEST", &settings).unwrap().shown(), "fred");
        for word in ["../root", "a b/c", ""] {
            assert!(named(word, &settings).unwrap_err().contains("no user can have this name"), "{word:?}");
            assert!(Errand::new(Deed::Rename, &["fred", word], &settings).is_err());
        }
        let same = Errand::new(Deed::Rename, &["fred", "FRED@example.test"], &settings);
        assert!(same.is_err_and(|why| why.contains("the same user")));
    }
}
