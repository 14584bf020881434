//! Where the data of a bench goes. What is measured is the disk, so the place is told in every
//! report.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// The variable that names the directory to make temporary ones in. Without it they are made where
/// the system has its own, which must be on a disk to mean anything.
pub const DIRECTORY_VARIABLE: &str = "BENCH_DIR";

/// A directory that goes when it is dropped.
///
/// # Panics
/// When it cannot be made: a bench has nothing to measure then.
#[must_use]
pub fn scratch() -> TempDir {
    let made = match std::env::var_os(DIRECTORY_VARIABLE) {
        Some(directory) => TempDir::new_in(PathBuf::from(directory)),
        None => TempDir::new(),
    };
    made.expect("a temporary directory")
}

/// The directory and its file system, for reports.
#[must_use]
pub fn describe(directory: &Path) -> String {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let kind = file_system(directory, &mounts).unwrap_or("a file system that is not known");
    let shown = directory.display();
    match kind {
        "tmpfs" | "ramfs" => {
            format!("{shown} on {kind}, WHICH IS NO DISK: set {DIRECTORY_VARIABLE}")
        }
        _ => format!("{shown} on {kind}"),
    }
}

/// The kind of the file system that a path is on, by the longest mount point before it.
fn file_system<'a>(path: &Path, mounts: &'a str) -> Option<&'a str> {
    let fields = mounts.lines().map(|line| {
        let mut fields = line.split(' ').skip(1);
        (fields.next(), fields.next())
    });
    let above = fields.filter_map(|(point, kind)| point.zip(kind));
    let above = above.filter(|(point, _)| path.starts_with(point));
    above
        .max_by_key(|(point, _)| point.len())
        .map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_counts() {
        let mounts = "/dev/vda / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n";
        assert_eq!(file_system(Path::new("/tmp/a"), mounts), Some("tmpfs"));
        assert_eq!(file_system(Path::new("/tmpa"), mounts), Some("ext4"));
        assert_eq!(file_system(Path::new("/tmp/a"), ""), None);
    }
}
