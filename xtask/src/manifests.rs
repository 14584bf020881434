//! Manifests: which crate may depend on which, where outside packages may be named, and that every
//! crate takes the lints and versions of the workspace.
//!
//! Reads the few forms of TOML that manifests of this workspace use.

use crate::report::Violation;
use crate::source::SourceFile;

/// A crate of ours, what of ours it may depend on, and what its tests may besides.
struct Room {
    name: &'static str,
    may_use: &'static [&'static str],
    tests_may_use: &'static [&'static str],
}

const ROOMS: &[Room] = &[
    Room {
        name: "raft-core",
        may_use: &[],
        tests_may_use: &[],
    },
    Room {
        name: "raft-transport",
        may_use: &["raft-core", "quic-link"],
        tests_may_use: &[],
    },
    Room {
        name: "raft-storage",
        may_use: &["raft-core"],
        tests_may_use: &[],
    },
    Room {
        name: "quic-link",
        may_use: &[],
        tests_may_use: &[],
    },
    Room {
        name: "kv-api",
        may_use: &[],
        tests_may_use: &[],
    },
    Room {
        name: "kv-service",
        may_use: &[
            "raft-core",
            "raft-transport",
            "raft-storage",
            "quic-link",
            "kv-api",
        ],
        tests_may_use: &["kv-client", "history"],
    },
    Room {
        name: "kv-client",
        may_use: &["quic-link", "kv-api"],
        tests_may_use: &[],
    },
    Room {
        name: "flotilla",
        may_use: &["kv-service", "kv-client", "history"],
        tests_may_use: &[],
    },
    Room {
        name: "history",
        may_use: &[],
        tests_may_use: &[],
    },
    Room {
        name: "sim",
        may_use: &["raft-core", "kv-service", "kv-api", "history"],
        tests_may_use: &[],
    },
    Room {
        name: "benches",
        may_use: &[
            "raft-core",
            "raft-transport",
            "raft-storage",
            "quic-link",
            "kv-api",
            "kv-service",
            "kv-client",
            "history",
        ],
        tests_may_use: &[],
    },
    Room {
        name: "xtask",
        may_use: &[],
        tests_may_use: &[],
    },
];

/// Packages from outside that only one of ours may name.
const KEPT_IN: &[(&str, &str)] = &[
    ("quinn", "quic-link"),
    ("rustls", "quic-link"),
    ("rustls-pki-types", "quic-link"),
    ("rustls-webpki", "quic-link"),
    ("rocksdb", "raft-storage"),
];

pub(crate) fn check(files: &[SourceFile]) -> Vec<Violation> {
    files
        .iter()
        .filter(|file| {
            let mut parts = file.path.split('/');
            parts.next().is_some() && parts.eq(["Cargo.toml"])
        })
        .flat_map(check_manifest)
        .collect()
}

/// A key of a manifest with its section, `dependencies` and the like.
struct Setting<'a> {
    line: usize,
    section: &'a str,
    key: &'a str,
    value: &'a str,
}

fn settings(file: &SourceFile) -> Vec<Setting<'_>> {
    let mut section = "";
    let mut settings = Vec::new();
    for (line, text) in file.numbered() {
        let text = text.raw.split('#').next().unwrap_or_default().trim();
        if let Some(name) = text.strip_prefix('[') {
            section = name.trim_matches(['[', ']']);
        } else if let Some((key, value)) = text.split_once('=') {
            settings.push(Setting {
                line,
                section,
                key: key.trim(),
                value: value.trim(),
            });
        }
    }
    settings
}

fn check_manifest(file: &SourceFile) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut report = |line: usize, rule: &'static str, what: String| {
        violations.push(Violation::new(&file.path, line, rule, what));
    };
    let folder = file.crate_name();
    let Some(room) = ROOMS.iter().find(|room| room.name == folder) else {
        let what = format!("{folder} is not in the table of rooms (xtask/src/manifests.rs)");
        report(1, "room", what);
        return violations;
    };
    let settings = settings(file);
    let is_set = |section: &str, key: &str, value: &str| {
        settings
            .iter()
            .any(|s| (s.section, s.key, s.value) == (section, key, value))
    };
    if !is_set("lints", "workspace", "true") {
        report(
            1,
            "lints",
            "it does not have `[lints] workspace = true`".to_owned(),
        );
    }
    if !is_set("package", "name", &format!("\"{folder}\"")) {
        report(
            1,
            "room",
            format!("the package in {folder}/ has another name"),
        );
    }
    for setting in &settings {
        let for_tests = setting.section.ends_with("dev-dependencies");
        if !for_tests && !setting.section.ends_with("dependencies") {
            continue;
        }
        let (package, rest) = setting.key.split_once('.').unwrap_or((setting.key, ""));
        // Itself with other features, for its own tests.
        if package == folder && for_tests {
            continue;
        }
        let line = setting.line;
        if let Some(what) = misplaced(room, package, for_tests) {
            report(line, "direction", what);
        }
        let by_workspace = rest == "workspace" || setting.value.contains("workspace = true");
        if !by_workspace {
            report(
                line,
                "version",
                format!("{package} does not take the workspace's version"),
            );
        }
        let optional = setting.value.contains("optional = true");
        if folder == "raft-core" && package == "tokio" && !for_tests && !optional {
            report(
                line,
                "pure-protocol",
                "raft-core builds without tokio".to_owned(),
            );
        }
    }
    violations
}

/// Why a room may not depend on a package, if it may not.
fn misplaced(room: &Room, package: &str, for_tests: bool) -> Option<String> {
    let name = room.name;
    if let Some((_, keeper)) = KEPT_IN.iter().find(|(kept, _)| *kept == package) {
        return (*keeper != name).then(|| format!("only {keeper} may depend on {package}"));
    }
    ROOMS.iter().find(|other| other.name == package)?;
    let allowed =
        room.may_use.contains(&package) || (for_tests && room.tests_may_use.contains(&package));
    (!allowed).then(|| format!("{name} may not depend on {package}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(folder: &str, body: &str) -> Vec<String> {
        let text = format!("[package]\nname = \"{folder}\"\n[lints]\nworkspace = true\n{body}");
        let file = SourceFile::new(&format!("{folder}/Cargo.toml"), &text);
        check(&[file]).iter().map(ToString::to_string).collect()
    }

    const NONE: [&str; 0] = [];

    #[test]
    fn dependencies_go_in_one_direction() {
        let good = "[dependencies]\nkv-api.workspace = true\nquic-link = { workspace = true }\n";
        assert_eq!(found("kv-client", good), NONE);
        let bad = "[dependencies]\nraft-core.workspace = true\n";
        let expected = "kv-client/Cargo.toml:6: direction: kv-client may not depend on raft-core";
        assert_eq!(found("kv-client", bad), [expected]);
        assert_eq!(found("raft-storage", bad), NONE);
    }

    #[test]
    fn tests_may_use_more() {
        let for_tests = "[dev-dependencies]\nkv-client.workspace = true\n";
        assert_eq!(found("kv-service", for_tests), NONE);
        let product = "[dependencies]\nkv-client.workspace = true\n";
        assert_eq!(found("kv-service", product).len(), 1);
        let itself = "[dev-dependencies]\nraft-storage = { path = \".\", features = [\"x\"] }\n";
        assert_eq!(found("raft-storage", itself), NONE);
    }

    #[test]
    fn some_packages_are_named_in_one_place_only() {
        let bad = "[dependencies]\nquinn.workspace = true\n";
        assert_eq!(found("quic-link", bad), NONE);
        let message = found("raft-transport", bad);
        assert!(
            message[0].ends_with("direction: only quic-link may depend on quinn"),
            "{message:?}"
        );
        let rocksdb = "[dependencies]\nrocksdb = { workspace = true, optional = true }\n";
        assert_eq!(found("raft-storage", rocksdb), NONE);
        assert_eq!(found("kv-service", rocksdb).len(), 1);
    }

    #[test]
    fn lints_versions_and_names_come_from_the_workspace() {
        let file = SourceFile::new("history/Cargo.toml", "[package]\nname = \"other\"\n");
        assert_eq!(check(&[file]).len(), 2);
        let own_version = "[dependencies]\nserde = \"1\"\n";
        assert_eq!(found("history", own_version).len(), 1);
        let stranger = SourceFile::new("shed/Cargo.toml", "[package]\nname = \"shed\"\n");
        let message = check(&[stranger])[0].to_string();
        assert!(
            message.starts_with("shed/Cargo.toml:1: room: shed is not in the table"),
            "{message}"
        );
        let root = SourceFile::new("Cargo.toml", "[workspace]\n");
        assert_eq!(check(&[root]), []);
    }

    #[test]
    fn the_core_builds_without_tokio() {
        let optional = "[dependencies]\ntokio = { workspace = true, optional = true }\n";
        assert_eq!(found("raft-core", optional), NONE);
        let always = "[dependencies]\ntokio = { workspace = true, features = [\"rt\"] }\n";
        assert_eq!(found("raft-core", always).len(), 1);
    }
}
