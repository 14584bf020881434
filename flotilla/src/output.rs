//! What goes to standard output: plain words for people, or one JSON object per line for programs.
//! Also how bytes are shown in either.

use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

/// Standard output, and in which form it is wanted.
pub(crate) struct Output {
    json: bool,
    writer: BufWriter<Stdout>,
}

impl Output {
    /// Standard output as JSON or in words.
    pub(crate) fn new(json: bool) -> Self {
        let writer = BufWriter::new(io::stdout());
        Self { json, writer }
    }

    /// Whether JSON is wanted.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Writes one line: the object where JSON is wanted, else the words. Buffered.
    ///
    /// # Errors
    /// When standard output is gone.
    pub(crate) fn line(
        &mut self,
        object: impl FnOnce() -> Value,
        words: impl FnOnce() -> String,
    ) -> io::Result<()> {
        if self.json {
            serde_json::to_writer(&mut self.writer, &object())?;
            self.writer.write_all(b"\n")
        } else {
            writeln!(self.writer, "{}", words())
        }
    }

    /// Writes bytes exactly as they are. Buffered.
    ///
    /// # Errors
    /// When standard output is gone.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write_all(bytes)
    }

    /// Hands everything on to the reader.
    ///
    /// # Errors
    /// When standard output is gone.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// Whether standard output is read by a person.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Puts bytes into a JSON object: under `name` where they are UTF-8, else under `name_base64`.
pub(crate) fn insert_bytes(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.to_owned(), text.into()),
        Err(_) => object.insert(format!("{name}_base64"), STANDARD.encode(bytes).into()),
    };
}

/// Bytes on one line of text: UTF-8 stays as it is, what would break the line or steer a terminal
/// is written as an escape, and so is the backslash, so that the text can be read back.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                _ if letter.is_control() => text.extend(letter.escape_unicode()),
                _ => text.push(letter),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// Cells as lines whose columns stand below each other.
pub(crate) fn columns<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &[String; N]| {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        line.trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_on_one_line() {
        let shown = printable(b"a\tb\n\\ \x1b[0m \xc3\xa4 \xff");
        assert_eq!(shown, "a\\tb\\n\\\\ \\u{1b}[0m \u{e4} \\xff");
    }

    #[test]
    fn bytes_that_are_no_text_go_into_json_as_base64() {
        let mut object = Map::new();
        insert_bytes(&mut object, "key", b"plain");
        insert_bytes(&mut object, "value", b"\xff\x00");
        let expected = serde_json::json!({"key": "plain", "value_base64": "/wA="});
        assert_eq!(Value::Object(object), expected);
    }
}
