//! Names and files of a simulated disk. Operations are applied here, be it for the first time or
//! from a recording; failures are injected elsewhere.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};

use super::file::{Fate, SimFile};
use super::image::Image;
use super::operation::{FileId, Operation};

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Dir(usize),
    File(FileId),
}

pub(super) type Names = BTreeMap<OsString, Node>;

/// A change of a directory that is not durable yet, and when it was made.
#[derive(Clone, Debug)]
pub(super) struct NameChange {
    pub(super) kind: NameChangeKind,
    pub(super) at: u64,
}

#[derive(Clone, Debug)]
pub(super) enum NameChangeKind {
    Link(OsString, Node),
    Rename(OsString, OsString, Node),
    Unlink(OsString),
}

impl NameChangeKind {
    pub(super) fn apply(&self, names: &mut Names) {
        match self {
            Self::Link(name, node) => {
                names.insert(name.clone(), *node);
            }
            Self::Rename(from, to, node) => {
                // Not where the name has gone to another file, because a change was left out.
                if names.get(from) == Some(node) {
                    names.remove(from);
                }
                names.insert(to.clone(), *node);
            }
            Self::Unlink(name) => {
                names.remove(name);
            }
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct SimDir {
    pub(super) durable: Names,
    pub(super) names: Names,
    pub(super) pending: Vec<NameChange>,
}

impl SimDir {
    fn change(&mut self, kind: NameChangeKind, at: u64) {
        kind.apply(&mut self.names);
        self.pending.push(NameChange { kind, at });
    }
}

/// Everything that is on a disk, and in the memory of the system.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    /// The root is the first one.
    pub(super) dirs: Vec<SimDir>,
    pub(super) files: BTreeMap<FileId, SimFile>,
    next_file: u64,
    /// Operations so far.
    clock: u64,
}

impl Tree {
    pub(super) fn of(image: &Image) -> Self {
        let mut tree = Self {
            dirs: vec![SimDir::default()],
            files: BTreeMap::new(),
            next_file: 0,
            clock: 0,
        };
        for dir in &image.dirs {
            tree.create_dir(dir)
                .expect("each is listed behind its parent");
        }
        for (path, bytes) in &image.files {
            let file = tree.create(path).expect("its directory is listed");
            tree.files.insert(file, SimFile::durable(bytes.clone()));
        }
        for dir in &mut tree.dirs {
            dir.durable = dir.names.clone();
            dir.pending.clear();
        }
        tree
    }

    /// Does what a recording says. Reads, locks and failed operations are in none.
    pub(super) fn apply(&mut self, operation: &Operation) -> io::Result<()> {
        match operation {
            Operation::CreateDir(path) => self.create_dir(path),
            Operation::Create(path) => self.create(path).map(|_| ()),
            Operation::Write(file, offset, bytes) => self.write(*file, *offset, bytes, Fate::Kept),
            Operation::SetLength(file, bytes) => self.set_length(*file, *bytes),
            Operation::Sync(file) => self.file(*file).map(SimFile::sync),
            Operation::Rename(from, to) => self.rename(from, to),
            Operation::Remove(path) => self.remove(path),
            Operation::SyncDir(path) => self.sync_dir(path),
            Operation::Mark(_) => Ok(()),
        }
    }

    pub(super) fn node(&self, path: &Path) -> io::Result<Node> {
        let mut node = Node::Dir(0);
        for component in path.components() {
            let name = match component {
                Component::RootDir | Component::CurDir => continue,
                Component::Normal(name) => name,
                _ => return Err(ErrorKind::InvalidInput.into()),
            };
            let Node::Dir(dir) = node else {
                return Err(ErrorKind::NotADirectory.into());
            };
            let found = self.dirs[dir].names.get(name).copied();
            node = found.ok_or(ErrorKind::NotFound)?;
        }
        Ok(node)
    }

    pub(super) fn dir(&self, path: &Path) -> io::Result<usize> {
        match self.node(path)? {
            Node::Dir(dir) => Ok(dir),
            Node::File(_) => Err(ErrorKind::NotADirectory.into()),
        }
    }

    pub(super) fn file_id(&self, path: &Path) -> io::Result<FileId> {
        match self.node(path)? {
            Node::File(file) => Ok(file),
            Node::Dir(_) => Err(ErrorKind::IsADirectory.into()),
        }
    }

    pub(super) fn file(&mut self, file: FileId) -> io::Result<&mut SimFile> {
        Ok(self.files.get_mut(&file).ok_or(ErrorKind::NotFound)?)
    }

    /// The directory that a path is in, and its name there.
    fn place<'a>(&self, path: &'a Path) -> io::Result<(usize, &'a OsStr)> {
        let name = path.file_name().ok_or(ErrorKind::InvalidInput)?;
        let parent = path.parent().unwrap_or(Path::new(""));
        Ok((self.dir(parent)?, name))
    }

    pub(super) fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        let (parent, name) = self.place(path)?;
        if self.dirs[parent].names.contains_key(name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let node = Node::Dir(self.dirs.len());
        self.dirs.push(SimDir::default());
        let at = self.tick();
        self.dirs[parent].change(NameChangeKind::Link(name.to_owned(), node), at);
        Ok(())
    }

    pub(super) fn create(&mut self, path: &Path) -> io::Result<FileId> {
        match self.node(path) {
            Ok(Node::File(file)) => {
                self.set_length(file, 0)?;
                return Ok(file);
            }
            Ok(Node::Dir(_)) => return Err(ErrorKind::IsADirectory.into()),
            Err(_) => {}
        }
        let (parent, name) = self.place(path)?;
        let file = FileId(self.next_file);
        self.next_file += 1;
        self.files.insert(file, SimFile::default());
        let at = self.tick();
        self.dirs[parent].change(NameChangeKind::Link(name.to_owned(), Node::File(file)), at);
        Ok(file)
    }

    pub(super) fn write(
        &mut self,
        file: FileId,
        offset: u64,
        bytes: &[u8],
        fate: Fate,
    ) -> io::Result<()> {
        let at = self.tick();
        self.file(file)?.write(offset, bytes, at, fate);
        Ok(())
    }

    pub(super) fn set_length(&mut self, file: FileId, bytes: u64) -> io::Result<()> {
        let at = self.tick();
        self.file(file)?.set_length(bytes, at);
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let file = Node::File(self.file_id(from)?);
        let (dir, old) = self.place(from)?;
        let (other, new) = self.place(to)?;
        if dir != other {
            // What is used here renames inside a directory only.
            return Err(ErrorKind::CrossesDevices.into());
        }
        let at = self.tick();
        let kind = NameChangeKind::Rename(old.to_owned(), new.to_owned(), file);
        self.dirs[dir].change(kind, at);
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.file_id(path)?;
        let (dir, name) = self.place(path)?;
        let at = self.tick();
        self.dirs[dir].change(NameChangeKind::Unlink(name.to_owned()), at);
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let dir = self.dir(path)?;
        let dir = &mut self.dirs[dir];
        dir.durable = dir.names.clone();
        dir.pending.clear();
        Ok(())
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let names = &self.dirs[self.dir(path)?].names;
        Ok(names.keys().map(|name| path.join(name)).collect())
    }

    /// Bytes of all files that have a name.
    pub(super) fn used_bytes(&self) -> u64 {
        let names = self.dirs.iter().flat_map(|dir| dir.names.values());
        let files = names.filter_map(|node| match node {
            Node::File(file) => self.files.get(file),
            Node::Dir(_) => None,
        });
        files.map(|file| file.cache().len() as u64).sum()
    }

    /// What readers see, as if all of it were durable.
    pub(super) fn seen(&self) -> Image {
        self.image(|dir| dir.names.clone(), |_, file| file.cache().to_vec())
    }

    /// An image of these names and these bytes.
    pub(super) fn image(
        &self,
        names: impl Fn(&SimDir) -> Names,
        mut bytes: impl FnMut(FileId, &SimFile) -> Vec<u8>,
    ) -> Image {
        let mut image = Image::default();
        let mut open = vec![(PathBuf::from("/"), 0)];
        while let Some((path, dir)) = open.pop() {
            for (name, node) in names(&self.dirs[dir]) {
                let path = path.join(name);
                match node {
                    Node::Dir(dir) => {
                        image.dirs.insert(path.clone());
                        open.push((path, dir));
                    }
                    Node::File(file) => {
                        let found = &self.files[&file];
                        image.files.insert(path, bytes(file, found));
                    }
                }
            }
        }
        image
    }

    /// Forgets a file that no name stands for any more, be it durable or not.
    pub(super) fn forget(&mut self, file: FileId) {
        let node = Node::File(file);
        let is_named = self.dirs.iter().any(|dir| {
            let pending = dir.pending.iter().any(|change| match &change.kind {
                NameChangeKind::Link(_, n) | NameChangeKind::Rename(_, _, n) => *n == node,
                NameChangeKind::Unlink(_) => false,
            });
            let named = |names: &Names| names.values().any(|n| *n == node);
            pending || named(&dir.durable) || named(&dir.names)
        });
        if !is_named {
            self.files.remove(&file);
        }
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// Operations that changed something so far.
    pub(super) fn clock(&self) -> u64 {
        self.clock
    }
}
