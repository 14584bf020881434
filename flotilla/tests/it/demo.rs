//! The demo, with fewer fail-overs than by default.

use crate::program::run;

#[test]
fn the_demo_loses_nothing() {
    let object = run(["demo", "--failovers", "2", "--json"]).json();
    assert_eq!(
        (&object["lost"], &object["failovers"]),
        (&0.into(), &2.into())
    );
    assert_eq!(object["linearizable"], true);
    assert!(
        object["acked"].as_u64().expect("a number") > 100,
        "{object}"
    );
    assert!(
        object["longest_pause_ms"].as_u64().expect("a number") > 0,
        "{object}"
    );
    let millis = |key: &str| object[key].as_u64().expect("a number");
    let (half, slowest) = (millis("failover_p50_ms"), millis("failover_max_ms"));
    assert!(0 < half && half <= slowest, "{object}");
}
