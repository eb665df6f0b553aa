//! What an enhanced code means, for people who have never seen one: what is so, and what they can do.
//!
//! The class (for good, or for now) is said elsewhere: the words fit both.

/// What is so, and what the sender can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Words {
    /// A sentence.
    pub what: &'static str,
    /// The same; empty: nothing.
    pub help: &'static str,
}

/// By subject and detail; a detail of `None` stands for all others of that subject.
const TABLE: &[(u16, Option<u16>, &str, &str)] = &[
    (1, Some(1), "There is no mailbox of that name.", "Look whether the part before the @ is written as it should be."),
    (1, Some(2), "The part behind the @ leads to no mail server.", "Look whether it is written as it should be."),
    (1, Some(3), "This is not written as an address is.", "Look for a blank or a letter too many."),
    (1, Some(6), "The mailbox has moved, and where to is not known.", "Ask for the new address in another way."),
    (1, Some(8), "The server there does not take mail from your address.", "Ask your postmaster."),
    (1, Some(10), "Who owns the part behind the @ takes no mail at all there.", "Ask for another address."),
    (1, None, "The address leads nowhere.", "Look whether it is written as it should be."),
    (2, Some(1), "The mailbox takes no mail at present.", "Ask its owner in another way."),
    (2, Some(2), "The mailbox is full.", "Send it again when its owner has made room."),
    (
        2,
        Some(3),
        "The message is bigger than the mailbox may take.",
        "Send less, or only say where the rest can be found.",
    ),
    (2, Some(4), "The address is a list that could not be passed on.", "Ask the owner of the list."),
    (2, None, "The mailbox could not take it.", "Send it again later, or ask its owner in another way."),
    (
        3,
        Some(4),
        "The message is bigger than the server may take.",
        "Send less, or only say where the rest can be found.",
    ),
    (3, None, "The server has trouble of its own.", "Send it again later; tell its postmaster if that lasts."),
    (4, Some(1), "The server there does not answer.", "Send it again later, or ask in another way."),
    (
        4,
        Some(4),
        "It is not known which server takes mail there.",
        "Look at the part behind the @, or send it again later.",
    ),
    (4, Some(6), "The message went round in circles.", "Tell the postmaster: an address leads back to itself."),
    (4, Some(7), "It took too long.", "Send it again later, or ask in another way."),
    (4, None, "The way to the server there is disturbed.", "Send it again later, or ask in another way."),
    (5, Some(3), "There are too many recipients.", "Send it to fewer at a time."),
    (5, None, "The two servers did not understand each other.", "Tell the postmaster what you find below."),
    (
        6,
        Some(7),
        "The address has letters that the server there does not know.",
        "Ask for an address of plain letters.",
    ),
    (6, None, "The server there does not take what is in the message.", "Send it in a plainer form."),
    (7, Some(1), "The server there refuses the message.", "Its reason below may say what it does not like."),
    (7, None, "The rules of the server there do not allow it.", "Its reason below may say what it does not like."),
];

const UNKNOWN: Words = Words { what: "What is wrong is not known.", help: "The reason below is all that was said." };

/// Words for an enhanced code, its class left out.
pub fn words(subject: u16, detail: u16) -> Words {
    let found = TABLE.iter().find(|(for_subject, for_detail, ..)| {
        *for_subject == subject && for_detail.is_none_or(|for_detail| for_detail == detail)
    });
    found.map_or(UNKNOWN, |&(_, _, what, help)| Words { what, help })
}

/// Words for no code.
pub fn unknown() -> Words {
    UNKNOWN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_words_and_each_row_is_reached() {
        let mut seen = Vec::new();
        for subject in 0..10 {
            for detail in 0..40 {
                let words = words(subject, detail);
                assert!(words.what.ends_with('.') && words.help.ends_with('.'));
                seen.push(words.what);
            }
        }
        for (.., what, _) in TABLE {
            assert!(seen.contains(what), "{what}");
        }
        assert_eq!(words(1, 1).what, "There is no mailbox of that name.");
        assert_eq!((words(1, 99), words(0, 0)), (words(1, 0), unknown()));
    }
}
