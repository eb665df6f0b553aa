//! Which log a line belongs to, and what logs are called.
//!
//! | a line that is logged in      | is in                                                     |
//! |-------------------------------|-----------------------------------------------------------|
//! | a room of [`ROOMS`]           | that service's log, also when the service is switched off |
//! | any other                     | dpop.log where POP3 is served, else dsmtp.log             |
//!
//! So a server of SMTP alone writes dsmtp.log and nothing else.

/// How many old ones of a log are kept.
pub const OLD: usize = 4;

/// A log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFile {
    /// dpop.log: POP3's.
    Pop,
    /// dsmtp.log: of mail that comes in and goes on.
    Smtp,
}

/// Rooms of the program whose lines are a service's, with those below them.
const ROOMS: &[(&str, LogFile)] = &[
    ("dmail::service::pop3", LogFile::Pop),
    ("dmail::service::smtp", LogFile::Smtp),
    ("dmail::service::deliver", LogFile::Smtp),
    ("dmail::service::route", LogFile::Smtp),
    ("dmail::service::robot", LogFile::Smtp),
    ("dmail::service::pickup", LogFile::Smtp),
    ("dmail::service::queue", LogFile::Smtp),
    ("dmail::store::queue", LogFile::Smtp),
    ("dmail::store::delivery", LogFile::Smtp),
];

impl LogFile {
    /// The log that a line from `module` belongs to.
    pub fn of(module: &str, pop3_is_served: bool) -> LogFile {
        let below =
            |room: &str| module.strip_prefix(room).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
        let common = if pop3_is_served { LogFile::Pop } else { LogFile::Smtp };
        ROOMS.iter().find(|(room, _)| below(room)).map_or(common, |(_, log)| *log)
    }

    /// What all its names begin with.
    fn stem(self) -> &'static str {
        match self {
            LogFile::Pop => "dpop",
            LogFile::Smtp => "dsmtp",
        }
    }

    /// The file that is written to.
    pub fn name(self) -> String {
        format!("{}.log", self.stem())
    }

    /// The file that was `number` renamings before: 1 to [`OLD`], the oldest.
    pub fn old_name(self, number: usize) -> String {
        format!("{}{number}.log", self.stem())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_service_has_its_log_and_the_rest_goes_to_pop3s_where_that_is_served() {
        for (module, with_pop3, without) in [
            ("dmail::service::pop3", LogFile::Pop, LogFile::Pop),
            ("dmail::service::pop3::entering", LogFile::Pop, LogFile::Pop),
            ("dmail::service::smtp", LogFile::Smtp, LogFile::Smtp),
            ("dmail::service::deliver::runner", LogFile::Smtp, LogFile::Smtp),
            ("dmail::store::queue", LogFile::Smtp, LogFile::Smtp),
            ("dmail::service::smtpish", LogFile::Pop, LogFile::Smtp),
            ("dmail::service::control", LogFile::Pop, LogFile::Smtp),
            ("dmail::server", LogFile::Pop, LogFile::Smtp),
            ("", LogFile::Pop, LogFile::Smtp),
        ] {
            assert_eq!((LogFile::of(module, true), LogFile::of(module, false)), (with_pop3, without), "{module}");
        }
    }

    #[test]
    fn logs_have_the_names_of_the_manual() {
        assert_eq!((LogFile::Pop.name(), LogFile::Pop.old_name(OLD)), ("dpop.log".into(), "dpop4.log".into()));
        assert_eq!((LogFile::Smtp.name(), LogFile::Smtp.old_name(1)), ("dsmtp.log".into(), "dsmtp1.log".into()));
    }
}
