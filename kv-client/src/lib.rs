//! The client library of the replicated key-value store.
//!
//! A [`KvClient`] keeps a connection to every node, learns from any of them who leads, and sends
//! each call there. Calls of all its clones share a few streams, so that thousands of them can be
//! on their way at once. When the leader changes, every call without an answer goes to the new one
//! at once.
//!
//! A write takes effect **exactly once**: it carries the session of the client and a number, so the
//! store recognises a repetition. When no answer came before the deadline, the error says what is
//! known: [`ClientError::Unavailable`] when it was certainly not applied, [`ClientError::Unknown`]
//! when it may have been. Reads are linearizable, except [`KvClient::get_stale`].
//!
//! ```no_run
//! use std::path::Path;
//! use kv_client::{ClientConfig, ClientError, KvClient, ScanRange};
//!
//! # async fn example() -> Result<(), ClientError> {
//! let config = ClientConfig::load(Path::new("flotilla-data/client.toml"))?;
//! let client = KvClient::connect(config).await?;
//!
//! let written = client.put("fruit/apple", "red").await?;
//! let apple = client.get("fruit/apple").await?.expect("just written");
//! assert_eq!(apple.value, "red");
//!
//! client.put("fruit/apple", "green").await?;
//! let before = client.get_at("fruit/apple", written.revision).await?.expect("kept");
//! assert_eq!(before.value, "red");
//!
//! let mut scan = client.scan(ScanRange::prefix("fruit/"));
//! while let Some(page) = scan.next_page().await? {
//!     for item in page {
//!         println!("{:?} = {:?}", item.key, item.value);
//!     }
//! }
//! client.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! What changes the cluster needs a certificate of an administrator, `admin.toml`:
//! [`KvClient::members`], [`KvClient::change_members`], [`KvClient::transfer_leader`] and
//! [`KvClient::save_snapshot`].
//!
//! Inside: `client`, `scan`, `status`, `admin` and `download` are what users call; `router`
//! decides, without IO, which call goes where and what an answer means, with `leader`, `session`,
//! `endpoints` and `calls` as its parts; `connection` moves the frames; `shared` joins the two.

mod admin;
mod calls;
mod client;
mod config;
mod connection;
mod download;
mod endpoints;
mod error;
mod leader;
mod retry;
mod router;
mod scan;
mod session;
mod shared;
mod status;

pub use client::{CasOutcome, Deleted, KvClient, Located};
pub use config::{
    ClientConfig, ConfigError, ENDPOINTS_MAX, EndpointAddress, TIMEOUT_MAX, Timeouts,
};
pub use download::{SnapshotDownload, SnapshotSummary};
pub use error::ClientError;
pub use kv_api::limits;
pub use kv_api::{
    CommandError, CommandReply, Expect, KeyValue, MemberChange, MemberKind, MemberReport,
    MembersReport, NodeStatus, QueryError, SnapshotHead, WriteOp, Written,
};
pub use scan::{ScanRange, ScanStream};
pub use shared::{CALLS_BYTES_MAX, CALLS_MAX};
pub use status::NodeReport;
