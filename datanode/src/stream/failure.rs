//! What the other side of a block stream is told when something goes wrong: the one place where the
//! errors of this crate meet `BlockFailure`.

use std::fmt;

use doldam_proto::convert::BadMessage;
use doldam_proto::limits::TEXT_BYTES_MAX;
use doldam_proto::node::NodeAddress;
use doldam_proto::wire;
use doldam_runtime::connection::StreamError;

use crate::blocks::StoreError;
use crate::engine::receive::ReceiveError;
use crate::node::Membership;

pub(crate) use wire::block_failure::Code;

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What kind.
    pub(crate) code: Code,
    /// For people.
    pub(crate) message: String,
    /// Where, if not here: short id and address.
    pub(crate) elsewhere: Option<(u32, String)>,
}

impl Failure {
    /// Something that happened here.
    pub(crate) fn here(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), elsewhere: None }
    }

    /// The next datanode of the pipeline failed, for all this node can see.
    pub(crate) fn downstream(next: &NodeAddress, message: impl Into<String>) -> Self {
        let elsewhere = Some((next.id.0, next.address.clone()));
        Self { code: Code::Downstream, message: message.into(), elsewhere }
    }

    /// The next datanode says that something failed, there or further down.
    pub(crate) fn reported_by(next: &NodeAddress, failure: wire::BlockFailure) -> Self {
        let elsewhere = match failure.node_id {
            0 => (next.id.0, next.address.clone()),
            id => (id, shortened(failure.address.clone())),
        };
        let message = match failure.code() {
            // It has the story already.
            Code::Downstream => failure.message,
            code => format!("{}: {}", code.as_str_name(), failure.message),
        };
        Self { code: Code::Downstream, message, elsewhere: Some(elsewhere) }
    }

    /// A block stream failed; `what` was going on.
    pub(crate) fn of_client(error: &StreamError) -> Self {
        let code = if error.is_protocol() { Code::BadRequest } else { Code::Unspecified };
        Self::here(code, chain(error))
    }

    /// As it is sent.
    pub(crate) fn to_wire(&self, here: &Membership) -> wire::BlockFailure {
        let (node_id, address) = self
            .elsewhere
            .clone()
            .unwrap_or_else(|| (here.node_id().map_or(0, |id| id.0), here.address.clone()));
        let message = shortened(self.message.clone());
        wire::BlockFailure { code: self.code as i32, message, node_id, address }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.code.as_str_name(), self.message)?;
        match &self.elsewhere {
            Some((id, address)) => write!(formatter, " (datanode {id}, {address})"),
            None => Ok(()),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::NotFound { .. } | StoreError::TooShort { .. } => Code::NotFound,
            StoreError::OtherGeneration { .. } | StoreError::Left { .. } => Code::StaleGeneration,
            StoreError::OtherBytes { .. } => Code::Checksum,
            StoreError::Exists { .. } => Code::Exists,
            StoreError::BeingWritten { .. } => Code::Busy,
            StoreError::Quarantined { .. } | StoreError::Damaged { .. } => Code::Corrupt,
            StoreError::NoSpace { .. } | StoreError::Disk { .. } if error.is_full() => {
                Code::NoSpace
            }
            StoreError::NoFolder | StoreError::NoSpace { .. } | StoreError::Disk { .. } => {
                Code::Disk
            }
        };
        Self::here(code, chain(&error))
    }
}

impl From<ReceiveError> for Failure {
    fn from(error: ReceiveError) -> Self {
        let code = if error.is_checksum() { Code::Checksum } else { Code::BadRequest };
        Self::here(code, error.to_string())
    }
}

impl From<BadMessage> for Failure {
    fn from(error: BadMessage) -> Self {
        Self::here(Code::BadRequest, error.to_string())
    }
}

/// An error with its causes, for one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text
}

fn shortened(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        let end = (0..=TEXT_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use doldam_proto::id::{NodeId, NodeUuid};
    use doldam_proto::node::NodeState;

    use super::*;
    use crate::engine::replica::ReplicaKey;

    fn next() -> NodeAddress {
        let (address, rack) = ("b:2".to_owned(), "/r".to_owned());
        NodeAddress { id: NodeId(2), address, rack, state: NodeState::Live }
    }

    #[test]
    fn a_failure_further_down_keeps_the_name_of_the_node_that_failed() {
        let at_three = wire::BlockFailure {
            code: Code::NoSpace as i32,
            message: "full".to_owned(),
            node_id: 3,
            address: "c:3".to_owned(),
        };
        let at_two = Failure::reported_by(&next(), at_three);
        assert_eq!(at_two.code, Code::Downstream);
        assert_eq!(at_two.message, "CODE_NO_SPACE: full");
        let here = Membership::new(NodeUuid([0; 16]), "a:1".to_owned());
        let at_one = Failure::reported_by(&next(), at_two.to_wire(&here));
        assert_eq!(at_one, at_two);
    }

    #[test]
    fn a_failure_here_names_this_node() {
        let here = Membership::new(NodeUuid([0; 16]), "a:1".to_owned());
        here.register(NodeId(1));
        let failure = Failure::from(StoreError::NotFound { key: ReplicaKey::new(5, 1) });
        let wire = failure.to_wire(&here);
        assert_eq!((wire.code(), wire.node_id, wire.address.as_str()), (Code::NotFound, 1, "a:1"));
    }

    #[test]
    fn a_full_disk_is_told_from_a_broken_one() {
        let failed = |errno| {
            let cause = std::io::Error::from_raw_os_error(errno);
            Failure::from(StoreError::disk("/d", "writing")(cause)).code
        };
        assert_eq!(failed(28), Code::NoSpace);
        assert_eq!(failed(5), Code::Disk);
    }

    #[test]
    fn a_long_story_is_cut_at_a_character() {
        let long = "é".repeat(TEXT_BYTES_MAX);
        let cut = shortened(long);
        assert!(cut.len() <= TEXT_BYTES_MAX && cut.chars().all(|c| c == 'é'));
    }
}
