//! The one place where typed errors meet gRPC.
//!
//! An [`FsError`] becomes a status code (what may any gRPC client do?) and a standard `ErrorInfo` whose reason
//! names the variant and whose metadata holds its fields as JSON values. So our client gets the same enum back and
//! never reads meaning out of prose, and a stranger's tools still see a standard error.

use std::collections::HashMap;

use serde_json::{Map, Value};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::FsError;

const DOMAIN: &str = "doldam";
const TAG: &str = "reason";

impl FsError {
    /// What a client that knows nothing but gRPC may conclude.
    pub fn code(&self) -> Code {
        match self {
            Self::NotFound { .. } => Code::NotFound,
            Self::AlreadyExists { .. } => Code::AlreadyExists,
            Self::NotADirectory { .. }
            | Self::IsADirectory { .. }
            | Self::DirectoryNotEmpty { .. }
            | Self::NotAllowed { .. }
            | Self::LeaseHeld { .. }
            | Self::NotRegistered { .. }
            | Self::WrongCluster { .. }
            | Self::WrongVersion { .. } => Code::FailedPrecondition,
            Self::InvalidPath { .. } | Self::InvalidArgument { .. } => Code::InvalidArgument,
            Self::LeaseLost { .. } | Self::BlockMismatch { .. } | Self::FileChanged { .. } => {
                Code::Aborted
            }
            Self::NoDatanodes { .. } => Code::ResourceExhausted,
            Self::NotLeader { .. } | Self::Unavailable { .. } => Code::Unavailable,
            Self::Internal { .. } => Code::Internal,
        }
    }

    /// Reads the error back from a status; `None` if the status does not carry one of ours.
    pub fn from_status(status: &Status) -> Option<Self> {
        let info = status.get_details_error_info().filter(|info| info.domain == DOMAIN)?;
        let mut fields = Map::new();
        for (key, value) in info.metadata {
            fields.insert(key, serde_json::from_str(&value).ok()?);
        }
        fields.insert(TAG.to_owned(), Value::String(info.reason));
        serde_json::from_value(Value::Object(fields)).ok()
    }
}

impl From<FsError> for Status {
    fn from(error: FsError) -> Self {
        let (code, message) = (error.code(), error.to_string());
        // An enum of structs of strings and numbers always serialises to an object.
        let Ok(Value::Object(mut fields)) = serde_json::to_value(&error) else {
            return Self::new(code, message);
        };
        let Some(Value::String(reason)) = fields.remove(TAG) else { return Self::new(code, message) };
        let fields: HashMap<String, String> =
            fields.into_iter().map(|(key, value)| (key, value.to_string())).collect();
        Self::with_error_details(code, message, ErrorDetails::with_error_info(reason, DOMAIN, fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Refusal;

    #[test]
    fn every_shape_of_error_survives_the_wire_under_its_code() {
        let refusals = vec![Refusal { node: "a:1".into(), reason: "suspect".into() }];
        for (code, error) in [
            (Code::NotFound, FsError::NotFound { path: "/ü \"".into() }),
            (
                Code::FailedPrecondition,
                FsError::LeaseHeld { path: "/a".into(), holder: "h".into(), ends_in_secs: 42 },
            ),
            (Code::ResourceExhausted, FsError::NoDatanodes { path: "/a".into(), refusals }),
            (Code::FailedPrecondition, FsError::WrongVersion { expected: 1, found: 2 }),
            (Code::Aborted, FsError::LeaseLost { inode: u64::MAX }),
        ] {
            let status = Status::from(error.clone());
            assert_eq!(status.code(), code);
            assert_eq!(FsError::from_status(&status), Some(error));
        }
    }

    #[test]
    fn a_foreign_status_is_none_of_ours() {
        let details = ErrorDetails::with_error_info("NOT_FOUND", "another", HashMap::new());
        let foreign = Status::with_error_details(Code::NotFound, "no such bucket", details);
        assert_eq!(FsError::from_status(&foreign), None);
        assert_eq!(FsError::from_status(&Status::unavailable("proxy")), None);
    }
}
