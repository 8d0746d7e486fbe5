//! A TCP line between a client and a server that misbehaves on demand.
//!
//! Bytes of both directions pass through `pump`, which looks at the faults before each write. A cut is a reset (RST), as a
//! dead host's or a firewall's is; connections of a stalled line stay open and silent.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    ToServer,
    ToClient,
}

#[derive(Clone, Debug, Default)]
struct Faults {
    refuse: bool,
    stall: bool,
    latency: Duration,
    /// Bytes that may still pass in one direction before all connections are reset.
    budget: Option<(Direction, u64)>,
    /// Raised by each cut: connections of an earlier generation are reset.
    generation: u64,
    server_port: u16,
}

/// Ends with its last reference; connections through it are reset then.
pub struct Proxy {
    address: SocketAddr,
    faults: Arc<watch::Sender<Faults>>,
    counts: Arc<Mutex<Counts>>,
    accept: JoinHandle<()>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that reached the server.
    pub connections: u64,
    pub to_server: u64,
    pub to_client: u64,
    /// Connections reset at once.
    pub refused: u64,
}

impl Proxy {
    /// Listens on a port of its own and forwards to `127.0.0.1:server_port`.
    pub async fn start(server_port: u16) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let faults = Arc::new(watch::Sender::new(Faults { server_port, ..Faults::default() }));
        let counts = Arc::new(Mutex::new(Counts::default()));
        let accept = tokio::spawn(accept(listener, Arc::clone(&faults), Arc::clone(&counts)));
        Proxy { address, faults, counts, accept }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn counts(&self) -> Counts {
        *self.counts.lock().expect("not poisoned")
    }

    /// Resets every connection; new ones work.
    pub fn cut(&self) {
        self.faults.send_modify(|faults| faults.generation += 1);
    }

    /// Forwards nothing, keeps connections open and accepts new ones.
    pub fn stall(&self) {
        self.faults.send_modify(|faults| faults.stall = true);
    }

    /// Waits this long before each piece is forwarded, in both directions.
    pub fn latency(&self, latency: Duration) {
        self.faults.send_modify(|faults| faults.latency = latency);
    }

    /// Resets every connection after so many more bytes of one direction: with `ToClient` and a few bytes, an answer is
    /// lost after the work was done.
    pub fn cut_after(&self, direction: Direction, bytes: u64) {
        self.faults.send_modify(|faults| faults.budget = Some((direction, bytes)));
    }

    /// Resets every connection, and new ones at once.
    pub fn refuse(&self) {
        self.faults.send_modify(|faults| {
            faults.refuse = true;
            faults.generation += 1;
        });
    }

    /// No faults any more; what was stalled goes on.
    pub fn heal(&self) {
        self.faults.send_modify(|faults| {
            *faults = Faults { generation: faults.generation, server_port: faults.server_port, ..Faults::default() };
        });
    }

    /// Resets every connection; new ones reach another server, as when a name is moved to a new primary.
    pub fn redirect(&self, server_port: u16) {
        self.faults.send_modify(|faults| {
            faults.server_port = server_port;
            faults.generation += 1;
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accept.abort();
        self.cut();
    }
}

async fn accept(listener: TcpListener, faults: Arc<watch::Sender<Faults>>, counts: Arc<Mutex<Counts>>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { return };
        if faults.borrow().refuse {
            counts.lock().expect("not poisoned").refused += 1;
            reset(client);
            continue;
        }
        tokio::spawn(forward(client, Arc::clone(&faults), Arc::clone(&counts)));
    }
}

async fn forward(mut client: TcpStream, faults: Arc<watch::Sender<Faults>>, counts: Arc<Mutex<Counts>>) {
    let Faults { generation, server_port, .. } = *faults.borrow();
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", server_port)).await else { return reset(client) };
    counts.lock().expect("not poisoned").connections += 1;
    let was_cut = {
        let (client_read, client_write) = client.split();
        let (server_read, server_write) = server.split();
        let mut cuts = faults.subscribe();
        tokio::select! {
            _ = cuts.wait_for(|faults| faults.generation != generation) => true,
            whole = async {
                // What breaks on one side is over on the other too, as it is when one process holds both ends.
                tokio::try_join!(
                    pump(client_read, server_write, Direction::ToServer, &faults, &counts),
                    pump(server_read, client_write, Direction::ToClient, &faults, &counts),
                )
            } => whole.is_err(),
        }
    };
    if was_cut {
        reset(client);
        reset(server);
    }
}

/// Copies one direction to its end. An error when the line broke, which the other end is told by a reset.
async fn pump(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    direction: Direction,
    faults: &watch::Sender<Faults>,
    counts: &Mutex<Counts>,
) -> Result<(), Broken> {
    let mut buffer = vec![0; 64 << 10];
    let mut moving = faults.subscribe();
    loop {
        let read = from.read(&mut buffer).await.map_err(|_| Broken)?;
        if read == 0 {
            return to.shutdown().await.map_err(|_| Broken);
        }
        let latency = faults.borrow().latency;
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        moving.wait_for(|faults| !faults.stall).await.map_err(|_| Broken)?;
        let allowed = spend(faults, direction, read);
        to.write_all(buffer.get(..allowed).ok_or(Broken)?).await.map_err(|_| Broken)?;
        to.flush().await.map_err(|_| Broken)?;
        let mut counts = counts.lock().expect("not poisoned");
        match direction {
            Direction::ToServer => counts.to_server += allowed as u64,
            Direction::ToClient => counts.to_client += allowed as u64,
        }
        drop(counts);
        if allowed < read {
            // The budget of `cut_after` is used up: everything goes.
            faults.send_modify(|faults| faults.generation += 1);
            return Err(Broken);
        }
    }
}

struct Broken;

/// How many of `bytes` may pass; uses them up.
fn spend(faults: &watch::Sender<Faults>, direction: Direction, bytes: usize) -> usize {
    let mut allowed = bytes;
    faults.send_if_modified(|faults| {
        if let Some((limited, left)) = &mut faults.budget
            && *limited == direction
        {
            allowed = bytes.min(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= allowed as u64;
            if allowed < bytes {
                faults.budget = None;
            }
        }
        false
    });
    allowed
}

/// Closes with RST instead of FIN.
fn reset(stream: TcpStream) {
    // An error means that the connection is gone already.
    drop(stream.set_zero_linger());
}
