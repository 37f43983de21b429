//! A model of the namespace too simple to be wrong: maps of names, and no second index of anything.
//!
//! It predicts the exact answer of every command, ids included. What it does not know is how far
//! deleted things were collected: where an answer may depend on that, [`Model::is_lost`] says so
//! and the test accepts both.

use std::collections::{BTreeMap, BTreeSet};

use doldam_proto::FsError;

use super::world::BLOCK;

const ROOT: u64 = 1;

/// What a command answers, as far as the model goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Done,
    Created(bool),
    Handle { inode: u64, block: u64 },
    Allocated(u64),
    Completed { path: String, length: u64, under_replicated: u32 },
    Previous(u32),
    Changed(bool),
}

type Refusable = Result<Answer, FsError>;

#[derive(Debug, Clone, Default)]
pub(super) struct Block {
    pub(super) committed: Option<u64>,
    pub(super) good: BTreeSet<u32>,
    pub(super) bad: BTreeSet<u32>,
}

#[derive(Debug, Clone)]
pub(super) struct File {
    pub(super) length: u64,
    pub(super) replication: u32,
    pub(super) blocks: Vec<u64>,
}

#[derive(Debug, Clone)]
pub(super) struct Write {
    client: u8,
    parent: u64,
    name: String,
    overwrite: bool,
    replication: u32,
    pub(super) blocks: BTreeMap<u32, u64>,
}

/// What a new write asks for.
#[derive(Debug, Clone)]
pub(super) struct NewFile {
    pub(super) client: u8,
    pub(super) replication: u32,
    pub(super) overwrite: bool,
    pub(super) parents: bool,
    pub(super) take_over: bool,
    pub(super) targets: BTreeSet<u32>,
}

#[derive(Debug, Clone)]
pub(super) struct Model {
    next_inode: u64,
    next_block: u64,
    pub(super) directories: BTreeMap<u64, BTreeMap<String, u64>>,
    pub(super) files: BTreeMap<u64, File>,
    pub(super) writes: BTreeMap<u64, Write>,
    pub(super) blocks: BTreeMap<u64, Block>,
}

/// `/a/b` as its components.
fn names(path: &str) -> Vec<&str> {
    path.split('/').filter(|name| !name.is_empty()).collect()
}

fn joined(names: &[&str]) -> String {
    names.iter().fold(String::new(), |path, name| path + "/" + name)
}

fn not_found(path: &str) -> FsError {
    FsError::NotFound { path: path.to_owned() }
}

fn exists(path: &str) -> FsError {
    FsError::AlreadyExists { path: path.to_owned() }
}

fn is_directory(path: &str) -> FsError {
    FsError::IsADirectory { path: path.to_owned() }
}

fn not_allowed(path: &str) -> FsError {
    FsError::NotAllowed { path: path.to_owned(), why: String::new() }
}

fn mismatch(block: u64, generation: u64) -> FsError {
    FsError::BlockMismatch { block, generation, why: String::new() }
}

fn wrong(field: &str) -> FsError {
    FsError::InvalidArgument { field: field.to_owned(), why: String::new() }
}

impl Model {
    pub(super) fn new() -> Self {
        Self {
            next_inode: 2,
            next_block: 1,
            directories: BTreeMap::from([(ROOT, BTreeMap::new())]),
            files: BTreeMap::new(),
            writes: BTreeMap::new(),
            blocks: BTreeMap::new(),
        }
    }

    /// Follows the names in `walked`, the first of `path`.
    fn find(&self, path: &str, walked: &[&str]) -> Result<u64, FsError> {
        let mut at = ROOT;
        for (depth, name) in walked.iter().enumerate() {
            let Some(entries) = self.directories.get(&at) else {
                return Err(FsError::NotADirectory { path: joined(&walked[..depth]) });
            };
            at = *entries.get(*name).ok_or_else(|| not_found(path))?;
        }
        Ok(at)
    }

    /// The directory that `path` is in, and its name there; `None` for the root.
    fn place<'p>(&self, path: &'p str) -> Result<Option<(u64, &'p str)>, FsError> {
        let names = names(path);
        let Some((name, above)) = names.split_last() else { return Ok(None) };
        let parent = self.find(path, above)?;
        if !self.directories.contains_key(&parent) {
            return Err(FsError::NotADirectory { path: joined(above) });
        }
        Ok(Some((parent, name)))
    }

    fn make_all(&mut self, path: &str, walked: &[&str]) -> Result<(u64, bool), FsError> {
        let mut copy = self.clone();
        let (mut at, mut created) = (ROOT, false);
        for (depth, name) in walked.iter().enumerate() {
            let Some(entries) = copy.directories.get_mut(&at) else {
                return Err(FsError::NotADirectory { path: joined(&walked[..depth]) });
            };
            at = if let Some(there) = entries.get(*name) {
                *there
            } else {
                created = true;
                entries.insert((*name).to_owned(), copy.next_inode);
                copy.directories.insert(copy.next_inode, BTreeMap::new());
                copy.next_inode += 1;
                copy.next_inode - 1
            };
        }
        assert!(!path.is_empty());
        *self = copy;
        Ok((at, created))
    }

    pub(super) fn mkdir(&mut self, path: &str, parents: bool) -> Refusable {
        if parents {
            let (at, created) = self.make_all(path, &names(path))?;
            if self.files.contains_key(&at) {
                return Err(exists(path));
            }
            return Ok(Answer::Created(created));
        }
        match self.place(path)? {
            Some((parent, name)) if !self.directories[&parent].contains_key(name) => {
                self.make_all(path, &names(path)).map(|_| Answer::Created(true))
            }
            Some(_) | None => Err(exists(path)),
        }
    }

    pub(super) fn create(&mut self, path: &str, new: &NewFile) -> Refusable {
        let names = names(path);
        let Some((name, above)) = names.split_last() else { return Err(is_directory(path)) };
        let mut copy = self.clone();
        if new.parents {
            copy.make_all(path, above)?;
        }
        let (parent, _) = copy.place(path)?.ok_or_else(|| is_directory(path))?;
        match copy.directories[&parent].get(*name) {
            Some(there) if copy.directories.contains_key(there) => return Err(is_directory(path)),
            Some(_) if !new.overwrite => return Err(exists(path)),
            Some(_) | None => {}
        }
        let other =
            copy.writes.iter().find(|(_, write)| write.parent == parent && write.name == *name);
        if let Some((inode, other)) = other.map(|(inode, write)| (*inode, write.client)) {
            if other != new.client && !new.take_over {
                let (path, holder) = (path.to_owned(), format!("client {other}"));
                return Err(FsError::LeaseHeld { path, holder, ends_in_secs: 0 });
            }
            copy.writes.remove(&inode);
        }
        let inode = copy.next_inode;
        copy.next_inode += 1;
        let mut write = Write {
            client: new.client,
            parent,
            name: (*name).to_owned(),
            overwrite: new.overwrite,
            replication: new.replication,
            blocks: BTreeMap::new(),
        };
        let mut block = 0;
        if !new.targets.is_empty() {
            block = copy.new_block();
            write.blocks.insert(0, block);
        }
        copy.writes.insert(inode, write);
        *self = copy;
        Ok(Answer::Handle { inode, block })
    }

    fn new_block(&mut self) -> u64 {
        self.next_block += 1;
        self.blocks.insert(self.next_block - 1, Block::default());
        self.next_block - 1
    }

    fn held(&self, client: u8, inode: u64) -> Result<&Write, FsError> {
        let write = self.writes.get(&inode).filter(|write| write.client == client);
        write.ok_or(FsError::LeaseLost { inode })
    }

    /// Whether the write is below a deleted directory: it may have been collected or not.
    pub(super) fn is_lost(&self, inode: u64) -> bool {
        self.writes.get(&inode).is_some_and(|write| self.path_of(write.parent).is_none())
    }

    /// The write was found to be collected.
    pub(super) fn forget_write(&mut self, inode: u64) {
        self.writes.remove(&inode);
    }

    pub(super) fn allocate(
        &mut self,
        client: u8,
        inode: u64,
        index: u32,
        replaces: u64,
    ) -> Refusable {
        let existing = self.held(client, inode)?.blocks.get(&index).copied();
        match existing {
            None if replaces != 0 => return Err(mismatch(replaces, 0)),
            Some(block) if block != replaces || self.blocks[&block].committed.is_some() => {
                return Err(mismatch(block, 1));
            }
            Some(block) => _ = self.blocks.remove(&block),
            None => {}
        }
        let block = self.new_block();
        self.writes.entry(inode).and_modify(|write| _ = write.blocks.insert(index, block));
        Ok(Answer::Allocated(block))
    }

    pub(super) fn commit(
        &mut self,
        client: u8,
        inode: u64,
        block: u64,
        length: u64,
        nodes: &BTreeSet<u32>,
    ) -> Refusable {
        if !self.held(client, inode)?.blocks.values().any(|own| *own == block) {
            return Err(mismatch(block, 1));
        }
        let record = self.blocks.entry(block).or_default();
        match record.committed {
            Some(before) if before == length => {}
            Some(_) => return Err(mismatch(block, 1)),
            None => {
                record.committed = Some(length);
                record.good.clone_from(nodes);
            }
        }
        Ok(Answer::Done)
    }

    pub(super) fn complete(&mut self, client: u8, inode: u64, length: u64) -> Refusable {
        let write = self.held(client, inode)?.clone();
        let count = length.div_ceil(BLOCK) as u32;
        for (position, (index, block)) in (0..).zip(&write.blocks) {
            let committed = self.blocks[block].committed;
            if *index >= count {
                if committed.is_some() {
                    return Err(mismatch(*block, 1));
                }
            } else if *index != position {
                return Err(wrong("length"));
            } else if committed != Some(BLOCK.min(length - u64::from(*index) * BLOCK)) {
                return Err(mismatch(*block, 1));
            }
        }
        let kept: Vec<u64> = write.blocks.range(..count).map(|(_, block)| *block).collect();
        if kept.len() < count as usize {
            return Err(wrong("length"));
        }
        let Some(above) = self.path_of(write.parent) else { return Err(not_found("…")) };
        let path = format!("{above}/{}", write.name);
        match self.directories[&write.parent].get(&write.name) {
            Some(there) if self.directories.contains_key(there) => return Err(is_directory(&path)),
            Some(_) if !write.overwrite => return Err(exists(&path)),
            Some(there) => _ = self.files.remove(&there.clone()),
            None => {}
        }
        for block in write.blocks.range(count..).map(|(_, block)| block) {
            self.blocks.remove(block);
        }
        let under_replicated =
            kept.iter().filter(|block| self.blocks[*block].good.len() < write.replication as usize);
        let under_replicated = under_replicated.count() as u32;
        self.directories.entry(write.parent).or_default().insert(write.name, inode);
        self.files.insert(inode, File { length, replication: write.replication, blocks: kept });
        self.writes.remove(&inode);
        Ok(Answer::Completed { path, length, under_replicated })
    }

    pub(super) fn abandon(&mut self, client: u8, inode: u64) -> Refusable {
        self.held(client, inode)?;
        self.writes.remove(&inode);
        Ok(Answer::Done)
    }

    pub(super) fn expire(&mut self, client: u8) {
        self.writes.retain(|_, write| write.client != client);
    }

    fn is_empty(&self, directory: u64) -> bool {
        self.directories[&directory].is_empty()
            && self.writes.values().all(|write| write.parent != directory)
    }

    /// Takes a name away. What it led to stays as long as something may ask for it.
    fn unlink(&mut self, parent: u64, name: &str) -> u64 {
        let inode = self.directories.entry(parent).or_default().remove(name).unwrap_or_default();
        self.files.remove(&inode);
        inode
    }

    pub(super) fn rename(&mut self, from: &str, to: &str, replace: bool) -> Refusable {
        let Some((from_parent, from_name)) = self.place(from)? else {
            return Err(not_allowed("/"));
        };
        let moved =
            *self.directories[&from_parent].get(from_name).ok_or_else(|| not_found(from))?;
        if from == to {
            return Ok(Answer::Done);
        }
        let is_file = self.files.contains_key(&moved);
        if !is_file && names(to).starts_with(&names(from)) {
            return Err(not_allowed(from));
        }
        let Some((to_parent, to_name)) = self.place(to)? else { return Err(not_allowed("/")) };
        if let Some(there) = self.directories[&to_parent].get(to_name) {
            if !replace {
                return Err(exists(to));
            }
            match (is_file, self.files.contains_key(there)) {
                (true, false) => return Err(is_directory(to)),
                (false, true) => return Err(FsError::NotADirectory { path: to.to_owned() }),
                (false, false) if !self.is_empty(*there) => {
                    return Err(FsError::DirectoryNotEmpty { path: to.to_owned() });
                }
                (false, false) | (true, true) => _ = self.unlink(to_parent, to_name),
            }
        }
        self.directories.entry(from_parent).or_default().remove(from_name);
        self.directories.entry(to_parent).or_default().insert(to_name.to_owned(), moved);
        Ok(Answer::Done)
    }

    pub(super) fn delete(&mut self, path: &str, recursive: bool) -> Refusable {
        let Some((parent, name)) = self.place(path)? else { return Err(not_allowed("/")) };
        let there = *self.directories[&parent].get(name).ok_or_else(|| not_found(path))?;
        if self.directories.contains_key(&there) && !recursive && !self.is_empty(there) {
            return Err(FsError::DirectoryNotEmpty { path: path.to_owned() });
        }
        self.unlink(parent, name);
        Ok(Answer::Done)
    }

    pub(super) fn set_replication(&mut self, path: &str, replication: u32) -> Refusable {
        if !(1..=16).contains(&replication) {
            return Err(wrong("replication"));
        }
        let inode = self.find(path, &names(path))?;
        let file = self.files.get_mut(&inode).ok_or_else(|| is_directory(path))?;
        let previous = file.replication;
        file.replication = replication;
        Ok(Answer::Previous(previous))
    }

    /// The block, if it belongs to a file with a name or to a write whose directory exists.
    pub(super) fn block_in_use(&self, block: u64) -> Option<&Block> {
        let tree = self.tree();
        let in_file = tree
            .values()
            .any(|inode| self.files.get(inode).is_some_and(|file| file.blocks.contains(&block)));
        let in_write = self.writes.iter().any(|(inode, write)| {
            !self.is_lost(*inode) && write.blocks.values().any(|own| *own == block)
        });
        self.blocks.get(&block).filter(|_| in_file || in_write)
    }

    pub(super) fn add_replica(&mut self, block: u64, node: u32, replaces: u32) -> Answer {
        let record = self.blocks.entry(block).or_default();
        if record.committed.is_none() {
            return Answer::Changed(false);
        }
        let before = (record.good.clone(), record.bad.clone());
        record.good.insert(node);
        record.bad.remove(&node);
        if replaces != node {
            record.good.remove(&replaces);
            record.bad.remove(&replaces);
        }
        Answer::Changed(before != (record.good.clone(), record.bad.clone()))
    }

    pub(super) fn remove_replica(&mut self, block: u64, node: u32) -> Refusable {
        let record = self.blocks.entry(block).or_default();
        let holds = record.good.contains(&node) || record.bad.contains(&node);
        if record.committed.is_none() || !holds {
            return Ok(Answer::Changed(false));
        }
        if record.good.iter().all(|good| *good == node) {
            return Err(mismatch(block, 1));
        }
        record.good.remove(&node);
        record.bad.remove(&node);
        Ok(Answer::Changed(true))
    }

    pub(super) fn mark_bad(&mut self, block: u64, node: u32) -> Answer {
        let record = self.blocks.entry(block).or_default();
        if record.committed.is_none() || !record.good.remove(&node) {
            return Answer::Changed(false);
        }
        Answer::Changed(record.bad.insert(node))
    }

    /// Everything with a path: path -> inode, without the root.
    pub(super) fn tree(&self) -> BTreeMap<String, u64> {
        let mut tree = BTreeMap::new();
        let mut waiting = vec![(ROOT, String::new())];
        while let Some((directory, path)) = waiting.pop() {
            for (name, inode) in &self.directories[&directory] {
                let path = format!("{path}/{name}");
                if self.directories.contains_key(inode) {
                    waiting.push((*inode, path.clone()));
                }
                tree.insert(path, *inode);
            }
        }
        tree
    }

    /// The path of a directory, empty for the root; `None` if it was deleted.
    fn path_of(&self, directory: u64) -> Option<String> {
        if directory == ROOT {
            return Some(String::new());
        }
        self.tree().into_iter().find(|(_, inode)| *inode == directory).map(|(path, _)| path)
    }
}
