//! The one place where typed errors meet gRPC.
//!
//! An [`FsError`] becomes a status code (what may any gRPC client do?) and a standard `ErrorInfo` whose reason
//! names the variant and whose metadata holds its fields as JSON values. So our client gets the same enum back and
//! never reads meaning out of prose, and a stranger's tools still see a standard error.
//!
//! All of it travels in HTTP/2 headers, of which peers accept 16 KiB, so the prose and lists are cut to fit.

use std::collections::BTreeMap;

use prost::Message;
use serde_json::{Map, Value};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::FsError;

const DOMAIN: &str = "doldam";
const TAG: &str = "reason";
/// Longest prose; every byte may take three in the header, and it is sent twice.
const MESSAGE_BYTES_MAX: usize = 400;
const REFUSALS_MAX: usize = 16;
const REFUSAL_TEXT_BYTES_MAX: usize = 64;

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
        let (code, error) = (error.code(), bounded(error));
        let mut message = error.to_string();
        shorten(&mut message, MESSAGE_BYTES_MAX);
        // An enum of structs of strings and numbers always serialises to an object.
        let Ok(Value::Object(mut fields)) = serde_json::to_value(&error) else {
            return Self::new(code, message);
        };
        let Some(Value::String(reason)) = fields.remove(TAG) else {
            return Self::new(code, message);
        };
        let metadata = fields.into_iter().map(|(key, value)| (key, value.to_string())).collect();
        let info = ErrorInfo { reason, domain: DOMAIN.to_owned(), metadata };
        let details = RichStatus {
            code: code as i32,
            message: message.clone(),
            details: vec![Any { type_url: ERROR_INFO.to_owned(), value: info.encode_to_vec() }],
        };
        Self::with_details(code, message, details.encode_to_vec().into())
    }
}

/// Type of the detail that carries an error.
const ERROR_INFO: &str = "type.googleapis.com/google.rpc.ErrorInfo";

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct RichStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.ErrorInfo`, with its fields in order: one error has one encoding, which a simulation relies on.
#[derive(Clone, PartialEq, Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
    #[prost(btree_map = "string, string", tag = "3")]
    metadata: BTreeMap<String, String>,
}

/// As many of `refusals` as a status has room for: they are for people.
fn bounded(error: FsError) -> FsError {
    let FsError::NoDatanodes { path, mut refusals } = error else { return error };
    refusals.truncate(REFUSALS_MAX);
    for refusal in &mut refusals {
        shorten(&mut refusal.node, REFUSAL_TEXT_BYTES_MAX);
        shorten(&mut refusal.reason, REFUSAL_TEXT_BYTES_MAX);
    }
    FsError::NoDatanodes { path, refusals }
}

/// Cuts `text` to at most `bytes_max` bytes, at the end of a character.
fn shorten(text: &mut String, bytes_max: usize) {
    text.truncate(text.floor_char_boundary(bytes_max));
}
