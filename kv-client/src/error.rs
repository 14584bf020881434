//! What can go wrong, told apart by what the caller knows afterwards about its call.

use kv_api::{CommandError, LimitExceeded, QueryError};

use crate::config::ConfigError;

/// Why a call did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The settings or certificates cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The call was not carried out before its deadline, and nothing was applied: no node ever took
    /// it.
    #[error("unavailable, nothing was applied: {0}")]
    Unavailable(String),
    /// The write, or the change, was handed to a node and no answer came before its deadline: it
    /// may have been applied, may be applied later, or never.
    #[error("outcome unknown, it may or may not have been applied: {0}")]
    Unknown(String),
    /// A key, value or append is outside its limit. Nothing was applied.
    #[error(transparent)]
    Limit(#[from] LimitExceeded),
    /// The service refuses the request; asking again will not help. Nothing was applied.
    #[error("refused, nothing was applied: {0}")]
    Refused(String),
    /// The command was refused by the replicated state. Nothing was applied.
    #[error("refused, nothing was applied: {0}")]
    Command(CommandError),
    /// The question cannot be answered.
    #[error("refused: {0}")]
    Query(#[from] QueryError),
    /// The client was closed before the call was made. Nothing was applied.
    #[error("the client is closed; nothing was applied")]
    Closed,
}

impl ClientError {
    /// The exit code of a program that ends with this error: 2 configuration, 3 unavailable and
    /// nothing applied, 4 outcome unknown, 5 refused.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Config(_) => 2,
            Self::Unavailable(_) | Self::Closed => 3,
            Self::Unknown(_) => 4,
            Self::Limit(_) | Self::Refused(_) | Self::Command(_) | Self::Query(_) => 5,
        }
    }
}

impl From<CommandError> for ClientError {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Limit(limit) => Self::Limit(limit),
            other => Self::Command(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_follow_the_command_line_contract() {
        let limit = kv_api::limits::check_key(b"").expect_err("an empty key");
        let codes = [
            (ClientError::Config(ConfigError::NoEndpoints), 2),
            (ClientError::Unavailable(String::new()), 3),
            (ClientError::Closed, 3),
            (ClientError::Unknown(String::new()), 4),
            (ClientError::from(CommandError::Limit(limit.clone())), 5),
            (ClientError::from(limit), 5),
            (ClientError::Refused(String::new()), 5),
        ];
        for (error, code) in codes {
            assert_eq!(error.exit_code(), code, "{error}");
        }
    }
}
