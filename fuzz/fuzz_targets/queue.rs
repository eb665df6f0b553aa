//! Whatever lies in the queue under a message's name: it is a message, or damaged and set aside; what it lists can be asked for,
//! and a change of it is noted and read again.
#![no_main]

use dmail::store::delivery::Body;
use dmail::store::queue::{Change, Envelope, Kind, Queue, Recipient, Stage, State};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let dir = std::env::temp_dir().join(format!("dmail-fuzz-queue-{}", std::process::id()));
    drop(std::fs::remove_dir_all(&dir));
    std::fs::create_dir_all(&dir).unwrap();
    let queue = Queue::open(&dir).unwrap();
    // The first bytes say what becomes of a whole message: kept, cut, put something in.
    let (plan, rest) = data.split_at(data.len().min(3));
    let path = dir.join("queue/A1");
    let mut bytes = rest.to_vec();
    if let [how, at, more] = *plan
        && how % 2 == 1
    {
        let to = Recipient {
            kind: Kind::Local,
            address: "bob@example.com".to_owned(),
            with: Vec::new(),
            notify: None,
            orcpt: None,
        };
        queue.create("A1", &Envelope::default(), &[to.clone(), to], &Body::Memory(b"a: b\n\nc\n")).unwrap();
        let held = Change { number: 1, to: State::Held { why: "x".to_owned() } };
        queue.note("A1", 0, &[held]).unwrap();
        bytes = std::fs::read(&path).unwrap();
        let at = (usize::from(at) * 2).min(bytes.len());
        let end = (at + usize::from(more)).min(bytes.len());
        bytes.splice(at..end, rest.iter().copied());
    }
    std::fs::write(&path, &bytes).unwrap();
    if let Ok(message) = queue.read("A1") {
        let rows = queue.page("A1", 1, u32::MAX).unwrap();
        assert_eq!(rows.len(), message.recipients as usize);
        assert_eq!(message.tally.by_stage.iter().sum::<u32>(), message.recipients);
        assert_eq!(queue.beginning("A1", usize::MAX).unwrap().len() as u64, message.text_bytes);
        let last = rows.last().unwrap();
        let noted = queue.note("A1", 1, &[Change { number: last.number, to: State::Deleted }]).unwrap();
        let stage = queue.page("A1", last.number, 1).unwrap()[0].state.stage();
        assert_eq!(stage == Stage::Deleted, noted.refused.is_empty());
        queue.told("A1", 2).unwrap();
    }
    queue.each(&mut |_| {}).unwrap();
});
