//! PostgreSQL with contrib and pgvector, set up for logical replication: 16 or 18, fetched, or one that is installed.
//!
//! In: the version, settings, lines for pg_hba.conf, TLS. Out: a cluster on 127.0.0.1 with one superuser `postgres` and a random
//! password (SCRAM over TCP, trust on the Unix socket, whose directory only the server's user may enter).
//!
//! PostgreSQL refuses to run as root; then it runs as `nobody`, who owns its directory.
//!
//! Not here: the client. `connect` is a convenience over `tokio_postgres` for those who only want to say something in SQL.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio_postgres::NoTls;

use super::ServerError;
use super::directory::{Account, Directory, closed_to_others, give, tail};
use super::fetch::{Cache, Package};
use super::port::free_port;
use super::process::{Process, Spec};

const SERVER: &str = "PostgreSQL";
const USER: &str = "postgres";
/// Recovery after a crash is part of it.
const START: Duration = Duration::from_secs(120);
const STOP: Duration = Duration::from_secs(60);
/// `sun_path` is 108 bytes with its NUL; PostgreSQL wants some for the lock beside it.
const SOCKET_PATH_MAX: usize = 100;

/// Certificates in PEM.
#[derive(Clone)]
pub struct TlsPem {
    pub certificate: String,
    pub key: String,
    /// Clients have to show a certificate that this one signed.
    pub client_ca: Option<String>,
}

impl std::fmt::Debug for TlsPem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsPem").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// 16 or 18; of an installed one, whatever it is.
    pub major: u16,
    /// `bin/postgres` is in this directory, and pgvector can be created there; `None` fetches one.
    pub installed: Option<PathBuf>,
    /// Lines of postgresql.conf, after ours.
    pub settings: Vec<(String, String)>,
    /// Lines of pg_hba.conf, before ours.
    pub hba: Vec<String>,
    pub tls: Option<TlsPem>,
    /// Flush to disk as a real server does. Off, a killed process loses nothing, a power cut may.
    pub durable: bool,
    /// Listen here; `None` picks a free one.
    pub port: Option<u16>,
    /// Do not remove the directory.
    pub keep: bool,
}

impl Default for PostgresOptions {
    fn default() -> PostgresOptions {
        PostgresOptions {
            major: 18,
            installed: None,
            settings: Vec::new(),
            hba: Vec::new(),
            tls: None,
            durable: false,
            port: None,
            keep: false,
        }
    }
}

/// How to shut down, in `pg_ctl`'s words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Sessions are ended, walsenders send what is left, a checkpoint is written (SIGINT).
    Fast,
    /// As a crash of every process: recovery at the next start (SIGQUIT).
    Immediate,
}

pub struct Postgres {
    // Declared before the directory: the process has ended when its data is removed.
    process: Process,
    binaries: PathBuf,
    account: Option<Account>,
    port: u16,
    password: String,
    directory: Directory,
}

impl Postgres {
    pub async fn start(options: PostgresOptions) -> Result<Postgres, ServerError> {
        let root = match (&options.installed, options.major, options.tls.is_some()) {
            (Some(installed), ..) => installed.clone(),
            (None, 16, _) => Cache::open()?.tree(Package::Postgres16).await?,
            (None, 18, false) => Cache::open()?.tree(Package::Postgres18).await?,
            (None, 18, true) => Cache::open()?.tree(Package::Postgres18Tls).await?,
            (None, major, _) => return Err(ServerError::NoSuchMajor { major }),
        };
        let account = rustix::process::geteuid().is_root().then(Account::nobody).transpose()?;
        let binaries = root.join("bin");
        let directory = Directory::temporary("pg", account, options.keep)?;
        if account.is_some() {
            for (path, variable) in [(Some(binaries.as_path()), "WALVEC_CACHE"), (directory.path().parent(), "TMPDIR")]
            {
                if let Some(path) = path.and_then(closed_to_others) {
                    return Err(ServerError::NotReachable { path, variable });
                }
            }
        }
        if directory.path().join(".s.PGSQL.65535").as_os_str().len() > SOCKET_PATH_MAX {
            return Err(ServerError::SocketPath { path: directory.path().to_owned() });
        }
        let password = random_password()?;
        initdb(&binaries, &directory, account, &password).await?;
        configure(&directory, account, &options)?;

        let mut attempts = 0;
        loop {
            let port = options.port.map_or_else(free_port, Ok)?;
            attempts += 1;
            match launch(&binaries, &directory, account, port, &password).await {
                Ok(process) => return Ok(Postgres { process, binaries, account, port, password, directory }),
                // Somebody was quicker between our look at the port and the server's bind.
                Err(ServerError::Died { tail, .. })
                    if options.port.is_none() && attempts < 5 && tail.contains("Address already in use") => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// A hot standby of this server, on a port of its own, over a physical slot of that name; from 17 on it keeps copies of
    /// failover slots. `select pg_promote()` makes it a primary.
    pub async fn standby(&self, slot: &str) -> Result<Postgres, ServerError> {
        let directory = Directory::temporary("standby", self.account, false)?;
        let source = format!("host=127.0.0.1 port={} user={USER} dbname=postgres application_name={slot}", self.port);
        let mut command = program(&self.binaries.join("pg_basebackup"), self.account);
        command.arg("-D").arg(data(&directory)).args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync"]);
        command.args(["--create-slot", "--slot", slot]).arg("-d").arg(source);
        command.env("PGPASSWORD", &self.password);
        said_yes(command).await?;
        let path = data(&directory).join("postgresql.auto.conf");
        let mut lines =
            fs::read_to_string(&path).map_err(|source| ServerError::Directory { path: path.clone(), source })?;
        let socket = directory.path().display().to_string();
        lines += &format!("unix_socket_directories = '{socket}'\nhot_standby_feedback = on\n");
        let version = fs::read_to_string(data(&directory).join("PG_VERSION")).unwrap_or_default();
        if version.trim().parse::<u16>().is_ok_and(|major| major >= 17) {
            lines += "sync_replication_slots = on\n";
        }
        write(&path, &lines, self.account)?;
        let port = free_port()?;
        let process = launch(&self.binaries, &directory, self.account, port, &self.password).await?;
        let (binaries, account, password) = (self.binaries.clone(), self.account, self.password.clone());
        Ok(Postgres { process, binaries, account, port, password, directory })
    }

    pub fn host(&self) -> &'static str {
        "127.0.0.1"
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The superuser.
    pub fn user(&self) -> &'static str {
        USER
    }

    /// Letters and digits only.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// `postgresql://postgres:…@127.0.0.1:port/database`, password included.
    pub fn url(&self, database: &str) -> String {
        format!("postgresql://{USER}:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// The same for the database `postgres`.
    pub fn dsn(&self) -> String {
        self.url("postgres")
    }

    /// Where the Unix socket, the log and `data/` are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// psql, pg_recvlogical and the others (16 and 18 without TLS have them all).
    pub fn binaries(&self) -> &Path {
        &self.binaries
    }

    /// The postmaster.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub fn log_tail(&self) -> String {
        tail(&self.directory.log())
    }

    pub fn running(&mut self) -> bool {
        self.process.running()
    }

    /// A session as superuser over TCP; its connection runs as a task and ends with the client.
    pub async fn connect(&self, database: &str) -> Result<tokio_postgres::Client, ServerError> {
        connect(self.port, &self.password, database).await.map_err(|source| ServerError::Connect { source })
    }

    /// Shuts down and waits for the end.
    pub async fn stop(&mut self, how: Stop) -> Result<(), ServerError> {
        self.process.signal(match how {
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
        })?;
        self.process.ended(STOP).await
    }

    /// SIGKILL for the postmaster; its children end as soon as they notice. `restart` recovers.
    pub async fn kill(&mut self) -> Result<(), ServerError> {
        self.process.signal(Signal::KILL)?;
        self.process.ended(STOP).await
    }

    /// Starts it again on the same data and port, with a fast shutdown first if it still runs.
    pub async fn restart(&mut self) -> Result<(), ServerError> {
        if self.process.running() {
            self.stop(Stop::Fast).await?;
        }
        let until = Instant::now() + START;
        loop {
            match launch(&self.binaries, &self.directory, self.account, self.port, &self.password).await {
                Ok(process) => {
                    self.process = process;
                    return Ok(());
                }
                // After SIGKILL the last children may still hold the shared memory or the port.
                Err(ServerError::Died { tail, .. })
                    if Instant::now() < until
                        && ["shared memory block", "Address already in use", "lock file"]
                            .iter()
                            .any(|sign| tail.contains(sign)) =>
                {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// SIGSTOP for the postmaster: sessions go on, new ones are not answered.
    pub async fn pause(&mut self) -> Result<(), ServerError> {
        self.process.freeze().await
    }

    /// SIGCONT.
    pub fn resume(&mut self) -> Result<(), ServerError> {
        self.process.signal(Signal::CONT)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // QUIT and not KILL: the postmaster then takes its children and its shared memory along.
        self.process.end(Signal::QUIT, Duration::from_secs(5));
    }
}

async fn connect(port: u16, password: &str, database: &str) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(port).user(USER).password(password).dbname(database);
    config.connect_timeout(Duration::from_secs(5));
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(async move {
        // The client's next call reports what ended the connection.
        drop(connection.await);
    });
    Ok(client)
}

async fn launch(
    binaries: &Path,
    directory: &Directory,
    account: Option<Account>,
    port: u16,
    password: &str,
) -> Result<Process, ServerError> {
    let log = directory.log();
    // What an earlier start complained about must not be taken for this one's.
    match fs::rename(&log, log.with_extension("log.old")) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(ServerError::Directory { path: log, source });
        }
        _ => {}
    }
    let mut process = Process::spawn(Spec {
        server: SERVER,
        program: binaries.join("postgres").as_os_str(),
        arguments: vec!["-D".into(), data(directory).into(), "-p".into(), port.to_string().into()],
        environment: vec![("LC_ALL", "C".into())],
        working_directory: Path::new("/"),
        account,
        log,
        orphan_signal: "QUIT",
        orphan_directory: directory.to_remove(),
    })?;
    match process.ready(START, async || connect(port, password, "postgres").await.is_ok()).await {
        Ok(()) => Ok(process),
        Err(error) => {
            process.end(Signal::QUIT, Duration::from_secs(5));
            Err(error)
        }
    }
}

fn data(directory: &Directory) -> PathBuf {
    directory.path().join("data")
}

async fn initdb(
    binaries: &Path,
    directory: &Directory,
    account: Option<Account>,
    password: &str,
) -> Result<(), ServerError> {
    let password_file = directory.path().join("password");
    write(&password_file, password, account)?;
    let mut command = program(&binaries.join("initdb"), account);
    command
        .arg("-D")
        .arg(data(directory))
        .args(["-U", USER, "-E", "UTF8", "--locale=C", "--no-sync"])
        .args(["--auth-local=trust", "--auth-host=scram-sha-256"])
        .arg(format!("--pwfile={}", password_file.display()));
    let done = said_yes(command).await;
    let removed = fs::remove_file(&password_file);
    done?;
    removed.map_err(|source| ServerError::Directory { path: password_file, source })
}

/// One of PostgreSQL's programs that runs and ends, as the server's user.
fn program(path: &Path, account: Option<Account>) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(path);
    command.env("LC_ALL", "C").current_dir("/").stdin(Stdio::null()).kill_on_drop(true);
    if let Some(Account { uid, gid }) = account {
        command.gid(gid).uid(uid);
    }
    command
}

async fn said_yes(mut command: tokio::process::Command) -> Result<(), ServerError> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let output = command.output().await;
    let output = output.map_err(|source| ServerError::Spawn { program: program.clone(), source })?;
    if output.status.success() {
        return Ok(());
    }
    let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(ServerError::Program { program, reason })
}

/// Settings and access rules.
fn configure(directory: &Directory, account: Option<Account>, options: &PostgresOptions) -> Result<(), ServerError> {
    let data = data(directory);
    let mut settings: Vec<(&str, String)> = vec![
        ("listen_addresses", "127.0.0.1".into()),
        ("unix_socket_directories", directory.path().display().to_string()),
        ("wal_level", "logical".into()),
        ("max_replication_slots", "32".into()),
        ("max_wal_senders", "32".into()),
        ("max_connections", "100".into()),
        ("logging_collector", "off".into()),
    ];
    if !options.durable {
        settings.extend([("fsync", "off".into()), ("full_page_writes", "off".into())]);
    }
    if let Some(tls) = &options.tls {
        write(&data.join("server.crt"), &tls.certificate, account)?;
        write(&data.join("server.key"), &tls.key, account)?;
        settings.push(("ssl", "on".into()));
        if let Some(ca) = &tls.client_ca {
            write(&data.join("root.crt"), ca, account)?;
            settings.push(("ssl_ca_file", "root.crt".into()));
        }
    }
    let settings = settings.iter().map(|(name, value)| (*name, value.as_str()));
    let settings = settings.chain(options.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let lines: String = settings.map(|(name, value)| format!("{name} = '{}'\n", value.replace('\'', "''"))).collect();
    // The last setting of a name wins, and this file is read after postgresql.conf.
    write(&data.join("postgresql.auto.conf"), &lines, account)?;

    let path = data.join("pg_hba.conf");
    let ours = fs::read_to_string(&path).map_err(|source| ServerError::Directory { path: path.clone(), source })?;
    let lines: String = options.hba.iter().map(|line| format!("{line}\n")).collect();
    write(&path, &(lines + &ours), account)
}

/// Writes a file that only the server's user may read.
fn write(path: &Path, content: &str, account: Option<Account>) -> Result<(), ServerError> {
    fs::write(path, content)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o600)))
        .map_err(|source| ServerError::Directory { path: path.to_owned(), source })?;
    account.map_or(Ok(()), |account| give(path, account))
}

/// 128 bits as 32 hex digits.
fn random_password() -> Result<String, ServerError> {
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|source| ServerError::Directory { path: "/dev/urandom".into(), source })?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
