//! The numbered invariants are listed where they can be read (`docs/protocol.md`), and checked
//! where they can fail: those of one node in the protocol, those between nodes in the simulator.
//! What is listed is checked, what is checked is listed, and the simulator uses the same words.

use std::collections::BTreeMap;

use crate::report::Violation;
use crate::source::SourceFile;

const LIST: &str = "docs/protocol.md";
const OF_ONE_NODE: &str = "raft-core/src/protocol/invariants.rs";
const BETWEEN_NODES: &str = "sim/src/violation.rs";

/// Where a number is, and what is said there; nothing where only the number is.
type Numbers = BTreeMap<u32, (usize, String)>;

pub(crate) fn check(files: &[SourceFile]) -> Vec<Violation> {
    let find = |path: &str| files.iter().find(|file| file.path == path);
    let Some(list) = find(LIST) else {
        return Vec::new();
    };
    let mut violations = Vec::new();
    let listed = listed(list, &mut violations);
    let mut checked = Numbers::new();
    for (path, read) in [
        (OF_ONE_NODE, named as fn(&SourceFile) -> Numbers),
        (BETWEEN_NODES, tabled),
    ] {
        for (number, (line, words)) in find(path).map(read).unwrap_or_default() {
            let mut report = |what: String| {
                violations.push(Violation::new(path, line, "invariant", what));
            };
            match listed.get(&number) {
                None => report(format!("INV-{number} is not listed in {LIST}")),
                Some((_, listed)) if !words.is_empty() && *listed != words => {
                    report(format!("INV-{number} is worded otherwise in {LIST}"));
                }
                Some(_) => {}
            }
            if checked.insert(number, (line, words)).is_some() {
                report(format!("INV-{number} is checked as two invariants"));
            }
        }
    }
    for (number, (line, _)) in listed.iter().filter(|(n, _)| !checked.contains_key(n)) {
        let what = format!("INV-{number} is checked neither in {OF_ONE_NODE} nor by the simulator");
        violations.push(Violation::new(LIST, *line, "invariant", what));
    }
    violations
}

/// Rows `| INV-n | what always holds |`.
fn listed(file: &SourceFile, violations: &mut Vec<Violation>) -> Numbers {
    let mut numbers = Numbers::new();
    for (at, line) in file.lines.iter().enumerate() {
        let mut cells = line.raw.split('|').map(str::trim);
        let number = cells.nth(1).and_then(|cell| cell.strip_prefix("INV-"));
        let Some(number) = number.and_then(|digits| digits.parse().ok()) else {
            continue;
        };
        let words = cells.next().unwrap_or_default().to_owned();
        if numbers.insert(number, (at + 1, words)).is_some() {
            let what = format!("INV-{number} is listed twice");
            violations.push(Violation::new(LIST, at + 1, "invariant", what));
        }
    }
    numbers
}

/// Every `INV-n` in the text of a file.
fn named(file: &SourceFile) -> Numbers {
    let mut numbers = Numbers::new();
    for (at, line) in file.lines.iter().enumerate() {
        for part in line.raw.split("INV-").skip(1) {
            let end = part.find(|c: char| !c.is_ascii_digit());
            if let Ok(number) = part[..end.unwrap_or(part.len())].parse() {
                numbers.entry(number).or_insert((at + 1, String::new()));
            }
        }
    }
    numbers
}

/// The pairs `(n, "what always holds")` of the table `INVARIANTS`, however they are wrapped.
fn tabled(file: &SourceFile) -> Numbers {
    let mut numbers = Numbers::new();
    let mut pending = None;
    let lines = file.lines.iter().enumerate();
    let table = lines.skip_while(|(_, line)| !line.raw.contains("const INVARIANTS"));
    let table = table
        .skip(1)
        .take_while(|(_, line)| line.raw.trim() != "];");
    for (at, line) in table {
        let text = line.raw.trim().trim_start_matches('(');
        let (head, words) = text.split_once('"').unwrap_or((text, ""));
        if let Ok(number) = head.trim().trim_end_matches(',').parse() {
            pending = Some((number, at + 1));
        }
        let words = words.rsplit_once('"').map_or("", |(words, _)| words);
        if let Some((number, line)) = pending.filter(|_| !words.is_empty()) {
            numbers.insert(number, (line, words.to_owned()));
            pending = None;
        }
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "| INV-1 | Terms grow. |\n| INV-20 | One leader. |\n";
    const NODE: &str = "assert!(grows, \"INV-1: it fell\");\n";
    const TABLE: &str =
        "pub const INVARIANTS: &[(u32, &str)] = &[\n    (20, \"One leader.\"),\n];\n";

    fn count(document: &str, node: &str, table: &str) -> usize {
        let files = [
            (LIST, document),
            (OF_ONE_NODE, node),
            (BETWEEN_NODES, table),
        ];
        check(&files.map(|(path, text)| SourceFile::new(path, text))).len()
    }

    #[test]
    fn what_is_listed_is_checked_and_the_other_way_round() {
        assert_eq!(count(DOCUMENT, NODE, TABLE), 0);
        assert_eq!(count("", NODE, TABLE), 2, "not listed");
        assert_eq!(count(DOCUMENT, "", TABLE), 1, "not checked");
        assert_eq!(count(DOCUMENT, NODE, ""), 1, "not checked");
        let twice = format!("{DOCUMENT}| INV-1 | Again. |\n");
        assert_eq!(count(&twice, NODE, TABLE), 1, "listed twice");
        let both = format!("{NODE}// INV-20\n");
        assert_eq!(count(DOCUMENT, &both, TABLE), 1, "one number for two");
    }

    #[test]
    fn the_simulator_says_it_in_the_same_words() {
        let wrapped = TABLE.replace("(20, ", "(\n        20,\n        ");
        assert_eq!(count(DOCUMENT, NODE, &wrapped), 0);
        let other = TABLE.replace("One", "A");
        assert_eq!(count(DOCUMENT, NODE, &other), 1);
    }
}
