//! Stale replicas and replicas without a memory, together: they must not make a majority that
//! forgets.

use crate::lab::{Lab, Storage, assert_in_order};

/// Node 1 misses the last writes, nodes 2 and 3 lose their disks. The three of them are a majority
/// that does not know those writes, and nobody may answer.
pub(crate) fn rejoin_mix_1(storage: Storage) {
    let mut lab = Lab::new(5, storage, "");
    lab.append("k", "a");
    lab.kill(1);
    lab.append("k", "b");
    lab.append("k", "c");
    for id in [2, 3] {
        lab.kill_and_erase(id);
    }
    for id in [4, 5] {
        lab.kill(id);
    }
    lab.start(1);
    for id in [2, 3] {
        lab.assert_refuses_to_start(id);
    }
    lab.assert_silent("k");
    lab.start(4);
    lab.start(5);
    assert_eq!(lab.get("k"), "abc");
    for id in [2, 3] {
        lab.replace(id);
        lab.append("k", &id.to_string());
        lab.promote(id);
    }
    assert_eq!(lab.get("k"), "abc23");
    // What came back counts: without two others it makes the majority.
    lab.kill(4);
    lab.kill(5);
    assert_eq!(lab.get("k"), "abc23");
}

/// Nodes 2 and 3 are down while much is written to 1, 4 and 5; then 1 loses its disk, and 2 and 3
/// come back at the same moment, with 4 and 5 up.
pub(crate) fn rejoin_mix_3(storage: Storage) {
    let mut lab = Lab::new(5, storage, "");
    lab.append("k", "|first|");
    lab.kill(2);
    lab.kill(3);
    let appended: Vec<String> = (0..100).map(|number| format!("|{number}|")).collect();
    for piece in &appended {
        lab.append("k", piece);
    }
    lab.kill_and_erase(1);
    lab.start(2);
    lab.start(3);
    lab.assert_refuses_to_start(1);
    let client = lab.client(crate::program::PATIENCE);
    let (one, other) = (client.append("k", "|one|"), client.append("k", "|other|"));
    let raced = lab.runtime.block_on(async { tokio::join!(one, other) });
    raced.0.expect("a majority is there");
    raced.1.expect("a majority is there");
    lab.replace(1);
    lab.promote(1);
    let value = lab.get("k");
    assert_in_order(&value, &["|first|".to_owned()]);
    assert_in_order(&value, &appended);
    for piece in ["|one|", "|other|"] {
        assert_in_order(&value, &[piece.to_owned()]);
    }
    lab.kill(4);
    lab.kill(5);
    assert_eq!(lab.get("k"), value);
}
