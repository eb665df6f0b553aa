//! The nearest known name to one that is not known: for `dmail check`, and wherever a person types a word of ours.

/// Longer words get no suggestion: nothing of ours is that long, and the work stays bounded whatever a file holds.
const LONGEST: usize = 64;

/// The known name a typist most likely meant, or `None` when nothing is near. Case and `-` for `_` cost nothing.
pub fn nearest<'n>(typed: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    if typed.len() > LONGEST {
        return None;
    }
    let typed = plain(typed);
    // A third of the word may be wrong; a short word that differs in two places is another word.
    let allowed = (typed.len() / 3).clamp(1, 4);
    known
        .into_iter()
        .map(|name| (distance(&typed, &plain(name)), name))
        .filter(|&(distance, _)| distance <= allowed)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, name)| name)
}

fn plain(name: &str) -> Vec<char> {
    name.chars().map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }).collect()
}

/// How many letters must be put in, left out, changed or swapped with their neighbour (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let changed = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = changed.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["pop_port", "pops_port", "drop_path", "work_path", "host_domain", "authent_process"];

    #[test]
    fn slips_of_the_finger_find_the_name_that_was_meant() {
        for (typed, meant) in [
            ("pop_prot", Some("pop_port")),
            ("POP-PORT", Some("pop_port")),
            ("popport", Some("pop_port")),
            ("droppath", Some("drop_path")),
            ("hostdomain", Some("host_domain")),
            ("host_domains", Some("host_domain")),
            ("authent_proces", Some("authent_process")),
            ("bananas", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, KNOWN.iter().copied()), meant, "{typed}");
        }
        assert_eq!(nearest(&"p".repeat(1 << 20), KNOWN.iter().copied()), None);
    }

    #[test]
    fn a_distance_is_the_same_from_either_side() {
        for (a, b, expected) in [("", "", 0), ("", "abc", 3), ("ab", "ba", 1), ("kitten", "sitting", 3), ("a", "b", 1)]
        {
            let (a, b) = (plain(a), plain(b));
            assert_eq!((distance(&a, &b), distance(&b, &a)), (expected, expected));
        }
    }
}
