//! Size: both judges stay near linear on the histories that tests produce.

use history::{Budget, Header, History, Op, Recorder, Register, Verdict, check, witness};
use history::{Location, Reply};

/// `clients` take turns on `keys`; every interval overlaps those of the other clients. Every
/// `lose_every`th write has no answer, and half of those took effect.
fn busy(operations: u64, clients: usize, keys: u64, lose_every: u64) -> History {
    let mut recorder = Recorder::new(Header::default());
    let mut states = vec![Register::default(); keys as usize];
    let mut names: Vec<_> = (0..clients).map(|_| recorder.client()).collect();
    let mut free_at = vec![0; clients];
    for number in 1..=operations {
        let moment = 1000 + 10 * number;
        let who = number as usize % clients;
        let width = 3 * clients as u64;
        let from = (moment - width).max(free_at[who]);
        let key = number / 3 % keys;
        let op = match number % 3 {
            0 => Op::put(format!("key-{key}"), format!("value-{number}")),
            1 => Op::append(format!("key-{key}"), "+"),
            _ => Op::get(format!("key-{key}")),
        };
        let state = &mut states[key as usize];
        let lost = op.is_write() && number % lose_every == 0;
        let (after, reply) = state.apply(&op);
        if !lost || number % (2 * lose_every) == 0 {
            *state = after;
        }
        let location = op.is_write().then_some(Location {
            index: number,
            term: 1,
        });
        let id = recorder.invoke(names[who], from, op).unwrap();
        free_at[who] = moment + width;
        if lost {
            names[who] = recorder.info(id, moment + width).unwrap();
        } else {
            recorder.ok(id, moment + width, reply, location).unwrap();
        }
    }
    recorder.finish()
}

#[test]
fn many_operations_on_few_keys_are_judged_well_within_the_budget() {
    for (keys, lose_every) in [(1, u64::MAX / 2), (4, u64::MAX / 2), (100, 90), (4, 900)] {
        let history = busy(12_000, 16, keys, lose_every);
        let budget = Budget {
            steps: 5_000_000,
            ..Budget::default()
        };
        let verdict = check(&history, budget);
        assert_eq!(verdict, Verdict::Linearizable, "{keys} keys: {verdict}");
        let testimony = witness::check(&history);
        assert!(testimony.is_ok(), "{keys} keys: {}", testimony.unwrap_err());
    }
}

#[test]
fn one_bad_read_among_many_operations_is_found_by_both() {
    let good = busy(6_000, 16, 4, 600);
    let mut events = good.events().to_vec();
    let last_read = events
        .iter_mut()
        .rev()
        .find(|event| matches!(event.res, Some(Reply::Found { .. })))
        .expect("there are reads");
    last_read.res = Some(Reply::Absent);
    let id = last_read.id;
    let bad = History::new(Header::default(), events).unwrap();
    let verdict = check(&bad, Budget::default());
    assert!(matches!(verdict, Verdict::Illegal(_)), "{verdict}");
    assert!(
        verdict.to_string().contains(&format!("op {id} ")),
        "{verdict}"
    );
    let testimony = witness::check(&bad).unwrap_err().to_string();
    assert!(testimony.contains(&format!("op {id} ")), "{testimony}");
}
