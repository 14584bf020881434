//! The replicated key-value store as a server: its state machine, the sessions of its clients, the
//! handling of their requests, and the composition of a node from its configuration.
//!
//! - [`state_machine`] is what is replicated, with [`store`] and [`sessions`].
//! - [`config`] reads `node.toml`; [`init`] makes a cluster on the disk, with [`certificates`] and
//!   formatted data directories ([`identity`]).

pub mod certificates;
pub mod config;
mod config_file;
mod digest;
mod files;
pub mod identity;
pub mod init;
mod plan;
pub mod sessions;
pub mod state_machine;
pub mod store;

pub use files::FileError;
