//! One server process that cannot outlive us.
//!
//! A server is started by a few lines of `sh` in a process group of their own. Beside the server they keep a watcher that
//! reads from a pipe whose other end only we hold. Nothing is ever written to it; it reads end of file when we close it or
//! when we are gone, for whatever reason, SIGKILL included. Then the watcher ends the server and removes its directory.
//! (Linux' parent-death signal would not do: it fires when the *thread* that started the child ends, and threads of a test
//! or of a runtime do.) Should the watcher itself be killed, the server stays until it is ended by hand.
//!
//! Holds: while the shell has not been reaped, the server's process id cannot have been given to another process, as the shell
//! is its parent; so no signal from here can hit a stranger.
//!
//! `std::process`, not tokio's: a server shared by tests outlives the runtime it was started in.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

use super::ServerError;
use super::directory::{Account, tail};

/// How often a condition that no event tells about is looked at again.
const POLL: Duration = Duration::from_millis(20);

/// Arguments: the signal for an orphan, the directory to remove then (or nothing), the log, the command.
/// The watcher ignores TERM once it acts, as the shell ends it with TERM when the server ended by itself.
const WATCHED: &str = r#"
signal=$1 remove=$2 log=$3
shift 3
exec 3<&0 </dev/null
"$@" >>"$log" 2>&1 3<&- &
server=$!
(
    read -r _ <&3
    trap '' TERM
    kill -s "$signal" "$server"
    tries=0
    while kill -0 "$server" && [ "$tries" -lt 50 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
    kill -s KILL "$server"
    while kill -0 "$server"; do sleep 0.1; done
    [ -z "$remove" ] || rm -rf "$remove"
) >/dev/null 2>&1 &
watcher=$!
echo "$server"
exec 3<&- >/dev/null
wait "$server"
status=$?
kill "$watcher" 2>/dev/null
exit "$status"
"#;

/// What to start.
pub(crate) struct Spec<'a> {
    pub(crate) server: &'static str,
    pub(crate) program: &'a OsStr,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) environment: Vec<(&'static str, OsString)>,
    pub(crate) working_directory: &'a Path,
    pub(crate) account: Option<Account>,
    /// Standard output and error are appended here.
    pub(crate) log: PathBuf,
    /// What the watcher sends to an orphan before SIGKILL.
    pub(crate) orphan_signal: &'static str,
    /// What the watcher removes after an orphan ended.
    pub(crate) orphan_directory: Option<&'a Path>,
}

pub(crate) struct Process {
    server: &'static str,
    shell: Child,
    pid: Pid,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    pub(crate) fn spawn(spec: Spec<'_>) -> Result<Process, ServerError> {
        let failed = |source| ServerError::Spawn { program: spec.program.to_string_lossy().into_owned(), source };
        let mut command = Command::new("/bin/sh");
        command
            .arg("-c")
            .arg(WATCHED)
            .arg("walvec-server")
            .arg(spec.orphan_signal)
            .arg(spec.orphan_directory.unwrap_or(Path::new("")))
            .arg(&spec.log)
            .arg(spec.program)
            .args(&spec.arguments)
            .envs(spec.environment)
            .current_dir(spec.working_directory)
            // Ctrl-C at the terminal is for us, not for the servers.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if let Some(Account { uid, gid }) = spec.account {
            command.gid(gid).uid(uid);
        }
        let mut shell = command.spawn().map_err(failed)?;
        match read_pid(&mut shell) {
            Ok(pid) => Ok(Process { server: spec.server, shell, pid, log: spec.log, ended: None }),
            Err(source) => {
                // Closing its standard input is what ends it.
                drop(shell.stdin.take());
                drop(shell.wait());
                Err(failed(source))
            }
        }
    }

    /// The server's own process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    pub(crate) fn running(&mut self) -> bool {
        if self.ended.is_none() {
            // An error here means that the child is not ours any more, that is: gone.
            self.ended = self.shell.try_wait().unwrap_or(None);
        }
        self.ended.is_none()
    }

    pub(crate) fn signal(&mut self, signal: Signal) -> Result<(), ServerError> {
        if !self.running() {
            return Err(ServerError::NotRunning { server: self.server });
        }
        match kill_process(self.pid, signal) {
            // Ended a moment ago; the shell is about to say so.
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(ServerError::Signal { server: self.server, source: error.into() }),
        }
    }

    /// SIGSTOP, and waits until every thread has stopped: the signal alone only asks for it.
    pub(crate) async fn freeze(&mut self) -> Result<(), ServerError> {
        const PATIENCE: Duration = Duration::from_secs(10);
        self.signal(Signal::STOP)?;
        let until = Instant::now() + PATIENCE;
        while !stopped(self.pid()) {
            if !self.running() {
                return Err(ServerError::NotRunning { server: self.server });
            }
            if Instant::now() >= until {
                return Err(ServerError::StillRunning { server: self.server, waited: PATIENCE });
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// Waits until the server has ended.
    pub(crate) async fn ended(&mut self, patience: Duration) -> Result<(), ServerError> {
        let until = Instant::now() + patience;
        while self.running() {
            if Instant::now() >= until {
                return Err(ServerError::StillRunning { server: self.server, waited: patience });
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// Waits until `answers` says yes; fails at once when the server has ended.
    pub(crate) async fn ready(
        &mut self,
        patience: Duration,
        mut answers: impl AsyncFnMut() -> bool,
    ) -> Result<(), ServerError> {
        let until = Instant::now() + patience;
        loop {
            if !self.running() {
                return Err(ServerError::Died { server: self.server, log: self.log.clone(), tail: tail(&self.log) });
            }
            if answers().await {
                return Ok(());
            }
            if Instant::now() >= until {
                let (log, tail) = (self.log.clone(), tail(&self.log));
                return Err(ServerError::NotReady { server: self.server, waited: patience, log, tail });
            }
            sleep(POLL).await;
        }
    }

    /// Ends the server, from a destructor: at most `patience` after `signal`, then by SIGKILL.
    #[expect(clippy::disallowed_methods, reason = "a destructor cannot await")]
    pub(crate) fn end(&mut self, signal: Signal, patience: Duration) {
        let mut send = signal;
        while self.running() {
            // The one failure there can be is that it has just ended.
            kill_process(self.pid, send).ok();
            // SIGKILL needs no deadline: only the kernel can delay it.
            let until = Instant::now() + patience;
            while self.running() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(5));
            }
            send = Signal::KILL;
        }
    }
}

/// Whether every thread is in state `T`, the first field after the name in parentheses of proc_pid_stat(5).
fn stopped(pid: u32) -> bool {
    let stopped = |stat: &str| stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('T'));
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads
        .flatten()
        // A thread that has ended since the directory was read runs no more.
        .all(|thread| std::fs::read_to_string(thread.path().join("stat")).map_or(true, |stat| stopped(&stat)))
}

fn read_pid(shell: &mut Child) -> io::Result<Pid> {
    let output = shell.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    line.trim().parse().ok().and_then(Pid::from_raw).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(directory: &Path) -> Process {
        Process::spawn(Spec {
            server: "sleeper",
            program: OsStr::new("sleep"),
            arguments: vec!["1000".into()],
            environment: Vec::new(),
            working_directory: Path::new("/"),
            account: None,
            log: directory.join("log"),
            orphan_signal: "TERM",
            orphan_directory: Some(directory),
        })
        .expect("sh and sleep")
    }

    fn exists(pid: u32) -> bool {
        Path::new(&format!("/proc/{pid}/stat")).exists()
    }

    #[expect(clippy::disallowed_methods, reason = "these tests have no runtime")]
    fn until(what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !condition() {
            assert!(Instant::now() < deadline, "not within 10 s: {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_closed_pipe_ends_the_server_and_removes_its_directory() {
        let base = tempfile::tempdir().expect("a temporary directory");
        let directory = base.path().join("server");
        std::fs::create_dir(&directory).expect("made");
        let mut process = sleeper(&directory);
        let pid = process.pid();
        assert!(exists(pid));
        drop(process.shell.stdin.take()); // what our death does
        until("the server ends", || !exists(pid));
        until("the directory goes", || !directory.exists());
        until("the shell ends", || !process.running());
    }

    #[tokio::test]
    async fn a_frozen_server_can_be_ended_and_keeps_its_directory() {
        let base = tempfile::tempdir().expect("a temporary directory");
        let mut process = sleeper(base.path());
        let pid = process.pid();
        process.freeze().await.expect("stopped");
        process.end(Signal::TERM, Duration::from_millis(50));
        assert!(!exists(pid));
        assert!(base.path().exists());
        assert!(matches!(process.signal(Signal::KILL), Err(ServerError::NotRunning { .. })));
    }

    #[tokio::test]
    async fn a_server_that_dies_is_noticed_and_its_log_shown() {
        let base = tempfile::tempdir().expect("a temporary directory");
        let mut process = Process::spawn(Spec {
            server: "talker",
            program: OsStr::new("sh"),
            arguments: vec!["-c".into(), "echo address in use >&2; exit 3".into()],
            environment: Vec::new(),
            working_directory: Path::new("/"),
            account: None,
            log: base.path().join("log"),
            orphan_signal: "TERM",
            orphan_directory: None,
        })
        .expect("sh");
        let error = process.ready(Duration::from_secs(10), async || false).await.expect_err("it ended");
        assert!(matches!(error, ServerError::Died { tail, .. } if tail == "address in use"));
    }
}
