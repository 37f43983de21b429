//! HDFS's rule: the first replica near the writer, the second on another rack, the third on the rack of the second,
//! the rest spread. One rack can fail without loss, and a write crosses between racks only once.

use std::collections::BTreeMap;

use doldam_proto::id::NodeId;

use super::{Candidate, Chance, PlacementPolicy, PlacementRequest};
use crate::engine::cluster::Cluster;

/// The policy of this module.
#[derive(Debug, Clone, Copy, Default)]
pub struct RackAware;

impl PlacementPolicy for RackAware {
    fn choose(
        &self,
        cluster: &Cluster,
        mut candidates: Vec<Candidate<'_>>,
        request: &PlacementRequest<'_>,
        chance: &mut Chance,
    ) -> Vec<NodeId> {
        let mut racks: Vec<&str> = request.holders.iter().map(|id| cluster.rack(*id)).collect();
        let is_new_block = racks.is_empty();
        let mut chosen = Vec::new();
        while chosen.len() < request.replicas {
            let wish = match racks.as_slice() {
                [] => Wish::Host(request.client_host),
                [first] => Wish::NotRack(first),
                [first, second] if is_new_block && first != second => Wish::Rack(second),
                _ => Wish::Spread,
            };
            let Some(index) = pick(cluster, &candidates, &racks, wish, chance) else { break };
            let candidate = candidates.swap_remove(index);
            racks.push(candidate.rack);
            chosen.push(candidate.node);
        }
        chosen
    }
}

/// What the next node should be like; if none is, any will do.
#[derive(Debug, Clone, Copy)]
enum Wish<'a> {
    Host(&'a str),
    NotRack(&'a str),
    Rack(&'a str),
    /// On a rack with as few replicas as possible.
    Spread,
}

fn pick(
    cluster: &Cluster,
    candidates: &[Candidate<'_>],
    racks: &[&str],
    wish: Wish<'_>,
    chance: &mut Chance,
) -> Option<usize> {
    let fewest = match wish {
        Wish::Spread => fewest_on_a_rack(candidates, racks),
        Wish::Host(_) | Wish::NotRack(_) | Wish::Rack(_) => 0,
    };
    let suits = |candidate: &Candidate<'_>| match wish {
        Wish::Host(host) => cluster.is_on_host(candidate.node, host),
        Wish::NotRack(rack) => candidate.rack != rack,
        Wish::Rack(rack) => candidate.rack == rack,
        Wish::Spread => on_rack(racks, candidate.rack) == fewest,
    };
    let weight = |candidate: &Candidate<'_>| if suits(candidate) { candidate.weight() } else { 0 };
    let drawn = chance.weighted(candidates.iter().map(weight));
    drawn.or_else(|| chance.weighted(candidates.iter().map(Candidate::weight)))
}

fn on_rack(racks: &[&str], rack: &str) -> usize {
    racks.iter().filter(|other| **other == rack).count()
}

fn fewest_on_a_rack(candidates: &[Candidate<'_>], racks: &[&str]) -> usize {
    let per_rack: BTreeMap<&str, usize> =
        candidates.iter().map(|each| (each.rack, on_rack(racks, each.rack))).collect();
    per_rack.into_values().min().unwrap_or(0)
}
