//! A free port on 127.0.0.1 for a server that is about to start, and may be down for a while later.
//!
//! Ports are taken from below the range that the kernel hands to outgoing connections. A port inside it could be taken by
//! any client while its server is down, and a client that tries to reconnect to it can even reach itself (a TCP simultaneous
//! open on the loopback). Between the look here and the server's own bind another process may still be quicker: the
//! launchers start again on another port when that happens.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::net::{Ipv4Addr, TcpListener};

use super::ServerError;

const LOWEST: u16 = 12_000;

/// A TCP port on 127.0.0.1 that nothing listens on now.
pub fn free_port() -> Result<u16, ServerError> {
    let above = ephemeral_low();
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..200 {
        // The standard library's only source of randomness; good enough to keep processes apart.
        let random = RandomState::new().build_hasher().finish();
        let port = LOWEST + (random % u64::from(above - LOWEST)) as u16;
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => return Ok(port),
            Err(error) => last = error,
        }
    }
    Err(ServerError::NoPort { source: last })
}

/// The first port of the ephemeral range, or Linux' default where it cannot be read or leaves no room.
fn ephemeral_low() -> u16 {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|range| range.split_whitespace().next()?.parse().ok())
        .filter(|low: &u16| *low > LOWEST + 1000)
        .unwrap_or(32_768)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_port_is_outside_the_ephemeral_range_and_differs() {
        let ports: Vec<u16> = (0..8).map(|_| free_port().expect("a port")).collect();
        assert!(ports.iter().all(|port| (LOWEST..ephemeral_low()).contains(port)));
        assert!(ports.iter().any(|port| *port != ports[0]));
    }
}
