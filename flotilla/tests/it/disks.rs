//! Disks that are full or cannot be written, with real mounts: only root can make them, so without
//! that the tests say that they were left out.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program::{Cluster, base_port, run, wait_until};

/// A mount. Undone when dropped, so it has to be declared before whatever holds files in it open
/// and behind the temporary directory that it is in.
struct Mount {
    at: PathBuf,
}

impl Mount {
    /// Nothing where this process may not mount.
    fn new(arguments: &[&str], at: &Path) -> Option<Self> {
        let mount = Command::new("mount").args(arguments).arg(at).output();
        match mount {
            Ok(output) if output.status.success() => Some(Self { at: at.to_owned() }),
            _ => {
                eprintln!("LEFT OUT: this process may not mount file systems");
                None
            }
        }
    }

    fn change(&self, options: &str) {
        let mut command = Command::new("mount");
        let status = command.args(["-o", options]).arg(&self.at).status();
        assert!(status.expect("mount starts").success(), "{options}");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily, because a test that fails may leave a node in there for a moment.
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

fn copy_tree(from: &Path, to: &Path) {
    let mut command = Command::new("cp");
    let status = command.arg("-a").arg(from.join(".")).arg(to).status();
    assert!(status.expect("cp starts").success());
}

#[test]
fn a_follower_whose_disk_gets_full_stays_and_catches_up_when_there_is_space() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let at = dir.path().join("cluster");
    let port = base_port().to_string();
    let mut cluster = Cluster::start_in(&at, &["--base-port", &port]);
    assert_eq!(cluster.terminate().code(), Some(0));
    // Its first segment of 64 MiB and a reserve as large, and no room for a second segment.
    let data = at.join("node-2/data");
    let (small, kept) = (dir.path().join("small"), dir.path().join("kept"));
    std::fs::create_dir(&small).expect("made");
    let Some(disk) = Mount::new(&["-t", "tmpfs", "-o", "size=140m", "none"], &small) else {
        return;
    };
    copy_tree(&data, &small);
    std::fs::rename(&data, &kept).expect("put aside");
    std::os::unix::fs::symlink(&small, &data).expect("linked");

    let mut cluster = Cluster::start_in(&at, &["--no-restart"]);
    if cluster.leader() == 2 {
        cluster.run(["transfer-leader", "1"]).expect(0);
    }
    let pid = cluster.node_pid(2);
    let source = dir.path().join("source");
    std::fs::create_dir(&source).expect("made");
    for number in 0..80 {
        std::fs::write(source.join(number.to_string()), vec![7; 1 << 20]).expect("written");
    }
    let import = cluster.run(["import".as_ref(), source.as_os_str()]);
    import.expect(0);
    wait_until("node 2 to be short of room", || {
        let status = cluster.run(["status", "--json"]).json();
        status["nodes"][1]["short_of_room"] == true
    });
    cluster.run(["put", "after", "yes"]).expect(0);

    disk.change("remount,size=600m");
    wait_until("node 2 to have everything", || {
        let status = cluster.run(["status", "--json"]).json();
        let applied = |node: usize| status["nodes"][node]["applied"].as_u64();
        let has_all = applied(1) == applied(0) && applied(1) == applied(2);
        applied(1).is_some() && has_all && status["nodes"][1]["short_of_room"] == false
    });
    assert_eq!(cluster.node_pid(2), pid, "it went on by itself");
    let keys = cluster.run(["scan", "--keys-only"]).expect(0);
    assert_eq!(keys.lines().count(), 81);
    assert_eq!(cluster.terminate().code(), Some(0));
}

#[test]
fn a_data_directory_that_is_mounted_read_only_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let made = dir.path().join("made");
    let nodes = format!("127.0.0.1:{}", base_port() + 1);
    let init = ["init".as_ref(), made.as_os_str()];
    let nodes = ["--nodes", &nodes].map(AsRef::as_ref);
    run(init.into_iter().chain(nodes)).expect(0);
    let data = made.join("node-1/data");
    let source = data.to_str().expect("text").to_owned();
    let Some(disk) = Mount::new(&["--bind", &source], &data) else {
        return;
    };
    disk.change("remount,ro,bind");
    let config = made.join("node-1/node.toml");
    let run = run(["serve".as_ref(), "--config".as_ref(), config.as_os_str()]);
    let line = run.expect_error(2);
    assert!(
        line.contains("data") && line.contains("Read-only"),
        "{line}"
    );
}
