//! The way between a file's path in a folder and its key, and back. Names are bytes on both sides.
//!
//! A key becomes a path only where that path is certain to be inside the folder and certain to come
//! back as the same key. No IO here.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

/// Bytes of one component of a path; what Linux file systems take.
const NAME_BYTES_MAX: usize = 255;

/// A key that no file can stand for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotAPath {
    /// Nothing there.
    #[error("it is empty")]
    Empty,
    /// Begins with a slash.
    #[error("it is an absolute path")]
    Absolute,
    /// `a//b` or `a/`.
    #[error("it has an empty component")]
    EmptyComponent,
    /// `a/../b` or `a/./b`.
    #[error("it has a component {0:?}")]
    Dots(&'static str),
    /// No file name holds a zero byte.
    #[error("it has a zero byte")]
    ZeroByte,
    /// No file system takes it.
    #[error("it has a component of {0} bytes, the limit of a file name is {NAME_BYTES_MAX}")]
    LongName(usize),
}

/// The key of a file: `prefix`, then its path relative to the folder with `/` between components.
/// None where the path is not a plain relative one.
pub(crate) fn key_of(prefix: &[u8], relative: &Path) -> Option<Vec<u8>> {
    let mut key = prefix.to_vec();
    for (position, component) in relative.components().enumerate() {
        let Component::Normal(name) = component else {
            return None;
        };
        if position > 0 {
            key.push(b'/');
        }
        key.extend_from_slice(name.as_bytes());
    }
    Some(key)
}

/// The components of the file that a key (its prefix taken off) stands for; the last is the file.
///
/// # Errors
/// When the path would leave the folder, or would not come back as the same key.
pub(crate) fn components_of(key: &[u8]) -> Result<Vec<&OsStr>, NotAPath> {
    if key.is_empty() {
        return Err(NotAPath::Empty);
    }
    if key.starts_with(b"/") {
        return Err(NotAPath::Absolute);
    }
    if key.contains(&0) {
        return Err(NotAPath::ZeroByte);
    }
    key.split(|&byte| byte == b'/')
        .map(|name| match name {
            b"" => Err(NotAPath::EmptyComponent),
            b"." => Err(NotAPath::Dots(".")),
            b".." => Err(NotAPath::Dots("..")),
            _ if name.len() > NAME_BYTES_MAX => Err(NotAPath::LongName(name.len())),
            _ => Ok(OsStr::from_bytes(name)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_comes_back_from_its_key() {
        let nasty: [&[u8]; 6] = [
            b"a",
            b"a/b c/\xff\xfe",
            b"...",
            b"-rf/--",
            b"line\nbreak/tab\t",
            b"\xc3\xa4/..b/c..",
        ];
        for bytes in nasty {
            let path = Path::new(OsStr::from_bytes(bytes));
            let key = key_of(b"", path).expect("a plain relative path");
            assert_eq!(key, bytes);
            let back: std::path::PathBuf = components_of(&key)
                .expect("a key that came from a path")
                .iter()
                .collect();
            assert_eq!(back, path);
        }
    }

    #[test]
    fn the_prefix_is_put_in_front_as_it_is() {
        let key = key_of(b"backup/", Path::new("a/b"));
        assert_eq!(key.as_deref(), Some(b"backup/a/b".as_slice()));
        assert_eq!(key_of(b"", Path::new("../b")), None);
        assert_eq!(key_of(b"", Path::new("/b")), None);
    }

    #[test]
    fn a_key_that_would_escape_is_refused() {
        let long = vec![b'x'; 256];
        let cases: [(&[u8], NotAPath); 9] = [
            (b"", NotAPath::Empty),
            (b"/etc/passwd", NotAPath::Absolute),
            (b"..", NotAPath::Dots("..")),
            (b"a/../../b", NotAPath::Dots("..")),
            (b"a/./b", NotAPath::Dots(".")),
            (b"a//b", NotAPath::EmptyComponent),
            (b"a/", NotAPath::EmptyComponent),
            (b"a\0b", NotAPath::ZeroByte),
            (&long, NotAPath::LongName(256)),
        ];
        for (key, expected) in cases {
            assert_eq!(components_of(key), Err(expected));
        }
    }
}
