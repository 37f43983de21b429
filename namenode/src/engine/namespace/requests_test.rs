//! Never twice, never forgotten too early, never kept for ever.

use doldam_proto::FsError;
use doldam_proto::wire::command::Change;
use doldam_proto::wire::outcome::Kind;
use doldam_proto::wire::{
    Command, ForgetRequestsCommand, GarbageOutcome, MkdirOutcome, Outcome, RequestId,
};

use super::apply;
use super::requests::{PRUNE_MAX, PRUNE_STEP};
use super::world::{
    World, client_id, commit, complete, create, created, delete, mkdir, without_why,
};
use crate::engine::tables::Table;

fn command(sequence: u64, answered_below: u64, time_ms: u64, change: Change) -> Command {
    let request = RequestId { client_id: client_id(5).to_bytes(), sequence, answered_below };
    Command { time_ms, request: Some(request), change: Some(change) }
}

fn kept(world: &World) -> usize {
    world.tables.entries(Table::Requests).len()
}

#[test]
fn a_retry_gets_the_first_answer_whatever_happened_since() {
    let mut world = World::new();
    let make = command(1, 0, 5000, create("/f"));
    let write = created(world.run(make.clone()).unwrap());
    let commits = vec![commit(write.block_id, 0, 4, &[2])];
    let finish = command(2, 0, 5001, complete(write.inode_id, 4, commits));
    let first = world.run(finish.clone()).unwrap();
    let remove = command(3, 0, 5002, delete("/f", false));
    world.run(remove.clone()).unwrap();
    for (retry, kind) in [
        (make, Some(Kind::Create(write))),
        (finish, first.kind),
        (remove, Some(Kind::Done(doldam_proto::wire::Done {}))),
    ] {
        let retry = Command { time_ms: 9999, ..retry };
        let applied = apply(&world.tables, &retry).unwrap();
        assert!(applied.changes.is_empty());
        let without_lists = Outcome { kind, ..Outcome::default() };
        assert_eq!(applied.outcome, Ok(without_lists));
    }
}

#[test]
fn a_refused_request_may_succeed_later_under_the_same_id() {
    let mut world = World::new();
    let make = command(1, 0, 5000, mkdir("/a/b", false));
    assert!(world.run(make.clone()).is_err());
    world.mkdir("/a");
    let made = Some(Kind::Mkdir(MkdirOutcome { created: true }));
    assert_eq!(world.run(make).unwrap().kind, made);
}

#[test]
fn an_id_must_be_whole() {
    let mut world = World::new();
    let good = RequestId { client_id: client_id(5).to_bytes(), sequence: 3, answered_below: 3 };
    for (field, request) in [
        ("request.client_id", RequestId { client_id: "x".into(), ..good.clone() }),
        ("request.sequence", RequestId { sequence: 0, answered_below: 0, ..good.clone() }),
        ("request.answered_below", RequestId { answered_below: 4, ..good.clone() }),
    ] {
        let change = Some(mkdir("/a", true));
        let found = world.run(Command { time_ms: 1, request: Some(request), change }).unwrap_err();
        let field = field.to_owned();
        assert_eq!(without_why(found), FsError::InvalidArgument { field, why: String::new() });
    }
}

#[test]
fn answered_requests_are_forgotten_in_batches_and_never_applied_again() {
    let mut world = World::new();
    for sequence in 1..PRUNE_STEP {
        world.run(command(sequence, sequence, 5000, mkdir("/a", true))).unwrap();
    }
    assert_eq!(kept(&world), PRUNE_STEP as usize - 1, "not yet a batch");
    let at = PRUNE_STEP;
    world.run(command(at, at, 5000, mkdir("/a", true))).unwrap();
    assert_eq!(kept(&world), 2, "the one not answered yet, and the floor");
    let late = world.run(command(at - 1, 1, 5000, delete("/a", true))).unwrap_err();
    let field = "request.sequence".to_owned();
    assert_eq!(without_why(late), FsError::InvalidArgument { field, why: String::new() });
    assert!(world.exists("/a"));
    world.run(command(at + 1, 1, 5000, delete("/a", true))).unwrap();
    assert!(!world.exists("/a"), "what was not answered is new");
}

#[test]
fn a_long_backlog_is_forgotten_a_bounded_part_at_a_time() {
    let mut world = World::new();
    let count = PRUNE_MAX as u64 + PRUNE_STEP + 1;
    for sequence in 1..=count {
        world.run(command(sequence, 0, 5000, mkdir("/a", true))).unwrap();
    }
    for (left, sequence) in [(PRUNE_STEP as usize + 1 + 2, count + 1), (1 + 2, count + 2)] {
        world.run(command(sequence, count + 1, 5000, mkdir("/a", true))).unwrap();
        assert_eq!(kept(&world), left);
    }
}

#[test]
fn requests_of_clients_that_went_away_are_forgotten_by_age() {
    let mut world = World::new();
    for sequence in 1..=5 {
        world.run(command(sequence, 0, 5000 + sequence, mkdir("/a", true))).unwrap();
    }
    let mut forget = |older_than_ms, max_items| {
        let change = ForgetRequestsCommand { older_than_ms, max_items };
        let kind = world.own(Change::ForgetRequests(change)).unwrap().kind;
        let Some(Kind::Garbage(GarbageOutcome { more, items })) = kind else { panic!("{kind:?}") };
        (more, items, kept(&world))
    };
    assert_eq!(forget(5001, 10), (false, 0, 5));
    assert_eq!(forget(5003, 1), (true, 1, 4));
    assert_eq!(forget(5003, 2), (true, 1, 3), "goes on where the last slice ended");
    assert_eq!(forget(9999, 2), (true, 2, 1));
    assert_eq!(forget(9999, 2), (false, 0, 1), "the end");
    assert_eq!(forget(9999, 2), (false, 1, 0), "and from the start again");
    let change = ForgetRequestsCommand { older_than_ms: 9999, max_items: 9 };
    let nothing =
        Command { time_ms: 9, request: None, change: Some(Change::ForgetRequests(change)) };
    assert!(apply(&world.tables, &nothing).unwrap().changes.is_empty());
}
