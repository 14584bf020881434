//! The pictures: that they are well formed, need nothing else, and show what they must.

use history::picture::{OPERATIONS_SHOWN_MAX, draw, draw_at_most};
use history::{
    Budget, Completion, Condition, Event, EventKind, Fate, Header, History, Op, Operation, Reply,
    Role, Scene, SpaceTime, SpaceTimeEvent, Verdict, check, witness,
};

use crate::build::{at, failed, found, get, history, ok, put, unknown, written};
use crate::markup::assert_well_formed;

#[track_caller]
fn scene_of(history: &History) -> Scene {
    match check(history, Budget::default()) {
        Verdict::Illegal(violation) => Scene::of_violation(&violation),
        other => panic!("{other}"),
    }
}

/// The bars of a class, by their titles.
fn bars(page: &str, class: &str) -> Vec<String> {
    page.split("<g class=\"operation")
        .skip(1)
        .filter_map(|bar| {
            let (classes, rest) = bar.split_once('"')?;
            let title = rest.strip_prefix("><title>")?.split_once("</title>")?.0;
            let wanted = classes.split(' ').any(|one| one == class);
            (wanted || class.is_empty()).then(|| title.to_owned())
        })
        .collect()
}

#[test]
fn a_picture_shows_the_order_the_culprit_and_what_is_left_out() {
    let history = history([
        ok(1, 2, put("a"), written(1, 1)),
        ok(3, 4, put("b"), written(2, 1)),
        ok(5, 6, get(), found("a", 1)),
        unknown(3, put("c")),
        failed(3, put("d")),
        unknown(3, get()),
        ok(1, 2, Op::put("other", "x"), written(1, 1)),
        ok(1, 2, Op::put("third", "x"), written(1, 1)),
    ]);
    let page = draw(&history, &scene_of(&history));
    let text = assert_well_formed(&page);
    assert_eq!(bars(&page, "").len(), 4);
    let culprits = bars(&page, "culprit");
    assert_eq!(culprits.len(), 1);
    assert!(culprits[0].starts_with("op 3 (client 3"), "{culprits:?}");
    assert_eq!(bars(&page, "unknown").len(), 1);
    assert!(
        text.contains(r#"not linearizable: key "k": no order explains op 3"#),
        "{text}"
    );
    assert!(
        text.contains(r#"4 of 4 operations on "k"; 0 further away"#),
        "{text}"
    );
    let left_out = "left out: 2 on other keys, 1 that failed, 1 reads without an answer";
    assert!(text.contains(left_out), "{text}");
    assert!(text.contains(r#"put "a": v1 of 1 bytes"#), "{text}");
    // The first two operations are numbered in their order, and joined by a line.
    for number in [1, 2] {
        assert!(page.contains(&format!(">{number}</text>")), "{page}");
    }
    let line = page.split_once("<polyline").expect("a line").1;
    let points = line.split_once("points=\"").expect("points").1;
    let points = points.split_once('"').expect("an end").0;
    assert!(points.split(' ').count() >= 2, "{points}");
}

#[test]
fn an_unknown_operation_is_open_to_the_right() {
    let history = history([
        unknown(1, put("a")),
        ok(2, 3, put("b"), written(1, 1)),
        ok(100, 200, get(), found("x", 9)),
    ]);
    let page = draw(&history, &scene_of(&history));
    let right_edge = |title: &str| -> u64 {
        let bar = page
            .split_once(&format!("<title>{title}"))
            .expect("its bar")
            .1;
        let number = |name: &str| -> u64 {
            let value = bar
                .split_once(&format!("{name}=\""))
                .expect("an attribute")
                .1;
            value
                .split_once('"')
                .expect("an end")
                .0
                .parse()
                .expect("a number")
        };
        number("\" x").max(number(" x")) + number("width")
    };
    assert!(right_edge("op 1 ") > right_edge("op 3 "), "{page}");
    assert!(right_edge("op 3 ") > right_edge("op 2 "), "{page}");
}

#[test]
fn a_picture_shows_markup_as_text() {
    let evil = "<script>alert('&amp;')</script>\u{1b}\"";
    let good = history([
        ok(1, 2, Op::put(evil, evil), written(1, 32)),
        ok(3, 4, Op::get(evil), Reply::Absent),
    ]);
    let header = Header {
        seed: Some(77),
        commit: Some(evil.to_owned()),
        config: Some("a\u{0}b <i>".to_owned()),
        ..Header::default()
    };
    let history = History::new(header, good.events().to_vec()).expect("the same events");
    let page = draw(&history, &scene_of(&history));
    assert!(!page.contains("<script") && !page.contains('\u{1b}') && !page.contains('\u{0}'));
    let text = assert_well_formed(&page);
    assert!(text.contains("<script>alert("), "{text}");
    assert!(
        text.contains("seed: 77") && text.contains("config: a\u{fffd}b <i>"),
        "{text}"
    );
}

/// Many operations one after the other by three clients, with a stale read among them.
fn long(count: u64, bad: u64) -> History {
    let mut operations: Vec<Operation> = (1..=count)
        .map(|number| ok(10 * number, 10 * number + 5, put("v"), written(number, 1)))
        .collect();
    operations.insert(
        bad as usize,
        ok(10 * bad + 6, 10 * bad + 7, get(), found("v", 1)),
    );
    let mut events: Vec<Event> = history(operations).events().to_vec();
    for event in &mut events {
        event.client = event.id % 3;
    }
    History::new(Header::default(), events).expect("each waits for its answer")
}

#[test]
fn a_long_history_is_cut_around_the_culprit() {
    let history = long(2_000, 1_000);
    let scene = scene_of(&history);
    let page = draw(&history, &scene);
    let text = assert_well_formed(&page);
    let shown = OPERATIONS_SHOWN_MAX;
    assert_eq!(bars(&page, "").len(), shown);
    assert_eq!(bars(&page, "culprit").len(), 1);
    let cut = 2_001 - shown;
    assert!(
        text.contains(&format!(
            "{shown} of 2001 operations on \"k\"; {cut} further"
        )),
        "{text}"
    );
    assert!(page.contains("op 1000 (") && page.contains("op 1002 ("));
    assert!(!page.contains("op 800 (") && !page.contains("op 1200 ("));
    // The numbers are those of the whole order.
    assert!(page.contains(">1000</text>"), "{page}");
    // Lanes: three clients.
    assert_eq!(page.matches(">client ").count(), 3);
    let few = draw_at_most(&history, &scene, 3);
    assert_eq!(bars(&few, "").len(), 3);
    assert_eq!(bars(&few, "culprit").len(), 1);
    assert_eq!(bars(&draw_at_most(&history, &scene, 0), "").len(), 0);
}

#[test]
fn moments_keep_their_order_and_words_their_room() {
    let history = long(40, 20);
    let page = draw(&history, &scene_of(&history));
    let mut edges: Vec<(u64, u64)> = Vec::new();
    for bar in page.split("<rect class=\"bar\" x=\"").skip(1) {
        let (x, rest) = bar.split_once('"').expect("x");
        let width = rest.split_once("width=\"").expect("width").1;
        let width = width.split_once('"').expect("an end").0;
        edges.push((x.parse().expect("x"), width.parse().expect("width")));
    }
    assert_eq!(edges.len(), 41);
    for pair in edges.windows(2) {
        let ((x, width), (next, _)) = (pair[0], pair[1]);
        assert!(x + width < next && width > 80, "{pair:?}");
    }
}

#[test]
fn what_the_witness_objects_to_can_be_drawn() {
    let operations = [
        at(5, 1, 2, Op::put("one", "a"), written(1, 1)),
        at(4, 3, 4, Op::put("two", "b"), written(1, 1)),
        at(6, 5, 6, Op::put("two", "c"), written(2, 1)),
    ];
    let history = history(operations);
    let error = witness::check(&history).expect_err("the order is against real time");
    let scene = Scene::of_witness(&history, &error).expect("it is about operations");
    assert_eq!((scene.culprits.len(), scene.keys.len()), (2, 2));
    assert_eq!(scene.order, [2, 1, 3]);
    let page = draw(&history, &scene);
    let text = assert_well_formed(&page);
    assert_eq!(bars(&page, "culprit").len(), 2);
    assert!(
        text.contains(r#"put "two" "c": v2"#),
        "several keys are told apart: {text}"
    );
    let elsewhere = history::WitnessError::LogOrder {
        before: history::Location { index: 2, term: 1 },
        after: history::Location { index: 1, term: 1 },
    };
    assert_eq!(Scene::of_witness(&history, &elsewhere), None);
}

#[test]
fn a_failed_write_that_is_to_blame_is_drawn() {
    let history = history([failed(1, put("a"))]);
    let error = history::WitnessError::FailedInLog {
        operation: Box::new(history.operations()[0].clone()),
        location: history::Location { index: 2, term: 1 },
    };
    let scene = Scene::of_witness(&history, &error).expect("it is about an operation");
    let page = draw(&history, &scene);
    assert_well_formed(&page);
    assert_eq!(bars(&page, "failed"), bars(&page, "culprit"));
    assert_eq!(bars(&page, "failed").len(), 1);
}

#[test]
fn a_key_that_was_not_decided_is_drawn_without_a_culprit() {
    let writes = (0..12).map(|number| unknown(number, put(&format!("v{number}"))));
    let history = history(writes.chain([ok(100, 101, get(), found("v0", 11))]));
    let budget = Budget {
        steps: 10,
        ..Budget::default()
    };
    let Verdict::Unknown(exhausted) = check(&history, budget) else {
        panic!("ten steps are too few");
    };
    let page = draw(&history, &Scene::of_exhausted(&exhausted));
    let text = assert_well_formed(&page);
    assert!(
        text.contains("unknown: key \"k\": not decided within 10 steps"),
        "{text}"
    );
    assert_eq!(
        (bars(&page, "").len(), bars(&page, "culprit").len()),
        (13, 0)
    );
}

#[test]
fn times_at_the_end_of_their_range_can_be_drawn() {
    let mut operations = vec![ok(0, u64::MAX, put("a"), written(1, 1))];
    operations.push(ok(u64::MAX, u64::MAX, get(), found("x", 1)));
    let history = history(operations);
    assert!(matches!(
        history.operations()[0].completion,
        Completion::Ok { .. }
    ));
    assert_eq!(history.events()[0].kind, EventKind::Invoke);
    assert_well_formed(&draw(&history, &scene_of(&history)));
}

fn message(from: u64, to: u64, sent: u64, fate: Fate, label: &str) -> SpaceTimeEvent {
    let label = label.to_owned();
    SpaceTimeEvent::Message {
        from,
        to,
        sent,
        fate,
        label,
    }
}

fn role(node: u64, at: u64, role: Role, term: u64) -> SpaceTimeEvent {
    SpaceTimeEvent::Role {
        node,
        at,
        role,
        term,
    }
}

fn election() -> Vec<SpaceTimeEvent> {
    vec![
        role(2, 100, Role::Candidate, 5),
        message(2, 1, 100, Fate::Lost(100), "vote?"),
        message(2, 3, 100, Fate::Delivered(160), "vote?"),
        message(3, 2, 170, Fate::Delivered(230), "granted"),
        role(2, 230, Role::Leader, 5),
        SpaceTimeEvent::Node {
            node: 1,
            at: 240,
            condition: Condition::Crashed,
        },
        SpaceTimeEvent::Node {
            node: 3,
            at: 250,
            condition: Condition::Paused,
        },
        message(2, 1, 231, Fate::Lost(260), "append"),
        message(2, 3, 270, Fate::Underway, "append"),
        SpaceTimeEvent::Node {
            node: 1,
            at: 300,
            condition: Condition::Running,
        },
        SpaceTimeEvent::Note {
            node: None,
            at: 310,
            label: "healed".to_owned(),
        },
        SpaceTimeEvent::Note {
            node: Some(3),
            at: 310,
            label: "disk full".to_owned(),
        },
        SpaceTimeEvent::Violation {
            node: Some(2),
            at: 400,
            label: "INV-1".to_owned(),
        },
        SpaceTimeEvent::Violation {
            node: None,
            at: 400,
            label: "two leaders".to_owned(),
        },
    ]
}

fn drawn(limit: usize, events: Vec<SpaceTimeEvent>) -> String {
    let mut run = SpaceTime::new(limit);
    run.extend(events);
    let page = run.draw("seed 7", "two leaders in term 5");
    assert_well_formed(&page);
    page
}

#[test]
fn a_diagram_shows_messages_nodes_and_roles() {
    let page = drawn(100, election());
    let text = assert_well_formed(&page);
    for node in 1..=3 {
        assert!(text.contains(&format!("node {node}")), "{text}");
    }
    for words in [
        "two leaders in term 5",
        "candidate of term 5",
        "leader of term 5",
        "2 to 3, sent at 100, delivered at 160: vote?",
        "2 to 1, sent at 231, lost at 260: append",
        "2 to 3, sent at 270, still on its way: append",
        "healed",
        "disk full",
        "INV-1",
        "the last 14 events; 0 are cut",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert_eq!(page.matches("class=\"cross\"").count(), 2);
    assert_eq!(page.matches("class=\"message underway\"").count(), 1);
    assert_eq!(page.matches("marker-end=\"url(#head)\"").count(), 2);
    assert_eq!(page.matches("<rect class=\"leader\"").count(), 1);
    assert_eq!(page.matches("<rect class=\"crashed\"").count(), 1);
    assert_eq!(page.matches("<rect class=\"paused\"").count(), 1);
    assert_eq!(page.matches("class=\"wrong\"").count(), 1);
    assert_eq!(page.matches("class=\"event violation\"").count(), 2);
}

#[test]
fn a_diagram_keeps_the_last_events_and_knows_who_led_before() {
    let mut events = vec![
        role(1, 5, Role::Leader, 3),
        SpaceTimeEvent::Node {
            node: 2,
            at: 6,
            condition: Condition::Crashed,
        },
    ];
    let ticks = (10..500).map(|at| message(1, 3, at - 1, Fate::Delivered(at), "append"));
    events.extend(ticks);
    // Sent long before the first event that is left.
    events.push(message(3, 1, 20, Fate::Delivered(500), "slow"));
    let page = drawn(50, events);
    let text = assert_well_formed(&page);
    assert!(text.contains("the last 50 events; 443 are cut"), "{text}");
    assert!(text.contains("running, leader of term 3"), "{text}");
    assert!(text.contains("crashed"), "{text}");
    assert_eq!(page.matches("marker-end=\"url(#head)\"").count(), 50);
    assert!(
        text.contains("3 to 1, sent at 20, delivered at 500: slow"),
        "{text}"
    );
}

#[test]
fn a_diagram_shows_markup_as_text_and_odd_events_at_all() {
    let evil = "<b onload='x'>&\u{7}";
    let page = drawn(
        100,
        vec![
            message(1, 1, 5, Fate::Delivered(4), evil),
            SpaceTimeEvent::Note {
                node: Some(9),
                at: u64::MAX,
                label: evil.to_owned(),
            },
            SpaceTimeEvent::Violation {
                node: None,
                at: 0,
                label: evil.to_owned(),
            },
        ],
    );
    assert!(!page.contains("<b ") && !page.contains('\u{7}'));
    assert_eq!(
        assert_well_formed(&page).matches("<b onload='x'>&").count(),
        4
    );
    let nothing = drawn(100, Vec::new());
    assert!(nothing.contains("the last 0 events; 0 are cut"));
}
