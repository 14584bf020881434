//! A log whose synced data is damaged begins anew: with what is certain of each group, without
//! entries, and with a mark up to where the leader has to fill it again.
//!
//! The new segment is whole and durable before anything else changes, and says in its header that
//! the segments before it count no more. A crash leaves the damaged log, which is repaired again,
//! or the new one, whose opening ends the work.

use raft_core::{GroupId, LogId, StorageError};

use super::active::{Beginning, GroupBeginning};
use super::aside;
use super::index::LogIndex;
use super::opening::{Opened, Opening};
use super::options::{LogRepair, RecoveryReport};
use super::replay::GroupReplay;
use super::salvage::Salvaged;
use crate::files::DirLock;

impl Opening<'_> {
    /// Begins the log anew with what was salvaged of it.
    pub(super) fn repair(
        mut self,
        salvaged: Salvaged,
        damage: StorageError,
        lock: DirLock,
    ) -> Result<Opened, StorageError> {
        self.disk.sync_dir(self.dir)?;
        self.remove_spare()?;
        if salvaged.groups_may_be_lost {
            self.factory.groups_may_be_lost();
        }
        let groups = salvaged.groups.iter();
        let beginning = Beginning {
            sequence: salvaged.next_sequence,
            groups: groups
                .map(|(group, known)| GroupBeginning {
                    group: *group,
                    promises: known.promises,
                    start: known.start,
                    last: known.start,
                })
                .collect(),
            batch_end: true,
            begins_anew: true,
            ..Beginning::default()
        };
        let active = self.factory.create(&beginning, 0)?;
        let files = aside::set_aside(&self.disk, self.dir, &salvaged.segments)?;
        let mut refill: Vec<(GroupId, LogId)> = Vec::new();
        let mut writer = self.writer(active, Vec::new(), lock);
        for (group, known) in salvaged.groups {
            refill.extend(known.promises.refill_to.map(|to| (group, to)));
            writer.add_group(
                group,
                GroupReplay {
                    index: LogIndex::starting_behind(known.start),
                    start: known.start,
                    promises: known.promises,
                },
            );
        }
        tracing::error!(
            %damage, ?refill, set_aside = files.len(),
            "the log is damaged; its terms and votes are certain, so it begins anew without \
             entries, to be filled again from the leader"
        );
        let report = RecoveryReport {
            segments: 1,
            repaired: Some(LogRepair {
                damage,
                set_aside: files,
                refill,
                groups_may_be_lost: salvaged.groups_may_be_lost,
            }),
            ..RecoveryReport::default()
        };
        Ok(Opened::new(writer, report))
    }
}
