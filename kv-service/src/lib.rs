//! The replicated key-value store as a server: its state machine, the sessions of its clients, the
//! handling of their requests, and the composition of a node from its configuration.
//!
//! - [`state_machine`] is what is replicated, with [`store`] and [`sessions`].
//! - [`config`] reads `node.toml`; [`init`] makes a cluster on the disk, with [`certificates`] and
//!   formatted data directories ([`identity`]).
//! - [`compose`] joins all of it to a running node that serves clients.

mod admin;
pub mod backup;
pub mod certificates;
mod cluster_files;
pub mod compose;
pub mod config;
mod config_file;
mod digest;
mod files;
mod handler;
pub mod identity;
mod identity_error;
mod image;
pub mod init;
mod init_error;
mod join;
mod kinds;
mod making;
mod plan;
pub mod restore;
mod server;
pub mod sessions;
mod start_error;
pub mod state_machine;
pub mod store;
mod stream;

pub use files::FileError;
pub use server::{CLOSE_BUSY, CLOSE_INTERNAL, CLOSE_VIOLATION};
pub use stream::{REQUEST_FRAME, RESPONSE_FRAME};
