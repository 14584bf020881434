//! The judges on histories that are made: by hand, by running the model, and by chance beside a
//! brute force that tries every order. And what is drawn of them.

mod brute;
mod build;
mod by_chance;
mod by_hand;
mod drawn;
mod generator;
mod large;
mod log;
mod markup;
mod mutation;
mod validation;
