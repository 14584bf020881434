//! The nodes that a client knows, and what is queued and outstanding on the connection to each. No
//! IO: `connection` moves the bytes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use kv_api::limits::CONNECTION_REQUESTS_MAX;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::calls::{LANES, Lane};
use crate::config::{ENDPOINTS_MAX, EndpointAddress};

/// One node.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// Its id.
    pub(crate) id: u64,
    /// Where it is, as configured or as learned first.
    pub(crate) address: String,
    /// Where it says it is, when that is another address.
    pub(crate) advertised: Option<String>,
    /// The connection, while there is one.
    pub(crate) link: Option<LinkState>,
    /// Why there is none.
    pub(crate) problem: Option<String>,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct LinkState {
    /// Calls that wait to be written, per lane.
    queues: [VecDeque<u64>; LANES],
    /// Wakes the writer of each lane.
    ready: [Arc<Notify>; LANES],
    /// The call behind each request id that is not answered; also calls that have ended since,
    /// until the node answers, because the node still holds them.
    outstanding: HashMap<u64, u64>,
    /// The newest request id.
    newest_request: u64,
    /// When the node was heard last.
    pub(crate) heard_at: Instant,
    /// It was asked for news and has not answered.
    pub(crate) is_probed: bool,
    /// It owed an answer for so long that others are asked instead, where that is possible.
    pub(crate) is_silent: bool,
}

impl LinkState {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            queues: Default::default(),
            ready: Default::default(),
            outstanding: HashMap::new(),
            newest_request: 0,
            heard_at: now,
            is_probed: false,
            is_silent: false,
        }
    }

    /// What wakes the writers.
    pub(crate) fn ready(&self) -> [Arc<Notify>; LANES] {
        self.ready.clone()
    }

    /// Puts a call into a queue.
    pub(crate) fn queue(&mut self, lane: Lane, call: u64) {
        self.queues[lane.index()].push_back(call);
        self.ready[lane.index()].notify_one();
    }

    /// Drops calls from the queues.
    pub(crate) fn retain_queued(&mut self, keep: impl Fn(u64) -> bool) {
        for queue in &mut self.queues {
            queue.retain(|call| keep(*call));
        }
    }

    /// The next call of a queue, while the connection may have another request outstanding.
    pub(crate) fn next_queued(&mut self, lane: Lane) -> Option<u64> {
        if self.is_full() {
            return None;
        }
        self.queues[lane.index()].pop_front()
    }

    /// Notes that a call is being sent, and names the request.
    pub(crate) fn sent(&mut self, call: u64) -> u64 {
        self.newest_request += 1;
        self.outstanding.insert(self.newest_request, call);
        self.newest_request
    }

    /// The call that an answer belongs to; none where no such request is outstanding.
    pub(crate) fn answered(&mut self, request: u64) -> Option<u64> {
        let was_full = self.is_full();
        let call = self.outstanding.remove(&request);
        if was_full {
            for ready in &self.ready {
                ready.notify_one();
            }
        }
        call
    }

    fn is_full(&self) -> bool {
        self.outstanding.len() >= CONNECTION_REQUESTS_MAX
    }
}

/// All nodes, by a position that never changes.
#[derive(Debug)]
pub(crate) struct Endpoints {
    list: Vec<Endpoint>,
}

impl Endpoints {
    pub(crate) fn new(addresses: &[EndpointAddress]) -> Self {
        let list = addresses
            .iter()
            .map(|endpoint| Endpoint {
                id: endpoint.id,
                address: endpoint.address.clone(),
                advertised: None,
                link: None,
                problem: None,
            })
            .collect();
        Self { list }
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Endpoint> {
        self.list.iter()
    }

    /// The node at a position that this table gave out.
    pub(crate) fn at(&self, position: usize) -> &Endpoint {
        &self.list[position]
    }

    /// The node at a position that this table gave out.
    pub(crate) fn at_mut(&mut self, position: usize) -> &mut Endpoint {
        &mut self.list[position]
    }

    /// The connection to a node.
    pub(crate) fn link_mut(&mut self, position: usize) -> Option<&mut LinkState> {
        self.list[position].link.as_mut()
    }

    /// Where a node stands in the table.
    pub(crate) fn position(&self, id: u64) -> Option<usize> {
        self.list.iter().position(|endpoint| endpoint.id == id)
    }

    /// The first connected node, in order. A silent one, or the one to avoid, only where there is
    /// no other.
    pub(crate) fn first_connected(&self, avoid: Option<usize>) -> Option<usize> {
        let links = self.list.iter().enumerate();
        links
            .filter_map(|(at, node)| Some((at, node.link.as_ref()?)))
            .min_by_key(|(at, link)| (link.is_silent, avoid == Some(*at), *at))
            .map(|(at, _)| at)
    }

    /// How many nodes are connected.
    pub(crate) fn connected(&self) -> usize {
        self.list.iter().filter(|node| node.link.is_some()).count()
    }

    /// Takes in a node's advertised address. The position of the node where it is new; nodes beyond
    /// [`ENDPOINTS_MAX`] are not taken in.
    pub(crate) fn learn(&mut self, id: u64, address: &str) -> Option<usize> {
        if let Some(position) = self.position(id) {
            let known = &mut self.list[position];
            if known.address != address && known.advertised.as_deref() != Some(address) {
                known.advertised = Some(address.to_owned());
            }
            return None;
        }
        if self.list.len() >= ENDPOINTS_MAX {
            return None;
        }
        self.list.push(Endpoint {
            id,
            address: address.to_owned(),
            advertised: None,
            link: None,
            problem: None,
        });
        Some(self.list.len() - 1)
    }
}
