//! The budgets (`make bench`): what DMail costs, each beside what the machine itself costs for the same.
//!
//! Every row drives the real executable over loopback, with folders, users and mail made for it, and measures its bound
//! in the same run: a loop, a scan, a sync that does the least a program could do. Rounds of both take turns and the
//! median counts, so that a busy machine slows both. Only ratios mean something elsewhere, and only beyond 1.3.
//!
//! ```text
//! cargo bench --bench budgets -- [--quick] [--dir DIR] [--program FILE] [GROUP ...]     groups: see GROUPS; all without one
//! ```
//!
//! | file        | what it has                                                     |
//! |-------------|-----------------------------------------------------------------|
//! | `main.rs`   | the rows, one function a group, and the table                   |
//! | `bed.rs`    | a server with its folder, users and mail; what it uses           |
//! | `client.rs` | POP3 clients: one that blocks, plain or TLS; many in one loop    |
//! | `sender.rs` | SMTP clients: many in one loop; ones that stop in the midst of a message |
//! | `bounds.rs` | the least a program could do for the same                        |
//!
//! The limits are those of the design, but for the 1.5 of QUIT ("the sync"), which it leaves open. A row that does not hold
//! says so and fails nothing: times are no tests. Why a row is as it is, its inner loops may tell: `benches/hot.rs`.

mod bed;
mod bounds;
mod client;
mod sender;

use std::fs::{DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bed::{Bed, Memory};
use client::{Client, Pace};
use rustls::ServerConfig;
use rustls_pki_types::PrivatePkcs8KeyDer;
use sender::Sender;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Rows that are measured together, by the name to ask for them.
type Group = (&'static str, fn(&Plan, &mut Table));
/// All of them.
const GROUPS: &[Group] = &[
    ("memory", memory),
    ("account", account),
    ("poll", poll),
    ("open", open_and_quit),
    ("retr", retrieve),
    ("p99", beside),
    ("smtp", accept),
    ("taking", taking),
    ("deferred", deferred),
];

/// The clients of the original's claim.
const CLIENTS: usize = 86;
/// Messages of the big drop.
const MANY: usize = 3000;
/// Bytes of the big message, about.
const BIG: usize = 50 << 20;

/// How much is measured.
struct Plan {
    quick: bool,
    dir: PathBuf,
}

impl Plan {
    fn rounds(&self) -> usize {
        if self.quick { 3 } else { 5 }
    }

    fn bed(&self, users: usize) -> Bed {
        Bed::new(&self.dir, users)
    }
}

fn main() {
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    let mut plan = Plan { quick: false, dir: std::env::temp_dir() };
    let mut groups: Vec<_> = Vec::new();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--quick" => plan.quick = true,
            "--dir" => plan.dir = words.next().expect("--dir names a directory").into(),
            // Another build, for a change's before and after: run the two in turns.
            "--program" => {
                let file = words.next().expect("--program names an executable");
                bed::PROGRAM.set(file).expect("one program");
            }
            // A bound that runs as a process of its own, started by us.
            bounds::NULL => return bounds::null_server(bounds::listen()),
            bounds::KEEPING => {
                return bounds::keeping_server(bounds::listen(), words.next().expect("a directory").as_ref());
            }
            bounds::SEALED => {
                let (file, tls) = (words.next().expect("a file to send"), tls_config());
                return bounds::bare_server(bounds::listen(), file.as_ref(), Some(&tls));
            }
            bounds::BARE => {
                return bounds::bare_server(bounds::listen(), words.next().expect("a file to send").as_ref(), None);
            }
            name => match GROUPS.iter().find(|(group, _)| *group == name) {
                Some(group) => groups.push(group),
                None => {
                    let names: Vec<_> = GROUPS.iter().map(|(name, _)| *name).collect();
                    return eprintln!("no group {name}; there are: {}", names.join(" "));
                }
            },
        }
    }
    dmail::sys::process::raise_descriptor_limit().expect("a limit that can be raised");
    let mut table = Table::default();
    let begun = Instant::now();
    for (name, measure) in if groups.is_empty() { GROUPS.iter().collect() } else { groups } {
        eprintln!("measuring: {name} ({} s so far)", begun.elapsed().as_secs());
        measure(&plan, &mut table);
    }
    table.print();
}

/// What a bound serves TLS with.
fn tls_config() -> Arc<ServerConfig> {
    let key = rcgen::KeyPair::generate().expect("a key");
    let cert = rcgen::CertificateParams::new(["localhost".to_owned()]).and_then(|params| params.self_signed(&key));
    let chain = vec![cert.expect("a certificate").der().clone()];
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, PrivatePkcs8KeyDer::from(key.serialize_der()).into());
    Arc::new(config.expect("a key that fits"))
}

// ---- The rows ------------------------------------------------------------------------------------

/// Sessions that are logged in and idle.
fn memory(plan: &Plan, table: &mut Table) {
    for (name, tls_of, slope_limit, slope_bound) in [
        ("plain", [false, false], Some(300.0), "70 B: a slot"),
        ("half TLS", [false, true], None, ""),
        ("all TLS", [true, true], Some(3700.0), "3.2 KB: rustls alone"),
    ] {
        // The slope begins where the holes that logins left in the heap are filled.
        let (filled, most) = if plan.quick || slope_limit.is_none() { (200, 400) } else { (1000, 2000) };
        let bed = plan.bed(most);
        let mut clients = Vec::new();
        let fill = |clients: &mut Vec<Client>, count: usize| {
            while clients.len() < count {
                let user = clients.len();
                let mut client = bed.connect(tls_of[user % 2]);
                client.login(user);
                clients.push(client);
            }
            bed.settle(Duration::from_millis(700))
        };
        let rest = fill(&mut clients, 0);
        let fresh = fill(&mut clients, CLIENTS);
        // Remembered answers are another row of the budget: all there will be are there before the slope begins.
        client::flat_out(bed.plain, 4, most, Pace::Each, CLIENTS);
        let before = fill(&mut clients, filled);
        let after = fill(&mut clients, most);
        clients.drain(CLIENTS..).for_each(|mut client| drop(client.ask("QUIT")));
        // The server keeps house every ten seconds.
        let trimmed = bed.settle(Duration::from_secs(11));
        let kept = |memory: &Memory| format!("{:.2} MB ({:.2} anonymous)", mega(memory.pss), mega(memory.anonymous));
        table
            .row(&format!("Pss, {CLIENTS} idle sessions, {name}"))
            .measured(format!("{:.2} MB", mega(trimmed.pss)))
            .bound("-")
            .less_than(mega(trimmed.pss), 2.0, "MB, after a trim");
        table.note(format!(
            "after a burst of {} and a trim {}; as they came {}; at rest {}; with the program's file counted as if \
             nobody shared it {:.2} MB",
            after.sessions,
            kept(&trimmed.memory),
            kept(&fresh.memory),
            kept(&rest.memory),
            mega(trimmed.alone),
        ));
        if let Some(limit) = slope_limit {
            let more = (after.sessions - before.sessions) as f64;
            let each = (after.anonymous as f64 - before.anonymous as f64) / more;
            table
                .row(&format!("one more idle session, {name}"))
                .measured(format!("{each:.0} B"))
                .bound(slope_bound)
                .less_than(each, limit, "B, its maildrop open");
            table.note(format!("from {} to {} sessions", before.sessions, after.sessions));
        }
    }
    table.note(format!(
        "one conversation is {} B and an open maildrop {} B + its core, before paths",
        size_of::<dmail::service::pop3::Conversation>(),
        size_of::<dmail::store::maildrop::Maildrop>()
    ));
}

/// Accounts that exist.
fn account(plan: &Plan, table: &mut Table) {
    let sizes = [1000, if plan.quick { 10_000 } else { 50_000 }];
    let used = sizes.map(|users| {
        let bed = plan.bed(users);
        let mut clients: Vec<Client> = (0..CLIENTS).map(|index| bed.logged_in(index * (users / CLIENTS))).collect();
        let used = bed.settle(Duration::from_millis(700));
        clients.drain(..).for_each(|mut client| drop(client.ask("QUIT")));
        used
    });
    let each = (used[1].anonymous as f64 - used[0].anonymous as f64) / (sizes[1] - sizes[0]) as f64;
    // 32 KB of chance, over all of them, is no growth.
    let limit = 32.0 * 1024.0 / (sizes[1] - sizes[0]) as f64;
    table.row("per account").measured(format!("{each:.2} B")).bound("0").less_than(
        each,
        limit,
        "B: none, but for 32 KB of chance",
    );
    let kept = used.map(|used| format!("{:.2} MB", mega(used.anonymous)));
    table.note(format!(
        "anonymous, {CLIENTS} sessions: {} with {} accounts, {} with {}",
        kept[0], sizes[0], kept[1], sizes[1]
    ));
}

/// Connect, USER, PASS, STAT, QUIT, as fast as it goes.
fn poll(plan: &Plan, table: &mut Table) {
    let users = 1000;
    let bed = plan.bed(users);
    let null = bounds::Process::null();
    let time = Duration::from_millis(if plan.quick { 800 } else { 2000 });
    // Every drop's index is there, every answer is remembered.
    client::flat_out(bed.plain, CLIENTS, users, Pace::Each, 0);
    let (mut ours, mut theirs) = (Samples::new(), Samples::new());
    let (mut cost, mut p50, mut p99) = (Samples::new(), Samples::new(), Samples::new());
    for _ in 0..plan.rounds() {
        theirs.push(client::flat_out(null.address, CLIENTS, users, Pace::For(time), 0).per_sec());
        let before = bed.cpu();
        let polls = client::flat_out(bed.plain, CLIENTS, users, Pace::For(time), 0);
        cost.push((bed.cpu() - before).as_secs_f64() * 1e6 / polls.count() as f64);
        p50.push(polls.quantile(0.5));
        p99.push(polls.quantile(0.99));
        ours.push(polls.per_sec());
    }
    let (ours, theirs) = (ours.median(), theirs.median());
    let row = table.row(&format!("polls, {CLIENTS} clients flat out")).measured(format!("{ours:.0}/s"));
    row.bound(format!("{theirs:.0}/s")).more(ours / theirs, 0.6, "a loop that only says +OK");
    table.note(format!(
        "{:.0} us of the server's CPU a session; p50 {:.1} ms, p99 {:.1} ms",
        cost.median(),
        p50.median() * 1e3,
        p99.median() * 1e3
    ));
}

/// A drop of 3,000 messages: seen first, seen again, halved.
fn open_and_quit(plan: &Plan, table: &mut Table) {
    let rounds = if plan.quick { 5 } else { 15 };
    let bed = plan.bed(rounds);
    let drop = bed::drop_of(MANY);
    for user in 0..rounds {
        // Logged in once without mail: the authenticator's answer is remembered, the drop is not known.
        bed.remove_drop(user);
        bed.logged_in(user).ask("QUIT");
        bed.write_drop(user, &drop);
    }
    // A drop changed less than two seconds ago is not believed to be what was read.
    std::thread::sleep(Duration::from_millis(2100));
    let (mut first, mut again, mut least) = (Samples::new(), Samples::new(), Samples::new());
    let (mut reread, mut small) = (Samples::new(), Samples::new());
    for user in 0..rounds {
        least.time(|| bounds::read_count_and_hash(&bed.drop_file(user)));
        for (samples, reads) in [(&mut first, None), (&mut again, Some(&mut reread))] {
            let mut client = bed.connect(false);
            client.ask(&format!("USER {}", bed::login(user)));
            let before = bed.bytes_read();
            samples.time(|| client.ask("PASS test"));
            if let Some(reads) = reads {
                reads.push((bed.bytes_read() - before) as f64);
            }
            assert!(client.ask("STAT").starts_with(&format!("+OK {MANY} ")), "all messages are there");
            client.ask("QUIT");
        }
        // What a login costs that has next to nothing to open.
        let mut client = bed.connect(false);
        client.ask("USER test0");
        small.time(|| client.ask("PASS test"));
        client.ask("QUIT");
    }
    let (first, least, again) = (first.median(), least.median(), again.median());
    let row = table.row(&format!("first open of {MANY} messages")).measured(milli(first));
    row.bound(milli(least)).less(first / least, 2.0, "read, newlines counted, one XXH3-128");
    table.row("open again: read from files").measured(format!("{:.0} B", reread.median())).bound("256 B").less_than(
        reread.median(),
        4096.0,
        "B of 3.3 MB",
    );
    table.note(format!("opening again takes {}", milli(again)));

    for (what, first) in [("QUIT after deleting half", true), ("the same once more", false)] {
        let (mut quit, mut sync, mut new) = (Samples::new(), Samples::new(), Samples::new());
        for user in 0..rounds {
            new.time_of(|| bounds::append_and_sync(&bed.spool(), true));
            sync.time_of(|| bounds::append_and_sync(&bed.spool(), false));
            let mut client = bed.logged_in(user);
            let count: usize =
                client.ask("STAT").split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a count");
            client.all((1..=count).step_by(2).map(|number| format!("DELE {number}\r\n")));
            quit.time(|| client.ask("QUIT"));
        }
        let (quit, sync, new) = (quit.median(), sync.median(), new.median());
        let row = table.row(what).measured(milli(quit)).bound(milli(sync));
        row.less(quit / sync, 1.5, "one fdatasync of 4 KB appended");
        if first {
            table.note(format!("a ledger's first record: a new file and its directory synced take {}", milli(new)));
        }
    }
}

/// One message of 50 MB, plain and within TLS.
fn retrieve(plan: &Plan, table: &mut Table) {
    let bed = plan.bed(10);
    for (user, name, limit, bound) in [
        (0, "RETR of 50 MB", 0.75, "read 64 KB, convert, write"),
        (1, "the same within TLS", 0.6, "read 64 KB, convert, write into rustls"),
    ] {
        let tls = user == 1;
        bed.write_drop(user, &bed::big_drop(BIG));
        let file = bed.drop_file(user);
        let bare = if tls { bounds::Process::sealed(&file) } else { bounds::Process::bare(&file) };
        let mut theirs = if tls { Client::connect_tls(bare.address) } else { Client::connect(bare.address) };
        let mut ours = bed.connect(tls);
        ours.login(user);
        let (mut mine, mut least, mut cost) = (Samples::new(), Samples::new(), Samples::new());
        let each = if plan.quick || tls { 2 } else { 4 };
        for round in 0..=2 * plan.rounds() {
            let mut octets = 0;
            let bound = timed(|| (0..each).for_each(|_| octets = theirs.retrieve(1)));
            let before = bed.cpu();
            let own = timed(|| (0..each).for_each(|_| octets = ours.retrieve(1)));
            // The first round warms both.
            if round > 0 {
                least.push((each as u64 * octets) as f64 / bound);
                mine.push((each as u64 * octets) as f64 / own);
                cost.push((bed.cpu() - before).as_secs_f64() / own);
            }
        }
        ours.ask("QUIT");
        let (mine, least) = (mine.median(), least.median());
        let row = table.row(name).measured(format!("{:.2} GB/s", mine / 1e9));
        row.bound(format!("{:.2} GB/s", least / 1e9)).more(mine / least, limit, bound);
        table.note(format!("the server was {:.0} % busy", cost.median() * 100.0));
    }
}

/// What others feel while somebody retrieves 50 MB over and over. Sender and receiver of that keep two cores busy, so that
/// polls wait for a processor whoever serves them: the second row is the same two loads on servers of their own.
fn beside(plan: &Plan, table: &mut Table) {
    let users = 200;
    let bed = plan.bed(users);
    bed.write_drop(users - 1, &bed::big_drop(BIG));
    let (null, bare) = (bounds::Process::null(), bounds::Process::bare(&bed.drop_file(users - 1)));
    client::flat_out(bed.plain, 1, users - 1, Pace::Each, 0);
    let time = Duration::from_millis(if plan.quick { 500 } else { 1000 });
    // Each round's own p99, and of these the median: one bad moment of the machine spoils one round.
    let mut p99 = [(); 4].map(|()| Samples::new());
    let mut speed = Samples::new();
    for _ in 0..plan.rounds() + 2 {
        for (index, (polled, sender)) in [(null.address, bare.address), (bed.plain, bed.plain)].into_iter().enumerate()
        {
            p99[2 * index].push(client::steady(polled, users - 1, time).quantile(0.99));
            let mut big = Client::connect(sender);
            if index == 1 {
                big.login(users - 1);
            }
            let (polls, rate) = client::beside(big, || client::steady(polled, users - 1, time));
            p99[2 * index + 1].push(polls.quantile(0.99));
            if index == 1 {
                speed.push(rate);
            }
        }
    }
    let [floor, floor_beside, alone, loaded] = p99.map(|samples| samples.median());
    table.row("p99 of polls beside one big RETR").measured(milli(loaded)).bound(milli(alone)).less(
        loaded / alone,
        2.0,
        "alone; 1.5 hoped",
    );
    table.note(format!(
        "200 polls/s; the RETR ran at {:.2} GB/s; ours beside it to the bound's beside its: {:.1}",
        speed.median() / 1e9,
        loaded / floor_beside
    ));
    table
        .row("the same of two bare processes")
        .measured(milli(floor_beside))
        .bound(milli(floor))
        .beside(floor_beside / floor, "alone: a +OK loop, beside a bare sender");
}

/// Mail that is accepted: in its drop, on disk, before the answer.
fn accept(plan: &Plan, table: &mut Table) {
    let users = 1000;
    let bed = plan.bed(users);
    let dir = tempfile::Builder::new().prefix("dmail-bench-").tempdir_in(&plan.dir).expect("a folder");
    let keeping = bounds::Process::keeping(dir.path());
    let recipients: Vec<String> = (0..users).map(bed::address).collect();
    let text = sender::message(2048);
    let time = Duration::from_millis(if plan.quick { 1000 } else { 3000 });
    // Every file is there, every user is known.
    for address in [bed.smtp, keeping.address] {
        sender::flat_out(address, 100, &recipients, &text, time);
    }
    for (clients, limit) in [(100, Some(0.5)), (5, None), (1, None)] {
        let (mut ours, mut theirs) = (Samples::new(), Samples::new());
        let (mut cost, mut written, mut disk) = (Samples::new(), Samples::new(), Samples::new());
        for _ in 0..plan.rounds() {
            theirs.push(sender::flat_out(keeping.address, clients, &recipients, &text, time).per_sec());
            let before = (bed.cpu(), bed.bytes_written(), bed.bytes_to_disk());
            let sent = sender::flat_out(bed.smtp, clients, &recipients, &text, time);
            let each = |bytes: u64| bytes as f64 / sent.count as f64;
            cost.push((bed.cpu() - before.0).as_secs_f64() * 1e6 / sent.count as f64);
            written.push(each(bed.bytes_written() - before.1));
            disk.push(each(bed.bytes_to_disk() - before.2));
            ours.push(sent.per_sec());
        }
        let (ours, theirs) = (ours.median(), theirs.median());
        let row = table.row(&format!("durable accepts of 2 KB, {clients} senders")).measured(format!("{ours:.0}/s"));
        let row = row.bound(format!("{theirs:.0}/s"));
        let of = "a thread a client that reads, appends, syncs";
        match limit {
            Some(limit) => row.more(ours / theirs, limit, of),
            None => row.beside(ours / theirs, of),
        }
        table.note(format!(
            "{:.0} us of the server's CPU a message; {:.0} B given to write(2), {:.0} B to the disk",
            cost.median(),
            written.median(),
            disk.median()
        ));
    }
    let many = &recipients[..plan.rounds().max(if plan.quick { 100 } else { 1000 })];
    let (before, text) = (bed.settle(Duration::from_secs(11)).memory, sender::message(4 << 20));
    let mut client = Sender::connect(bed.smtp);
    client.begin(many);
    let took = timed(|| client.end(&text));
    let after = bed.settle(Duration::ZERO).memory;
    table
        .row(&format!("4 MB to {} recipients: memory", many.len()))
        .measured(format!("{:.2} MB", mega(after.anonymous) - mega(before.anonymous)))
        .bound("one body")
        .less_than(mega(after.anonymous) - mega(before.anonymous), 4.5, "MB more than before");
    table.note(format!("answered after {took:.2} s"));
}

/// Senders who are connected, and ones in the midst of a message.
fn taking(plan: &Plan, table: &mut Table) {
    let bed = plan.bed(4);
    let recipient = [bed::address(0)];
    let (few, many) = if plan.quick { (200, 600) } else { (1000, 3000) };
    let mut senders = Vec::new();
    let mut fill = |count: usize| {
        while senders.len() < count {
            senders.push(Sender::connect(bed.smtp));
        }
        bed.settle(Duration::from_millis(700)).memory
    };
    let (before, after) = (fill(few), fill(many));
    let each = (after.anonymous as f64 - before.anonymous as f64) / (many - few) as f64;
    table
        .row("one more idle SMTP session")
        .measured(format!("{each:.0} B"))
        .bound("70 B: a slot")
        .less_than(each, 300.0, "B");
    senders.truncate(1000);
    let text = sender::message(1 << 20);
    let (half, rest) = text.split_at(text.len() / 2);
    for sender in &mut senders {
        sender.begin(&recipient);
        sender.say(half);
    }
    let midst = bed.settle(Duration::from_secs(2)).memory;
    table
        .row(&format!("Pss, {} senders in mid-DATA of 1 MB", senders.len()))
        .measured(format!("{:.2} MB", mega(midst.pss)))
        .bound("-")
        .less_than(mega(midst.pss), 16.0, "MB");
    let took = timed(|| senders.iter_mut().for_each(|sender| sender.end(rest)));
    table.note(format!("all were accepted {took:.1} s later"));
}

/// Messages that wait in the queue: half of them for the end of this hour, the others for the next ones.
fn deferred(plan: &Plan, table: &mut Table) {
    let count = if plan.quick { 100_000 } else { 1_000_000 };
    let mut empty = plan.bed(4);
    let bare = empty.restart();
    // The server keeps house every ten seconds.
    let before = empty.settle(Duration::from_secs(12)).memory;
    let mut bed = Bed::with(&plan.dir, 4, |work| fill_queue(&work.join("queue"), count));
    let took = bed.restart();
    let begun = Instant::now();
    while bed.status("queue.waiting") != count.to_string() {
        let waiting = bed.status("queue.waiting");
        assert!(begun.elapsed() < Duration::from_secs(600), "they are not all found: {waiting}");
        std::thread::sleep(Duration::from_millis(50));
    }
    let (counted, cpu) = (begun.elapsed(), bed.cpu());
    let after = bed.settle(Duration::from_secs(12)).memory;
    // Pages of the executable are shared with whoever runs it just now.
    let more = mega(after.alone) - mega(before.alone);
    table
        .row(&format!("Pss, {count} deferred messages"))
        .measured(format!("{more:.2} MB more"))
        .bound("-")
        .less_than(more, 4.0, "MB more");
    table.note(format!(
        "Pss {:.2} MB ({:.2} anonymous) with them, {:.2} ({:.2}) without; all were counted {:.1} s after the greeting, with {:.1} s of CPU",
        mega(after.pss),
        mega(after.anonymous),
        mega(before.pss),
        mega(before.anonymous),
        counted.as_secs_f64(),
        cpu.as_secs_f64(),
    ));
    table
        .row("killed with them, until it greets")
        .measured(format!("{:.0} ms", took.as_secs_f64() * 1000.0))
        .bound(format!("{:.0} ms: no queue", bare.as_secs_f64() * 1000.0))
        .less_than(took.as_secs_f64(), 1.0, "s");
}

/// Files of a queue as the server has them, of about a kilobyte.
fn fill_queue(queue: &Path, count: usize) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
    let next = now / 3600 + 1;
    for hour in next - 1..next + 4 {
        let path = queue.join("due").join(hour.to_string());
        DirBuilder::new().recursive(true).mode(0o700).create(path).expect("an hour");
    }
    let text = "Subject: far\n\n".to_owned() + &"all work and no play\n".repeat(35);
    for number in 0..count {
        let id = format!("D{number:011}");
        let due = next * 3600 + number as u64 * 7919 % 14_400;
        // Where half of them lie they are looked at too early, should that hour end meanwhile, and none is tried.
        let place = if number.is_multiple_of(2) { next * 3600 - 1 } else { due };
        let line = format!("State: 1 deferred at={now} next={due} tries=1 why=4.2.0%20locked");
        let sum = xxh3_64_with_seed(line.as_bytes(), xxh3_64(id.as_bytes()));
        let file = format!(
            "DMail-Queue: 1\nId: {id}\nAt: {now}\nSender: ann@bench.test\nCame: SMTP\nReceived-Bytes: 0\nText-Bytes: {}\n\
             Recipients: 1\nTo: 1 mailbox gone@bench.test\n\n{text}\nStates of {id}:\n{line} sum={sum:016x}\n",
            text.len()
        );
        let path = queue.join("due").join((place / 3600).to_string()).join(&id);
        let mut made = File::options().write(true).create_new(true).mode(0o600).open(path).expect("a file");
        made.write_all(file.as_bytes()).expect("its text");
        made.set_modified(UNIX_EPOCH + Duration::from_secs(place)).expect("its time");
    }
}

// ---- The table -----------------------------------------------------------------------------------

/// Values of one kind, for their median. Seconds, where they are times.
struct Samples(Vec<f64>);

impl Samples {
    fn new() -> Samples {
        Samples(Vec::new())
    }

    fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    fn time<T>(&mut self, work: impl FnOnce() -> T) {
        self.push(timed(work));
    }

    /// For work that knows better what of it counts.
    fn time_of(&mut self, work: impl FnOnce() -> Duration) {
        self.push(work().as_secs_f64());
    }

    fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[((sorted.len() - 1) as f64 * share).round() as usize]
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> f64 {
    let begun = Instant::now();
    std::hint::black_box(work());
    begun.elapsed().as_secs_f64()
}

fn mega(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn milli(secs: f64) -> String {
    format!("{:.2} ms", secs * 1e3)
}

#[derive(Default)]
struct Row {
    what: String,
    measured: String,
    bound: String,
    ratio: String,
    limit: String,
    of: String,
    holds: bool,
    notes: Vec<String>,
}

impl Row {
    fn measured(&mut self, text: String) -> &mut Row {
        self.measured = text;
        self
    }

    fn bound(&mut self, text: impl Into<String>) -> &mut Row {
        self.bound = text.into();
        self
    }

    /// At most so many times the bound.
    fn less(&mut self, ratio: f64, limit: f64, of: &str) {
        (self.ratio, self.limit) = (format!("{ratio:.2}"), format!("<= {limit}"));
        (self.of, self.holds) = (of.to_owned(), ratio <= limit);
    }

    /// At least this share of the bound.
    fn more(&mut self, ratio: f64, limit: f64, of: &str) {
        (self.ratio, self.limit) = (format!("{ratio:.2}"), format!(">= {limit}"));
        (self.of, self.holds) = (of.to_owned(), ratio >= limit);
    }

    /// Without a limit.
    fn beside(&mut self, ratio: f64, of: &str) {
        (self.ratio, self.limit) = (format!("{ratio:.2}"), "-".to_owned());
        (self.of, self.holds) = (of.to_owned(), true);
    }

    /// A figure that has to stay below another, whatever the machine.
    fn less_than(&mut self, value: f64, limit: f64, of: &str) {
        (self.ratio, self.limit) =
            ("-".to_owned(), format!("<= {limit:.3}").trim_end_matches(['0']).trim_end_matches('.').to_owned());
        (self.of, self.holds) = (of.to_owned(), value <= limit);
    }
}

#[derive(Default)]
struct Table(Vec<Row>);

impl Table {
    fn row(&mut self, what: &str) -> &mut Row {
        self.0.push(Row { what: what.to_owned(), ..Row::default() });
        self.0.last_mut().expect("it was just put there")
    }

    /// What else is to be known about the last row.
    fn note(&mut self, text: String) {
        self.0.last_mut().expect("a note is about a row").notes.push(text);
    }

    fn print(&self) {
        let line = |cells: [&str; 6], of: &str| {
            let [what, measured, bound, ratio, limit, verdict] = cells;
            println!("{what:<34} {measured:>11} {bound:>20} {ratio:>6} {limit:>9}  {verdict:<14}  {of}");
        };
        line(["row", "measured", "bound", "ratio", "limit", ""], "");
        for row in &self.0 {
            let verdict = if row.holds { "holds" } else { "DOES NOT HOLD" };
            line([&row.what, &row.measured, &row.bound, &row.ratio, &row.limit, verdict], &row.of);
            row.notes.iter().for_each(|note| println!("    {note}"));
        }
        let missed = self.0.iter().filter(|row| !row.holds).count();
        println!("{} of {} rows hold", self.0.len() - missed, self.0.len());
    }
}
