use std::collections::BTreeMap;
use std::os::unix::fs::symlink;

use proptest::prelude::*;

use super::*;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn record(name: &str, stored: &str) -> Record {
    Record { name: name.into(), stored: Secret::from(stored.as_bytes()), ..Record::default() }
}

fn set(users: &mut Users, name: &str, stored: &str) -> bool {
    users.put(name.as_bytes(), |_| Ok::<_, ()>(record(name, stored))).unwrap().unwrap()
}

/// The password field of a user, as text.
fn stored(users: &mut Users, name: &str) -> Option<String> {
    let record = users.find(name.as_bytes()).unwrap().record?;
    Some(String::from_utf8(record.stored.reveal().to_vec()).unwrap())
}

fn neighbour(users: &mut Users, name: &str) -> Option<String> {
    let found = users.find(name.as_bytes()).unwrap();
    assert!(found.record.is_none());
    Some(String::from_utf8(found.neighbour?.reveal().to_vec()).unwrap())
}

fn names(users: &mut Users) -> Vec<String> {
    let mut names = Vec::new();
    let each = |record: Record| {
        names.push(String::from_utf8(record.name).unwrap());
        ControlFlow::Continue(())
    };
    users.search(|_| true, each).unwrap();
    names
}

fn main_text(dir: &Path) -> String {
    fs::read_to_string(dir.join("nwauth.txt")).unwrap()
}

#[test]
fn what_was_put_is_found_by_any_spelling_and_what_was_removed_is_not() {
    let dir = folder();
    let mut users = Users::new(dir.path());
    assert!(set(&mut users, "Fred", "1"));
    assert!(!set(&mut users, "fred", "2"));
    assert!(set(&mut users, "ann@b", "3"));
    let mut other = Users::new(dir.path());
    assert_eq!(stored(&mut other, "FRED").as_deref(), Some("2"));
    assert!(users.remove(b"fReD").unwrap());
    assert!(!users.remove(b"fred").unwrap());
    assert_eq!(stored(&mut other, "fred"), None);
    users.merge().unwrap();
    assert_eq!(names(&mut other), ["ann@b"]);
    assert!(main_text(dir.path()).ends_with("\nann@b:3:::::\n"));
    assert_eq!(fs::read(dir.path().join("nwauth.add")).unwrap(), b"");
}

#[test]
fn a_missing_user_file_is_a_fault_and_not_an_empty_list() {
    let dir = folder();
    let mut users = Users::new(dir.path());
    assert!(users.find(b"fred").is_err());
    assert!(users.search(|_| true, |_| ControlFlow::Continue(())).is_err());
    set(&mut users, "fred", "1");
    fs::remove_file(dir.path().join("nwauth.txt")).unwrap();
    assert!(users.find(b"fred").is_err());
    assert!(users.put(b"ann", |_| Ok::<_, ()>(record("ann", "1"))).is_err());
}

#[test]
fn files_are_private_regular_and_no_links() {
    let dir = folder();
    let mut users = Users::new(dir.path());
    set(&mut users, "fred", "1");
    users.merge().unwrap();
    for name in ["nwauth.txt", "nwauth.add", "nwauth.lock"] {
        assert_eq!(fs::metadata(dir.path().join(name)).unwrap().mode() & 0o777, 0o600, "{name}");
    }
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");

    fs::rename(dir.path().join("nwauth.txt"), dir.path().join("elsewhere")).unwrap();
    symlink("elsewhere", dir.path().join("nwauth.txt")).unwrap();
    assert!(Users::new(dir.path()).find(b"fred").is_err());
    fs::remove_file(dir.path().join("nwauth.txt")).unwrap();
    fs::create_dir(dir.path().join("nwauth.txt")).unwrap();
    assert!(Users::new(dir.path()).find(b"fred").is_err());
}

#[test]
fn a_group_that_reads_the_file_still_reads_it_after_a_merge_and_others_never_do() {
    let dir = folder();
    let path = dir.path().join("nwauth.txt");
    fs::write(&path, "fred:1\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    Users::new(dir.path()).merge().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
}

#[test]
fn a_file_edited_by_hand_works_in_any_order_and_is_sorted_at_the_next_write() {
    let dir = folder();
    let text = "# top\n\nzoe:1\n# ann's\nAnn:2\r\nbob:3\nann:4\n-bob\nno colon\n:::\ncid:5:7:/p:::fwd=\"a:b\"";
    fs::write(dir.path().join("nwauth.txt"), text).unwrap();
    let mut users = Users::new(dir.path());
    assert_eq!(stored(&mut users, "ann").as_deref(), Some("4"));
    assert_eq!(stored(&mut users, "bob"), None);
    assert_eq!(stored(&mut users, "cid").as_deref(), Some("5"));
    assert_eq!(stored(&mut users, "zoe").as_deref(), Some("1"));
    assert_eq!(stored(&mut users, "no colon").as_deref(), Some(""));
    set(&mut users, "dan", "6");
    assert_eq!(
        main_text(dir.path()),
        "# top\n\n# ann's\nann:4\n:::\ncid:5:7:/p:::fwd=\"a:b\"\ndan:6:::::\nno colon\nzoe:1\n"
    );
    assert_eq!(stored(&mut users, "cid").as_deref(), Some("5"));
}

#[test]
fn an_edit_is_noticed_by_a_reader_that_has_the_file_open() {
    let dir = folder();
    let path = dir.path().join("nwauth.txt");
    fs::write(&path, "ann:1\nbob:1\n").unwrap();
    let mut users = Users::new(dir.path());
    assert_eq!(stored(&mut users, "ann").as_deref(), Some("1"));
    fs::write(&path, "zed:1\nann:2\nbob:1\n").unwrap();
    assert_eq!(stored(&mut users, "ann").as_deref(), Some("2"));
    assert_eq!(stored(&mut users, "zed").as_deref(), Some("1"));
    fs::write(dir.path().join("new"), "ann:3\n").unwrap();
    fs::rename(dir.path().join("new"), &path).unwrap();
    assert_eq!(stored(&mut users, "ann").as_deref(), Some("3"));
    assert_eq!(stored(&mut users, "bob"), None);
}

#[test]
fn a_line_cut_off_by_a_crash_does_not_count_and_is_cut_off() {
    let dir = folder();
    let mut users = Users::new(dir.path());
    set(&mut users, "fred", "old");
    let add = dir.path().join("nwauth.add");
    let torn = [&fs::read(&add).unwrap()[..], b"fred:ne"].concat();
    fs::write(&add, torn).unwrap();
    assert_eq!(stored(&mut users, "fred").as_deref(), Some("old"));
    set(&mut users, "ann", "1");
    assert_eq!(fs::read_to_string(&add).unwrap(), "fred:old:::::\nann:1:::::\n");
}

#[test]
fn killed_between_the_two_renames_of_a_merge_both_files_say_the_same() {
    let dir = folder();
    let mut users = Users::new(dir.path());
    set(&mut users, "ann", "1");
    users.merge().unwrap();
    set(&mut users, "bob", "2");
    users.remove(b"ann").unwrap();
    let add = fs::read(dir.path().join("nwauth.add")).unwrap();
    users.merge().unwrap();
    fs::write(dir.path().join("nwauth.add"), add).unwrap();
    fs::write(dir.path().join("nwauth.txt.new"), "half a fi").unwrap();
    fs::write(dir.path().join("nwauth.add.new"), "").unwrap();
    fs::write(dir.path().join("nwauth.sort"), "x").unwrap();
    assert_eq!(names(&mut Users::new(dir.path())), ["bob"]);
    users.merge().unwrap();
    assert_eq!(names(&mut users), ["bob"]);
}

#[test]
fn nwauth_add_is_merged_when_it_grows_past_its_size() {
    let dir = folder();
    let mut users = Users::new(dir.path()).merge_above(200);
    for number in 0..50 {
        set(&mut users, &format!("user{number}"), "x");
        assert!(fs::metadata(dir.path().join("nwauth.add")).unwrap().len() <= 200);
    }
    assert_eq!(names(&mut users).len(), 50);
}

#[test]
fn an_error_of_the_change_changes_nothing() {
    let dir = folder();
    let mut users = Users::new(dir.path());
    set(&mut users, "ann", "1");
    let before = fs::read(dir.path().join("nwauth.add")).unwrap();
    assert_eq!(users.put(b"ann", |_| Err("no")).unwrap(), Err("no"));
    assert_eq!(fs::read(dir.path().join("nwauth.add")).unwrap(), before);
}

#[test]
fn somebody_who_is_not_there_has_the_next_one_in_order_as_neighbour_wherever_the_users_are() {
    let dir = folder();
    let mut users = Users::new(dir.path());
    fs::write(dir.path().join("nwauth.txt"), "").unwrap();
    assert_eq!(neighbour(&mut users, "x"), None);
    set(&mut users, "ann", "A");
    assert_eq!(neighbour(&mut users, "x").as_deref(), Some("A"));
    for text in ["bob:B\ndan:D\n", "dan:D\nbob:B\n"] {
        fs::write(dir.path().join("nwauth.txt"), text).unwrap();
        fs::write(dir.path().join("nwauth.add"), "").unwrap();
        assert_eq!(neighbour(&mut users, "a").as_deref(), Some("B"), "{text}");
        assert_eq!(neighbour(&mut users, "cid").as_deref(), Some("D"), "{text}");
        assert!(neighbour(&mut users, "zoe").is_some(), "{text}");
    }
    users.remove(b"bob").unwrap();
    assert!(neighbour(&mut users, "bob").is_some());
}

#[test]
fn a_search_shows_each_user_once_with_what_counts() {
    let dir = folder();
    fs::write(dir.path().join("nwauth.txt"), "bob:1\ncid:1\ndan:1\nzoe:1\n").unwrap();
    let mut users = Users::new(dir.path());
    for name in ["ann", "Cid", "eve", "zzz"] {
        set(&mut users, name, "2");
    }
    users.remove(b"dan").unwrap();
    assert_eq!(names(&mut users), ["ann", "bob", "Cid", "eve", "zoe", "zzz"]);
    let mut seen = 0;
    let each = |_| {
        seen += 1;
        if seen == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    users.search(|name| name != b"ann", each).unwrap();
    assert_eq!(seen, 2);
}

#[test]
fn a_comment_block_longer_than_a_probe_does_not_lose_its_neighbours() {
    let dir = folder();
    let mut text = String::new();
    for number in 100..400 {
        if number % 50 == 0 {
            text += &format!("# {}\n\n", "long comment ".repeat(number)).repeat(5);
        }
        text += &format!("user{number}:{number}\n");
    }
    fs::write(dir.path().join("nwauth.txt"), text).unwrap();
    let mut users = Users::new(dir.path());
    for number in 100..400 {
        let name = format!("user{number}");
        assert_eq!(stored(&mut users, &name), Some(number.to_string()), "{name}");
        assert_eq!(stored(&mut users, &format!("{name}x")), None);
    }
    assert!(users.main.as_ref().unwrap().sorted);
}

#[test]
fn a_line_longer_than_any_record_is_a_fault() {
    let dir = folder();
    let text = format!("ann:1\nbob:{}\n", "x".repeat(LINE_MOST));
    fs::write(dir.path().join("nwauth.txt"), text).unwrap();
    let fault = Users::new(dir.path()).find(b"ann").unwrap_err();
    assert!(fault.to_string().contains("longer than 16 KB"), "{fault}");
}

#[test]
fn large_unsorted_files_are_sorted_in_pieces() {
    let dir = folder();
    let mut text = String::new();
    for number in (0..2000).rev() {
        text += &format!("user{number}:{number}\n");
    }
    fs::write(dir.path().join("nwauth.txt"), text).unwrap();
    let mut users = Users::new(dir.path());
    users.chunk_bytes = 4096;
    users.merge().unwrap();
    assert!(users.main.as_ref().unwrap().sorted);
    assert!(is_sorted(&File::open(dir.path().join("nwauth.txt")).unwrap()).unwrap());
    assert_eq!(names(&mut users).len(), 2000);
    assert_eq!(stored(&mut users, "user1234").as_deref(), Some("1234"));
}

#[test]
fn many_writers_and_readers_at_once_lose_nothing() {
    const WRITERS: usize = 4;
    const EACH: usize = 60;
    let dir = folder();
    set(&mut Users::new(dir.path()), "there", "1");
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let path = dir.path().to_owned();
            scope.spawn(move || {
                let mut users = Users::new(&path).merge_above(150);
                for number in 0..EACH {
                    let name = format!("w{writer}n{number}");
                    assert!(set(&mut users, &name, &name));
                    if number % 3 == 0 {
                        assert!(users.remove(name.as_bytes()).unwrap());
                    }
                    let expected = (number % 3 != 0).then_some(name.clone());
                    assert_eq!(stored(&mut users, &name), expected);
                }
            });
        }
        let path = dir.path().to_owned();
        scope.spawn(move || {
            let mut users = Users::new(&path);
            for _ in 0..2000 {
                assert_eq!(stored(&mut users, "there").as_deref(), Some("1"));
            }
        });
    });
    assert_eq!(names(&mut Users::new(dir.path())).len(), 1 + WRITERS * EACH * 2 / 3);
}

#[test]
fn half_a_million_generated_users_are_found_in_microseconds() {
    let count: u64 = if cfg!(debug_assertions) { 20_000 } else { 500_000 };
    let dir = folder();
    let mut users = Users::new(dir.path());
    set(&mut users, "test7", "mine");
    set(&mut users, "zoe", "hers");
    let begun = Instant::now();
    let hash = "$1$rasmusle$rISCgZzpwk3UhDidwXvin0";
    let like = Record { stored: Secret::from(hash.as_bytes()), ..Record::default() };
    users.generate(count, &like).unwrap();
    let made = begun.elapsed();
    let begun = Instant::now();
    Users::new(dir.path()).find(b"test0").unwrap();
    let first = begun.elapsed();
    assert_eq!(stored(&mut users, "test7").as_deref(), Some(hash));
    assert_eq!(stored(&mut users, "zoe").as_deref(), Some("hers"));
    assert_eq!(stored(&mut users, &format!("test{count}")), None);
    const LOOKUPS: u64 = 10_000;
    let begun = Instant::now();
    for number in 0..LOOKUPS {
        let name = format!("test{}", number * 7_919 % count);
        assert!(users.find(name.as_bytes()).unwrap().record.is_some(), "{name}");
    }
    let each = begun.elapsed() / LOOKUPS as u32;
    let begun = Instant::now();
    set(&mut users, "late", "x");
    users.merge().unwrap();
    let merged = begun.elapsed();
    println!("{count} users: made in {made:?}, first look {first:?}, each look {each:?}, set and merge {merged:?}");
    // Not a measurement: it tells a search from a scan.
    assert!(each.as_micros() < 1_000, "{each:?}");
}

#[derive(Clone, Debug)]
enum Step {
    Set(u8, u8),
    Remove(u8),
    Merge,
    Reopen,
    /// Somebody appends to the main file with an editor.
    Edit(u8, u8),
    Kill,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0u8..12, any::<u8>()).prop_map(|(name, value)| Step::Set(name, value)),
        3 => (0u8..12).prop_map(Step::Remove),
        1 => Just(Step::Merge),
        1 => Just(Step::Reopen),
        1 => (0u8..12, any::<u8>()).prop_map(|(name, value)| Step::Edit(name, value)),
        1 => Just(Step::Kill),
    ];
    proptest::collection::vec(step, 1..40)
}

/// Different lengths and spellings, one the prefix of another.
fn spelled(name: u8, value: u8) -> String {
    let name = ["a", "ab", "abc", "b", "b%", "b@x", "b@y", "c:d", "long".repeat(20).as_str(), "z", "zz", "a-"]
        [usize::from(name)]
    .to_owned();
    if value.is_multiple_of(2) { name.to_uppercase() } else { name }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_steps_give_what_a_map_gives(steps in steps(), add_bytes in 0u64..200) {
        let dir = folder();
        fs::write(dir.path().join("nwauth.txt"), "# first\n").unwrap();
        let fresh = || {
            let mut users = Users::new(dir.path()).merge_above(add_bytes);
            users.chunk_bytes = 100;
            users
        };
        let mut users = fresh();
        let mut model: BTreeMap<String, String> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Set(name, value) => {
                    let name = spelled(name, value);
                    let is_new = model.insert(name.to_lowercase(), value.to_string()).is_none();
                    prop_assert_eq!(set(&mut users, &name, &value.to_string()), is_new);
                }
                Step::Remove(name) => {
                    let name = spelled(name, 0);
                    let was = model.remove(&name.to_lowercase()).is_some();
                    prop_assert_eq!(users.remove(name.as_bytes()).unwrap(), was);
                }
                Step::Merge => users.merge().unwrap(),
                Step::Reopen => users = fresh(),
                Step::Edit(name, value) => {
                    let path = dir.path().join("nwauth.txt");
                    let name = spelled(name, value);
                    // nwauth.add counts before nwauth.txt, so an edit of somebody in it is no use.
                    users.merge().unwrap();
                    let text = [fs::read(&path).unwrap(), record(&name, &value.to_string()).line()].concat();
                    fs::write(&path, [&text[..], b"\n"].concat()).unwrap();
                    model.insert(name.to_lowercase(), value.to_string());
                }
                Step::Kill => {
                    // In the middle of an append, by whoever.
                    let path = dir.path().join("nwauth.add");
                    let mut text = fs::read(&path).unwrap_or_default();
                    text.extend_from_slice(b"a:torn");
                    fs::write(&path, text).unwrap();
                    users = fresh();
                }
            }
            for name in 0..12 {
                let name = spelled(name, 0);
                prop_assert_eq!(stored(&mut users, &name), model.get(&name.to_lowercase()).cloned());
            }
        }
        users.merge().unwrap();
        let shown: Vec<String> = names(&mut users).iter().map(|name| name.to_lowercase()).collect();
        prop_assert_eq!(shown, model.keys().map(|name| String::from_utf8(key(name.as_bytes())).unwrap())
            .collect::<std::collections::BTreeSet<_>>().iter()
            .map(|key| String::from_utf8(Record::parse(key.as_bytes()).name).unwrap()).collect::<Vec<_>>());
        prop_assert!(main_text(dir.path()).starts_with("# first\n"));
    }
}

#[test]
fn what_can_wait_does_not_wait_for_another_writer() {
    let dir = folder();
    let users = Users::new(dir.path());
    let ann = || Ok::<_, ()>(Record { name: b"ann".to_vec(), stored: Secret::from(&b"*"[..]), ..Record::default() });
    let lock = users.lock().unwrap();
    let mut other = Users::new(dir.path());
    let fault = other.put_if_free(b"ann", |_| ann()).unwrap_err();
    assert_eq!(fault.source.kind(), io::ErrorKind::TimedOut);
    drop(lock);
    assert_eq!(other.put_if_free(b"ann", |_| ann()).unwrap(), Ok(true));
    assert!(other.find(b"ann").unwrap().record.is_some());
}
