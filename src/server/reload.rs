//! Reading the configuration, and the certificates, again: all of it takes its place, or none.
//!
//! Reading is a job, because it looks at files. Taking over happens between turns: first whatever can fail (ports are
//! bound, entries made), then what cannot. Conversations keep the settings they were born with.

use std::path::Path;
use std::sync::Arc;

use super::entry::Entry;
use super::start;
use super::start::{
    bind, cache_life, cache_limit, cap, control_gid, kinds, no_port, open_to, ports, routes, stamps, tls_files, usable,
    volumes,
};
use super::{Server, orders};
use crate::control::Report;
use crate::net::jobs::{self, Kind};
use crate::net::listen::Listener;
use crate::net::tls;
use crate::net::turn::{Id, Ticket};
use crate::service::dns::{RESOLV_CONF, System};
use crate::service::helpers::Helpers;
use crate::service::launcher::Launcher;
use crate::service::{Configuration, Outcome, Port, Services, Shared, Stamp, opener};
use crate::settings::{self, Rights, Settings};

impl Server {
    /// Begins to read the configuration again: by a job, because it looks at files.
    pub(super) fn reload(&mut self, ticket: Option<Ticket>) {
        let file = self.shared.settings.file.clone();
        let launcher = self.shared.launcher.clone();
        let services = self.shared.services;
        let open = self.open_ports().into_iter().map(|(_, port)| port).collect();
        let work = move |_: &jobs::Pulse| {
            Outcome::Configuration(configuration(&file, launcher.as_deref(), services, open).map(Box::new))
        };
        if let Err(busy) = self.shared.jobs.submit(ticket, Kind::Read, 0, work) {
            self.reloaded(ticket, Err(vec![format!("no room for the job: {busy:?}")]));
        }
    }

    /// The configuration has been read: all of it takes its place, or none. Says which rows changed.
    pub(super) fn reloaded(&mut self, ticket: Option<Ticket>, read: Result<Box<Configuration>, Vec<String>>) {
        let result = read.and_then(|new| {
            let stopping = || vec!["the server is stopping".to_owned()];
            if self.shared.stopping { Err(stopping()) } else { self.replace(*new) }
        });
        match &result {
            Ok(changes) if changes.is_empty() => log::info!("reload: nothing has changed"),
            Ok(changes) => log::info!("reload: {}", changes.join("; ")),
            Err(complaints) => log::error!("reload refused, nothing has changed: {}", complaints.join("; ")),
        }
        if let Some(ticket) = ticket {
            self.report(ticket, &orders::reload_report(result));
        }
    }

    fn replace(&mut self, new: Configuration) -> Result<Vec<String>, Vec<String>> {
        let Configuration {
            settings: mut new,
            routes,
            tls,
            control_gid,
            system,
            stamps,
            volumes,
            mut opened,
            launched,
        } = new;
        let old = self.shared.settings.clone();
        let mut changes: Vec<String> = settings::diff(&old, &new).iter().map(ToString::to_string).collect();
        if old.logins != new.logins {
            changes.push("logins at other hosts: what their files say".to_owned());
        }
        // Until the next start: the run lock, the control socket and the bins are there.
        new.work_path.clone_from(&old.work_path);
        if !new.places.contains_key("log_path") {
            new.log_path.clone_from(&old.work_path);
        }
        // What can fail comes first ...
        let services = self.shared.services;
        let wanted = ports(&new, services, tls.is_some());
        if wanted.is_empty() {
            return Err(vec![no_port(&new, services)]);
        }
        let have = self.open_ports();
        let mut fresh = Vec::new();
        for &port in wanted.iter().filter(|port| !have.iter().any(|(_, other)| other == *port)) {
            let Some(at) = opened.iter().position(|(other, _)| *other == port) else {
                return Err(vec![format!("port {}: another reload came between: do it again", port.address)]);
            };
            fresh.push((opened.swap_remove(at).1, port));
        }
        let mut added = Vec::new();
        for (socket, port) in fresh {
            match self.lp.insert(Entry::Port(Box::new((Listener::new(socket), port)))) {
                Ok(id) => added.push(id),
                Err(error) => {
                    added.into_iter().for_each(|id| self.lp.close(id));
                    return Err(vec![format!("port {}: {error}", port.address)]);
                }
            }
        }
        // ... and this cannot.
        self.ports.extend(added);
        for (id, port) in have {
            if !wanted.contains(&port) {
                self.ports.retain(|other| *other != id);
                self.lp.close(id);
            }
        }
        self.reloads += 1;
        if let Some(launcher) = &self.shared.launcher {
            launcher.adopt(launched);
        }
        let new = Arc::new(new);
        self.shared.settings = new.clone();
        self.stamps = stamps;
        self.shared.routes = routes;
        self.shared.tls = tls;
        self.shared.dns.follow(self.lp.now(), &new, system);
        self.shared.volumes = volumes;
        self.shared.pop3 = Shared::pop3_rules(&new);
        self.shared.smtp = Shared::smtp_rules(&new);
        if self.shared.control_gid != control_gid {
            self.shared.control_gid = control_gid;
            self.share_socket();
        }
        self.shared.outgoing.bound(start::senders(&new, self.descriptors), start::waiting(self.descriptors));
        self.shared.places.set(cap(&new, self.descriptors), &kinds(&new, services, self.shared.tls.is_some()));
        self.journal.follow(&new, services);
        if Helpers::program(&old) != Helpers::program(&new) || Helpers::rules(&old) != Helpers::rules(&new) {
            self.replace_helpers(&new);
        } else if cache_limit(&old) != cache_limit(&new) || cache_life(&old) != cache_life(&new) {
            self.shared.cache.reset(cache_limit(&new), cache_life(&new));
        }
        self.look_at_bulletins();
        self.resume_ports();
        Ok(changes)
    }

    fn open_ports(&mut self) -> Vec<(Id, Port)> {
        let mut have = Vec::new();
        for &id in &self.ports {
            if let Some(Entry::Port(port)) = self.lp.get_mut(id) {
                have.push((id, port.1));
            }
        }
        have
    }

    /// Lets those connect who now may: by a job, because the socket is a file. Who may give orders is judged anew anyway.
    fn share_socket(&mut self) {
        let (socket, gid) = (self.socket.clone(), self.shared.control_gid);
        let work = move |_: &jobs::Pulse| {
            let shared = open_to(&socket, gid);
            if let Err(why) = &shared {
                log::error!("{why}");
            }
            Outcome::Told(shared.map(|()| Report::default()).map_err(|why| vec![why]))
        };
        if self.shared.jobs.submit(None, Kind::Sync, 0, work).is_err() {
            log::error!("{}: no room for the job that opens it to control_group: reload again", self.socket.display());
        }
    }

    /// A new generation of authenticators takes over what waits; the old one finishes what it was asked.
    fn replace_helpers(&mut self, settings: &Settings) {
        self.generation += 1;
        let mut fresh = Helpers::new(self.generation, settings);
        if let Some(old) = self.shared.helpers.last_mut() {
            fresh.pool.adopt(self.lp.now(), &mut old.pool);
            old.pool.retire(self.lp.now());
        }
        self.shared.helpers.push(fresh);
        self.shared.cache.reset(cache_limit(settings), cache_life(settings));
    }

    pub(super) fn certificates(&mut self, stamps: Vec<Stamp>, read: Option<Result<Option<tls::Tls>, String>>) {
        let Some(read) = read else { return };
        self.stamps = stamps;
        match read {
            Ok(tls) => {
                self.shared.tls = tls;
                log::info!("certificates were read again");
            }
            Err(why) => log::error!("certificates have changed and cannot be used, the old ones stay: {why}"),
        }
    }
}

/// Everything about a new configuration that may wait: files are read, and ports opened that are not `open`. The launcher
/// reads first: it must know what it will be asked for.
fn configuration(
    path: &Path,
    launcher: Option<&Launcher>,
    services: Services,
    open: Vec<Port>,
) -> Result<Configuration, Vec<String>> {
    let launched = match launcher {
        Some(launcher) => launcher.reload().map_err(|error| vec![error.to_string()])?,
        None => 0,
    };
    let read = opener(launcher);
    let settings = usable(path, &Rights { open: &read, launched: launcher.is_some() })?;
    let files = tls_files(&settings);
    let tls = tls::load(&files, &read).map_err(|why| vec![why])?;
    let routes = routes(&settings, &read)?;
    let control_gid = control_gid(&settings).map_err(|why| vec![why])?;
    let system = System::read(Path::new(RESOLV_CONF));
    let (stamps, volumes) = (stamps(&files, &read), volumes(&settings));
    let mut opened = Vec::new();
    for port in ports(&settings, services, tls.is_some()).into_iter().filter(|port| !open.contains(port)) {
        opened.push((port, bind(port, launcher).map_err(|why| vec![why])?));
    }
    Ok(Configuration { settings, routes, tls, control_gid, system, stamps, volumes, opened, launched })
}
