//! Keeps the addresses in `client.toml` and `admin.toml` in step with the members: a client that
//! knew only nodes that have gone since would find nobody.

use std::io::{self, Write};
use std::path::Path;

use kv_client::{MemberKind, MemberReport, MembersReport};
use tempfile::NamedTempFile;

use crate::cli::AdminArgs;
use crate::commands::admin::directory;

/// Where the addresses begin; behind them a configuration has nothing.
const HEADING: &str = "[[endpoints]]";

/// Writes the voters into the configurations beside the one that was used, where they differ. A
/// file that cannot be written is told: the change itself is done.
pub(super) fn update(admin: &AdminArgs, members: &MembersReport) {
    let dir = directory(admin);
    let paths = [
        dir.join("client.toml"),
        dir.join("admin.toml"),
        admin.config.clone(),
    ];
    for path in paths.iter().filter(|path| path.exists()) {
        if let Err(error) = update_file(path, members) {
            let shown = path.display();
            eprintln!("flotilla: cannot write the members' addresses into {shown}: {error}");
        }
    }
}

fn update_file(path: &Path, members: &MembersReport) -> io::Result<()> {
    let text = std::fs::read_to_string(path)?;
    let Some(updated) = updated(&text, members).filter(|updated| *updated != text) else {
        return Ok(());
    };
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
    let mut file = NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
    file.write_all(updated.as_bytes())?;
    let permissions = path.metadata()?.permissions();
    file.as_file().set_permissions(permissions)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// The text with other addresses; nothing where they are not written as `init` writes them.
fn updated(text: &str, members: &MembersReport) -> Option<String> {
    let before = text.lines().take_while(|line| line.trim() != HEADING);
    let before: Vec<&str> = before.collect();
    if before.len() == text.lines().count() {
        return None;
    }
    let is_wanted = |member: &&MemberReport| member.role == MemberKind::Voter && !member.is_leaving;
    let mut updated = before.join("\n").trim_end().to_owned();
    for member in members.members.iter().filter(is_wanted) {
        let address = toml::Value::from(member.address.as_str());
        updated.push_str(&format!(
            "\n\n{HEADING}\nid = {}\naddress = {address}",
            member.id
        ));
    }
    updated.push('\n');
    Some(updated)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use kv_client::ClientConfig;
    use kv_service::init::{ClusterPlan, make_cluster};

    use super::*;

    fn member(id: u64, role: MemberKind, is_leaving: bool) -> MemberReport {
        MemberReport {
            id,
            incarnation: id,
            address: format!("host{id}:7400"),
            role,
            is_leaving,
        }
    }

    #[test]
    fn clients_find_who_votes_now() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let plan = ClusterPlan::local(dir.path(), 1, 7400).expect("a plan");
        let made = make_cluster(&plan).expect("made");
        let text = std::fs::read_to_string(&made.client_config).expect("made");
        let text = format!("# mine\nrequest_timeout_ms = 700\n{text}");
        std::fs::write(&made.client_config, text).expect("written");
        let members = MembersReport {
            members: vec![
                member(1, MemberKind::Voter, true),
                member(2, MemberKind::Voter, false),
                member(3, MemberKind::Learner, false),
                member(4, MemberKind::Voter, false),
            ],
            is_changing: false,
        };
        let config = made.admin_config.clone();
        let mode = |path: &Path| path.metadata().expect("there").permissions().mode();
        let before = mode(&config);
        for _ in 0..2 {
            update(
                &AdminArgs {
                    config: config.clone(),
                },
                &members,
            );
        }
        assert_eq!(mode(&config), before);
        for path in [&made.client_config, &made.admin_config] {
            let found = ClientConfig::load(path).expect("well-formed").endpoints;
            let found: Vec<_> = found.iter().map(|it| (it.id, &*it.address)).collect();
            assert_eq!(found, [(2, "host2:7400"), (4, "host4:7400")]);
        }
        let text = std::fs::read_to_string(&made.client_config).expect("there");
        assert!(
            text.starts_with("# mine\nrequest_timeout_ms = 700\n"),
            "{text}"
        );
    }

    #[test]
    fn what_is_written_in_another_way_is_left_alone() {
        let text = "endpoints = [{ id = 1, address = \"a:1\" }]\n";
        assert_eq!(updated(text, &MembersReport::default()), None);
    }
}
