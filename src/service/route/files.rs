//! The table of addresses, out of the settings and the files they name. Looks at files, so this is for jobs, the start and
//! `dmail check`.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::rules::route::Table;
use crate::rules::route::aliases::{Drawing, FILE_BYTES};
use crate::settings::{Complaint, ForwardLine, Level, Place, Settings, addressee};
use crate::sys::files::Opener;

/// The table, and what is wrong with the alias files: with an error it must not be used.
pub fn draw(settings: &Settings, open: &Opener<'_>) -> (Table, Vec<Complaint>) {
    let domains = &settings.domains;
    let mut table = Table::default();
    table.delimiter = settings.recipient_delimiter;
    table.sysadmin.clone_from(&settings.sysadmin);
    table.user_robots = settings.user_robots;
    for (setting, lines, copy) in [("forward", &settings.forward, false), ("forward_cc", &settings.forward_cc, true)] {
        for (index, ForwardLine { from, to }) in lines.iter().enumerate() {
            table.forward(domains, from, to.clone(), copy, (setting, index));
        }
    }
    for (index, line) in settings.catch_all.iter().enumerate() {
        table.catch_all(domains, &line.domain, line.to.clone(), index);
    }
    let mut complaints = Vec::new();
    let mut drawing = Drawing::new(settings.alias_fallthrough, addressee);
    // Of all files together.
    let mut left = FILE_BYTES;
    let common = settings.alias_file.iter().map(|path| (path, None, settings.place("alias_file")));
    let own = settings.alias_file_domain.iter().enumerate();
    let own = own.map(|(index, line)| (&line.path, Some(&line.domain), settings.place_of("alias_file_domain", index)));
    for (path, domain, place) in common.chain(own) {
        let scope = domain.and_then(|domain| domains.canonical(domain)).map(|(first, _)| first);
        match read(path, open, &mut left) {
            Ok(bytes) => {
                let mut include = |path: &str| read(Path::new(path), open, &mut left);
                let names_are_of = scope.unwrap_or(settings.main_domain());
                drawing.file(&path.display().to_string(), scope, names_are_of, &bytes, &mut include);
            }
            Err(why) => {
                let text = format!("the alias file {}: {why}", path.display());
                complaints.push(Complaint { level: Level::Error, place, text });
            }
        }
    }
    let (aliases, troubles) = drawing.finish(domains);
    table.aliases = aliases;
    complaints.extend(troubles.into_iter().map(|trouble| {
        let place = Place { file: Path::new(&*trouble.file).into(), line: trouble.line, column: 0 };
        Complaint { level: Level::Error, place, text: trouble.text }
    }));
    (table, complaints)
}

/// A file that says what programs are run: nobody else may write it.
fn read(path: &Path, open: &Opener<'_>, left: &mut u64) -> Result<Vec<u8>, String> {
    let unreadable = |error: io::Error| format!("it cannot be read: {error}");
    let file: File = open(path).map_err(unreadable)?;
    let about = file.metadata().map_err(unreadable)?;
    if !about.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    if about.permissions().mode() & 0o002 != 0 {
        return Err(format!("everybody may write to it: `chmod o-w {}`", path.display()));
    }
    let mut bytes = Vec::new();
    file.take(*left + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    *left = left
        .checked_sub(bytes.len() as u64)
        .ok_or_else(|| format!("alias files, with what they include, have more than {} MB", FILE_BYTES >> 20))?;
    Ok(bytes)
}
