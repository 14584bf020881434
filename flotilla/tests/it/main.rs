//! The program as its users meet it: real processes, real files, real sockets.

mod check;
mod cluster;
mod data;
mod demo;
mod disks;
mod folders;
mod growth;
mod members;
mod operations;
mod program;
mod snapshots;
mod states;
mod usage;
mod watched;
