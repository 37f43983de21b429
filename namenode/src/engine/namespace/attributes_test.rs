//! Replication and times.

use doldam_proto::FsError;
use doldam_proto::id::BlockId;
use doldam_proto::wire::command::Change;
use doldam_proto::wire::outcome::Kind;
use doldam_proto::wire::{SetReplicationCommand, SetReplicationOutcome, SetTimesCommand};

use super::view;
use super::world::{BLOCK, World, without_why};

fn set_replication(path: &str, replication: u32) -> Change {
    Change::SetReplication(SetReplicationCommand { path: path.to_owned(), replication })
}

#[test]
fn another_replication_makes_debts_of_too_few_and_of_too_many() {
    let mut world = World::new();
    world.write_file("/f", &[BLOCK, 1]);
    let previous = |previous| Some(Kind::SetReplication(SetReplicationOutcome { previous }));
    let both = [BlockId(1), BlockId(2)];
    for (replication, before, touched, debts) in [
        (3, 2, &[1, 2][..], &both[..]),
        (1, 3, &[1, 2], &both),
        (1, 1, &[], &both),
        (2, 1, &[1, 2], &[]),
    ] {
        let outcome = world.request(1, set_replication("/f", replication)).unwrap();
        assert_eq!(outcome.kind, previous(before));
        assert_eq!(outcome.touched_blocks, touched);
        assert_eq!(view::debts(&world.tables, BlockId(0), 9).unwrap(), debts);
        let few = if replication > 2 { 2 } else { 0 };
        assert_eq!(view::totals(&world.tables).unwrap().under_replicated, few);
        assert_eq!(world.stat("/f").replication, replication);
    }
    assert_eq!(view::debts(&world.tables, BlockId(1), 1).unwrap(), []);
}

#[test]
fn replication_is_for_files_and_within_its_limits() {
    let mut world = World::new();
    world.mkdir("/d");
    world.write_file("/f", &[1]);
    let wrong = FsError::InvalidArgument { field: "replication".to_owned(), why: String::new() };
    for (path, replication, refusal) in [
        ("/f", 0, wrong.clone()),
        ("/f", 17, wrong),
        ("/d", 2, FsError::IsADirectory { path: "/d".to_owned() }),
        ("/n", 2, FsError::NotFound { path: "/n".to_owned() }),
    ] {
        let found = world.request(1, set_replication(path, replication)).unwrap_err();
        assert_eq!(without_why(found), refusal);
    }
}

#[test]
fn times_are_set_as_asked() {
    let mut world = World::new();
    world.mkdir("/d");
    world.write_file("/f", &[1]);
    for path in ["/d", "/f", "/"] {
        let change = SetTimesCommand { path: path.to_owned(), modified_ms: 42 };
        world.request(1, Change::SetTimes(change)).unwrap();
        assert_eq!(world.stat(path).modified_ms, 42);
    }
    let change = SetTimesCommand { path: "/n".to_owned(), modified_ms: 42 };
    let refusal = FsError::NotFound { path: "/n".to_owned() };
    assert_eq!(world.request(1, Change::SetTimes(change)), Err(refusal));
}
