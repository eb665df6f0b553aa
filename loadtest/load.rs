//! What `pop`, `smtp` and `isp` have in common: a run, the live view, the table, the files, the exit code.

use std::time::Instant;

use crate::args::{DONE, FAILED, Load, print};
use crate::live::Live;
use crate::meter::Meter;
use crate::report::Report;
use crate::run::{Ended, run};
use crate::watch::Watched;
use crate::work::Work;

/// Descriptors that are not connections.
const OTHER_DESCRIPTORS: u64 = 64;

/// Does it all. `command` and `args` are for the file.
pub fn perform(command: &str, args: &[String], load: &Load, work: &mut dyn Work) -> u8 {
    let failed = |why: String| {
        eprintln!("loadtest {command}: {why}");
        FAILED
    };
    let most = load.run.pace.most() as u64;
    match dmail::sys::process::raise_descriptor_limit() {
        Ok(limit) if limit >= most + OTHER_DESCRIPTORS => {}
        Ok(limit) => {
            return failed(format!(
                "{most} connections and a limit of {limit} descriptors: raise it (ulimit -n), or give fewer clients"
            ));
        }
        Err(error) => return failed(format!("the limit of descriptors cannot be raised: {error}")),
    }
    if let Err(why) = Report::can_be_written(&[load.json.as_deref(), load.html.as_deref()]) {
        return failed(why);
    }
    let mut server = match load.pid.map(Watched::new).transpose() {
        Ok(server) => server,
        Err(why) => return failed(why),
    };
    let mut meter = Meter::default();
    let uncounted = load.run.ramp + load.run.warm_up;
    let planned = uncounted + load.run.duration;
    let mut live = (!load.quiet).then(|| Live::new(command, planned));
    let ended = run(&load.run, work, &mut meter, &mut |meter, since| {
        if let Some(server) = &mut server {
            server.look(Instant::now(), since.as_secs_f64() - uncounted.as_secs_f64());
        }
        if let Some(live) = &mut live {
            live.show(meter, since, server.as_ref());
        }
    });
    if let Some(live) = live {
        live.finish();
    }
    if let Some(server) = &mut server {
        server.finish();
    }
    match ended {
        Ok(Ended::Planned) => {}
        Ok(Ended::Stopped) => print("Stopped before its time.\n"),
        Err(error) => return failed(format!("the loop cannot go on: {error}")),
    }
    let words: Vec<String> = ["loadtest", command].map(str::to_owned).into_iter().chain(args.iter().cloned()).collect();
    let seed = load.run.seed;
    let report = Report { title: command, command: &words, seed, meter: &meter, server: server.as_ref() };
    if let Err(why) = report.show(load.json.as_deref(), load.html.as_deref()) {
        return failed(why);
    }
    if meter.count() == 0 && meter.errors() == 0 {
        return failed("nothing was done in that time; give it longer (--duration), or fewer at a time".to_owned());
    }
    if meter.errors() > 0 { FAILED } else { DONE }
}
