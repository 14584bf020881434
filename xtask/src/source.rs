//! Files and their lines, taken apart into code and comments. A scanner, not a parser: it knows
//! strings, characters and comments, which is what it takes not to find a word where it means
//! nothing.

use std::io;
use std::path::Path;

/// Directories that are nobody's source.
const SKIPPED_DIRECTORIES: &[&str] = &["target", "flotilla-data", "node_modules"];

/// Directories of tests; what is in them is not part of the product.
const TEST_DIRECTORIES: &[&str] = &["tests", "benches", "testing"];

/// A file of text.
#[derive(Debug)]
pub(crate) struct SourceFile {
    /// Relative to the root, with `/`.
    pub(crate) path: String,
    pub(crate) lines: Vec<Line>,
    /// The index of the first line of its tests: the number of lines when it has none, 0 when it is
    /// nothing but tests.
    pub(crate) tests_from: usize,
}

/// A line, taken apart. All three have the same columns.
#[derive(Debug)]
pub(crate) struct Line {
    /// As it is.
    pub(crate) raw: String,
    /// Without comments and without the insides of strings and characters.
    pub(crate) code: String,
    /// The comments alone.
    pub(crate) comment: String,
}

impl SourceFile {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let is_rust = path.ends_with(".rs");
        let lines = if is_rust { scan(text) } else { plain(text) };
        let tests_from = if is_test_path(path) {
            0
        } else {
            tests_from(&lines)
        };
        Self {
            path: path.to_owned(),
            lines,
            tests_from,
        }
    }

    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// The folder of the crate.
    pub(crate) fn crate_name(&self) -> &str {
        self.path.split('/').next().unwrap_or_default()
    }

    /// Every line with its number, from 1.
    pub(crate) fn numbered(&self) -> impl Iterator<Item = (usize, &Line)> {
        (1..).zip(&self.lines)
    }

    /// The lines that are not tests.
    pub(crate) fn product(&self) -> impl Iterator<Item = (usize, &Line)> {
        self.numbered().take(self.tests_from)
    }

    /// The lines that are tests.
    pub(crate) fn tests(&self) -> impl Iterator<Item = (usize, &Line)> {
        self.numbered().skip(self.tests_from)
    }
}

fn is_test_path(path: &str) -> bool {
    let mut parts: Vec<&str> = path.split('/').collect();
    let name = parts.pop().unwrap_or_default();
    name == "tests.rs"
        || name.ends_with("_tests.rs")
        || parts.iter().any(|part| TEST_DIRECTORIES.contains(part))
}

/// The first `#[cfg(test)]` that opens a module here. One before `use` or `mod tests;` opens
/// nothing.
fn tests_from(lines: &[Line]) -> usize {
    let opens_module = |index: &usize| {
        let code = |at: usize| lines.get(at).map_or("", |line| line.code.trim());
        let gate = code(*index);
        if !gate.starts_with("#[cfg(test") && !gate.starts_with("#[cfg(all(test") {
            return false;
        }
        let mut next = index + 1;
        while code(next).starts_with("#[") {
            next += 1;
        }
        let item = code(next).trim_start_matches("pub(crate) ");
        item.starts_with("mod ") && item.ends_with('{')
    };
    (0..lines.len()).find(opens_module).unwrap_or(lines.len())
}

fn plain(text: &str) -> Vec<Line> {
    let line = |raw: &str| Line {
        raw: raw.to_owned(),
        code: raw.to_owned(),
        comment: String::new(),
    };
    text.lines().map(line).collect()
}

/// Where the scanner is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Code,
    LineComment,
    /// Block comments nest.
    BlockComment(usize),
    Text,
    /// A raw string and the number of `#` that end it.
    RawText(usize),
}

fn scan(text: &str) -> Vec<Line> {
    let mut place = Place::Code;
    let mut lines = Vec::new();
    for raw in text.lines() {
        if place == Place::LineComment {
            place = Place::Code;
        }
        let (line, end) = scan_line(raw, place);
        lines.push(line);
        place = end;
    }
    lines
}

fn scan_line(raw: &str, mut place: Place) -> (Line, Place) {
    let chars: Vec<char> = raw.chars().collect();
    let mut code = String::with_capacity(raw.len());
    let mut comment = String::with_capacity(raw.len());
    let mut at = 0;
    while at < chars.len() {
        let (width, next, kind) = token(&chars, at, place);
        for shown in &chars[at..(at + width).min(chars.len())] {
            code.push(if kind == Kind::Code { *shown } else { ' ' });
            comment.push(if kind == Kind::Comment { *shown } else { ' ' });
        }
        (at, place) = (at + width, next);
    }
    let raw = raw.to_owned();
    (Line { raw, code, comment }, place)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Code,
    Comment,
    Inside,
}

/// The piece at a position: its width, where the scanner is behind it, and what it is.
fn token(chars: &[char], at: usize, place: Place) -> (usize, Place, Kind) {
    let pair = (chars[at], chars.get(at + 1).copied().unwrap_or(' '));
    match (place, pair) {
        (Place::Code, ('/', '/')) => (2, Place::LineComment, Kind::Comment),
        (Place::Code, ('/', '*')) => (2, Place::BlockComment(1), Kind::Comment),
        (Place::Code, ('"', _)) => (1, Place::Text, Kind::Code),
        (Place::Code, ('r', '"' | '#')) if !is_part_of_word(chars, at) => raw_text(chars, at),
        (Place::Code, ('b' | 'c', 'r')) if !is_part_of_word(chars, at) => {
            let (width, next, kind) = raw_text(chars, at + 1);
            (width + 1, next, kind)
        }
        (Place::Code, ('\'', _)) => character(chars, at),
        (Place::Code, _) => (1, Place::Code, Kind::Code),
        (Place::LineComment, _) => (1, place, Kind::Comment),
        (Place::BlockComment(depth), ('/', '*')) => {
            (2, Place::BlockComment(depth + 1), Kind::Comment)
        }
        (Place::BlockComment(1), ('*', '/')) => (2, Place::Code, Kind::Comment),
        (Place::BlockComment(depth), ('*', '/')) => {
            (2, Place::BlockComment(depth - 1), Kind::Comment)
        }
        (Place::BlockComment(_), _) => (1, place, Kind::Comment),
        (Place::Text, ('\\', _)) => (2, place, Kind::Inside),
        (Place::Text, ('"', _)) => (1, Place::Code, Kind::Code),
        (Place::RawText(hashes), ('"', _)) => {
            let end = &chars[at + 1..];
            if end.len() >= hashes && end[..hashes].iter().all(|end| *end == '#') {
                (1 + hashes, Place::Code, Kind::Code)
            } else {
                (1, place, Kind::Inside)
            }
        }
        (Place::Text | Place::RawText(_), _) => (1, place, Kind::Inside),
    }
}

fn is_part_of_word(chars: &[char], at: usize) -> bool {
    at.checked_sub(1)
        .is_some_and(|before| is_word(chars[before]))
}

/// At an `r`: the opening of a raw string, or a raw identifier or plain word.
fn raw_text(chars: &[char], at: usize) -> (usize, Place, Kind) {
    let hashes = chars[at + 1..]
        .iter()
        .take_while(|hash| **hash == '#')
        .count();
    if chars.get(at + 1 + hashes) == Some(&'"') {
        (2 + hashes, Place::RawText(hashes), Kind::Code)
    } else {
        (1, Place::Code, Kind::Code)
    }
}

/// At a `'`: a character is taken whole, a lifetime is code.
fn character(chars: &[char], at: usize) -> (usize, Place, Kind) {
    let width = match (chars.get(at + 1), chars.get(at + 2)) {
        (Some('\\'), _) => {
            // The escaped character itself may be a quote.
            let rest = chars.get(at + 3..).unwrap_or_default();
            rest.iter().position(|end| *end == '\'').map(|end| end + 4)
        }
        (Some(_), Some('\'')) => Some(3),
        _ => None,
    };
    match width {
        Some(width) => (width, Place::Code, Kind::Inside),
        None => (1, Place::Code, Kind::Code),
    }
}

/// Whether a character can be part of a name.
pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The columns at which `name` stands in `code` as a whole word or path, not as a part of one.
pub(crate) fn find_name<'a>(code: &'a str, name: &'a str) -> impl Iterator<Item = usize> + 'a {
    let first_is_word = name.starts_with(is_word);
    let last_is_word = name.ends_with(is_word);
    code.match_indices(name).filter_map(move |(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + name.len()..].chars().next();
        let inside = (first_is_word && before.is_some_and(is_word))
            || (last_is_word && after.is_some_and(is_word));
        (!inside).then_some(at)
    })
}

/// A `use` declaration, one path of it, with braces expanded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Import {
    pub(crate) line: usize,
    /// `std`, `fs`, `File`; a rename is left out, a glob is `*`.
    pub(crate) path: Vec<String>,
    /// The name that it brings: the last segment or what it is renamed to.
    pub(crate) name: String,
    /// Whether it is passed on to others.
    pub(crate) is_public: bool,
}

/// The imports of the product part of a file.
pub(crate) fn imports(file: &SourceFile) -> Vec<Import> {
    let mut imports = Vec::new();
    let mut open: Option<(usize, bool, String)> = None;
    for (number, line) in file.product() {
        let code = line.code.trim();
        if open.is_none() {
            let (is_public, rest) = without_visibility(code);
            if let Some(tree) = rest.strip_prefix("use ") {
                open = Some((number, is_public, tree.to_owned()));
            }
        } else if let Some((_, _, tree)) = &mut open {
            tree.push_str(code);
        }
        if let Some((number, is_public, tree)) = open.take_if(|(_, _, tree)| tree.contains(';')) {
            let tree = tree.split(';').next().unwrap_or_default();
            expand(tree, &[], &mut |path, name| {
                imports.push(Import {
                    line: number,
                    path,
                    name,
                    is_public,
                });
            });
        }
    }
    imports
}

fn without_visibility(code: &str) -> (bool, &str) {
    let Some(rest) = code.strip_prefix("pub") else {
        return (false, code);
    };
    let rest = rest.trim_start();
    let rest = match rest.strip_prefix('(') {
        Some(scope) => scope.split_once(')').map_or(rest, |(_, rest)| rest),
        None => rest,
    };
    (true, rest.trim_start())
}

fn expand(tree: &str, prefix: &[String], found: &mut impl FnMut(Vec<String>, String)) {
    let tree = tree.trim();
    if let Some(inside) = tree
        .strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'))
    {
        for part in split_top_level(inside) {
            expand(part, prefix, found);
        }
        return;
    }
    let brace = tree.find('{').unwrap_or(tree.len());
    let (plain, group) = tree.split_at(brace);
    let (plain, rename) = plain.split_once(" as ").unwrap_or((plain, ""));
    let segments = plain
        .split("::")
        .map(str::trim)
        .filter(|segment| !segment.is_empty());
    let mut path = prefix.to_vec();
    path.extend(segments.map(str::to_owned));
    if !group.is_empty() {
        expand(group, &path, found);
        return;
    }
    if path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    let last = path.last().cloned().unwrap_or_default();
    let name = if rename.is_empty() {
        last
    } else {
        rename.trim().to_owned()
    };
    if !path.is_empty() {
        found(path, name);
    }
}

fn split_top_level(list: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0_usize, 0);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&list[start..]);
    parts.retain(|part| !part.trim().is_empty());
    parts
}

/// Every file under `root` that a rule is about, ordered by path.
pub(crate) fn collect(root: &Path) -> io::Result<Vec<SourceFile>> {
    let mut files = Vec::new();
    let mut directories = vec![root.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type()?;
            if kind.is_dir() {
                let skipped = SKIPPED_DIRECTORIES.contains(&name.as_str());
                if !skipped && !name.starts_with('.') {
                    directories.push(entry.path());
                }
            } else if kind.is_file() && is_source(&name) {
                let path = entry.path();
                let relative = path.strip_prefix(root).unwrap_or(&path).to_string_lossy();
                let relative = relative.replace('\\', "/");
                let text = String::from_utf8_lossy(&std::fs::read(&path)?).into_owned();
                files.push(SourceFile::new(&relative, &text));
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn is_source(name: &str) -> bool {
    let by_ending = [".rs", ".toml", ".md", ".sh"];
    name == "Makefile" || by_ending.iter().any(|ending| name.ends_with(ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> Vec<String> {
        let lines = SourceFile::new("a/src/lib.rs", text).lines;
        lines
            .iter()
            .map(|line| line.code.trim_end().to_owned())
            .collect()
    }

    #[test]
    fn strings_characters_and_comments_are_not_code() {
        let text = concat!(
            "let a = \"tokio \\\" // no\"; // tokio\n",
            "let b = 'x'; let c: &'static str = r#\"tokio \"quoted\" \"#;\n",
            "let d = '\\''; /* tokio /* nested */ still */ let e = b\"tokio\";\n",
            "let f = \"first\n second\"; f(r\"raw\\\"); g('\"', br#\"x\"#);\n",
        );
        let found = code(text);
        assert!(
            found.iter().all(|line| !line.contains("tokio")),
            "{found:?}"
        );
        assert!(
            found[0].starts_with("let a = \"") && found[0].ends_with(';'),
            "{found:?}"
        );
        assert!(found[1].contains("&'static str"), "{found:?}");
        assert!(found[2].contains("let e = b\""), "{found:?}");
        assert!(
            found[4].contains("f(r\"") && found[4].ends_with("\"#);"),
            "{found:?}"
        );
    }

    #[test]
    fn comments_are_kept_apart() {
        let file = SourceFile::new(
            "a/src/lib.rs",
            "let a = \"x // y\"; // why\n/* one\ntwo */ b();\n",
        );
        let comments: Vec<&str> = file.lines.iter().map(|line| line.comment.trim()).collect();
        assert_eq!(comments, ["// why", "/* one", "two */"]);
        assert_eq!(file.lines[2].code.trim(), "b();");
    }

    #[test]
    fn tests_begin_at_the_gated_module_and_not_at_a_gated_import() {
        let text = "//! x\n#[cfg(test)]\nuse a::B;\nfn f() {}\n#[cfg(test)]\nmod tests {\n}\n";
        assert_eq!(SourceFile::new("a/src/lib.rs", text).tests_from, 4);
        assert_eq!(SourceFile::new("a/tests/it/main.rs", text).tests_from, 0);
        assert_eq!(SourceFile::new("a/src/testing/x.rs", text).tests_from, 0);
        assert_eq!(SourceFile::new("a/src/crash_tests.rs", text).tests_from, 0);
        assert_eq!(SourceFile::new("a/src/lib.rs", "fn f() {}\n").tests_from, 1);
    }

    #[test]
    fn names_are_found_whole() {
        let at = |code: &str, name: &str| find_name(code, name).collect::<Vec<_>>();
        assert_eq!(at("rand::x(operand, rand)", "rand"), [0, 17]);
        assert_eq!(
            at("use async_trait::async_trait;", "async"),
            [] as [usize; 0]
        );
        assert_eq!(at("x.await?; y.awaited()", ".await"), [1]);
        assert_eq!(at("std::fs::File; std::fsx", "std::fs"), [0]);
    }

    #[test]
    fn imports_are_expanded() {
        let text = concat!(
            "use std::{fs, io::{self, Read as R}};\n",
            "pub(crate) use super::a::{\n    B,\n    c::*,\n};\n",
            "pub use x::Y;\n#[cfg(test)]\nmod tests {\n    use q::Z;\n}\n",
        );
        let found = imports(&SourceFile::new("a/src/lib.rs", text));
        let shown: Vec<String> = found
            .iter()
            .map(|import| {
                let marker = if import.is_public { "pub " } else { "" };
                format!(
                    "{marker}{} {} {}",
                    import.line,
                    import.path.join("::"),
                    import.name
                )
            })
            .collect();
        let expected = [
            "1 std::fs fs",
            "1 std::io io",
            "1 std::io::Read R",
            "pub 2 super::a::B B",
            "pub 2 super::a::c::* *",
            "pub 6 x::Y Y",
        ];
        assert_eq!(shown, expected);
    }
}
