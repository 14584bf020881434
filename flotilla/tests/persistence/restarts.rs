//! Nodes that are killed and come back with their disks.

use crate::lab::{Lab, Storage};

/// What was written is there after all nodes were killed at once, and while none runs nobody
/// answers.
pub(crate) fn basic_persistence(storage: Storage) {
    let mut lab = Lab::new(3, storage, "");
    lab.append("a", "x");
    lab.append("a", "y");
    assert_eq!(lab.get("a"), "xy");
    for id in lab.ids() {
        lab.kill(id);
    }
    lab.assert_silent("a");
    for id in lab.ids() {
        lab.start(id);
    }
    lab.append("a", "z");
    assert_eq!(lab.get("a"), "xyz");
}

/// One replica after the other is away for a while; each comes back with what it had, and is needed
/// for the majority when the next one goes.
pub(crate) fn one_restart(storage: Storage) {
    let mut lab = Lab::new(3, storage, "");
    let (mut appended, mut put) = ("first".to_owned(), "0".to_owned());
    lab.append("k1", &appended);
    lab.put("k2", &put);
    for id in lab.ids() {
        assert_eq!((lab.get("k1"), lab.get("k2")), (appended.clone(), put));
        lab.kill(id);
        let piece = format!(",{id}");
        lab.append("k1", &piece);
        appended += &piece;
        put = id.to_string();
        lab.put("k2", &put);
        lab.start(id);
    }
    assert_eq!((lab.get("k1"), lab.get("k2")), (appended, put));
}
