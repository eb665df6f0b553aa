//! `loadtest spool DIR`: makes accounts and their mail, and all that a server needs to serve them.
//!
//! | step | file         | what is done                                                                              |
//! |------|--------------|-------------------------------------------------------------------------------------------|
//! | 1    | `order.rs`   | the command line becomes an order; what cannot be is refused                              |
//! | 2    | `plan.rs`    | everything is drawn once and added up; told, and compared with what the disk has          |
//! | 3    | `write.rs`   | the drops are written, a directory after the other, by some threads; one sync at the end  |
//! | 4    | `furnish.rs` | users, certificate, dmail.conf, the lists                                                 |
//! | 5    |              | `loadtest.json` ([`manifest`](crate::manifest)), last: a folder without it is half made   |
//!
//! The same order makes the same drops, users and lists, byte for byte, with any number of threads. The certificate is made
//! anew each time, and dmail.conf has ports that were free.
//!
//! It writes into no folder that has anything in it, and keeps of a spool that could not be finished what is there.

mod furnish;
mod order;
mod plan;
mod write;

use std::fs;
use std::io::IsTerminal;
use std::path::Path;
use std::time::Instant;

use dmail::text::fault::Fault;

use crate::args::{DONE, FAILED, USAGE, print};
use crate::manifest::{FILE, Manifest, SPOOL};
use order::{Asked, Order};
use plan::Plan;

pub use order::page;

/// Runs the command; gives its exit code.
pub fn run(args: &[String]) -> u8 {
    let order = match order::read(args) {
        Ok(Asked::Help) => {
            print(&page());
            return DONE;
        }
        Ok(Asked::Order(order)) => *order,
        Err(why) => {
            eprintln!("loadtest spool: {why}");
            return USAGE;
        }
    };
    match carry_out(&order) {
        Ok(()) => DONE,
        Err(why) => {
            eprintln!("loadtest spool: {why}");
            FAILED
        }
    }
}

fn carry_out(order: &Order) -> Result<(), String> {
    if order.check {
        let manifest = Manifest::read(&order.dir)?;
        let found = write::compare(&order.dir, &manifest, order.threads)?;
        print(&format!("{}: {} drops are as they were made\n", order.dir.display(), found));
        return Ok(());
    }
    is_free(&order.dir)?;
    let began = Instant::now();
    let plan = Plan::of(&order.manifest);
    print(&plan.told(order));
    plan.fits(&order.dir)?;
    if order.dry_run {
        return Ok(());
    }
    let dmail = order.dmail()?;
    make(order, &plan, &dmail)?;
    // A whole path, so that the line can be pasted anywhere.
    let conf = Order::whole(&order.dir).join(furnish::CONF);
    print(&format!(
        "made in {:.0} s\n\n  {} serve -i {}\n",
        began.elapsed().as_secs_f64(),
        dmail.display(),
        conf.display()
    ));
    Ok(())
}

/// Makes everything.
fn make(order: &Order, plan: &Plan, dmail: &Path) -> Result<(), String> {
    furnish::folders(order, plan)?;
    let bar = bar(plan.bytes);
    let octets = write::drops(order, plan, &bar)?;
    bar.finish_and_clear();
    furnish::users(order)?;
    furnish::lists(order, &octets)?;
    furnish::server(order, dmail)?;
    let mut manifest = order.manifest.clone();
    manifest.totals = plan.totals;
    manifest.totals.octets = octets.iter().sum();
    let text = serde_json::to_string_pretty(&manifest.to_json()).map_err(|why| why.to_string())?;
    // The mail first, then the file that says it is there.
    let fault = |error| Fault::new("syncing", &order.dir, error).to_string();
    let dir = fs::File::open(&order.dir).map_err(fault)?;
    if std::io::stderr().is_terminal() {
        eprintln!("waiting for the disk");
    }
    dmail::sys::files::sync_file_system(&dir).map_err(fault)?;
    furnish::write(&order.dir.join(FILE), format!("{text}\n").as_bytes(), 0o644, None)
}

/// Refuses a folder that has something in it.
fn is_free(dir: &Path) -> Result<(), String> {
    let name = dir.display();
    match fs::read_dir(dir) {
        Ok(mut inside) => match inside.next() {
            None => Ok(()),
            Some(_) if dir.join(FILE).exists() => Err(format!(
                "{name} has a made spool in it already: use it as it is, remove it (rm -r {name}), or name another folder"
            )),
            Some(_) if dir.join(SPOOL).exists() => Err(format!(
                "{name} is not empty, and may be a spool half made: remove it (rm -r {name}), or name another folder"
            )),
            Some(_) => Err(format!("{name} is not empty: name a folder that is empty, or that is not there yet")),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Fault::new("reading", dir, error).to_string()),
    }
}

/// How far it is, for somebody who looks on; nothing where standard error is no terminal.
fn bar(bytes: u64) -> indicatif::ProgressBar {
    let bar = indicatif::ProgressBar::new(bytes);
    let style = "{bar:40} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
    bar.set_style(indicatif::ProgressStyle::with_template(style).expect("the template is right"));
    bar
}

#[cfg(test)]
mod tests;
