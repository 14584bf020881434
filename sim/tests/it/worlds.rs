//! What a suite may ask of a world.

use raft_core::{Index, NodeId, ProposeError, Role};
use sim::{Answer, Ask, LabSwitches, Options, RequestId, World};

const SECOND: u64 = 1_000_000;

fn elected(nodes: u64, seed: u64) -> (World, NodeId) {
    let mut world = World::new(Options::calm(seed, nodes));
    let is_led = |world: &World| world.leaders().len() == 1;
    assert!(world.run_while_not(5 * SECOND, is_led).expect("safe"));
    let leader = world.leader().expect("just seen");
    (world, leader)
}

fn commit(
    world: &mut World,
    at: NodeId,
    payload: &'static str,
    copies: usize,
) -> (RequestId, Index) {
    let (request, id) = world.propose(at, payload).expect("it leads");
    let is_applied = |world: &World| world.applied_by(id.index) >= copies;
    assert!(
        world.run_while_not(2 * SECOND, is_applied).expect("safe"),
        "{payload}"
    );
    (request, id.index)
}

#[test]
fn a_command_is_applied_everywhere_and_its_proposer_is_answered() {
    let (mut world, leader) = elected(3, 1);
    let (request, index) = commit(&mut world, leader, "one", 3);
    let entry = world.applied_entry(index).expect("applied");
    assert_eq!(&entry.payload()[..], b"one");
    assert!(
        matches!(world.answer_to(request), Some(Answer::Applied { id, .. }) if id.index == index)
    );
    assert_eq!(world.committed().index, index);
}

#[test]
fn followers_refuse_proposals_and_name_the_leader() {
    let (mut world, leader) = elected(3, 2);
    world.run_for(SECOND).expect("safe");
    let follower = world
        .ids()
        .into_iter()
        .find(|id| *id != leader)
        .expect("three");
    let refused = world.propose(follower, "no").expect_err("a follower");
    let expected = ProposeError::NotLeader {
        leader: Some(leader),
    };
    assert_eq!(refused, expected);
}

#[test]
fn a_leader_that_is_disconnected_is_replaced_and_comes_back_as_a_follower() {
    let (mut world, old) = elected(3, 3);
    world.disconnect(old);
    let replaced = |world: &World| world.leader().is_some_and(|id| id != old);
    assert!(world.run_while_not(5 * SECOND, replaced).expect("safe"));
    let new = world.leader().expect("just seen");
    commit(&mut world, new, "without the old one", 2);
    world.connect(old);
    let agree = |world: &World| world.is_agreed();
    assert!(world.run_while_not(5 * SECOND, agree).expect("safe"));
    assert_eq!(
        world.state(old).map(|state| state.role),
        Some(Role::Follower)
    );
    assert_eq!(world.leader(), Some(new), "and disturbs nobody");
}

#[test]
fn without_a_majority_nobody_leads_and_nothing_commits() {
    let (mut world, leader) = elected(5, 4);
    let (_, before) = commit(&mut world, leader, "before", 5);
    let others: Vec<_> = world.ids().into_iter().filter(|id| *id != leader).collect();
    world.partition(&[&[leader, others[0]], &others[1..3], &others[3..]]);
    let lost = world
        .propose(leader, "never")
        .expect("it does not know yet")
        .1;
    world.run_for(3 * SECOND).expect("safe");
    assert_eq!(world.leaders(), []);
    assert_eq!(world.committed().index, before);
    world.repair();
    let agree = |world: &World| world.is_agreed();
    assert!(world.run_while_not(5 * SECOND, agree).expect("safe"));
    assert!(world.committed().index >= lost.index);
}

#[test]
fn what_is_committed_survives_when_all_power_goes() {
    let (mut world, leader) = elected(3, 5);
    let (_, index) = commit(&mut world, leader, "kept", 2);
    for id in world.ids() {
        world.crash(id);
    }
    assert!(world.ids().into_iter().all(|id| !world.is_up(id)));
    assert_eq!(world.applied_by(index), 0);
    for id in world.ids() {
        world.restart(id);
    }
    let applied = |world: &World| world.applied_by(index) == 3;
    assert!(world.run_while_not(5 * SECOND, applied).expect("safe"));
    let entry = world.applied_entry(index).expect("applied");
    assert_eq!(&entry.payload()[..], b"kept");
}

#[test]
fn requests_at_a_node_that_goes_down_are_told_so() {
    let (mut world, leader) = elected(3, 6);
    let request = world.ask(leader, Ask::Propose("lost".into()));
    world.crash(leader);
    assert_eq!(world.answer_to(request), Some(&Answer::Gone));
    let dead = world.ask(leader, Ask::Read("anything".into()));
    assert_eq!(world.answer_to(dead), Some(&Answer::Gone));
}

#[test]
fn a_stalled_disk_holds_back_what_only_it_could_commit() {
    let (mut world, leader) = elected(1, 7);
    world.stall_disk(leader, SECOND);
    let (_, id) = world.propose(leader, "waits").expect("it leads");
    world.run_for(SECOND / 2).expect("safe");
    assert!(world.committed().index < id.index);
    world.run_for(SECOND).expect("safe");
    assert_eq!(world.committed(), id);
}

#[test]
fn a_paused_leader_is_replaced_and_hears_of_it() {
    let (mut world, old) = elected(3, 8);
    world.pause(old, 5 * SECOND);
    world.run_for(4 * SECOND).expect("safe");
    assert_eq!(world.state(old).map(|state| state.role), Some(Role::Leader));
    world.run_for(2 * SECOND).expect("safe");
    assert_eq!(
        world.state(old).map(|state| state.role),
        Some(Role::Follower)
    );
}

#[test]
fn commands_go_through_a_network_with_all_switches_on() {
    let (mut world, _) = elected(5, 9);
    world.set_lab(LabSwitches {
        unreliable: true,
        long_reordering: true,
        long_delays: true,
    });
    let before = world.traffic();
    let mut committed = 0;
    for _ in 0..200 {
        if let Some(leader) = world.leader() {
            let _ = world.propose(leader, "again");
        }
        world.run_for(SECOND / 10).expect("safe");
        committed = committed.max(world.committed().index.0);
    }
    assert!(committed > 20, "{committed} committed");
    let after = world.traffic();
    assert!(after.messages > before.messages && after.bytes > before.bytes);
    let sum: u64 = world
        .ids()
        .into_iter()
        .map(|id| world.traffic_of(id).messages)
        .sum();
    assert_eq!(sum, after.messages);
}

#[test]
fn worlds_of_the_same_seed_are_the_same() {
    let hash = |seed| {
        let (mut world, leader) = elected(3, seed);
        commit(&mut world, leader, "x", 3);
        (world.trace_hash(), world.steps(), world.now())
    };
    assert_eq!(hash(10), hash(10));
    assert_ne!(hash(10).0, hash(11).0);
}
