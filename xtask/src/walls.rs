//! Names that may not be said in some rooms, and words that may not be said anywhere.
//!
//! A wall is a row of a table: where it stands, what it keeps out, and which files are its doors.

use crate::report::{Exceptions, Violation};
use crate::source::{Import, Line, SourceFile, find_name, imports};

/// Keeps names out of some paths.
struct Wall {
    rule: &'static str,
    /// It stands around paths that begin with one of these; everywhere, where there is none.
    within: &'static [&'static str],
    /// Paths beginning with one of these are not behind it.
    except: &'static [&'static str],
    /// Whole words or paths.
    banned: &'static [&'static str],
    /// Which lines it looks at.
    lines: Lines,
    why: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Lines {
    All,
    Product,
    Tests,
}

const QUIC: &[&str] = &[
    "quinn",
    "quinn_proto",
    "rustls",
    "rustls_pki_types",
    "webpki",
];
const FILES: &[&str] = &[
    "std::fs",
    "tokio::fs",
    "std::os::unix::fs",
    "rustix::fs",
    "rocksdb::",
];

const WALLS: &[Wall] = &[
    Wall {
        rule: "pure-protocol",
        within: &["raft-core/src/protocol/"],
        except: &[],
        banned: &[
            "tokio",
            "std::time",
            "std::fs",
            "std::net",
            "std::thread",
            "std::env",
            "rand",
            "getrandom",
            "HashMap",
            "HashSet",
            ".await",
            "async",
        ],
        lines: Lines::Product,
        why: "the protocol has no clock, no IO, no tasks and no arbitrary order",
    },
    Wall {
        rule: "only-quic-link",
        within: &[],
        except: &["quic-link/"],
        banned: QUIC,
        lines: Lines::All,
        why: "only quic-link knows QUIC and TLS",
    },
    Wall {
        rule: "only-raft-storage",
        within: &[
            "raft-core/",
            "raft-transport/",
            "quic-link/",
            "kv-api/",
            "kv-service/",
            "kv-client/",
        ],
        except: &[
            // Settings, keys and the format of a directory are not on the data path.
            "kv-service/src/certificates.rs",
            "kv-service/src/config.rs",
            "kv-service/src/files.rs",
            "kv-service/src/identity.rs",
            "kv-service/src/init.rs",
            "kv-client/src/config.rs",
        ],
        banned: FILES,
        lines: Lines::Product,
        why: "only raft-storage touches files or RocksDB on the data path",
    },
    Wall {
        rule: "only-node-spawns",
        within: &["raft-core/src/"],
        except: &["raft-core/src/node/"],
        banned: &[
            "tokio::spawn",
            "task::spawn",
            "task::spawn_blocking",
            "JoinSet",
            "thread::spawn",
            "thread::Builder",
        ],
        lines: Lines::Product,
        why: "only node/ starts tasks, so a node can end with every one of them joined",
    },
    Wall {
        rule: "client-without-raft",
        within: &["kv-client/src/"],
        except: &[],
        banned: &["raft_core", "raft_transport", "raft_storage", "kv_service"],
        lines: Lines::All,
        why: "a client never compiles Raft",
    },
    Wall {
        rule: "words-without-io",
        within: &["kv-api/src/"],
        except: &[],
        banned: &[
            "tokio",
            "std::net",
            "std::thread",
            "std::time",
            "std::io",
            "async",
            ".await",
        ],
        lines: Lines::All,
        why: "kv-api is words and bytes",
    },
    Wall {
        rule: "pure-history",
        within: &["history/src/"],
        except: &[],
        banned: &[
            "tokio",
            "std::fs",
            "std::net",
            "std::thread",
            "std::time",
            "std::io",
            "rand",
        ],
        lines: Lines::All,
        why: "a judge has no clock and no files: time comes in as numbers",
    },
    Wall {
        rule: "only-compose",
        within: &["kv-service/src/"],
        except: &["kv-service/src/compose.rs", "kv-service/src/compose/"],
        banned: &[
            "WalLogStore",
            "RocksLogStore",
            "MemoryLogStore",
            "QuicTransport",
            "MemoryNetwork",
        ],
        lines: Lines::Product,
        why: "only compose joins backends to a node",
    },
    Wall {
        rule: "only-codecs",
        within: &[],
        except: &[
            "kv-api/src/codec.rs",
            "raft-transport/src/codec.rs",
            "raft-transport/src/quic/hello.rs",
        ],
        banned: &["bincode"],
        lines: Lines::Product,
        why: "each format is one module, so that its encoding can be replaced",
    },
    Wall {
        rule: "bounded",
        within: &[],
        except: &[],
        banned: &[
            "unbounded_channel",
            "UnboundedSender",
            "UnboundedReceiver",
            "mpsc::unbounded",
        ],
        lines: Lines::All,
        why: "every queue has a named bound",
    },
    Wall {
        rule: "bounded-std",
        within: &[],
        except: &[],
        banned: &["mpsc::channel()"],
        lines: Lines::Product,
        why: "a channel of the standard library is bounded by `sync_channel`",
    },
    Wall {
        rule: "unfinished",
        within: &[],
        except: &[],
        banned: &["todo!", "unimplemented!", "dbg!"],
        lines: Lines::All,
        why: "unfinished code is not committed",
    },
    Wall {
        rule: "sleep",
        within: &[],
        except: &[],
        banned: &["thread::sleep", "std::thread::sleep_ms"],
        lines: Lines::Tests,
        why: "a test waits for a condition, with a generous deadline",
    },
];

/// Notes to oneself, in comments.
const NOTES: &[&str] = &["TODO", "FIXME", "XXX", "HACK"];

pub(crate) fn check(file: &SourceFile, exceptions: &mut Exceptions) -> Vec<Violation> {
    let mut violations = Vec::new();
    let imports = imports(file);
    for wall in WALLS.iter().filter(|wall| wall.surrounds(&file.path)) {
        for (number, name) in breaches(file, wall, &imports) {
            if !exceptions.allow(wall.rule, &file.path, name) {
                let what = format!("`{name}` is not for this place: {}", wall.why);
                violations.push(Violation::new(&file.path, number, wall.rule, what));
            }
        }
    }
    for (number, line) in file.numbered() {
        if let Some(note) = NOTES
            .iter()
            .find(|note| find_name(&line.comment, note).count() > 0)
        {
            let what = format!("{note}: do it, or write an issue");
            violations.push(Violation::new(&file.path, number, "note", what));
        }
        if is_ignored_without_reason(line) {
            let what = "`#[ignore]` needs a reason: `#[ignore = \"why\"]`";
            violations.push(Violation::new(&file.path, number, "ignore", what));
        }
    }
    violations
}

impl Wall {
    fn surrounds(&self, path: &str) -> bool {
        let begins = |prefix: &&str| path.starts_with(*prefix);
        let within = self.within.is_empty() || self.within.iter().any(begins);
        within && !self.except.iter().any(begins)
    }
}

/// The lines on which a banned name stands, also where braces in a `use` hide it.
fn breaches(file: &SourceFile, wall: &Wall, imports: &[Import]) -> Vec<(usize, &'static str)> {
    let lines: Box<dyn Iterator<Item = (usize, &Line)>> = match wall.lines {
        Lines::All => Box::new(file.numbered()),
        Lines::Product => Box::new(file.product()),
        Lines::Tests => Box::new(file.tests()),
    };
    let mut found = Vec::new();
    for (number, line) in lines {
        let said = |name: &&&str| find_name(&line.code, name).next().is_some();
        found.extend(wall.banned.iter().filter(said).map(|name| (number, *name)));
    }
    if wall.lines != Lines::Tests {
        for import in imports {
            let path = format!("{}::", import.path.join("::"));
            let said =
                |name: &&&str| path.starts_with(&format!("{}::", name.trim_end_matches(':')));
            found.extend(
                wall.banned
                    .iter()
                    .filter(said)
                    .map(|name| (import.line, *name)),
            );
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn is_ignored_without_reason(line: &Line) -> bool {
    let code = line.code.replace(' ', "");
    code.contains("#[ignore]") || (code.contains("#[ignore=") && line.raw.contains("\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Exception;

    fn rules(path: &str, text: &str) -> Vec<&'static str> {
        let file = SourceFile::new(path, text);
        let found = check(&file, &mut Exceptions::of(&[]));
        let mut rules: Vec<_> = WALLS
            .iter()
            .map(|wall| wall.rule)
            .chain(["note", "ignore"])
            .collect();
        rules.retain(|rule| {
            let marker = format!(": {rule}: ");
            found
                .iter()
                .any(|violation| violation.to_string().contains(&marker))
        });
        rules
    }

    const NONE: [&str; 0] = [];

    #[test]
    fn the_protocol_names_no_clock_io_task_or_arbitrary_order() {
        let path = "raft-core/src/protocol/log.rs";
        let good =
            "use std::collections::BTreeMap;\nfn f() { rand_like(); } // not async, no tokio\n";
        assert_eq!(rules(path, good), NONE);
        for bad in [
            "use tokio::sync::mpsc;",
            "use std::{fmt, time::Instant};",
            "let m: std::collections::HashMap<u8, u8>;",
            "async fn f() {}",
            "x.await;",
            "let r = rand::random();",
            "std::thread::yield_now();",
        ] {
            assert_eq!(rules(path, bad), ["pure-protocol"], "{bad}");
            assert_eq!(rules("raft-core/src/node/mod.rs", bad), NONE, "{bad}");
            let in_tests = format!("#[cfg(test)]\nmod tests {{\n{bad}\n}}\n");
            assert_eq!(rules(path, &in_tests), NONE, "{bad}");
        }
    }

    #[test]
    fn only_quic_link_names_quinn_and_rustls() {
        for bad in ["use quinn::Endpoint;", "rustls::ClientConfig::builder();"] {
            assert_eq!(rules("raft-transport/src/quic.rs", bad), ["only-quic-link"]);
            assert_eq!(rules("quic-link/src/endpoint.rs", bad), NONE);
        }
        assert_eq!(
            rules("kv-client/src/lib.rs", "/// Not quinn.\nlet a = \"quinn\";"),
            NONE
        );
    }

    #[test]
    fn only_storage_touches_files() {
        for bad in [
            "std::fs::read(path)",
            "use std::{fs, io};",
            "rocksdb::DB::open(path)",
        ] {
            assert_eq!(
                rules("kv-service/src/handler.rs", bad),
                ["only-raft-storage"],
                "{bad}"
            );
            assert_eq!(rules("raft-storage/src/wal.rs", bad), NONE, "{bad}");
            assert_eq!(rules("kv-service/src/config.rs", bad), NONE, "{bad}");
        }
    }

    #[test]
    fn only_the_node_starts_tasks() {
        for bad in [
            "tokio::spawn(f)",
            "tokio::task::spawn(f)",
            "use tokio::task::JoinSet;",
        ] {
            assert_eq!(
                rules("raft-core/src/transport.rs", bad),
                ["only-node-spawns"],
                "{bad}"
            );
            assert_eq!(rules("raft-core/src/node/driver.rs", bad), NONE, "{bad}");
        }
    }

    #[test]
    fn the_client_the_words_and_the_judges_stay_apart() {
        let bad = "use raft_core::Term;";
        assert_eq!(
            rules("kv-client/src/client.rs", bad),
            ["client-without-raft"]
        );
        assert_eq!(rules("kv-service/src/handler.rs", bad), NONE);
        assert_eq!(
            rules("kv-api/src/codec.rs", "use std::io::Read;"),
            ["words-without-io"]
        );
        assert_eq!(
            rules("history/src/search.rs", "use std::time::Instant;"),
            ["pure-history"]
        );
    }

    #[test]
    fn only_compose_names_backends() {
        let bad = "let store = WalLogStore::open(dir)?;";
        assert_eq!(rules("kv-service/src/server.rs", bad), ["only-compose"]);
        assert_eq!(rules("kv-service/src/compose.rs", bad), NONE);
        assert_eq!(rules("kv-service/tests/it/main.rs", bad), NONE);
    }

    #[test]
    fn only_codecs_name_the_encoding() {
        let bad = "bincode::serde::decode_from_slice(body, settings());";
        assert_eq!(rules("kv-service/src/handler.rs", bad), ["only-codecs"]);
        assert_eq!(rules("kv-api/src/codec.rs", bad), NONE);
    }

    #[test]
    fn queues_are_bounded_everywhere() {
        for bad in [
            "let (a, b) = tokio::sync::mpsc::unbounded_channel();",
            "use futures::channel::mpsc::unbounded;",
        ] {
            assert_eq!(rules("flotilla/src/main.rs", bad), ["bounded"], "{bad}");
        }
        let of_std = "let (a, b) = std::sync::mpsc::channel();";
        assert_eq!(rules("flotilla/src/main.rs", of_std), ["bounded-std"]);
        assert_eq!(rules("flotilla/tests/it/main.rs", of_std), NONE);
        assert_eq!(
            rules("flotilla/src/main.rs", "let (a, b) = mpsc::channel(8);"),
            NONE
        );
    }

    #[test]
    fn unfinished_code_and_notes_are_reported() {
        let mark = ["TO", "DO"].concat();
        assert_eq!(
            rules("a/src/lib.rs", &format!("f(); // {mark}: later")),
            ["note"]
        );
        assert_eq!(rules("a/src/lib.rs", &format!("let a = \"{mark}\";")), NONE);
        assert_eq!(
            rules("a/tests/it/main.rs", "fn f() { todo!() }"),
            ["unfinished"]
        );
        assert_eq!(rules("a/src/lib.rs", "let a = dbg!(b);"), ["unfinished"]);
    }

    #[test]
    fn tests_do_not_sleep_and_are_not_ignored_in_silence() {
        let bad = "fn f() { std::thread::sleep(a) }";
        assert_eq!(rules("a/tests/it/main.rs", bad), ["sleep"]);
        assert_eq!(rules("a/src/lib.rs", bad), NONE);
        assert_eq!(rules("a/tests/it/main.rs", "#[ignore]"), ["ignore"]);
        assert_eq!(rules("a/tests/it/main.rs", "#[ignore = \"\"]"), ["ignore"]);
        assert_eq!(
            rules("a/tests/it/main.rs", "#[ignore = \"needs root\"]"),
            NONE
        );
    }

    #[test]
    fn an_exception_opens_one_door() {
        const TABLE: &[Exception] = &[Exception {
            rule: "sleep",
            path: "a/tests/it/main.rs",
            item: "thread::sleep",
            reason: "it tests a pause",
        }];
        let file = SourceFile::new("a/tests/it/main.rs", "fn f() { thread::sleep(a); todo!() }");
        let found = check(&file, &mut Exceptions::of(TABLE));
        assert_eq!(found.len(), 1, "{found:?}");
    }
}
