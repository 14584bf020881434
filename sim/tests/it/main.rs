//! Runs of whole clusters: fixed seeds, the seeds that failed once, and what a suite may ask of a
//! world.

mod programs;
mod seeds;
mod worlds;
