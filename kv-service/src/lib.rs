//! The replicated key-value store as a server: its state machine, the sessions of its clients, the
//! handling of their requests, and the composition of a node from its configuration.
//!
//! - [`config`] reads `node.toml`; [`init`] makes a cluster on the disk, with [`certificates`] and
//!   formatted data directories ([`identity`]).

pub mod certificates;
pub mod config;
mod config_file;
mod files;
pub mod identity;
pub mod init;
mod plan;

pub use files::FileError;
