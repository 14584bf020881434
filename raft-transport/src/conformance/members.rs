//! Who is dialled, and that nodes which do not know each other are heard all the same.

use raft_core::SendError;

use super::support::{
    Fixture, Node, ONE, Parts, THREE, TWO, append, heartbeat, pair, wait_for_link,
    wait_for_message, within,
};

/// Runs the checks of this file.
pub(super) async fn run<F: Fixture>(fixture: impl Fn() -> F) {
    members_come_and_go(&fixture()).await;
    a_stranger_is_heard_and_answered(&fixture()).await;
    a_member_that_moved_is_found_again(&fixture()).await;
    setting_the_same_members_again_changes_nothing(&fixture()).await;
}

/// Sends until the transport says that it does not know the receiver.
async fn is_forgotten(fixture: &dyn Fixture, from: &Node, to: &Node) {
    within("it is forgotten", async {
        loop {
            let envelope = fixture.envelope(from.id, to.id, heartbeat(1));
            let sent = from.transport.send(to.id, envelope).await;
            if sent == Err(SendError::UnknownPeer(to.id)) {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn members_come_and_go(fixture: &dyn Fixture) {
    let (one, _two) = pair(fixture).await;
    let three = Node::start(fixture, THREE).await;
    wait_for_link(fixture, &one, &three).await;

    let without = fixture.membership(&[ONE, TWO]);
    one.transport.set_members(ONE, &without);
    three
        .transport
        .set_members(THREE, &fixture.membership(&[THREE]));
    is_forgotten(fixture, &one, &three).await;
    is_forgotten(fixture, &three, &one).await;

    // The node that is added knows nobody, and answers.
    let with = fixture.membership(&[ONE, TWO, THREE]);
    one.transport.set_members(ONE, &with);
    wait_for_link(fixture, &one, &three).await;
    wait_for_message(fixture, &three, &one, heartbeat(7)).await;
    let parts = Parts::new(&[100; 3], with);
    let send = async {
        let envelope = fixture.envelope(ONE, THREE, parts.offer());
        let sent = one.transport.send_snapshot(THREE, envelope, parts.reader());
        within("the snapshot is stored", sent)
            .await
            .expect("stored");
    };
    let receive = async {
        let mut stream = within("an offer", three.next_offer()).await.stream;
        stream.accept(0).await.expect("accepted");
        while stream.next_part().await.expect("a part").is_some() {}
        stream.finish(Ok(())).await;
    };
    tokio::join!(send, receive);
}

async fn a_stranger_is_heard_and_answered(fixture: &dyn Fixture) {
    let one = Node::start(fixture, ONE).await;
    one.transport.set_members(ONE, &fixture.membership(&[ONE]));
    let three = Node::start(fixture, THREE).await;
    wait_for_link(fixture, &three, &one).await;
    wait_for_message(fixture, &one, &three, heartbeat(7)).await;
}

async fn a_member_that_moved_is_found_again(fixture: &dyn Fixture) {
    let (one, two) = pair(fixture).await;
    wait_for_link(fixture, &two, &one).await;
    fixture.kill(TWO).await;
    drop(two);
    let two = Node {
        id: TWO,
        transport: fixture.replace(TWO).await,
    };
    one.transport
        .set_members(ONE, &fixture.membership(&[ONE, TWO, THREE]));
    wait_for_link(fixture, &one, &two).await;
    wait_for_link(fixture, &two, &one).await;
}

async fn setting_the_same_members_again_changes_nothing(fixture: &dyn Fixture) {
    let (one, _two) = pair(fixture).await;
    let members = fixture.membership(&[ONE, TWO, THREE]);
    for _ in 0..10 {
        one.transport.set_members(ONE, &members);
        let envelope = fixture.envelope(ONE, TWO, append(0, 1, 10));
        one.transport.send(TWO, envelope).await.expect("still up");
    }
}
