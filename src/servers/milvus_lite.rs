//! Milvus Lite 3.2.2: a small Milvus in Python, with today's schema features, over gRPC only.
//!
//! Always started with one worker: with more, writers of one collection garble its write-ahead log, and acknowledged rows
//! are gone after a restart (3.2.2 takes no lock around the writer). One worker costs no throughput.
//!
//! It has no authentication and no TLS. Its log is flushed to the page cache and not to the disk: what was acknowledged
//! survives a killed process, not a power cut. After a restart every collection has to be loaded again.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use super::ServerError;
use super::directory::{Directory, tail};
use super::fetch::{Cache, Package};
use super::port::free_port;
use super::probe::speaks_http2;
use super::process::{Process, Spec};

const SERVER: &str = "Milvus Lite";
/// Normally a second; a cold page cache and a busy machine make it many.
const START: Duration = Duration::from_secs(90);
const STOP: Duration = Duration::from_secs(20);

#[derive(Clone, Debug, Default)]
pub struct MilvusLiteOptions {
    /// Listen here; `None` picks a free one.
    pub port: Option<u16>,
    /// Keep data here, and do not remove it; `None` makes a temporary directory.
    pub directory: Option<PathBuf>,
    /// Do not remove the temporary directory.
    pub keep: bool,
}

pub struct MilvusLite {
    // Declared before the directory: the process has ended when its data is removed.
    process: Process,
    tree: PathBuf,
    port: u16,
    directory: Directory,
}

impl MilvusLite {
    pub async fn start(options: MilvusLiteOptions) -> Result<MilvusLite, ServerError> {
        let tree = Cache::open()?.tree(Package::MilvusLite).await?;
        let directory = match options.directory {
            Some(path) => Directory::named(path, None)?,
            None => Directory::temporary("lite", None, options.keep)?,
        };
        let mut attempts = 0;
        loop {
            let port = options.port.map_or_else(free_port, Ok)?;
            attempts += 1;
            match launch(&tree, &directory, port).await {
                Ok(process) => return Ok(MilvusLite { process, tree, port, directory }),
                // Somebody was quicker between our look at the port and the server's bind.
                Err(ServerError::Died { tail, .. })
                    if options.port.is_none() && attempts < 5 && tail.contains("Failed to bind") => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn log_tail(&self) -> String {
        tail(&self.directory.log())
    }

    pub fn running(&mut self) -> bool {
        self.process.running()
    }

    /// SIGTERM, and waits for the end.
    pub async fn stop(&mut self) -> Result<(), ServerError> {
        self.process.signal(Signal::TERM)?;
        self.process.ended(STOP).await
    }

    /// SIGKILL, and waits for the end.
    pub async fn kill(&mut self) -> Result<(), ServerError> {
        self.process.signal(Signal::KILL)?;
        self.process.ended(STOP).await
    }

    /// Starts it again on the same data and port, ending it first if it still runs.
    pub async fn restart(&mut self) -> Result<(), ServerError> {
        if self.process.running() {
            self.stop().await?;
        }
        self.process = launch(&self.tree, &self.directory, self.port).await?;
        Ok(())
    }

    /// SIGSTOP: connections stay open, nothing is answered.
    pub async fn pause(&mut self) -> Result<(), ServerError> {
        self.process.freeze().await
    }

    /// SIGCONT.
    pub fn resume(&mut self) -> Result<(), ServerError> {
        self.process.signal(Signal::CONT)
    }
}

impl Drop for MilvusLite {
    fn drop(&mut self) {
        self.process.end(Signal::KILL, Duration::from_secs(1));
    }
}

async fn launch(tree: &Path, directory: &Directory, port: u16) -> Result<Process, ServerError> {
    let mut process = Process::spawn(Spec {
        server: SERVER,
        program: OsStr::new("python3"),
        arguments: vec![
            "-s".into(), // without the user's own site-packages
            "-m".into(),
            "milvus_lite".into(),
            "server".into(),
            "--data-dir".into(),
            directory.path().join("data").into(),
            "--host".into(),
            "127.0.0.1".into(),
            "--port".into(),
            port.to_string().into(),
            "--max-workers".into(),
            "1".into(),
        ],
        environment: vec![("PYTHONPATH", tree.into()), ("PYTHONUNBUFFERED", "1".into())],
        working_directory: Path::new("/"),
        account: None,
        log: directory.log(),
        orphan_signal: "KILL",
        orphan_directory: directory.to_remove(),
    })?;
    match process.ready(START, async || speaks_http2(port).await).await {
        Ok(()) => Ok(process),
        Err(error) => {
            process.end(Signal::KILL, Duration::from_secs(1));
            Err(error)
        }
    }
}
