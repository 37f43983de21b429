//! The four doors to the world, carried together: what a simulator replaces.

use std::fmt;
use std::sync::Arc;

use crate::clock::{Clock, SystemClock};
use crate::disk::{Disk, RealDisk};
use crate::net::{Net, RealNet};
use crate::random::{Random, SystemRandom};

/// Clock, chance, disk and network of one process.
#[derive(Clone)]
pub struct Seams {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub random: Arc<dyn Random>,
    /// Files.
    pub disk: Arc<dyn Disk>,
    /// Connections.
    pub net: Arc<dyn Net>,
}

impl Seams {
    /// The real ones.
    pub fn system() -> Self {
        Self {
            clock: Arc::new(SystemClock::default()),
            random: Arc::new(SystemRandom),
            disk: Arc::new(RealDisk),
            net: Arc::new(RealNet),
        }
    }
}

impl fmt::Debug for Seams {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Seams").finish_non_exhaustive()
    }
}
