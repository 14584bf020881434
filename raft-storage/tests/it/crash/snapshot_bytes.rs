//! Goal: a changed byte or another length of any file of the snapshots is noticed before anything
//! of it is given out, and costs a transfer no more than what is behind it.

use std::path::{Path, PathBuf};

use raft_core::StorageError;
use raft_storage::sim_disk::{Image, SimDisk};

use super::judge::{LOG_DIR, newest_snapshot, open};
use super::steps::{Step, append, id};

/// A log, a snapshot of its front, and most of one that comes from elsewhere.
async fn directory() -> Image {
    let disk = SimDisk::new(&Image::with_dir(Path::new("/node")));
    let (mut store, _) = open(&disk).unwrap();
    for step in [
        append(1, 1, &[20, 30]),
        Step::Snapshot(id(1, 2)),
        Step::ReceiveSome(id(2, 30), 3),
    ] {
        step.run(&mut store).await.unwrap();
    }
    drop(store);
    disk.seen()
}

/// Every image in which one file of the snapshots is changed, and that file.
fn changed(image: &Image) -> impl Iterator<Item = (PathBuf, String, Image)> + '_ {
    let is_snapshot = |path: &&PathBuf| {
        let name = path.file_name().unwrap_or_default();
        !path.starts_with(LOG_DIR) && name != "lock"
    };
    let files = image.files.keys().filter(is_snapshot);
    files.flat_map(move |path| {
        let bytes = &image.files[path];
        let flips = (0..bytes.len()).map(move |position| {
            let mut bad = bytes.clone();
            bad[position] ^= 1 << (position % 8);
            (format!("byte {position}"), bad)
        });
        let lengths = (0..bytes.len())
            .chain([bytes.len() + 1])
            .map(move |length| {
                let mut bad = bytes.clone();
                bad.resize(length, 0);
                (format!("{length} bytes"), bad)
            });
        flips.chain(lengths).map(move |(what, bad)| {
            let mut image = image.clone();
            image.files.insert(path.clone(), bad);
            (path.clone(), what, image)
        })
    })
}

#[tokio::test]
async fn snapshot_files_that_are_changed_are_noticed_and_transfers_go_on() {
    let sound = directory().await;
    let mut files = std::collections::BTreeSet::new();
    for (path, what, image) in changed(&sound) {
        let case = format!("{}, {what}", path.display());
        let disk = SimDisk::new(&image);
        let opened = open(&disk);
        if path.ends_with("incoming") {
            let (mut store, _) = opened.unwrap_or_else(|error| panic!("{case}: {error}"));
            assert_eq!(
                newest_snapshot(&store).await.unwrap(),
                Some(id(1, 2)),
                "{case}"
            );
            let step = Step::Install(id(2, 30));
            step.run(&mut store)
                .await
                .unwrap_or_else(|error| panic!("{case}: {error}"));
            assert_eq!(
                newest_snapshot(&store).await.unwrap(),
                Some(id(2, 30)),
                "{case}"
            );
        } else {
            let read = match opened {
                Ok((store, _)) => newest_snapshot(&store).await.map(|_| ()),
                Err(error) => Err(error),
            };
            let is_told = matches!(
                read,
                Err(StorageError::Damaged { .. } | StorageError::Foreign { .. })
            );
            assert!(is_told, "{case}: {read:?}");
        }
        files.insert(path);
    }
    assert_eq!(files.len(), 2);
}
