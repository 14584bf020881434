//! Exit codes and the one line that goes with them. Every command ends in one of these.

use std::io;
use std::process::ExitCode;

use kv_client::ClientError;
use kv_service::compose::StartError;
use kv_service::init::{InitError, PlanError};

/// How the program ends. The numbers are a contract with the scripts that call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Done = 0,
    /// The answer is "no": a key is absent, a comparison failed.
    No = 1,
    /// The command line or a configuration cannot work as given.
    Usage = 2,
    /// No answer; nothing was applied.
    Unavailable = 3,
    /// A write may or may not have been applied.
    Unknown = 4,
    /// Over a limit or not permitted.
    Refused = 5,
    /// A node stopped itself, or this program met a bug of its own.
    Stopped = 70,
}

impl Exit {
    /// The exit that a number stands for; a number that is none of them is a bug of ours.
    pub(crate) fn from_code(code: i32) -> Self {
        match code {
            0 => Self::Done,
            1 => Self::No,
            2 => Self::Usage,
            3 => Self::Unavailable,
            4 => Self::Unknown,
            5 => Self::Refused,
            _ => Self::Stopped,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: Option<String>,
}

/// What a command comes to.
pub(crate) type Outcome = Result<Exit, Failure>;

impl Failure {
    /// A failure with its exit code.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        let message = Some(message.into());
        Self { exit, message }
    }

    /// The command line or a configuration cannot work as given.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Over a limit or not permitted.
    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self::new(Exit::Refused, message)
    }

    /// A bug or a broken environment.
    pub(crate) fn stopped(message: impl Into<String>) -> Self {
        Self::new(Exit::Stopped, message)
    }

    /// How the program will end.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// What went wrong, on one line.
    pub(crate) fn line(&self) -> Option<String> {
        self.message.as_deref().map(one_line)
    }

    /// Says what went wrong, on one line of standard error.
    pub(crate) fn report(&self) -> Exit {
        if let Some(line) = self.line() {
            eprintln!("flotilla: {line}");
        }
        self.exit
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::new(Exit::from_code(error.exit_code()), error.to_string())
    }
}

impl From<InitError> for Failure {
    fn from(error: InitError) -> Self {
        Self::new(Exit::from_code(error.exit_code()), error.to_string())
    }
}

impl From<PlanError> for Failure {
    fn from(error: PlanError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self::new(Exit::from_code(error.exit_code()), error.to_string())
    }
}

/// From writing to standard output. A reader that has seen enough (`| head`) is no failure.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self {
                exit: Exit::Done,
                message: None,
            };
        }
        Self::stopped(format!("cannot write to standard output: {error}"))
    }
}

/// Brings a message onto one line; what a name or a value smuggled in cannot steer a terminal.
fn one_line(message: &str) -> String {
    let words: Vec<&str> = message.split_whitespace().collect();
    let mut line = String::new();
    for letter in words.join(" ").chars() {
        if letter.is_control() {
            line.extend(letter.escape_default());
        } else {
            line.push(letter);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_becomes_one_harmless_line() {
        let failure = Failure::usage("first\n  second\u{1b}[31m");
        assert_eq!(failure.line().as_deref(), Some("first second\\u{1b}[31m"));
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(failure.exit(), Exit::Done);
        assert_eq!(failure.line(), None);
    }

    #[test]
    fn every_exit_survives_the_way_through_its_number() {
        let all = [
            Exit::Done,
            Exit::No,
            Exit::Usage,
            Exit::Unavailable,
            Exit::Unknown,
            Exit::Refused,
            Exit::Stopped,
        ];
        for exit in all {
            assert_eq!(Exit::from_code(exit as i32), exit);
        }
    }
}
