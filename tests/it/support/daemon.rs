//! The built binary as a child of the test: to be killed and started again on the same configuration.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use walvec::servers::{free_port, http_get};

use super::wait::until;

/// The sections that every configuration needs: one slot and publication named `name`, state beside the file, and for each
/// (table, collection) a `[[table]]`. Short deadlines, as a start after SIGKILL is quiet for their sum.
pub fn config(directory: &Path, name: &str, postgres_url: &str, milvus_url: &str, tables: &[(&str, &str)]) -> String {
    let tables: String = tables
        .iter()
        .map(|(table, collection)| format!("\n[[table]]\nname = {table:?}\ncollection = {collection:?}\n"))
        .collect();
    format!(
        "[source]\nurl = {postgres_url:?}\nslot = {name:?}\npublication = {name:?}\n\n\
         [target]\nurl = {milvus_url:?}\nrequest_deadline = \"3s\"\nlate_margin = \"1s\"\n\n\
         [state]\npath = {:?}\n{tables}",
        directory.join("state")
    )
}

/// `walvec run --config …`. Killed on drop; its log is printed when the test panics.
pub struct Daemon {
    child: Child,
    config: PathBuf,
    log: PathBuf,
    admin_port: u16,
}

impl Daemon {
    /// Writes `walvec.toml` into `directory` (with an `[admin]` section on a free port, so give none) and starts.
    pub fn start(directory: &Path, config: &str) -> Daemon {
        Daemon::start_with(directory, config, &[])
    }

    /// The same with more environment.
    pub fn start_with(directory: &Path, config: &str, environment: &[(&str, &str)]) -> Daemon {
        let admin_port = free_port().expect("a free port");
        let path = directory.join("walvec.toml");
        let text = format!("{config}\n[admin]\nlisten = \"127.0.0.1:{admin_port}\"\n");
        std::fs::write(&path, text).expect("the configuration is written");
        let log = directory.join("walvec.log");
        Daemon { child: spawn(&path, &log, environment), config: path, log, admin_port }
    }

    /// SIGKILL, as `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().expect("the daemon can be killed");
        self.child.wait().expect("the daemon is our child");
    }

    /// SIGTERM; returns when it has drained and ended.
    pub async fn terminate(&mut self, deadline: Duration) -> ExitStatus {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a child has a pid");
        kill_process(pid, Signal::TERM).expect("the daemon can be told to stop");
        self.ended(deadline).await
    }

    /// Another configuration, with the same `[admin]`, and SIGHUP.
    pub fn reload(&self, config: &str) {
        let text = format!("{config}\n[admin]\nlisten = \"127.0.0.1:{}\"\n", self.admin_port);
        std::fs::write(&self.config, text).expect("the configuration is written");
        let pid = Pid::from_raw(self.child.id() as i32).expect("a child has a pid");
        kill_process(pid, Signal::HUP).expect("the daemon can be told");
    }

    /// Waits for it to end by itself.
    pub async fn ended(&mut self, deadline: Duration) -> ExitStatus {
        until("the daemon ends", deadline, async || self.child.try_wait().expect("the daemon is our child")).await
    }

    pub fn running(&mut self) -> bool {
        self.child.try_wait().expect("the daemon is our child").is_none()
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32).expect("a child has a pid")
    }

    /// It has stopped itself, at the place that `WALVEC_STOP_AT` names.
    pub fn frozen(&mut self) -> bool {
        // `pid (comm) state …`
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    }

    /// SIGCONT, if it still runs.
    pub fn thaw(&mut self) {
        if self.running() {
            kill_process(self.pid(), Signal::CONT).expect("the daemon can be told to go on");
        }
    }

    /// From now on every write of it to a file fails, as on a full disk (it ignores SIGXFSZ, see `spawn`).
    pub fn deny_writes(&self) {
        let limit = Rlimit { current: Some(0), maximum: Some(0) };
        prlimit(Some(self.pid()), Resource::Fsize, limit).expect("a limit of a child can be set");
    }

    /// Starts it again after it ended.
    pub fn restart(&mut self) {
        self.restart_with(&[]);
    }

    /// The same, with more environment.
    pub fn restart_with(&mut self, environment: &[(&str, &str)]) {
        assert!(!self.running(), "the daemon still runs");
        self.child = spawn(&self.config, &self.log, environment);
    }

    /// Waits until /readyz says that every table follows; panics with the log when the daemon ends meanwhile.
    pub async fn ready(&mut self, deadline: Duration) {
        let port = self.admin_port;
        until("/readyz answers 200", deadline, async || {
            assert!(self.running(), "the daemon ended:\n{}", self.log());
            http_get(port, "/readyz").await.ok().filter(|(status, _)| *status == 200)
        })
        .await;
    }

    /// /status, once it answers and `condition` holds for it.
    pub async fn status(
        &mut self,
        what: &str,
        deadline: Duration,
        condition: impl Fn(&serde_json::Value) -> bool,
    ) -> serde_json::Value {
        let port = self.admin_port;
        until(what, deadline, async || {
            assert!(self.running(), "the daemon ended:\n{}", self.log());
            let (status, body) = http_get(port, "/status").await.ok()?;
            let body = (status == 200).then(|| serde_json::from_str(&body).ok()).flatten()?;
            condition(&body).then_some(body)
        })
        .await
    }

    /// `GET path` from its admin server.
    pub async fn get(&self, path: &str) -> std::io::Result<(u16, String)> {
        http_get(self.admin_port, path).await
    }

    /// A series of `/metrics` without labels.
    pub async fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.get("/metrics").await.expect("an answer");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("no metric {name}"))
    }

    pub fn config(&self) -> &Path {
        &self.config
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), self.log());
        }
    }
}

/// Runs `walvec COMMAND --config FILE …`: its exit code, standard output and standard error.
pub fn walvec(command: &str, config: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_walvec"))
        .args([command, "--config"])
        .arg(config)
        .args(arguments)
        .output()
        .expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("it was not killed"), text(output.stdout), text(output.stderr))
}

fn spawn(config: &Path, log: &Path, environment: &[(&str, &str)]) -> Child {
    let log = File::options().create(true).append(true).open(log).expect("the log opens");
    // A write beyond a limit of its size is then an error and no signal; what is ignored stays so across exec.
    Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_walvec"), "run", "--config"])
        .arg(config)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a second handle"))
        .stderr(log)
        .spawn()
        .expect("the daemon starts")
}
