//! Reads an .ndjson file: one key per line, as `{"key","value"}`, or with `key_base64` and
//! `value_base64` for bytes that are no text. What else is in an object is ignored, so that the
//! output of `flotilla scan --json` can be read.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kv_client::limits::{check_key, check_value};
use serde::Deserialize;

use super::feed::{Closed, Feeder};
use crate::exit::Failure;

/// Bytes of a line: the largest value with every byte as a six-letter escape, and room for the key.
const LINE_BYTES_MAX: u64 = 8 << 20;

/// Lines between two reports of how far the file has been read.
const LINES_PER_POSITION: u64 = 64;

#[derive(Deserialize)]
struct Line {
    key: Option<String>,
    key_base64: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
}

/// Feeds every line.
///
/// # Errors
/// When the file cannot be opened or read.
pub(super) fn feed(path: &Path, prefix: &[u8], feeder: &Feeder) -> Result<(), Failure> {
    let failed = |error| Failure::usage(format!("cannot read {}: {error}", path.display()));
    let file = File::open(path).map_err(failed)?;
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut line = Vec::new();
    let (mut number, mut position) = (0_u64, 0_u64);
    loop {
        line.clear();
        let (read, whole) = read_line(&mut reader, &mut line).map_err(failed)?;
        if read == 0 {
            return Ok(());
        }
        (number, position) = (number + 1, position + read);
        let told = if whole {
            feed_line(number, &line, prefix, feeder)
        } else {
            let why = format!("it is longer than the limit of {LINE_BYTES_MAX} bytes");
            feeder.skipped(name(number), why)
        };
        let told = match told {
            Ok(()) if number.is_multiple_of(LINES_PER_POSITION) => feeder.position(position),
            told => told,
        };
        if told == Err(Closed) {
            return Ok(());
        }
    }
}

fn name(number: u64) -> String {
    format!("line {number}")
}

fn feed_line(number: u64, line: &[u8], prefix: &[u8], feeder: &Feeder) -> Result<(), Closed> {
    if line.trim_ascii().is_empty() {
        return Ok(());
    }
    let (mut key, value) = match parse(line) {
        Ok(parsed) => parsed,
        Err(why) => return feeder.skipped(name(number), why),
    };
    key.splice(0..0, prefix.iter().copied());
    if let Err(error) = check_key(&key).and_then(|()| check_value(&value)) {
        return feeder.skipped(name(number), error);
    }
    let room = feeder.room(key.len() + value.len())?;
    feeder.item(key, value, room)
}

fn parse(line: &[u8]) -> Result<(Vec<u8>, Vec<u8>), String> {
    let line: Line = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let key = bytes_of("key", line.key, line.key_base64)?;
    let value = bytes_of("value", line.value, line.value_base64)?;
    Ok((key, value))
}

fn bytes_of(name: &str, text: Option<String>, base64: Option<String>) -> Result<Vec<u8>, String> {
    match (text, base64) {
        (Some(text), None) => Ok(text.into_bytes()),
        (None, Some(base64)) => STANDARD
            .decode(base64)
            .map_err(|error| format!("{name}_base64: {error}")),
        (None, None) => Err(format!("it has neither {name} nor {name}_base64")),
        (Some(_), Some(_)) => Err(format!("it has both {name} and {name}_base64")),
    }
}

/// Reads one line without its end. Returns the bytes read and whether the line is whole; of one
/// that is too long the rest is read and dropped.
fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<(u64, bool)> {
    let mut read = (&mut *reader)
        .take(LINE_BYTES_MAX + 1)
        .read_until(b'\n', line)? as u64;
    if line.pop_if(|byte| *byte == b'\n').is_some() || read <= LINE_BYTES_MAX {
        return Ok((read, true));
    }
    line.clear();
    loop {
        let buffered = reader.fill_buf()?;
        if buffered.is_empty() {
            return Ok((read, false));
        }
        let end = buffered.iter().position(|&byte| byte == b'\n');
        let used = end.map_or(buffered.len(), |end| end + 1);
        reader.consume(used);
        read += used as u64;
        if end.is_some() {
            return Ok((read, false));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_base64_are_read() {
        let text = parse(br#"{"key":"a","value":"\u0000x","version":3}"#);
        assert_eq!(text, Ok((b"a".to_vec(), b"\0x".to_vec())));
        let binary = parse(br#"{"key_base64":"/w==","value_base64":""}"#);
        assert_eq!(binary, Ok((vec![0xff], Vec::new())));
    }

    #[test]
    fn what_is_no_pair_is_told() {
        for line in [
            r#"{"key":"a"}"#,
            r#"{"value":"a"}"#,
            r#"{"key":"a","value":"b","value_base64":"Yg=="}"#,
            r#"{"key":"a","value_base64":"?"}"#,
            r#"{"key":1,"value":"b"}"#,
            r#"["key","a"]"#,
            "{",
            "{} {}",
        ] {
            assert!(parse(line.as_bytes()).is_err(), "{line}");
        }
    }

    #[test]
    fn a_line_that_is_too_long_does_not_hurt_the_next() {
        let mut text = vec![b'x'; usize::try_from(LINE_BYTES_MAX).expect("small") + 100];
        text.extend_from_slice(b"\nnext\nlast");
        let length = text.len() as u64;
        let mut reader = BufReader::new(text.as_slice());
        let mut line = Vec::new();
        let (first, whole) = read_line(&mut reader, &mut line).expect("memory");
        assert!(!whole);
        let (second, whole) = read_line(&mut reader, &mut line).expect("memory");
        assert!(whole);
        assert_eq!(line, b"next");
        line.clear();
        let (third, whole) = read_line(&mut reader, &mut line).expect("memory");
        assert!(whole);
        assert_eq!(line, b"last");
        assert_eq!(first + second + third, length);
    }
}
