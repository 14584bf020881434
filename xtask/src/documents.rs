//! Decision records have a shape: a title, and what we gave up.

use crate::report::Violation;
use crate::source::SourceFile;

const DIRECTORY: &str = "docs/decisions/";
const PRICE: &str = "## What we gave up";

pub(crate) fn check(file: &SourceFile) -> Vec<Violation> {
    let Some(name) = file.path.strip_prefix(DIRECTORY) else {
        return Vec::new();
    };
    if !name.ends_with(".md") {
        return Vec::new();
    }
    let mut violations = Vec::new();
    let mut report = |line, what: &str| {
        violations.push(Violation::new(&file.path, line, "decision", what));
    };
    let number = name.get(..5).unwrap_or_default();
    if !number.ends_with('-') || !number.starts_with(|c: char| c.is_ascii_digit()) {
        report(1, "its name does not begin with four digits and a dash");
    }
    let titled = file
        .lines
        .first()
        .is_some_and(|line| line.raw.starts_with("# "));
    if !titled {
        report(1, "it does not begin with a title");
    }
    let price = file.lines.iter().position(|line| line.raw == PRICE);
    let said = |at: usize| {
        file.lines[at + 1..]
            .iter()
            .any(|line| !line.raw.trim().is_empty())
    };
    if !price.is_some_and(said) {
        report(
            file.lines.len().max(1),
            "it does not say what we gave up (`## What we gave up`)",
        );
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(path: &str, text: &str) -> usize {
        check(&SourceFile::new(path, text)).len()
    }

    #[test]
    fn a_decision_has_a_title_and_a_price() {
        let good = "# 0001 A choice\n\nBecause.\n\n## What we gave up\n\nSpeed.\n";
        assert_eq!(count("docs/decisions/0001-choice.md", good), 0);
        assert_eq!(count("docs/decisions/choice.md", good), 1);
        assert_eq!(count("docs/decisions/0001-choice.md", "Because.\n"), 2);
        let empty = "# A choice\n\n## What we gave up\n\n";
        assert_eq!(count("docs/decisions/0001-choice.md", empty), 1);
        assert_eq!(count("docs/protocol.md", "anything\n"), 0);
    }
}
