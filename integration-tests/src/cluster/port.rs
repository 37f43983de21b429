//! Ports that no other test takes, although servers give them up and take them again at every restart.

use std::net::{TcpListener, UdpSocket};

/// Below the range from which systems give out ports by themselves.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A TCP port of 127.0.0.1 that is ours until this is dropped.
///
/// It is held by its UDP namesake, which no server uses: a test in another process that wants the same number
/// finds that taken, and our own servers may come and go on the TCP port.
#[derive(Debug)]
pub struct ReservedPort {
    number: u16,
    _held: UdpSocket,
}

impl ReservedPort {
    /// Takes a free one.
    pub fn take() -> Self {
        let start = (std::process::id() as u16).wrapping_mul(31) % COUNT;
        (0..COUNT)
            .find_map(|step| Self::try_take(FIRST + (start + step) % COUNT))
            .expect("12,000 ports are not all taken")
    }

    fn try_take(number: u16) -> Option<Self> {
        let held = UdpSocket::bind(("127.0.0.1", number)).ok()?;
        TcpListener::bind(("127.0.0.1", number)).ok()?;
        Some(Self { number, _held: held })
    }

    /// The port.
    pub fn number(&self) -> u16 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_once_and_free_for_a_server() {
        let (first, second) = (ReservedPort::take(), ReservedPort::take());
        assert_ne!(first.number(), second.number());
        assert!(ReservedPort::try_take(first.number()).is_none());
        for _restart in 0..2 {
            TcpListener::bind(("127.0.0.1", first.number())).unwrap();
        }
    }
}
