//! What is on a disk when nothing is pending: the names and what is in the files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Directories and files, by their absolute paths. The root is always there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Image {
    /// Directories, but for the root.
    pub dirs: BTreeSet<PathBuf>,
    /// Files, in directories that are there.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
}

impl Image {
    /// An image with nothing but this directory and those above it.
    #[must_use]
    pub fn with_dir(dir: &Path) -> Self {
        let mut image = Self::default();
        image.add_dir(dir);
        image
    }

    /// Adds a directory and the missing ones above it.
    pub fn add_dir(&mut self, dir: &Path) {
        let above = dir.ancestors().filter(|dir| dir.parent().is_some());
        self.dirs.extend(above.map(Path::to_owned));
    }

    /// The names and contents of the files in one directory.
    #[must_use]
    pub fn files_in(&self, dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let inside = self
            .files
            .iter()
            .filter(|(path, _)| path.parent() == Some(dir));
        inside
            .filter_map(|(path, bytes)| Some((path.file_name()?.into(), bytes.clone())))
            .collect()
    }
}
