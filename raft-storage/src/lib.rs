//! raft-storage
