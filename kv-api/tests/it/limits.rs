//! What is within the limits can be said, stored and sent; what is not is refused by name.

use bytes::Bytes;
use kv_api::limits::{
    self, ADDRESS_BYTES_MAX, COMMAND_BYTES_MAX, FRAME_BYTES_MAX, KEY_BYTES_MAX, SCAN_KEYS_MAX,
    SCAN_PAGE_BYTES_MAX, SNAPSHOT_PART_BYTES_MAX, VALUE_BYTES_MAX,
};
use kv_api::{
    Command, Expect, KeyValue, LimitExceeded, MemberChange, MemberKind, MemberReport,
    MembersReport, Outcome, QueryReply, Request, RequestBody, Response, ScanPage, SessionId,
    SessionStamp, WriteOp, decode, encode,
};

fn zeros(bytes: usize) -> Bytes {
    vec![0; bytes].into()
}

fn put(key: Bytes, value: Bytes) -> Command {
    let op = WriteOp::Put { key, value };
    Command::Write { stamp: None, op }
}

#[test]
fn keys_and_values_are_bounded() {
    for bytes in [1, KEY_BYTES_MAX] {
        assert_eq!(limits::check_key(&zeros(bytes)), Ok(()));
    }
    for bytes in [0, VALUE_BYTES_MAX] {
        assert_eq!(limits::check_value(&zeros(bytes)), Ok(()));
    }
    for bytes in [0, KEY_BYTES_MAX + 1] {
        let exceeded = LimitExceeded {
            what: "key".to_owned(),
            bytes: bytes as u64,
            min: 1,
            max: KEY_BYTES_MAX as u64,
        };
        assert_eq!(limits::check_key(&zeros(bytes)), Err(exceeded));
    }
    let exceeded = limits::check_value(&zeros(VALUE_BYTES_MAX + 1)).expect_err("too large");
    let said = "value of 1048577 bytes is outside its limit of 0 to 1048576";
    assert_eq!(exceeded.to_string(), said);
}

#[test]
fn every_part_of_a_command_is_checked() {
    let (key, value) = (zeros(KEY_BYTES_MAX), zeros(VALUE_BYTES_MAX));
    let (long_key, too_large) = (zeros(KEY_BYTES_MAX + 1), zeros(VALUE_BYTES_MAX + 1));
    let write = |op| Command::Write { stamp: None, op };
    let cas = |key: &Bytes, expect: Expect, value: &Bytes| {
        write(WriteOp::Cas {
            key: key.clone(),
            expect,
            value: value.clone(),
        })
    };
    let append = |key: &Bytes, value: &Bytes| {
        write(WriteOp::Append {
            key: key.clone(),
            value: value.clone(),
        })
    };
    let delete = |key: &Bytes| write(WriteOp::Delete { key: key.clone() });
    for within in [
        put(key.clone(), value.clone()),
        append(&key, &value),
        delete(&key),
        cas(&key, Expect::Value(value.clone()), &value),
        Command::OpenSession,
        Command::Compact { revision: u64::MAX },
    ] {
        assert_eq!(within.check_limits(), Ok(()));
    }
    for (outside, what) in [
        (put(Bytes::new(), value.clone()), "key"),
        (put(long_key.clone(), value.clone()), "key"),
        (put(key.clone(), too_large.clone()), "value"),
        (append(&long_key, &value), "key"),
        (append(&key, &too_large), "value"),
        (delete(&long_key), "key"),
        (delete(&Bytes::new()), "key"),
        (cas(&long_key, Expect::Absent, &value), "key"),
        (cas(&key, Expect::Value(too_large.clone()), &value), "value"),
        (cas(&key, Expect::Absent, &too_large), "value"),
    ] {
        let exceeded = outside.check_limits().expect_err("outside");
        assert_eq!(exceeded.what, what);
    }
}

#[test]
fn the_largest_command_fits_its_limit_and_its_frame() {
    let op = WriteOp::Cas {
        key: zeros(KEY_BYTES_MAX),
        expect: Expect::Value(zeros(VALUE_BYTES_MAX)),
        value: zeros(VALUE_BYTES_MAX),
    };
    let stamp = SessionStamp {
        session: SessionId(u64::MAX),
        sequence: u64::MAX,
        unanswered_from: u64::MAX,
    };
    let command = Command::Write {
        stamp: Some(stamp),
        op,
    };
    let encoded = encode(&command);
    assert!(encoded.len() <= COMMAND_BYTES_MAX, "{}", encoded.len());
    assert_eq!(decode(&encoded), Ok(command));
    let request = Request {
        id: u64::MAX,
        body: RequestBody::Write(encoded.into()),
    };
    let encoded = encode(&request);
    assert!(encoded.len() <= FRAME_BYTES_MAX, "{}", encoded.len());
    assert_eq!(decode(&encoded), Ok(request));
}

fn page_fits(items: Vec<KeyValue>) {
    let reply = QueryReply::Scan(ScanPage {
        items,
        next: Some(zeros(KEY_BYTES_MAX)),
        revision: u64::MAX,
    });
    let encoded = encode(&reply);
    assert_eq!(decode(&encoded), Ok(reply));
    let response = Response {
        id: u64::MAX,
        outcome: Outcome::Answer(encoded.into()),
    };
    let encoded = encode(&response);
    assert!(encoded.len() <= FRAME_BYTES_MAX, "{}", encoded.len());
    assert_eq!(decode(&encoded), Ok(response));
}

#[test]
fn the_largest_pages_fit_a_frame() {
    let item = |key_bytes, value_bytes| KeyValue {
        key: zeros(key_bytes),
        value: zeros(value_bytes),
        create_revision: u64::MAX,
        mod_revision: u64::MAX,
        version: u64::MAX,
    };
    // As many keys as a page may have, with as many bytes.
    let each = SCAN_PAGE_BYTES_MAX / SCAN_KEYS_MAX as usize + 1;
    page_fits(vec![item(8, each - 8); SCAN_KEYS_MAX as usize]);
    // The one that is always returned, at its largest.
    page_fits(vec![item(KEY_BYTES_MAX, VALUE_BYTES_MAX)]);
}

#[test]
fn the_largest_part_of_a_snapshot_fits_into_a_frame() {
    let response = Response {
        id: u64::MAX,
        outcome: Outcome::SnapshotPart(zeros(SNAPSHOT_PART_BYTES_MAX)),
    };
    let bytes = encode(&response);
    assert!(bytes.len() <= FRAME_BYTES_MAX, "{} bytes", bytes.len());
    assert_eq!(decode(&bytes), Ok(response));
}

#[test]
fn addresses_of_members_are_bounded() {
    let add = |bytes| MemberChange::Add {
        id: 4,
        incarnation: 1,
        address: "a".repeat(bytes),
    };
    for bytes in [1, ADDRESS_BYTES_MAX] {
        assert_eq!(add(bytes).check_limits(), Ok(()));
    }
    for bytes in [0, ADDRESS_BYTES_MAX + 1] {
        let exceeded = add(bytes).check_limits().expect_err("outside");
        assert_eq!((exceeded.what.as_str(), exceeded.max), ("address", 255));
    }
    assert_eq!(MemberChange::Remove { id: 4 }.check_limits(), Ok(()));
}

#[test]
fn a_look_at_the_members_tells_whether_a_change_holds() {
    let member = |id, incarnation, role, is_leaving| MemberReport {
        id,
        incarnation,
        address: "a:1".to_owned(),
        role,
        is_leaving,
    };
    let report = MembersReport {
        members: vec![
            member(1, 10, MemberKind::Voter, false),
            member(2, 20, MemberKind::Learner, false),
            member(3, 30, MemberKind::Voter, true),
        ],
        is_changing: true,
    };
    let address = || "a:1".to_owned();
    let add = |id, incarnation| MemberChange::Add {
        id,
        incarnation,
        address: address(),
    };
    let replace = |id, incarnation| MemberChange::Replace {
        id,
        incarnation,
        address: address(),
    };
    for (change, holds) in [
        (add(2, 20), true),
        (add(2, 21), false),
        (add(4, 40), false),
        (add(3, 30), false),
        (replace(1, 10), true),
        (replace(1, 11), false),
        (MemberChange::Promote { id: 1 }, true),
        (MemberChange::Promote { id: 2 }, false),
        (MemberChange::Promote { id: 3 }, false),
        (MemberChange::Remove { id: 3 }, true),
        (MemberChange::Remove { id: 4 }, true),
        (MemberChange::Remove { id: 1 }, false),
    ] {
        assert_eq!(change.holds_in(&report), holds, "{change:?}");
    }
}
