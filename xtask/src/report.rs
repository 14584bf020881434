//! What is reported, and the bookkeeping of exceptions.

use std::collections::BTreeSet;
use std::fmt;

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Violation {
    path: String,
    line: usize,
    rule: &'static str,
    what: String,
}

impl Violation {
    /// `line` counts from 1.
    pub(crate) fn new(
        path: &str,
        line: usize,
        rule: &'static str,
        what: impl Into<String>,
    ) -> Self {
        Self {
            path: path.to_owned(),
            line,
            rule,
            what: what.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            line,
            rule,
            what,
        } = self;
        write!(f, "{path}:{line}: {rule}: {what}")
    }
}

/// Something that a rule lets pass.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Exception {
    pub(crate) rule: &'static str,
    /// A file, relative to the root.
    pub(crate) path: &'static str,
    /// What in it: the name of a function, a banned name, or another file. Empty where the rule is
    /// about the file as a whole.
    pub(crate) item: &'static str,
    pub(crate) reason: &'static str,
}

/// Every exception from every rule.
pub(crate) const EXCEPTIONS: &[Exception] = &[
    Exception {
        rule: "circle",
        path: "raft-core/src/protocol/apply.rs",
        item: "raft-core/src/protocol/mod.rs",
        reason: "what a role decides are methods of Raft, split by file",
    },
    Exception {
        rule: "circle",
        path: "raft-core/src/protocol/candidate.rs",
        item: "raft-core/src/protocol/mod.rs",
        reason: "what a role decides are methods of Raft, split by file",
    },
    Exception {
        rule: "circle",
        path: "raft-core/src/protocol/follower.rs",
        item: "raft-core/src/protocol/mod.rs",
        reason: "what a role decides are methods of Raft, split by file",
    },
    Exception {
        rule: "circle",
        path: "raft-core/src/protocol/invariants.rs",
        item: "raft-core/src/protocol/mod.rs",
        reason: "what a role decides are methods of Raft, split by file",
    },
    Exception {
        rule: "circle",
        path: "raft-core/src/protocol/leader.rs",
        item: "raft-core/src/protocol/mod.rs",
        reason: "what a role decides are methods of Raft, split by file",
    },
    Exception {
        rule: "circle",
        path: "raft-core/src/protocol/lease.rs",
        item: "raft-core/src/protocol/mod.rs",
        reason: "what a role decides are methods of Raft, split by file",
    },
    Exception {
        rule: "circle",
        path: "raft-core/src/protocol/leaving.rs",
        item: "raft-core/src/protocol/mod.rs",
        reason: "what a role decides are methods of Raft, split by file",
    },
    Exception {
        rule: "circle",
        path: "raft-core/src/protocol/refill.rs",
        item: "raft-core/src/protocol/mod.rs",
        reason: "what a role decides are methods of Raft, split by file",
    },
    Exception {
        rule: "circle",
        path: "raft-core/src/protocol/reads.rs",
        item: "raft-core/src/protocol/mod.rs",
        reason: "what a role decides are methods of Raft, split by file",
    },
    Exception {
        rule: "circle",
        path: "raft-core/src/protocol/reconfig.rs",
        item: "raft-core/src/protocol/mod.rs",
        reason: "what a role decides are methods of Raft, split by file",
    },
    Exception {
        rule: "circle",
        path: "raft-core/src/protocol/snapshots.rs",
        item: "raft-core/src/protocol/mod.rs",
        reason: "what a role decides are methods of Raft, split by file",
    },
    Exception {
        rule: "circle",
        path: "raft-core/src/protocol/stall.rs",
        item: "raft-core/src/protocol/mod.rs",
        reason: "what a role decides are methods of Raft, split by file",
    },
    Exception {
        rule: "circle",
        path: "raft-core/src/protocol/transfer.rs",
        item: "raft-core/src/protocol/mod.rs",
        reason: "what a role decides are methods of Raft, split by file",
    },
    Exception {
        rule: "sleep",
        path: "flotilla/src/demo/verdict.rs",
        item: "thread::sleep",
        reason: "moves the clock, waits for nothing",
    },
    Exception {
        rule: "sleep",
        path: "flotilla/tests/it/program.rs",
        item: "thread::sleep",
        reason: "polls another process, with a deadline",
    },
];

/// Which exceptions were needed.
#[derive(Debug)]
pub(crate) struct Exceptions {
    table: &'static [Exception],
    used: BTreeSet<&'static Exception>,
}

impl Default for Exceptions {
    fn default() -> Self {
        Self::of(EXCEPTIONS)
    }
}

impl Exceptions {
    pub(crate) fn of(table: &'static [Exception]) -> Self {
        let used = BTreeSet::new();
        Self { table, used }
    }

    /// Whether this may be; marks the exception as needed.
    pub(crate) fn allow(&mut self, rule: &str, path: &str, item: &str) -> bool {
        let matching = |exception: &&'static Exception| {
            exception.rule == rule && exception.path == path && exception.item == item
        };
        let found = self.table.iter().find(matching);
        self.used.extend(found);
        found.is_some()
    }

    /// Those that nothing needed, and those that give no reason.
    pub(crate) fn unused(self) -> Vec<Violation> {
        let mut violations = Vec::new();
        for exception in self.table {
            let Exception {
                rule,
                path,
                item,
                reason,
            } = exception;
            if !self.used.contains(exception) {
                let what = format!("{rule} has an exception for \"{item}\" that nothing needs");
                violations.push(Violation::new(path, 1, "exception", what));
            }
            if reason.is_empty() {
                let what = format!("the exception from {rule} for \"{item}\" has no reason");
                violations.push(Violation::new(path, 1, "exception", what));
            }
        }
        violations
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exception_is_for_one_thing_and_is_reported_when_nothing_needs_it() {
        const TABLE: &[Exception] = &[Exception {
            rule: "size",
            path: "a/src/lib.rs",
            item: "long",
            reason: "it is one table",
        }];
        let mut exceptions = Exceptions::of(TABLE);
        assert!(!exceptions.allow("size", "a/src/lib.rs", "other"));
        assert!(!exceptions.allow("wall", "a/src/lib.rs", "long"));
        let reported = exceptions.unused();
        assert_eq!(reported.len(), 1);
        assert!(
            reported[0]
                .to_string()
                .starts_with("a/src/lib.rs:1: exception: size has")
        );

        let mut exceptions = Exceptions::of(TABLE);
        assert!(exceptions.allow("size", "a/src/lib.rs", "long"));
        assert_eq!(exceptions.unused(), []);
    }
}
