//! The bytes of a membership: the payload of a membership entry, and a part of a snapshot's header.
//! Version 1, all numbers little endian:
//!
//! ```text
//! version (1) | members (1) | outgoing (1) | each: id 8, incarnation 8, role 1 (1 voter,
//! 2 learner), address length 1, address
//! ```

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::membership::{Member, MemberRole, Membership, MembershipError};
use crate::types::{Incarnation, NodeId};

const VERSION: u8 = 1;

/// Bytes that are not a membership.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MembershipDecodeError {
    /// Fewer bytes than announced, or more.
    #[error("membership of {0} bytes is cut short or too long")]
    Length(usize),
    /// Written by a newer version.
    #[error("membership has version {0}, this program reads version {VERSION}")]
    Version(u8),
    /// A role that this version does not know.
    #[error("membership has unknown role {0}")]
    Role(u8),
    /// An address that is not text.
    #[error("the address of member {0} is not text")]
    Address(NodeId),
    /// The same member twice, or members out of order.
    #[error("member {0} is out of order")]
    Order(NodeId),
    /// A list that no group can have.
    #[error(transparent)]
    Invalid(#[from] MembershipError),
}

impl Membership {
    /// The bytes that [`Membership::decode`] reads.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        bytes.put_u8(VERSION);
        for list in [self.members(), self.outgoing()] {
            bytes.put_u8(u8::try_from(list.len()).expect("at most MEMBERS_MAX"));
        }
        for (id, member) in self.members().iter().chain(self.outgoing()) {
            bytes.put_u64_le(id.0);
            bytes.put_u64_le(member.incarnation.0);
            bytes.put_u8(match member.role {
                MemberRole::Voter => 1,
                MemberRole::Learner => 2,
            });
            bytes.put_u8(u8::try_from(member.address.len()).expect("at most ADDRESS_BYTES_MAX"));
            bytes.put_slice(member.address.as_bytes());
        }
        bytes.freeze()
    }

    /// Reads the bytes of one membership, all of them. The empty membership is one too.
    ///
    /// # Errors
    /// When they are not exactly one, or it is one that no group can have.
    pub fn decode(bytes: &[u8]) -> Result<Self, MembershipDecodeError> {
        let cut = MembershipDecodeError::Length(bytes.len());
        let mut rest = bytes;
        if rest.remaining() < 3 {
            return Err(cut);
        }
        let version = rest.get_u8();
        if version != VERSION {
            return Err(MembershipDecodeError::Version(version));
        }
        let counts = [rest.get_u8(), rest.get_u8()];
        let [members, outgoing] = [
            decode_list(&mut rest, counts[0], &cut)?,
            decode_list(&mut rest, counts[1], &cut)?,
        ];
        if rest.has_remaining() {
            return Err(cut);
        }
        if members.is_empty() && outgoing.is_empty() {
            return Ok(Self::default());
        }
        Ok(Self::joint(members, outgoing)?)
    }
}

fn decode_list(
    rest: &mut &[u8],
    count: u8,
    cut: &MembershipDecodeError,
) -> Result<BTreeMap<NodeId, Member>, MembershipDecodeError> {
    let mut list = BTreeMap::new();
    for _ in 0..count {
        if rest.remaining() < 18 {
            return Err(cut.clone());
        }
        let id = NodeId(rest.get_u64_le());
        let incarnation = Incarnation(rest.get_u64_le());
        let role = match rest.get_u8() {
            1 => MemberRole::Voter,
            2 => MemberRole::Learner,
            other => return Err(MembershipDecodeError::Role(other)),
        };
        let length = usize::from(rest.get_u8());
        if rest.remaining() < length {
            return Err(cut.clone());
        }
        let (address, behind) = rest.split_at(length);
        *rest = behind;
        let address =
            std::str::from_utf8(address).map_err(|_| MembershipDecodeError::Address(id))?;
        if list.last_key_value().is_some_and(|(last, _)| *last >= id) {
            return Err(MembershipDecodeError::Order(id));
        }
        let address = address.to_owned();
        let member = Member {
            incarnation,
            address,
            role,
        };
        list.insert(id, member);
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Membership {
        let member = |id: u64, role| Member {
            incarnation: Incarnation(id * 100),
            address: format!("host{id}:7400"),
            role,
        };
        let members = [
            (NodeId(1), member(1, MemberRole::Voter)),
            (NodeId(4), member(4, MemberRole::Learner)),
        ];
        let outgoing = [
            (NodeId(1), member(1, MemberRole::Voter)),
            (NodeId(2), member(2, MemberRole::Voter)),
        ];
        Membership::joint(members.into(), outgoing.into()).unwrap()
    }

    #[test]
    fn what_was_encoded_decodes_to_itself() {
        for membership in [sample(), sample().settled(), Membership::default()] {
            assert_eq!(Membership::decode(&membership.encode()), Ok(membership));
        }
    }

    #[test]
    fn no_cut_no_tail_and_no_flip_is_taken_for_another_shape() {
        let good = sample().encode();
        for length in 0..good.len() {
            assert!(
                Membership::decode(&good[..length]).is_err(),
                "cut at {length}"
            );
        }
        let mut long = good.to_vec();
        long.push(0);
        assert!(Membership::decode(&long).is_err());
        for position in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.to_vec();
                bad[position] ^= 1 << bit;
                // It may decode to another membership, but never panics.
                let _ = Membership::decode(&bad);
            }
        }
    }
}
