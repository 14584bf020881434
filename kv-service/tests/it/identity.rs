//! Goal: a data directory is used only by the node it was made for, by one process at a time, and
//! never as if a lost disk had promised nothing. Method: format one, then break one thing at a
//! time.

use std::path::Path;

use kv_service::config::{Backends, StateKind, StorageKind};
use kv_service::identity::{self, DataDirectory, IdentityError, Owner};
use raft_core::{ClusterId, Incarnation, NodeId};

const OWNER: Owner = Owner {
    cluster: ClusterId([7; 16]),
    node: NodeId(3),
    incarnation: Incarnation(99),
};

fn formatted() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    identity::format(&directory.path().join("data"), OWNER, StorageKind::File).unwrap();
    directory
}

fn open(directory: &tempfile::TempDir) -> Result<DataDirectory, IdentityError> {
    open_as(directory, OWNER)
}

fn open_as(directory: &tempfile::TempDir, owner: Owner) -> Result<DataDirectory, IdentityError> {
    DataDirectory::open(&directory.path().join("data"), owner, StorageKind::File)
}

/// Starts the node as far as the directory is concerned.
fn start_once(directory: &tempfile::TempDir) {
    let mut data = open(directory).unwrap();
    let log = data.log_path(StorageKind::File);
    std::fs::create_dir_all(&log).unwrap();
    std::fs::write(log.join("segment"), b"entries").unwrap();
    data.count_start().unwrap();
}

fn assert_error(result: Result<DataDirectory, IdentityError>, exit_code: i32, parts: &[&str]) {
    let error = result.unwrap_err();
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
    assert!(!text.contains('\n'), "{text}");
    assert_eq!(error.exit_code(), exit_code, "{text}");
}

#[test]
fn a_formatted_directory_opens_and_counts_its_starts() {
    let directory = formatted();
    assert_eq!(open(&directory).unwrap().boot(), 0);
    start_once(&directory);
    start_once(&directory);
    let data = open(&directory).unwrap();
    assert_eq!(data.boot(), 2);
    assert_eq!(data.owner(), OWNER);
}

#[test]
fn the_reset_key_is_kept_and_private() {
    use std::os::unix::fs::PermissionsExt;
    let directory = formatted();
    let first = open(&directory).unwrap().reset_key();
    assert_eq!(open(&directory).unwrap().reset_key(), first);
    assert_ne!(first, [0; 64]);
    let path = directory.path().join("data/reset.key");
    let mode = std::fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_second_opener_is_refused_until_the_first_is_gone() {
    let directory = formatted();
    let first = open(&directory).unwrap();
    assert_error(open(&directory), 2, &["locked", "another process"]);
    drop(first);
    open(&directory).unwrap();
}

#[test]
fn a_missing_or_empty_directory_is_never_formatted_by_opening() {
    let directory = tempfile::tempdir().unwrap();
    let way_back = ["flotilla init", "flotilla member replace 3"];
    assert_error(open(&directory), 2, &way_back);
    assert_error(open(&directory), 2, &["does not exist"]);
    std::fs::create_dir(directory.path().join("data")).unwrap();
    assert_error(open(&directory), 2, &way_back);
    assert_error(open(&directory), 2, &["is empty"]);
    let left = std::fs::read_dir(directory.path().join("data")).unwrap();
    assert_eq!(left.count(), 0);
}

#[test]
fn a_directory_of_something_else_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("holiday.jpg"), b"sun").unwrap();
    assert_error(
        open(&directory),
        2,
        &["identity.toml", "not the data directory"],
    );
    let again = identity::format(&data, OWNER, StorageKind::File).unwrap_err();
    assert!(again.to_string().contains("not empty"), "{again}");
}

#[test]
fn another_cluster_node_or_incarnation_is_refused() {
    let directory = formatted();
    let strangers = [
        (
            Owner {
                cluster: ClusterId([8; 16]),
                ..OWNER
            },
            "cluster 0707",
            "0808",
        ),
        (
            Owner {
                node: NodeId(4),
                ..OWNER
            },
            "node 3",
            "not to 4",
        ),
        (
            Owner {
                incarnation: Incarnation(100),
                ..OWNER
            },
            "incarnation 99",
            "not to 100",
        ),
    ];
    for (owner, found, expected) in strangers {
        assert_error(
            open_as(&directory, owner),
            2,
            &["belongs to", found, expected],
        );
    }
}

#[test]
fn a_file_in_place_of_the_directory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("data"), b"").unwrap();
    assert_error(open(&directory), 2, &["cannot list"]);
}

#[test]
fn a_directory_that_cannot_be_written_is_refused() {
    let directory = formatted();
    // Permissions do not hold root back, so a directory stands in the way of the lock, then of the
    // counter's temporary file.
    let lock = directory.path().join("data/lock");
    std::fs::remove_file(&lock).unwrap();
    std::fs::create_dir(&lock).unwrap();
    assert_error(open(&directory), 2, &["cannot open", "lock"]);
    std::fs::remove_dir(&lock).unwrap();
    let mut data = open(&directory).unwrap();
    std::fs::create_dir(directory.path().join("data/boot.new")).unwrap();
    let error = data.count_start().unwrap_err();
    assert!(error.to_string().contains("boot.new"), "{error}");
    assert_eq!(data.boot(), 0);
}

#[test]
fn a_node_whose_log_is_gone_does_not_come_back_as_new() {
    let directory = formatted();
    start_once(&directory);
    let log = directory.path().join("data/wal");
    std::fs::remove_dir_all(&log).unwrap();
    assert_error(
        open(&directory),
        2,
        &["its log", "is gone", "member replace 3"],
    );
    std::fs::create_dir(&log).unwrap();
    assert_error(open(&directory), 2, &["its log", "is gone"]);
}

#[test]
fn a_crash_before_the_first_start_was_counted_does_no_harm() {
    let directory = formatted();
    open(&directory).unwrap();
    std::fs::create_dir(directory.path().join("data/wal")).unwrap();
    open(&directory).unwrap();
}

#[test]
fn the_storage_may_change_only_before_the_first_start() {
    let directory = formatted();
    let path = directory.path().join("data");
    let reopen = |storage| DataDirectory::open(&path, OWNER, storage);
    reopen(StorageKind::Memory).unwrap();
    reopen(StorageKind::File).unwrap();
    start_once(&directory);
    assert_error(
        reopen(StorageKind::Memory),
        2,
        &["storage file, not memory", "forget"],
    );
    assert_error(
        reopen(StorageKind::Rocksdb),
        2,
        &["storage file, not rocksdb"],
    );
    reopen(StorageKind::File).unwrap();
}

#[test]
fn the_kind_of_state_may_change_only_before_the_first_start() {
    let directory = formatted();
    let path = directory.path().join("data");
    let reopen = |state| {
        let storage = StorageKind::File;
        DataDirectory::open(&path, OWNER, Backends { storage, state })
    };
    // Directories of older versions do not name it.
    let identity = std::fs::read_to_string(path.join("identity.toml")).unwrap();
    assert!(!identity.contains("state"), "{identity}");
    reopen(StateKind::Rocksdb).unwrap();
    let identity = std::fs::read_to_string(path.join("identity.toml")).unwrap();
    assert!(identity.contains("state = \"rocksdb\""), "{identity}");
    reopen(StateKind::Memory).unwrap();
    start_once(&directory);
    let told = ["state memory, not rocksdb", "flotilla member replace"];
    assert_error(reopen(StateKind::Rocksdb), 2, &told);
    reopen(StateKind::Memory).unwrap();
}

#[test]
fn memory_is_never_started_twice() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    identity::format(&path, OWNER, StorageKind::Memory).unwrap();
    let reopen = || DataDirectory::open(&path, OWNER, StorageKind::Memory);
    reopen().unwrap().count_start().unwrap();
    assert_error(reopen(), 2, &["memory", "is gone"]);
}

#[test]
fn damage_is_told_with_the_file_and_exit_code_70() {
    let damages: [(&str, &[u8], &str); 4] = [
        ("identity.toml", b"format = ", "identity.toml is damaged"),
        ("identity.toml", b"format = 1\ncolour = 2\n", "colour"),
        ("boot", b"many", "the count of starts is \"many\""),
        ("reset.key", b"short", "5 bytes instead of 64"),
    ];
    for (file, bytes, what) in damages {
        let directory = formatted();
        std::fs::write(directory.path().join("data").join(file), bytes).unwrap();
        assert_error(open(&directory), 70, &[what, file]);
    }
}

#[test]
fn a_layout_of_a_newer_program_is_refused() {
    let directory = formatted();
    let path = directory.path().join("data/identity.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("format = 1", "format = 2")).unwrap();
    assert_error(open(&directory), 2, &["another version", "format 2"]);
}

#[test]
fn usage_counts_what_is_in_the_directory() {
    let directory = formatted();
    let data = open(&directory).unwrap();
    let log = data.log_path(StorageKind::File);
    std::fs::create_dir(&log).unwrap();
    std::fs::write(log.join("segment"), [0; 10_000]).unwrap();
    let bytes = data.usage_bytes();
    assert!((10_000..20_000).contains(&bytes), "{bytes}");
    assert!(Path::new(&log).exists());
}
