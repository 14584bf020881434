//! kv-service

mod digest;
pub mod sessions;
pub mod state_machine;
pub mod store;
