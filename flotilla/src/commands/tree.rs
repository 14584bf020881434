//! Writes files below one folder and never outside of it: every component is opened relative to the
//! one before, and no symbolic link is followed.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;

/// Folders that are kept open for the next file, which in the order of keys is mostly nearby.
const OPEN_FOLDERS_MAX: usize = 32;

/// The folder that is written to.
pub(crate) struct Tree {
    root: OwnedFd,
    open: Vec<(OsString, OwnedFd)>,
}

/// Why a file was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TreeError {
    /// Something of another kind has the place; other files can still be written.
    #[error("{0}")]
    InTheWay(&'static str),
    /// Nothing more can be written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Errno> for TreeError {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

impl Tree {
    /// Opens a folder, after making it where it does not exist.
    ///
    /// # Errors
    /// When it cannot be made or is no folder.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(root)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(root, flags, Mode::empty())?;
        let open = Vec::new();
        Ok(Self { root, open })
    }

    /// Writes a file, and makes the folders that lead to it.
    ///
    /// # Errors
    /// [`TreeError::InTheWay`] where a file stands for a folder or the other way round, or a link
    /// for either; [`TreeError::Io`] for everything else.
    pub(crate) fn write(&mut self, components: &[&OsStr], content: &[u8]) -> Result<(), TreeError> {
        let Some((name, folders)) = components.split_last() else {
            return Err(TreeError::InTheWay("it has no file name"));
        };
        let deep = self.enter(folders)?;
        let folder = match &deep {
            Some(folder) => folder.as_fd(),
            None => self.innermost(),
        };
        // Without NONBLOCK a pipe that has the name would wait for a reader.
        let flags = OFlags::WRONLY
            | OFlags::CREATE
            | OFlags::TRUNC
            | OFlags::NOFOLLOW
            | OFlags::NONBLOCK
            | OFlags::CLOEXEC;
        let file = match openat(folder, *name, flags, Mode::from_raw_mode(0o666)) {
            Ok(file) => File::from(file),
            Err(Errno::ISDIR) => return Err(TreeError::InTheWay("a folder has its name")),
            Err(Errno::LOOP) => return Err(TreeError::InTheWay("a symbolic link has its name")),
            Err(Errno::NXIO) => return Err(TreeError::InTheWay("a pipe has its name")),
            Err(error) => return Err(error.into()),
        };
        if !file.metadata()?.is_file() {
            return Err(TreeError::InTheWay("a pipe or device has its name"));
        }
        let mut file = file;
        file.write_all(content)?;
        Ok(())
    }

    /// Opens the folders of a path. They are kept in `open` as far as there is room; returned is
    /// the innermost where it is not among them.
    fn enter(&mut self, folders: &[&OsStr]) -> Result<Option<OwnedFd>, TreeError> {
        let common = self
            .open
            .iter()
            .zip(folders)
            .take_while(|((open, _), wanted)| open == *wanted)
            .count();
        self.open.truncate(common);
        let mut deep: Option<OwnedFd> = None;
        for name in &folders[common..] {
            let parent = match &deep {
                Some(folder) => folder.as_fd(),
                None => self.innermost(),
            };
            let entered = enter_one(parent, name)?;
            if self.open.len() < OPEN_FOLDERS_MAX {
                self.open.push(((*name).to_owned(), entered));
            } else {
                deep = Some(entered);
            }
        }
        Ok(deep)
    }

    fn innermost(&self) -> BorrowedFd<'_> {
        match self.open.last() {
            Some((_, folder)) => folder.as_fd(),
            None => self.root.as_fd(),
        }
    }
}

fn enter_one(parent: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, TreeError> {
    match mkdirat(parent, name, Mode::from_raw_mode(0o777)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(parent, name, flags, Mode::empty()) {
        Ok(folder) => Ok(folder),
        Err(Errno::NOTDIR | Errno::LOOP) => Err(TreeError::InTheWay(
            "a file or a link has the name of one of its folders",
        )),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Vec<&OsStr> {
        text.split('/').map(OsStr::new).collect()
    }

    fn in_the_way(result: Result<(), TreeError>) -> bool {
        matches!(result, Err(TreeError::InTheWay(_)))
    }

    #[test]
    fn files_are_written_wherever_they_are() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut tree = Tree::open(&dir.path().join("new/root")).expect("it can be made");
        let deep = vec!["d"; 3 * OPEN_FOLDERS_MAX].join("/");
        let names = [
            "a",
            "b/c",
            "b/d",
            "b/e/f",
            "g/h",
            &deep,
            &format!("{deep}2"),
        ];
        for name in names {
            tree.write(&path(name), name.as_bytes())
                .expect("it can be written");
        }
        for name in names {
            let content = std::fs::read(dir.path().join("new/root").join(name));
            assert_eq!(content.expect("it was written"), name.as_bytes());
        }
    }

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut tree = Tree::open(dir.path()).expect("it is there");
        tree.write(&path("a"), b"a long one").expect("written");
        tree.write(&path("a"), b"short").expect("written");
        let content = std::fs::read(dir.path().join("a")).expect("it was written");
        assert_eq!(content, b"short");
    }

    #[test]
    fn a_name_cannot_be_a_file_and_a_folder() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut tree = Tree::open(dir.path()).expect("it is there");
        tree.write(&path("a"), b"1").expect("written");
        assert!(in_the_way(tree.write(&path("a/b"), b"2")));
        tree.write(&path("c/d"), b"3").expect("written");
        assert!(in_the_way(tree.write(&path("c"), b"4")));
        tree.write(&path("e"), b"5").expect("the next is not hurt");
    }

    #[test]
    fn a_link_does_not_lead_outside() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let outside = dir.path().join("outside");
        let root = dir.path().join("root");
        std::fs::create_dir_all(&outside).expect("made");
        std::fs::create_dir_all(&root).expect("made");
        std::fs::write(outside.join("file"), b"kept").expect("written");
        std::os::unix::fs::symlink(&outside, root.join("folder")).expect("linked");
        std::os::unix::fs::symlink(outside.join("file"), root.join("file")).expect("linked");
        let mut tree = Tree::open(&root).expect("it is there");
        assert!(in_the_way(tree.write(&path("folder/new"), b"x")));
        assert!(in_the_way(tree.write(&path("file"), b"x")));
        assert!(!outside.join("new").exists());
        let content = std::fs::read(outside.join("file")).expect("still there");
        assert_eq!(content, b"kept");
    }
}
