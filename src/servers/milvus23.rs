//! Milvus 2.3.5: a real standalone Milvus (proxy, coordinators, RocksMQ, embedded etcd) from one wheel; x86_64 only.
//!
//! In: optional authentication and TLS. Out: a server that answers on its gRPC port, with REST v1 beside it.
//!
//! Three things are ours to arrange, as the package's own launcher cannot run beside another Milvus: twelve ports of
//! its own, etcd's peer port among them; a configuration from the package's template; and a session lease of 5 s instead of
//! 30 s, so that a restart after SIGKILL answers after about 11 s instead of a minute.
//!
//! It is ended by SIGKILL: SIGTERM waits for minutes when collections are loaded, and nothing acknowledged is lost.
//! Not for it: types newer than 2.3 in a schema end the whole server (TIMESTAMPTZ, GEOMETRY).
//! Its run directory is fixed: /run/milvus for root, else /tmp/milvus, which must belong to the user that starts it.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use super::ServerError;
use super::directory::{Directory, tail};
use super::fetch::{Cache, Package};
use super::port::free_port;
use super::postgres::TlsPem;
use super::probe::{accepts, http_get, speaks_http2};
use super::process::{Process, Spec};

const SERVER: &str = "Milvus 2.3.5";
/// 2.5 s when nothing else runs; after SIGKILL the old leases have to run out first.
const START: Duration = Duration::from_secs(120);
const STOP: Duration = Duration::from_secs(20);

#[derive(Clone, Debug, Default)]
pub struct Milvus23Options {
    /// gRPC listens here; `None` picks a free one. The other eleven are always picked.
    pub port: Option<u16>,
    /// Ask for `root:Milvus`.
    pub authorization: bool,
    /// Serve TLS; with `client_ca`, clients must show a certificate.
    pub tls: Option<TlsPem>,
    /// More of `milvus.yaml`, by dotted path.
    pub settings: Vec<(String, String)>,
    /// Do not remove the temporary directory.
    pub keep: bool,
}

pub struct Milvus23 {
    // Declared before the directory: the process has ended when its data is removed.
    process: Process,
    tree: PathBuf,
    ports: Ports,
    tls: bool,
    directory: Directory,
}

#[derive(Clone, Copy, Debug)]
struct Ports {
    proxy: u16,
    metrics: u16,
}

impl Milvus23 {
    pub async fn start(options: Milvus23Options) -> Result<Milvus23, ServerError> {
        let tree = Cache::open()?.tree(Package::Milvus23).await?;
        run_directory_is_ours(Path::new("/tmp/milvus"))?;
        let directory = Directory::temporary("milvus", None, options.keep)?;
        let tls = options.tls.is_some();
        let mut attempts = 0;
        loop {
            let ports = configure(&tree, directory.path(), &options)?;
            attempts += 1;
            match launch(&tree, &directory, ports, tls).await {
                Ok(process) => return Ok(Milvus23 { process, tree, ports, tls, directory }),
                // Somebody was quicker between our look at a port and the server's bind.
                Err(ServerError::Died { tail, .. })
                    if options.port.is_none() && attempts < 5 && tail.contains("address already in use") => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// `http://127.0.0.1:port`, or `https://localhost:port` when it serves TLS.
    pub fn url(&self) -> String {
        match self.tls {
            false => format!("http://127.0.0.1:{}", self.ports.proxy),
            true => format!("https://localhost:{}", self.ports.proxy),
        }
    }

    pub fn port(&self) -> u16 {
        self.ports.proxy
    }

    /// Port of Milvus' own `/metrics` and `/healthz`.
    pub fn metrics_port(&self) -> u16 {
        self.ports.metrics
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

    /// SIGKILL, and waits for the end.
    pub async fn kill(&mut self) -> Result<(), ServerError> {
        self.process.signal(Signal::KILL)?;
        self.process.ended(STOP).await
    }

    /// Starts it again on the same data and ports, killing it first if it still runs. Collections that were loaded
    /// answer "not loaded" for another second or two after this returns.
    pub async fn restart(&mut self) -> Result<(), ServerError> {
        if self.process.running() {
            self.kill().await?;
        }
        self.process = launch(&self.tree, &self.directory, self.ports, self.tls).await?;
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

impl Drop for Milvus23 {
    fn drop(&mut self) {
        self.process.end(Signal::KILL, Duration::from_secs(1));
    }
}

async fn launch(tree: &Path, directory: &Directory, ports: Ports, tls: bool) -> Result<Process, ServerError> {
    let path = directory.path();
    let binaries = tree.join("unpacked");
    let mut libraries = OsString::from(&binaries);
    if let Some(inherited) = std::env::var_os("LD_LIBRARY_PATH").filter(|value| !value.is_empty()) {
        libraries.push(":");
        libraries.push(inherited);
    }
    let mut process = Process::spawn(Spec {
        server: SERVER,
        program: binaries.join("milvus").as_os_str(),
        arguments: vec!["run".into(), "standalone".into()],
        environment: vec![
            ("DEPLOY_MODE", "STANDALONE".into()),
            ("METRICS_PORT", ports.metrics.to_string().into()),
            ("MILVUS_RUN_DIR", path.join("run").into()),
            ("MILVUSCONF", path.join("configs").into()),
            ("LD_LIBRARY_PATH", libraries),
        ],
        working_directory: path,
        account: None,
        log: directory.log(),
        orphan_signal: "KILL",
        orphan_directory: directory.to_remove(),
    })?;
    let answers = async || {
        matches!(http_get(ports.metrics, "/healthz").await, Ok((200, body)) if body.contains("OK"))
            && match tls {
                true => accepts(ports.proxy).await,
                false => speaks_http2(ports.proxy).await,
            }
    };
    match process.ready(START, answers).await {
        Ok(()) => Ok(process),
        Err(error) => {
            process.end(Signal::KILL, Duration::from_secs(1));
            Err(error)
        }
    }
}

/// Whether this user may write to the run directory, or it is not there yet.
fn run_directory_is_ours(path: &Path) -> Result<(), ServerError> {
    let user = rustix::process::geteuid();
    match fs::metadata(path) {
        Ok(metadata) if !user.is_root() && metadata.uid() != user.as_raw() => {
            Err(ServerError::MilvusRunDirectory { path: path.to_owned() })
        }
        _ => Ok(()),
    }
}

/// Writes `configs/` and picks the ports.
fn configure(tree: &Path, path: &Path, options: &Milvus23Options) -> Result<Ports, ServerError> {
    let write = |name: &str, content: &[u8]| {
        let file = path.join(name);
        fs::write(&file, content).map(|()| file.clone()).map_err(|source| ServerError::Directory { path: file, source })
    };
    for name in ["configs", "logs", "data", "run"] {
        let path = path.join(name);
        fs::create_dir_all(&path).map_err(|source| ServerError::Directory { path, source })?;
    }
    let packaged = tree.join("milvus/data");
    let template = packaged.join("config.yaml.template");
    let template = fs::read_to_string(&template).map_err(|source| ServerError::Cache { path: template, source })?;
    let glog = packaged.join("glog.conf");
    let glog = fs::read(&glog).map_err(|source| ServerError::Cache { path: glog, source })?;
    write("configs/glog.conf", &glog)?;

    let ports = Ports { proxy: options.port.map_or_else(free_port, Ok)?, metrics: free_port()? };
    let (etcd, peer) = (free_port()?, free_port()?);
    let shown = |name: &str| path.join(name).display().to_string();
    let mut values = vec![
        ("proxy_port", ports.proxy.to_string()),
        ("etcd_port", etcd.to_string()),
        ("etcd_log_path", shown("logs/etcd.log")),
        ("etcd_data_dir", shown("data/etcd.data")),
        ("local_storage_dir", shown("data")),
        ("rocksmq_data_dir", shown("data/rocksmq")),
        ("system_log_path", shown("logs")),
        ("authorization_enabled", options.authorization.to_string()),
    ];
    for name in [
        "proxy_internal_port",
        "root_coord_port",
        "query_coord_port",
        "query_node_port",
        "index_coord_port",
        "index_node_port",
        "data_coord_port",
        "data_node_port",
    ] {
        values.push((name, free_port()?.to_string()));
    }
    if let Some(tls) = &options.tls {
        let certificate = write("configs/server.pem", tls.certificate.as_bytes())?;
        let key = write("configs/server.key", tls.key.as_bytes())?;
        let ca = write("configs/ca.pem", tls.client_ca.as_deref().unwrap_or(&tls.certificate).as_bytes())?;
        let mode = if tls.client_ca.is_some() { 2 } else { 1 };
        values.push(("tls_mode", mode.to_string()));
        values.push(("server_pem_path", certificate.display().to_string()));
        values.push(("server_key_path", key.display().to_string()));
        values.push(("ca_pem_path", ca.display().to_string()));
    }
    let (client_url, peer_url) = (format!("http://127.0.0.1:{etcd}"), format!("http://127.0.0.1:{peer}"));
    let etcd_config = write(
        "configs/etcd.yaml",
        format!(
            "name: default\ndata-dir: {}\nlisten-client-urls: {client_url}\nadvertise-client-urls: {client_url}\n\
             listen-peer-urls: {peer_url}\ninitial-advertise-peer-urls: {peer_url}\n\
             initial-cluster: default={peer_url}\nlog-outputs: [{}]\n",
            shown("data/etcd.data"),
            shown("logs/etcd.log")
        )
        .as_bytes(),
    )?;
    let mut settings = vec![("common.session.ttl".to_owned(), "5".to_owned())];
    settings.extend(options.settings.iter().cloned());
    let filled = fill(&template, &values);
    // The template has no place for etcd's own configuration file, which alone can move the peer port.
    let config = format!("  config:\n    path: {}\n  data:\n    dir: ", etcd_config.display());
    let filled = filled.replacen("  data:\n    dir: ", &config, 1);
    write("configs/milvus.yaml", set(&filled, &settings).as_bytes())?;
    Ok(ports)
}

/// Fills `{{ name }}`, `{{ name(type): default }}`; a name without value takes its default.
fn fill(template: &str, values: &[(&str, String)]) -> String {
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        filled.push_str(before);
        let Some((hole, after)) = after.split_once("}}") else {
            filled.push_str("{{");
            rest = after;
            continue;
        };
        let (name, default) = hole.split_once(':').unwrap_or((hole, ""));
        let name = name.split('(').next().unwrap_or(name).trim();
        let value = values.iter().find(|(key, _)| *key == name);
        filled.push_str(value.map_or(default.trim(), |(_, value)| value));
        rest = after;
    }
    filled.push_str(rest);
    filled
}

/// Sets scalars of a YAML document with two-space indents, each named by its dotted path. Comments on their lines go.
fn set(document: &str, settings: &[(String, String)]) -> String {
    let mut path: Vec<&str> = Vec::new();
    let mut out = String::with_capacity(document.len());
    for line in document.lines() {
        let content = line.trim_start();
        let key = content.split_once(':').map(|(key, _)| key).filter(|_| !content.starts_with(['#', '-']));
        if let Some(key) = key {
            let indent = line.len() - content.len();
            path.truncate(indent / 2);
            path.push(key);
            let dotted = path.join(".");
            if let Some((_, value)) = settings.iter().rev().find(|(name, _)| *name == dotted) {
                out.push_str(&format!("{:indent$}{key}: {value}\n", ""));
                continue;
            }
        }
        out.push_str(line);
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_filled() {
        let values = [("port", "7".to_owned())];
        assert_eq!(fill("a: {{ port(int): 1 }} # x\nb: {{ other: d }}\nc: {{ none }}", &values), "a: 7 # x\nb: d\nc: ");
        assert_eq!(fill("open {{ port", &values), "open {{ port");
    }

    #[test]
    fn settings_find_their_line() {
        let document = "# a: 1\na:\n  b: 1 # why\n  c:\n    b: 2\nd:\n  b: 3\n";
        let settings = [("a.c.b".to_owned(), "9".to_owned()), ("a.b".to_owned(), "8".to_owned())];
        assert_eq!(set(document, &settings), "# a: 1\na:\n  b: 8\n  c:\n    b: 9\nd:\n  b: 3\n");
    }
}
