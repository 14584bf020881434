//! Histories of operations on a key-value store, and independent judges of them.
//!
//! - [`Recorder`] writes a history down while it happens; [`History`] reads and writes it as
//!   NDJSON.
//! - [`witness`] follows the order of the replicated log: no guessing, an exact culprit.
//! - [`dumped_log`] does so with the whole log at hand, which settles what clients never learnt.
//! - [`check`] sees only what clients saw and searches for an order that explains it.
//!
//! - [`picture`] draws the part of a history that a judge objects to, and [`spacetime`] what the
//!   nodes of a run did to each other, each as one page of HTML that needs nothing else.
//!
//! Pure: no clock, no files, no threads. Times are numbers that the caller takes; all that is asked
//! of them is that one clock made them. The search ends by a [`Budget`] and then says so: a history
//! that could not be judged in time is [`Verdict::Unknown`], never illegal.
//!
//! What is not here: operations on more than one key, reads at an older revision, and reads that
//! were asked to be stale. They are not to be recorded.
//!
//! ```
//! use history::{Budget, Header, Op, Recorder, Reply, Verdict, check};
//!
//! let mut recorder = Recorder::new(Header::default());
//! let client = recorder.client();
//! let put = recorder.invoke(client, 1, Op::put("color", "red"))?;
//! recorder.ok(put, 2, Reply::Written { version: 1, value_bytes: 3 }, None)?;
//! let get = recorder.invoke(client, 3, Op::get("color"))?;
//! recorder.ok(get, 4, Reply::Absent, None)?;
//! let verdict = check(&recorder.finish(), Budget::default());
//! assert!(matches!(verdict, Verdict::Illegal(_)), "an acknowledged write was not seen");
//! # Ok::<(), history::HistoryError>(())
//! ```

pub mod budget;
mod diagram;
pub mod dumped_log;
pub mod event;
mod html;
pub mod linearizability;
pub mod model;
pub mod operation;
pub mod picture;
pub mod recorder;
pub mod scene;
mod search;
pub mod spacetime;
mod timeline;
pub mod witness;

pub use budget::{Budget, Exhausted, Limit};
pub use dumped_log::LoggedWrite;
pub use event::{ByteString, Event, EventKind, Expect, Header, Op, Reply};
pub use linearizability::{Verdict, Violation, check};
pub use model::Register;
pub use operation::{Completion, History, HistoryError, Location, Operation};
pub use recorder::{ClientId, OpId, Recorder};
pub use scene::Scene;
pub use spacetime::{Condition, Fate, Role, SpaceTime, SpaceTimeEvent};
pub use witness::WitnessError;
