//! kv-service
