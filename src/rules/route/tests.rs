use std::net::IpAddr;
use std::path::Path;

use proptest::prelude::*;

use super::aliases::Drawing;
use super::list::tests::grammar;
use super::list::{Reader, Voice};
use super::*;
use crate::rules::domains::{Line, Naming, Plan, Reach, draw};

/// main.example, which is other.main.example too, and two virtual domains.
pub(super) fn domains() -> Domains {
    let line = |prefix: &str, domain: &str| Line {
        prefix: prefix.to_owned(),
        reach: Reach::parse(&format!("/{prefix}")).unwrap(),
        domain: domain.to_owned(),
        drops: Path::new("/mail").join(prefix),
    };
    let main = ["main.example".to_owned(), "other.main.example".to_owned()];
    let lines = [line("abc", "abc.example"), line("b", "b.example")];
    let naming = Naming { separator: '_', drop_prefix: true, ..Naming::default() };
    let plan = Plan { main: &main, drops: Path::new("/mail"), lines: &lines, elsewhere: &[], naming };
    let (domains, objections) = draw(plan);
    assert!(objections.is_empty(), "{objections:?}");
    assert_eq!(domains.home_at(IpAddr::from([127, 0, 0, 1])), Home::default());
    domains
}

/// A world of users: name as shown, and what they have forwarded.
#[derive(Default, Clone)]
struct World {
    table: Table,
    users: Vec<(&'static str, &'static str, Option<&'static str>, Option<u32>)>,
    full: Vec<&'static str>,
    unclear: Vec<&'static str>,
    /// Looks at mailboxes, and questions about users.
    questions: usize,
}

fn whole(text: &str) -> Addressee {
    grammar(text).unwrap()
}

fn targets(text: &str, domain: &str, voice: Voice) -> Vec<Target> {
    Reader { domain, voice, grammar }.list(text).unwrap()
}

impl World {
    /// Users without more.
    fn of(users: &[&'static str]) -> World {
        World { users: users.iter().map(|user| (*user, "", None, Some(1000))).collect(), ..World::default() }
    }

    fn user(mut self, name: &'static str, fwd: &'static str, file: Option<&'static str>, uid: Option<u32>) -> World {
        self.users.push((name, fwd, file, uid));
        self
    }

    fn aliases(mut self, files: &[(Option<&str>, &str)]) -> World {
        let mut drawing = Drawing::new(true, grammar);
        for (scope, text) in files {
            let path = scope.unwrap_or("aliases");
            drawing.file(path, *scope, scope.unwrap_or("main.example"), text.as_bytes(), &mut |_| Err(String::new()));
        }
        let (aliases, troubles) = drawing.finish(&domains());
        assert!(troubles.is_empty(), "{troubles:?}");
        self.table.aliases = aliases;
        self
    }

    fn forward(mut self, from: &str, to: &str, copy: bool) -> World {
        let setting = if copy { "forward_cc" } else { "forward" };
        self.table.forward(&domains(), &whole(from), targets(to, "main.example", Voice::Operator), copy, (setting, 3));
        self
    }

    fn run(&mut self, recipient: &str, explain: bool) -> (Result<Vec<String>, Failure>, Vec<Applied>, Vec<String>) {
        self.run_from(recipient, Stage::Whole, explain)
    }

    fn run_from(
        &mut self,
        recipient: &str,
        stage: Stage,
        explain: bool,
    ) -> (Result<Vec<String>, Failure>, Vec<Applied>, Vec<String>) {
        let domains = domains();
        let mut route: Route<&'static str> = Route::new(whole(recipient), stage, explain);
        let mut want = route.next(&self.table, &domains);
        loop {
            self.questions += 1;
            want = match want {
                Want::Nothing => break,
                Want::Pause => route.next(&self.table, &domains),
                Want::User(name) => {
                    let found = self.users.iter().find(|(user, ..)| *user == name.shown());
                    let user = found.map(|(user, fwd, _, uid)| User {
                        account: *user,
                        uid: *uid,
                        forward: targets(fwd, "main.example", Voice::User),
                    });
                    let unclear = self.unclear.iter().any(|user| *user == name.shown());
                    let user = if unclear { Err(Failure::Unclear) } else { Ok(user) };
                    route.looked_up(user, &self.table, &domains)
                }
                Want::Mailbox(name, account, follow) => {
                    assert_eq!(name.shown(), account);
                    let (_, _, file, _) = self.users.iter().find(|(user, ..)| *user == name.shown()).unwrap();
                    let forward = file.filter(|_| follow).map(|file| targets(file, "main.example", Voice::User));
                    let full = self.full.contains(&name.shown());
                    route.looked_at(Ok(Look { forward, room: None, full }), &self.table, &domains)
                }
            };
        }
        let (trail, remarks) = (route.trail().to_vec(), route.remarks());
        let ways = route.finish().map(|ways| {
            let shown = |way: &Way<&str>| {
                let to = match &way.to {
                    Destination::Mailbox(name, _) => name.shown().to_owned(),
                    Destination::Remote(whole) => format!("to {whole}"),
                    Destination::Program(Program { words, user }) => format!("|{} as {user:?}", words.join(" ")),
                    Destination::Local(whole, stage) => format!("later {whole} {}", stage.word()).trim_end().to_owned(),
                };
                way.sender.as_ref().map_or(to.clone(), |sender| format!("{to} by {sender}"))
            };
            ways.iter().map(shown).collect()
        });
        (ways, trail, remarks)
    }

    #[track_caller]
    fn leads(&mut self, recipient: &str, to: &[&str]) {
        let (ways, ..) = self.run(recipient, false);
        assert_eq!(ways, Ok(to.iter().map(ToString::to_string).collect()), "{recipient}");
    }

    #[track_caller]
    fn fails(&mut self, recipient: &str, failure: Failure) {
        assert_eq!(self.run(recipient, false).0, Err(failure), "{recipient}");
    }
}

#[test]
fn a_user_has_his_mail_whatever_the_case_and_by_each_name_of_the_domain() {
    let mut world = World::of(&["ann", "ann@abc.example"]);
    for recipient in ["ann@main.example", "ANN@Main.Example", "ann@other.main.example"] {
        world.leads(recipient, &["ann"]);
    }
    world.leads("Ann@ABC.example", &["ann@abc.example"]);
    world.leads("ann@far.example", &["to ann@far.example"]);
    world.fails("bob@main.example", Failure::Nobody);
    world.fails("ann@b.example", Failure::Nobody);
    world.fails("../etc@main.example", Failure::Nobody);
}

#[test]
fn forward_lines_come_before_all_and_cc_keeps_a_copy() {
    let mut world = World::of(&["ann", "bob", "carl"])
        .aliases(&[(None, "ann: carl\n")])
        .forward("ann@main.example", "bob@main.example, x@far.example", false)
        .forward("bob@main.example", "y@far.example", true)
        .forward("z@elsewhere.example", "carl@main.example", false);
    world.leads("ann@OTHER.main.example", &["bob", "to y@far.example", "to x@far.example"]);
    world.leads("z@elsewhere.example", &["carl"]);
    world.leads("bob@main.example", &["bob", "to y@far.example"]);
}

#[test]
fn an_alias_leads_on_from_its_domain_or_the_common_file_and_may_name_itself() {
    let mut world = World::of(&["ann", "bob", "info", "bob@abc.example"]).aliases(&[
        (None, "info: info, ann\nteam: ann, bob, info\nvoid: /dev/null\nrobot: \"|/bin/x a\", |/bin/x a, bob\nghost: nobody"),
        (Some("abc.example"), "info: bob, bob@main.example\n"),
    ]);
    world.leads("info@main.example", &["info", "ann"]);
    world.leads("info@abc.example", &["bob@abc.example", "bob"]);
    world.leads("team@abc.example", &["ann", "bob", "info"]);
    world.leads("void@main.example", &[]);
    world.leads("robot@main.example", &["|/bin/x a as None", "bob"]);
    world.fails("ghost@main.example", Failure::Nobody);
}

#[test]
fn what_is_met_twice_is_delivered_once_and_what_only_goes_round_is_told() {
    let mut world = World::of(&["ann"])
        .user("bob", "", Some("carl"), Some(1))
        .user("carl", "", Some("bob"), Some(2))
        .user("dora", "eve", None, Some(3))
        .user("eve", "dora, ann", None, Some(4))
        .aliases(&[(None, "all: ann, ann@other.main.example, everybody\neverybody: ann, \\ann\n")]);
    world.leads("all@main.example", &["ann"]);
    world.fails("bob@main.example", Failure::Round);
    world.leads("dora@main.example", &["ann"]);
    world.leads("eve@main.example", &["ann"]);
}

#[test]
fn a_users_own_list_is_followed_after_that_of_the_authenticator_names_him() {
    let mut world = World::of(&["ann"])
        .user("bob", "$user, x@far.example", Some("ann"), Some(1))
        .user("carl", "x@far.example", Some("ann"), Some(1))
        .user("dora", "", Some("\\dora, ann"), Some(1))
        .user("eve", "", Some("eve, /dev/null"), Some(1))
        .user("finn", "", Some("/dev/null"), Some(1))
        .aliases(&[(None, "finns: \\finn\n")]);
    world.leads("bob@main.example", &["ann", "to x@far.example"]);
    world.leads("carl@main.example", &["to x@far.example"]);
    world.leads("dora@main.example", &["dora", "ann"]);
    world.leads("eve@main.example", &["eve"]);
    world.leads("finn@main.example", &[]);
    world.leads("finns@main.example", &["finn"]);
}

#[test]
fn users_programs_run_only_where_they_may_and_as_that_user() {
    let mut world = World::default()
        .user("ann", "", Some("|/bin/x"), Some(7))
        .user("bob", "\"|/bin/y z\"", None, Some(8))
        .user("carl", "|/bin/z", None, None);
    let (ways, _, remarks) = world.run("ann@main.example", false);
    assert_eq!(ways, Ok(vec!["ann".to_owned()]), "the mail is his all the same");
    assert!(remarks[0].contains("/bin/x") && remarks[0].contains("user_robots is false"), "{remarks:?}");
    world.table.user_robots = true;
    world.leads("ann@main.example", &["|/bin/x as Some(7)"]);
    world.leads("bob@main.example", &["|/bin/y z as Some(8)"]);
    let (ways, _, remarks) = world.run("carl@main.example", false);
    assert_eq!(ways, Ok(vec!["carl".to_owned()]));
    assert!(remarks[0].contains("no user number"), "{remarks:?}");
}

#[test]
fn a_detail_is_the_users_unless_somebody_is_called_so() {
    let mut world = World::of(&["ann", "ann+own"]).aliases(&[(None, "info: ann\nbob+x: ann\n")]);
    world.fails("ann+lists@main.example", Failure::Nobody);
    world.table.delimiter = Some('+');
    world.leads("ann+lists@main.example", &["ann"]);
    world.leads("ann+a+b@main.example", &["ann"]);
    world.leads("ann+own@main.example", &["ann+own"]);
    world.leads("info+x@main.example", &["ann"]);
    world.leads("bob+x@main.example", &["ann"]);
    world.fails("bob+y@main.example", Failure::Nobody);
    world.fails("+x@main.example", Failure::Nobody);
}

#[test]
fn postmaster_always_works_and_abuse_unless_it_is_somebody() {
    let mut world = World::of(&["ann", "root", "postmaster", "abuse@abc.example"])
        .aliases(&[(Some("b.example"), "postmaster: root@main.example")]);
    world.leads("postmaster@main.example", &["postmaster"]);
    world.fails("abuse@main.example", Failure::Nobody);
    world.table.sysadmin = Some(whole("ann@main.example"));
    for recipient in ["postmaster@main.example", "PostMaster@abc.example", "abuse@main.example"] {
        world.leads(recipient, &["ann"]);
    }
    world.leads("postmaster@b.example", &["root"]);
    world.leads("abuse@abc.example", &["abuse@abc.example"]);
    world.table.sysadmin = Some(whole("postmaster@main.example"));
    world.leads("postmaster@main.example", &["postmaster"]);
    world.leads("postmaster@abc.example", &["postmaster"]);
    world.table.delimiter = Some('-');
    world.table.sysadmin = Some(whole("nobody@main.example"));
    world.fails("postmaster@main.example", Failure::Nobody);
}

#[test]
fn catch_all_takes_what_nobody_else_has_and_only_in_its_domain() {
    let mut world = World::of(&["ann", "bob@abc.example"]);
    assert!(world.table.catch_all(&domains(), "ABC.example", whole("ann@main.example"), 0));
    assert!(!world.table.catch_all(&domains(), "abc.example", whole("bob@abc.example"), 1));
    assert!(world.table.catch_all(&domains(), "other.main.example", whole("gone@main.example"), 2));
    world.leads("whoever@abc.example", &["ann"]);
    world.leads("bob@abc.example", &["bob@abc.example"]);
    world.fails("whoever@b.example", Failure::Nobody);
    // It leads to somebody who is not there, and not round and round.
    world.fails("whoever@main.example", Failure::Nobody);
}

#[test]
fn an_owner_hears_of_what_his_list_passes_on() {
    let mut world = World::of(&["ann", "bob"]).aliases(&[(
        None,
        "list: ann, part, x@far.example\nowner-list: bob\npart: y@far.example\nowner-part: ann\nown: own, ann\nowner-own: bob",
    )]);
    world.leads(
        "list@main.example",
        &[
            "ann by owner-list@main.example",
            "to y@far.example by owner-part@main.example",
            "to x@far.example by owner-list@main.example",
        ],
    );
    world.leads("owner-list@main.example", &["bob"]);
}

#[test]
fn who_failed_is_asked_about_from_there_on_and_nobody_else_again() {
    let mut world = World::of(&["bob"]).user("ann", "$user, bob", Some("$user, x@far.example"), None);
    world = world.aliases(&[(None, "ann: ann, y@far.example\ngone: gone, bob")]);
    world.full = vec!["ann"];
    world.leads("ann@main.example", &["to x@far.example", "bob", "to y@far.example", "later ann@main.example mailbox"]);
    let from = |world: &mut World, stage| world.run_from("ann@main.example", stage, false).0;
    assert_eq!(from(&mut world, Stage::Exact), Err(Failure::Full));
    world.full.clear();
    let some = |ways: &[&str]| Ok(ways.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!(from(&mut world, Stage::Exact), some(&["ann"]));
    assert_eq!(from(&mut world, Stage::File), some(&["ann", "to x@far.example"]));
    assert_eq!(from(&mut world, Stage::User), some(&["ann", "to x@far.example", "bob"]));
    world.leads("gone@main.example", &["bob", "later gone@main.example user"]);
    assert_eq!(world.run_from("gone@main.example", Stage::User, false).0, Err(Failure::Nobody));
}

#[test]
fn one_of_several_who_cannot_have_it_does_not_keep_it_from_the_others() {
    let mut world =
        World::of(&["ann", "bob", "carl"]).aliases(&[(None, "all: ann, gone, bob, carl\ntwo: bob, gone\n")]);
    (world.full, world.unclear) = (vec!["bob"], vec!["carl"]);
    world.leads(
        "all@main.example",
        &["ann", "later gone@main.example user", "later bob@main.example mailbox", "later carl@main.example user"],
    );
    world.fails("bob@main.example", Failure::Full);
    world.fails("carl@main.example", Failure::Unclear);
    world.fails("two@main.example", Failure::Full);
    world.unclear.push("gone");
    world.fails("two@main.example", Failure::Unclear);
}

#[test]
fn the_trail_has_each_line_that_was_applied() {
    let mut world = World::of(&["ann"]).user("bob", "", Some("ann"), Some(1)).aliases(&[(None, "# x\ninfo: bob\n")]);
    world.table.delimiter = Some('+');
    let (_, trail, _) = world.run("info+x@main.example", true);
    let told: Vec<String> = trail.iter().map(|step| format!("{} {:?} {}", step.to, step.what, step.made)).collect();
    assert_eq!(
        told,
        [
            "info+x@main.example Words(\"user\") there is none",
            "info+x@main.example Setting(\"recipient_delimiter\", 0) info@main.example",
            "info@main.example Alias(\"aliases\", 2) bob@main.example",
            "bob@main.example Words(\"user\") the user bob",
            "bob@main.example Words(\"forward file\") ann@main.example",
            "ann@main.example Words(\"user\") the user ann",
            "ann@main.example Words(\"mailbox\") delivered to ann",
        ]
    );
    let (_, trail, _) = world.run("info+x@main.example", false);
    assert!(trail.is_empty());
}

#[test]
fn depth_and_number_are_bounded() {
    let chain: String = (0..40).map(|at| format!("a{at}: a{}\n", at + 1)).collect();
    let mut world = World::of(&["a40", "a5"]).aliases(&[(None, &chain)]);
    world.fails("a0@main.example", Failure::TooMany);
    world.leads("a30@main.example", &["a40"]);
    // Each of a hundred leads to a hundred and fifty others.
    let all = (0..100).map(|a| format!("l{a}")).collect::<Vec<_>>().join(",");
    let mut text = format!("all: {all}\n");
    for a in 0..100 {
        let more = (0..150).map(|b| format!("u{a}.{b}@far.example")).collect::<Vec<_>>().join(",");
        text.push_str(&format!("l{a}: {more}\n"));
    }
    let mut world = World::of(&[]).aliases(&[(None, &text)]);
    world.fails("all@main.example", Failure::TooMany);
    let (ways, ..) = world.run("l7@main.example", false);
    assert_eq!(ways.unwrap().len(), 150);
}

proptest! {
    /// Any small world of lists: it ends, asks about each user once, and whatever is found is found once.
    #[test]
    fn any_tangle_ends_and_nobody_has_two_copies(
        lists in prop::collection::vec(prop::collection::vec(0..6usize, 0..4), 6),
        kinds in prop::collection::vec(0..4u8, 6),
        full in 0..6usize,
    ) {
        const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
        let domains = domains();
        let mut world = World::default();
        for (at, (list, kind)) in lists.iter().zip(&kinds).enumerate() {
            let text = list.iter().map(|to| NAMES[*to]).collect::<Vec<_>>().join(",");
            let text: &'static str = Box::leak(text.into_boxed_str());
            match kind {
                0 if !text.is_empty() => {
                    let from = whole(&format!("{}@main.example", NAMES[at]));
                    world.table.forward(&domains, &from, targets(text, "main.example", Voice::Operator), at % 2 == 0, ("forward", at));
                    world.users.push((NAMES[at], "", None, None));
                }
                1 => world.users.push((NAMES[at], text, None, None)),
                2 => world.users.push((NAMES[at], "", Some(text), None)),
                _ => {}
            }
        }
        world.full.push(NAMES[full]);
        let (ways, ..) = world.run("a@main.example", true);
        prop_assert!(world.questions <= 2 * 6 + 1, "{} questions", world.questions);
        if let Ok(ways) = ways {
            let unique: HashSet<&String> = ways.iter().collect();
            prop_assert_eq!(unique.len(), ways.len());
        }
    }
}

#[test]
fn an_alias_leads_to_whoever_gets_its_mail_and_to_nobody_else() {
    let world = World::default()
        .aliases(&[
            (None, "info: \\info, ann\nteam: info, bob\nfar: x@far.example\n"),
            (Some("abc.example"), "info: bob, bob@main.example\n"),
        ])
        .forward("round@main.example", "about@main.example", false)
        .forward("about@main.example", "round@main.example", false);
    let leads = |from: &str, login: &str| leads_to(whole(from), login, &world.table, &domains());
    for (from, logins) in [
        ("info@main.example", &["info", "ann"][..]),
        ("INFO@other.main.example", &["info", "ann"]),
        ("team@main.example", &["info", "ann", "bob"]),
        ("info@abc.example", &["bob@abc.example", "bob"]),
        ("round@main.example", &[]),
        ("far@main.example", &[]),
        ("x@far.example", &[]),
        ("ann@main.example", &["ann"]),
    ] {
        for login in ["ann", "bob", "info", "carl", "bob@abc.example", "x@far.example"] {
            assert_eq!(leads(from, login), logins.contains(&login), "{from} {login}");
        }
    }
}

#[test]
fn a_long_list_is_walked_in_pieces() {
    let members: Vec<String> = (0..1000).map(|number| format!("m{number}@far.example")).collect();
    let world = World::default().aliases(&[(None, &format!("all: {}", members.join(", ")))]);
    let domains = domains();
    let mut route: Route<()> = Route::new(whole("all@main.example"), Stage::Whole, false);
    let mut pauses = 0;
    while route.next(&world.table, &domains) == Want::Pause {
        pauses += 1;
    }
    assert_eq!((pauses, route.finish().unwrap().len()), (1001 / WALK_MOST, 1000));
}
