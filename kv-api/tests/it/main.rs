//! Tests of the words and their encoding.

mod golden;
mod hostile;
mod limits;
mod round_trip;
mod words;
