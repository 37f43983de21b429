//! What clients do: one operation after another, each told to the oracle.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use doldam_client::{Client, ClientError, Durability, FileKind, FileStatus, FsError, WriteOptions};
use doldam_runtime::random::{Random, SeededRandom};
use futures::TryStreamExt;
use tokio::io::AsyncWriteExt;
use tokio::time::{sleep, timeout};

use super::Violation;
use super::process::Incarnation;
use super::world::{World, chain, home};
use crate::invariant;
use crate::simulation::oracle::content::{ContentId, bytes_of};
use crate::simulation::oracle::history::{Answer, STATES_MAX};
use crate::simulation::oracle::tree::{Change, Node};

/// Longest any operation may take: every wait in it has a deadline.
const OPERATION_MAX: Duration = Duration::from_mins(10);
/// After the death of a client, until what it asked for has come through or never will.
const AFTER_DEATH: Duration = Duration::from_secs(6);
/// Sizes around which there is something to get wrong.
pub(super) const SIZES: [u64; 8] = [0, 1, 5000, 65_535, 65_536, 65_537, 131_072, 200_000];

/// A client that works in its home.
pub struct Actor {
    world: Rc<World>,
    number: usize,
    chance: SeededRandom,
    client: Option<Client>,
}

impl Actor {
    /// Of the client `number`.
    pub fn new(world: &Rc<World>, number: usize) -> Self {
        let chance = world.chance(&format!("client {number}"));
        Self { world: Rc::clone(world), number, chance, client: None }
    }

    /// Works until there is no more trouble.
    ///
    /// # Errors
    /// At the first promise that is broken.
    pub async fn work(&mut self) -> Result<(), Violation> {
        while self.world.is_troubled.get() {
            sleep(Duration::from_millis(self.chance.below(600))).await;
            let died = match self.client().await {
                None => continue,
                Some(client) => {
                    let incarnation = self.world.clients.borrow()[self.number].clone();
                    let operation = timeout(OPERATION_MAX, self.operate(&client, &incarnation));
                    let ended = operation.await.map_err(|_| self.broken("every operation ends"))?;
                    ended?;
                    !incarnation.is_alive()
                }
            };
            if died {
                self.client = None;
                sleep(AFTER_DEATH).await;
            }
            invariant::check(&self.world)?;
        }
        Ok(())
    }

    fn broken(&self, promise: &'static str) -> Violation {
        Violation::new(promise, format!("client {}", self.number))
    }

    async fn client(&mut self) -> Option<Client> {
        if self.client.is_none() {
            self.client = self.world.connect(self.number).await.ok();
            // Its home is made before anything else is done, so that it is part of every state.
            let client = self.client.clone()?;
            if client.mkdir(home(self.number), true).await.is_err() {
                self.client = None;
            }
        }
        self.client.clone()
    }

    async fn operate(
        &self,
        client: &Client,
        incarnation: &Arc<Incarnation>,
    ) -> Result<(), Violation> {
        self.world.summary.borrow_mut().operations += 1;
        let too_many = self.world.histories.borrow()[self.number].states().len() > STATES_MAX;
        let roll = if too_many { 90 } else { self.chance.below(100) };
        match roll {
            0..18 => tokio::select! {
                biased;
                () = incarnation.died() => Ok(()),
                result = self.stream(client, incarnation) => result,
            },
            18..65 => {
                let (change, durability) = self.choose();
                let answer = tokio::select! {
                    biased;
                    () = incarnation.died() => Answer::Unknown,
                    answer = self.change(client, &change, durability) => answer,
                };
                self.note(&change, answer)
            }
            65..80 => {
                let path = self.any_file();
                tokio::select! {
                    biased;
                    () = incarnation.died() => Ok(()),
                    result = self.read(client, self.number, &path) => result,
                }
            }
            80..85 => {
                let other = self.chance.below(self.world.settings.clients as u64) as usize;
                let path = self.file_of(other);
                tokio::select! {
                    biased;
                    () = incarnation.died() => Ok(()),
                    result = self.read(client, other, &path) => result,
                }
            }
            _ => tokio::select! {
                biased;
                () = incarnation.died() => Ok(()),
                result = self.look(client) => result,
            },
        }
    }

    /// Its own.
    pub fn chance(&self) -> &SeededRandom {
        &self.chance
    }

    /// Which client it is.
    pub fn number(&self) -> usize {
        self.number
    }

    /// The world it is in.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Tells the oracle.
    ///
    /// # Errors
    /// If that cannot be.
    pub fn note(&self, change: &Change, answer: Answer) -> Result<(), Violation> {
        let world = &self.world;
        world.trace.line(&format!("c{}", self.number), format_args!("{answer:?}: {change:?}"));
        if answer != Answer::Unknown {
            world.summary.borrow_mut().known += 1;
        }
        if let (Change::Put { content, .. }, Answer::Done) = (change, answer) {
            world.contents.borrow_mut().acknowledge(*content, world.now());
        }
        let noted = world.histories.borrow_mut()[self.number].changed(change, answer);
        noted.map_err(|what| Violation::new("answers are true", what))
    }

    /// A path of a directory: the home, or one below.
    fn folder(&self) -> String {
        match self.chance.below(4) {
            0 => format!("{}/a", home(self.number)),
            1 => format!("{}/b", home(self.number)),
            _ => home(self.number),
        }
    }

    fn any_file(&self) -> String {
        format!("{}/f{}", self.folder(), self.chance.below(4))
    }

    fn file_of(&self, other: usize) -> String {
        format!("{}/f{}", home(other), self.chance.below(4))
    }

    fn choose(&self) -> (Change, Durability) {
        let (path, to) = (self.any_file(), self.any_file());
        let replication = 2 + self.chance.below(2) as u32;
        let half = |chance: &SeededRandom| chance.below(2) == 0;
        let durability = match self.chance.below(4) {
            0 => Durability::One,
            1 => Durability::Memory,
            _ => Durability::All,
        };
        let change = match self.chance.below(100) {
            0..50 => {
                let length = SIZES[self.chance.below(SIZES.len() as u64) as usize];
                let length = if half(&self.chance) { length } else { self.chance.below(300_000) };
                let block_bytes = 1 << (16 + self.chance.below(2));
                let volatile = durability == Durability::Memory;
                let content = self.world.contents.borrow_mut().add(length, block_bytes, volatile);
                Change::Put { path, content, replication, overwrite: self.chance.below(3) > 0 }
            }
            50..62 => Change::Delete { path, recursive: half(&self.chance) },
            62..78 => Change::Rename { from: path, to, replace: half(&self.chance) },
            78..90 => {
                let name = if half(&self.chance) { "a" } else { "b" };
                Change::Mkdir { path: format!("{}/{name}", home(self.number)) }
            }
            90..94 => {
                let (from, to) = if half(&self.chance) { ("a", "b") } else { ("b", "a") };
                let at = |name| format!("{}/{name}", home(self.number));
                Change::Rename { from: at(from), to: at(to), replace: half(&self.chance) }
            }
            94..96 => {
                let path = format!("{}/a", home(self.number));
                Change::Delete { path, recursive: half(&self.chance) }
            }
            _ => Change::Replicate { path, replication },
        };
        (change, durability)
    }

    /// Asks for a change.
    pub async fn change(&self, client: &Client, change: &Change, durability: Durability) -> Answer {
        self.world.histories.borrow_mut()[self.number].asks(change);
        let result = match change {
            Change::Mkdir { path } => client.mkdir(path, false).await.map(drop),
            Change::Put { path, content, replication, overwrite } => {
                let facts = self.world.contents.borrow().get(*content).clone();
                let who = format!("c{}", self.number);
                self.world
                    .trace
                    .line(&who, format_args!("puts {content:?} to {path}: {durability}"));
                let options = WriteOptions {
                    replication: Some(*replication),
                    block_bytes: Some(facts.block_bytes),
                    durability,
                    overwrite: *overwrite,
                    parents: false,
                };
                put(client, path, &bytes_of(*content, facts.length), options).await
            }
            Change::Delete { path, recursive } => client.delete(path, *recursive).await,
            Change::Rename { from, to, replace } => client.rename(from, to, *replace).await,
            Change::Replicate { path, replication } => {
                client.set_replication(path, *replication).await.map(drop)
            }
        };
        match result {
            Ok(()) => Answer::Done,
            Err(error) => {
                let who = format!("c{}", self.number);
                self.world.trace.line(&who, format_args!("{}", chain(&error)));
                answer_of(&error)
            }
        }
    }

    /// Reads a file, or a range of it, and checks every byte.
    ///
    /// # Errors
    /// If a byte is wrong, or another file is there than can be.
    pub async fn read(&self, client: &Client, of: usize, path: &str) -> Result<(), Violation> {
        let reader = match client.open(path).await {
            Ok(reader) => reader,
            Err(error) if error.is_not_found() => return self.saw(of, path, None),
            Err(_) => return Ok(()),
        };
        let content = self.content(reader.status())?;
        let replication = reader.status().replication;
        self.saw(of, path, Some(&Node::File { content, replication }))?;
        let length = self.world.contents.borrow().get(content).length;
        let (offset, count) = match self.chance.below(2) {
            0 => (0, length),
            _ => (self.chance.below(length + 1), 1 + self.chance.below(100_000)),
        };
        let Ok(bytes) = reader.read_at(offset, count as usize).await else { return Ok(()) };
        let expected = bytes_of(content, length);
        let end = (offset + count).min(length) as usize;
        if bytes != expected[offset as usize..end] {
            let what = format!("{path} from {offset}, {count} bytes, of {content:?}");
            return Err(Violation::new("what is read was written", what));
        }
        Ok(())
    }

    fn saw(&self, of: usize, path: &str, node: Option<&Node>) -> Result<(), Violation> {
        if of != self.number {
            return Ok(()); // Its owner may be changing it now.
        }
        let seen = self.world.histories.borrow_mut()[of].saw(path, node);
        seen.map_err(|what| Violation::new("what is seen is so", what))
    }

    fn content(&self, status: &FileStatus) -> Result<ContentId, Violation> {
        let contents = self.world.contents.borrow();
        let found = status
            .digest
            .and_then(|digest| contents.find(&digest.to_bytes().as_ref().try_into().ok()?));
        let content = found.filter(|found| contents.get(*found).length == status.length);
        content.ok_or_else(|| Violation::new("what is seen was written", format!("{status:?}")))
    }

    fn node(&self, status: &FileStatus) -> Result<Node, Violation> {
        Ok(match status.kind {
            FileKind::Directory => Node::Folder,
            FileKind::File => {
                Node::File { content: self.content(status)?, replication: status.replication }
            }
        })
    }

    /// Lists a directory of the home.
    async fn look(&self, client: &Client) -> Result<(), Violation> {
        for path in [home(self.number), self.folder()] {
            self.list(client, &path).await?;
        }
        Ok(())
    }

    /// Lists a directory; whether an answer came.
    ///
    /// # Errors
    /// If it cannot have these names.
    pub async fn list(&self, client: &Client, path: &str) -> Result<bool, Violation> {
        let entries: Result<Vec<FileStatus>, ClientError> = client.list(path).try_collect().await;
        let names = match &entries {
            Ok(entries) => {
                let mut names = BTreeMap::new();
                for entry in entries {
                    names.insert(entry.path.clone(), self.node(entry)?);
                }
                Some(names)
            }
            Err(error) if answer_of(error) == Answer::Refused => None,
            Err(_) => return Ok(false),
        };
        let listed = self.world.histories.borrow_mut()[self.number].listed(path, names.as_ref());
        listed.map_err(|what| Violation::new("what is listed is there", what))?;
        Ok(true)
    }
}

async fn put(
    client: &Client,
    path: &str,
    bytes: &[u8],
    options: WriteOptions,
) -> Result<(), ClientError> {
    let mut writer = client.create(path).options(options).open().await?;
    // A failure shows at the close again, with its cause.
    let _ = writer.write_all(bytes).await;
    writer.close().await.map(drop)
}

/// What an error means for the state of the tree.
pub(super) fn answer_of(error: &ClientError) -> Answer {
    match error {
        ClientError::Refused(refusal) => match refusal {
            FsError::NotFound { .. }
            | FsError::AlreadyExists { .. }
            | FsError::NotADirectory { .. }
            | FsError::IsADirectory { .. }
            | FsError::DirectoryNotEmpty { .. }
            | FsError::NotAllowed { .. } => Answer::Refused,
            FsError::LeaseHeld { .. }
            | FsError::LeaseLost { .. }
            | FsError::NoDatanodes { .. }
            | FsError::BlockMismatch { .. } => Answer::Failed,
            _ => Answer::Unknown,
        },
        ClientError::BlockUnwritable { .. } => Answer::Failed,
        ClientError::Earlier(cause) => answer_of(cause),
        _ => Answer::Unknown,
    }
}
