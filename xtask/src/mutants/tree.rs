//! The copy of the tree that bugs are put into. Files that did not change keep their time, so that
//! a second run builds little.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What is not copied: what was built, and what is no source.
const LEFT_OUT: &[&str] = &["target", "flotilla-data"];

/// A copy of a tree.
#[derive(Debug)]
pub(crate) struct Copy {
    root: PathBuf,
}

impl Copy {
    /// Makes `to` the same as `from`.
    pub(crate) fn make(from: &Path, to: &Path) -> io::Result<Self> {
        fs::create_dir_all(to)?;
        copy_dir(from, to)?;
        Ok(Self {
            root: to.to_owned(),
        })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn read(&self, file: &str) -> io::Result<String> {
        fs::read_to_string(self.root.join(file))
    }

    pub(crate) fn write(&self, file: &str, text: &str) -> io::Result<()> {
        fs::write(self.root.join(file), text)
    }
}

fn copy_dir(from: &Path, to: &Path) -> io::Result<()> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        let text = name.to_string_lossy();
        let is_hidden = text.starts_with('.') && text != ".cargo";
        if is_hidden || LEFT_OUT.contains(&&*text) {
            continue;
        }
        let (source, target) = (entry.path(), to.join(&name));
        if entry.file_type()?.is_dir() {
            fs::create_dir_all(&target)?;
            copy_dir(&source, &target)?;
        } else {
            let bytes = fs::read(&source)?;
            if fs::read(&target).ok().as_ref() != Some(&bytes) {
                fs::write(&target, bytes)?;
            }
        }
        names.insert(name);
    }
    for entry in fs::read_dir(to)? {
        let entry = entry?;
        if !names.contains(&entry.file_name()) {
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
    }
    Ok(())
}
