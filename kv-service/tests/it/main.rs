//! Integration tests of the server: configuration, data directories, clusters on the disk.

mod config;
mod identity;
mod init;
