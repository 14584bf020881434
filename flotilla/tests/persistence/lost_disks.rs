//! Nodes that lose everything and come back as new members.

use crate::lab::{Lab, Storage};

/// Two values that grow and change, and what they must be.
struct Values {
    appended: String,
    put: String,
    writes: u32,
}

impl Values {
    fn new(lab: &Lab) -> Self {
        let mut values = Self {
            appended: String::new(),
            put: String::new(),
            writes: 0,
        };
        values.write(lab);
        values
    }

    fn append(&mut self, lab: &Lab) {
        self.writes += 1;
        let piece = format!("{},", self.writes);
        lab.append("k1", &piece);
        self.appended += &piece;
    }

    fn write(&mut self, lab: &Lab) {
        self.append(lab);
        self.put = self.writes.to_string();
        lab.put("k2", &self.put);
    }

    #[track_caller]
    fn check(&self, lab: &Lab) {
        let found = (lab.get("k1"), lab.get("k2"));
        assert_eq!(found, (self.appended.clone(), self.put.clone()));
    }
}

/// Loses the disk of `id`, writes meanwhile, and brings the node back; writes while it joins.
fn lose(lab: &mut Lab, id: u64, values: &mut Values) {
    values.check(lab);
    lab.kill_and_erase(id);
    values.write(lab);
    lab.assert_refuses_to_start(id);
    lab.replace(id);
    values.append(lab);
    values.append(lab);
    lab.promote(id);
    values.check(lab);
}

/// Each replica in turn loses its disk.
pub(crate) fn one_lost_disk(storage: Storage) {
    let mut lab = Lab::new(3, storage, "");
    let mut values = Values::new(&lab);
    for id in lab.ids() {
        lose(&mut lab, id, &mut values);
    }
}

/// One of five is down, with what it knew; every other one in turn loses its disk. Then the first
/// comes back.
pub(crate) fn one_lost_one_down(storage: Storage) {
    let mut lab = Lab::new(5, storage, "");
    let mut values = Values::new(&lab);
    lab.kill(1);
    values.write(&lab);
    for id in 2..=5 {
        lose(&mut lab, id, &mut values);
    }
    lab.start(1);
    values.write(&lab);
    // The node that was down counts again: without two others it makes the majority.
    lab.kill(4);
    lab.kill(5);
    values.write(&lab);
    values.check(&lab);
}

/// A replica that lost its disk and was replaced does not vote and is not counted before it was
/// promoted: of the two that are left as voters one is dead, and the learner does not help.
pub(crate) fn not_counted(storage: Storage) {
    let mut lab = Lab::new(3, storage, "");
    let mut values = Values::new(&lab);
    lab.kill_and_erase(3);
    lab.replace(3);
    values.write(&lab);
    lab.kill(2);
    lab.assert_silent("k1");
    lab.start(2);
    values.write(&lab);
    lab.promote(3);
    // Now it counts: two of three, without the one that was needed before.
    lab.kill(2);
    values.write(&lab);
    values.check(&lab);
}
