//! kv-client
