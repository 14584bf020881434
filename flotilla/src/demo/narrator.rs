//! What the demo tells people while it plays.

/// Tells what goes on, to people.
pub(super) struct Narrator {
    quiet: bool,
}

impl Narrator {
    /// One that says nothing when `quiet`.
    pub(super) fn new(quiet: bool) -> Self {
        Self { quiet }
    }

    /// Says a line.
    pub(super) fn say(&self, line: &str) {
        if !self.quiet {
            eprintln!("{line}");
        }
    }
}
