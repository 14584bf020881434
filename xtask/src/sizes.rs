//! Sizes and first lines: how long a line, a function and a file may be, and that files speak ASCII
//! and begin by saying what lives in them.

use crate::report::{Exceptions, Violation};
use crate::source::{SourceFile, find_name, is_word};

const LINE_COLUMNS_MAX: usize = 100;
const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 500;

/// What holds for every text.
pub(crate) fn check_text(file: &SourceFile) -> Vec<Violation> {
    let not_ascii = |raw: &str| raw.chars().find(|c| !c.is_ascii());
    file.numbered()
        .filter_map(|(number, line)| {
            let found = not_ascii(&line.raw)?;
            let what = format!("{found:?} (U+{:04X}) is not ASCII", u32::from(found));
            Some(Violation::new(&file.path, number, "ascii", what))
        })
        .collect()
}

/// What holds for Rust.
pub(crate) fn check(file: &SourceFile, exceptions: &mut Exceptions) -> Vec<Violation> {
    let mut violations = Vec::new();
    let begins = file
        .lines
        .first()
        .is_some_and(|line| line.raw.starts_with("//!"));
    if !begins {
        let what = "the file does not open with `//!` that says what lives here";
        violations.push(Violation::new(&file.path, 1, "head", what));
    }
    for (number, line) in file.numbered() {
        let columns = line.raw.chars().count();
        if columns > LINE_COLUMNS_MAX {
            let what = format!("{columns} columns are above the limit of {LINE_COLUMNS_MAX}");
            violations.push(Violation::new(&file.path, number, "columns", what));
        }
    }
    let lines = file.tests_from;
    if lines > FILE_LINES_MAX && !exceptions.allow("file-size", &file.path, "") {
        let what = format!("{lines} lines without tests are above the limit of {FILE_LINES_MAX}");
        violations.push(Violation::new(&file.path, 1, "file-size", what));
    }
    for function in functions(file) {
        let Function { name, line, lines } = &function;
        if *lines > FUNCTION_LINES_MAX && !exceptions.allow("function-size", &file.path, name) {
            let what = format!("fn {name} has {lines} lines, the limit is {FUNCTION_LINES_MAX}");
            violations.push(Violation::new(&file.path, *line, "function-size", what));
        }
    }
    violations
}

#[derive(Debug, PartialEq, Eq)]
struct Function {
    name: String,
    line: usize,
    lines: usize,
}

/// Every function with a body, from its `fn` to its last brace. Not those of tests, which may be
/// long tables.
fn functions(file: &SourceFile) -> Vec<Function> {
    let mut functions = Vec::new();
    for (index, line) in file.lines[..file.tests_from].iter().enumerate() {
        for column in find_name(&line.code, "fn ") {
            let rest = line.code[column + 3..].trim_start();
            let name: String = rest.chars().take_while(|c| is_word(*c)).collect();
            if name.is_empty() {
                continue;
            }
            if let Some(lines) = body_lines(file, index, column) {
                let line = index + 1;
                functions.push(Function { name, line, lines });
            }
        }
    }
    functions
}

/// The lines from a `fn` to its closing brace; none for a declaration without a body.
fn body_lines(file: &SourceFile, index: usize, column: usize) -> Option<usize> {
    let (mut braces, mut brackets) = (0_usize, 0_usize);
    for (count, line) in (1..).zip(&file.lines[index..]) {
        let skipped = if count == 1 { column } else { 0 };
        for c in line.code[skipped..].chars() {
            match c {
                '(' | '[' => brackets += 1,
                ')' | ']' => brackets = brackets.saturating_sub(1),
                '{' => braces += 1,
                '}' if braces == 1 => return Some(count),
                '}' => braces = braces.saturating_sub(1),
                ';' if braces == 0 && brackets == 0 => return None,
                _ => {}
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(path: &str, text: &str) -> Vec<String> {
        let file = SourceFile::new(path, text);
        let mut found = check(&file, &mut Exceptions::of(&[]));
        found.extend(check_text(&file));
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_file_opens_by_saying_what_lives_in_it() {
        assert_eq!(rules("a/src/lib.rs", "//! Things.\n"), [] as [&str; 0]);
        let found = rules("a/src/lib.rs", "// Things.\n");
        assert!(found[0].starts_with("a/src/lib.rs:1: head: "), "{found:?}");
        assert_eq!(rules("a/src/lib.rs", "").len(), 1);
    }

    #[test]
    fn long_lines_and_other_alphabets_are_reported() {
        let good = format!("//! x\n//{}\n", "y".repeat(98));
        assert_eq!(rules("a/src/lib.rs", &good), [] as [&str; 0]);
        let long = format!("//! x\n//{}\n", "y".repeat(99));
        let found = rules("a/src/lib.rs", &long);
        assert_eq!(
            found,
            ["a/src/lib.rs:2: columns: 101 columns are above the limit of 100"]
        );
        let found = rules("a/src/lib.rs", "//! x\n// \u{2264}\n");
        assert_eq!(
            found,
            ["a/src/lib.rs:2: ascii: '\u{2264}' (U+2264) is not ASCII"]
        );
    }

    #[test]
    fn tests_do_not_count_towards_the_size_of_a_file() {
        let product = |lines: usize| format!("//! x\n{}", "\n".repeat(lines - 1));
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "\n".repeat(300));
        assert_eq!(
            rules("a/src/lib.rs", &(product(500) + &tests)),
            [] as [&str; 0]
        );
        let found = rules("a/src/lib.rs", &product(501));
        assert!(
            found[0].contains("file-size: 501 lines without tests"),
            "{found:?}"
        );
        assert_eq!(rules("a/tests/it/main.rs", &product(900)), [] as [&str; 0]);
    }

    #[test]
    fn a_long_function_is_named() {
        let function = |lines: usize| {
            let body = "    x(\"}\");\n".repeat(lines - 2);
            format!("//! x\nfn before(f: fn(u8)) {{}}\nfn long() {{\n{body}}}\nfn after();\n")
        };
        assert_eq!(rules("a/src/lib.rs", &function(70)), [] as [&str; 0]);
        let found = rules("a/src/lib.rs", &function(71));
        let expected = "a/src/lib.rs:3: function-size: fn long has 71 lines, the limit is 70";
        assert_eq!(found, [expected]);
        assert_eq!(rules("a/tests/it/main.rs", &function(71)), [] as [&str; 0]);
    }

    #[test]
    fn an_array_type_does_not_end_a_signature() {
        let file = SourceFile::new(
            "a/src/lib.rs",
            "//! x\nfn f(a: [u8; 2]) -> [u8; 2] {\n    a\n}\n",
        );
        let found = functions(&file);
        assert_eq!(found[0].lines, 3);
    }
}
