//! Errors over gRPC: every variant comes back, whatever its size, and nothing else passes for one.

use std::collections::HashMap;

use proptest::prelude::*;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::{ErrorKind, FsError, Refusal};
use crate::limits::{PATH_BYTES_MAX, TEXT_BYTES_MAX};

/// What HTTP/2 peers accept for all headers of an answer together.
const HEADERS_BYTES_MAX: usize = 16 << 10;

fn refusals(count: usize, text: &str) -> Vec<Refusal> {
    vec![Refusal { node: text.to_owned(), reason: text.to_owned() }; count]
}

/// Every variant, with `path` and `text` for what it holds, its code and its kind.
fn every_error(path: &str, text: &str) -> Vec<(Code, ErrorKind, FsError)> {
    let (path, text) = (|| path.to_owned(), || text.to_owned());
    let precondition = Code::FailedPrecondition;
    vec![
        (Code::NotFound, ErrorKind::Request, FsError::NotFound { path: path() }),
        (Code::AlreadyExists, ErrorKind::Request, FsError::AlreadyExists { path: path() }),
        (precondition, ErrorKind::Request, FsError::NotADirectory { path: path() }),
        (precondition, ErrorKind::Request, FsError::IsADirectory { path: path() }),
        (precondition, ErrorKind::Request, FsError::DirectoryNotEmpty { path: path() }),
        (precondition, ErrorKind::Request, FsError::NotAllowed { path: path(), why: text() }),
        (
            Code::InvalidArgument,
            ErrorKind::Request,
            FsError::InvalidPath { path: path(), why: text() },
        ),
        (
            Code::InvalidArgument,
            ErrorKind::Request,
            FsError::InvalidArgument { field: "length".into(), why: text() },
        ),
        (
            precondition,
            ErrorKind::Request,
            FsError::LeaseHeld { path: path(), holder: text(), ends_in_secs: 42 },
        ),
        (Code::Aborted, ErrorKind::Stale, FsError::LeaseLost { inode: u64::MAX }),
        (
            Code::Aborted,
            ErrorKind::Stale,
            FsError::BlockMismatch { block: 1, generation: u64::MAX, why: text() },
        ),
        (Code::Aborted, ErrorKind::Stale, FsError::FileChanged { path: path() }),
        (
            Code::ResourceExhausted,
            ErrorKind::Unavailable,
            FsError::NoDatanodes { path: path(), refusals: refusals(2, "suspect") },
        ),
        (Code::Unavailable, ErrorKind::Unavailable, FsError::NotLeader { leader: "a:8020".into() }),
        (Code::Unavailable, ErrorKind::Unavailable, FsError::Unavailable { why: text() }),
        (
            precondition,
            ErrorKind::Mismatch,
            FsError::WrongCluster { expected: "e".into(), found: "f".into() },
        ),
        (precondition, ErrorKind::Mismatch, FsError::WrongVersion { expected: 1, found: 2 }),
        (precondition, ErrorKind::Unavailable, FsError::NotRegistered { node: u32::MAX }),
        (Code::Internal, ErrorKind::Damaged, FsError::Internal { what: text() }),
    ]
}

fn header_bytes(status: &Status) -> usize {
    let headers = status.clone().into_http::<()>();
    headers.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum()
}

#[test]
fn every_error_survives_the_wire_under_its_code_and_kind() {
    for (code, kind, error) in every_error("/ü \"\\ /b", "why\n\u{1F40D}") {
        let status = Status::from(error.clone());
        assert_eq!(status.code(), code);
        assert_eq!(error.kind(), kind);
        assert_eq!(status.message(), error.to_string());
        assert_eq!(FsError::from_status(&status), Some(error));
    }
}

#[test]
fn the_longest_path_survives_within_the_headers_a_peer_accepts() {
    for letter in ["a", "ü", "\"", "\u{1F40D}"] {
        let path = format!("/{}", letter.repeat(PATH_BYTES_MAX / letter.len() - 1));
        let text = letter.repeat(TEXT_BYTES_MAX / letter.len());
        for (_, _, error) in every_error(&path, &text) {
            let status = Status::from(error.clone());
            let bytes = header_bytes(&status);
            assert!(bytes < HEADERS_BYTES_MAX, "{bytes} bytes for {:?}", status.code());
            assert_eq!(FsError::from_status(&status), Some(error));
        }
    }
}

#[test]
fn more_refusals_than_a_status_holds_are_cut_to_the_first() {
    let path = "ü".repeat(PATH_BYTES_MAX / 2);
    let many = FsError::NoDatanodes { path: path.clone(), refusals: refusals(5000, &path) };
    let status = Status::from(many);
    assert!(header_bytes(&status) < HEADERS_BYTES_MAX, "{}", header_bytes(&status));
    let Some(FsError::NoDatanodes { path: found, refusals }) = FsError::from_status(&status) else {
        panic!("lost: {status}");
    };
    assert_eq!((found, refusals.len()), (path, 16));
    assert_eq!(refusals[0].node, "ü".repeat(32));
}

#[test]
fn a_foreign_status_is_none_of_ours() {
    let details = ErrorDetails::with_error_info("NOT_FOUND", "another", HashMap::new());
    let foreign = Status::with_error_details(Code::NotFound, "no such bucket", details);
    assert_eq!(FsError::from_status(&foreign), None);
    assert_eq!(FsError::from_status(&Status::unavailable("proxy")), None);
}

#[test]
fn an_error_of_a_later_release_or_without_its_fields_is_none_of_ours() {
    for (reason, fields) in [
        ("SOMETHING_NEW", HashMap::new()),
        ("NOT_FOUND", HashMap::new()),
        ("NOT_FOUND", HashMap::from([("path".to_owned(), "not json".to_owned())])),
        ("LEASE_LOST", HashMap::from([("inode".to_owned(), "-1".to_owned())])),
    ] {
        let details = ErrorDetails::with_error_info(reason, "doldam", fields);
        let status = Status::with_error_details(Code::Unknown, "later", details);
        assert_eq!(FsError::from_status(&status), None, "{reason}");
    }
}

#[test]
fn an_error_without_candidates_says_so() {
    let error = FsError::NoDatanodes { path: "/a".into(), refusals: Vec::new() };
    assert_eq!(error.to_string(), "no datanode can take a block of /a: none has registered");
    let error = FsError::NoDatanodes { path: "/a".into(), refusals: refusals(1, "full") };
    assert_eq!(error.to_string(), "no datanode can take a block of /a: full (full)");
}

proptest! {
    #[test]
    fn any_details_are_an_error_or_none(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let status = Status::with_details(Code::Aborted, "", bytes.into());
        prop_assert_eq!(FsError::from_status(&status), None);
    }
}
