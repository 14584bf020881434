//! Integration tests of the server: configuration, data directories, clusters on the disk, running
//! nodes and their clients.

mod admin;
mod clients;
mod cluster;
mod config;
mod identity;
mod init;
mod join;
mod snapshots;
mod support;
