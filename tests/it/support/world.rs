//! Both servers, a line to each, and everything that can happen to them: `World::strike`.
//!
//! The daemon may be frozen meanwhile, at a place of its own (`WALVEC_STOP_AT`, see `pipeline::crash`): then it is struck in
//! exactly that state. When `strike` returns it goes on, unless it was killed, and everything is whole again.

use std::time::Duration;

use walvec::config::Transport;
use walvec::servers::{MilvusLite, MilvusLiteOptions, Postgres, PostgresOptions, Stop};

use super::daemon::Daemon;
use super::proxy::Proxy;
use super::scene::{PATIENCE, Scene};
use super::scripted::faults::{Fault as Answer, When};
use super::scripted::{Operation, Options, Scripted};
use super::wait::until;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    DaemonKilled,
    /// Its disk takes nothing any more.
    StateNotWritable,
    PostgresFast,
    PostgresImmediate,
    WalsenderTerminated,
    SourceCut,
    SourceStalled,
    TargetCut,
    TargetStalled,
    /// Of a real server only.
    MilvusKilled,
    MilvusPaused,
    /// Of the scripted one only.
    RateLimited,
    QuotaDenied,
    Unavailable,
    Gateway,
    Unexpected,
    ResetBefore,
    ResetAfter,
    AnswerLost,
    HalfWritten,
    Slow,
}

impl Fault {
    pub const ALL: [Fault; 21] = [
        Fault::DaemonKilled,
        Fault::StateNotWritable,
        Fault::PostgresFast,
        Fault::PostgresImmediate,
        Fault::WalsenderTerminated,
        Fault::SourceCut,
        Fault::SourceStalled,
        Fault::TargetCut,
        Fault::TargetStalled,
        Fault::MilvusKilled,
        Fault::MilvusPaused,
        Fault::RateLimited,
        Fault::QuotaDenied,
        Fault::Unavailable,
        Fault::Gateway,
        Fault::Unexpected,
        Fault::ResetBefore,
        Fault::ResetAfter,
        Fault::AnswerLost,
        Fault::HalfWritten,
        Fault::Slow,
    ];

    /// What the scripted Milvus does instead of an answer.
    fn answer(self) -> Option<Answer> {
        Some(match self {
            Fault::RateLimited => Answer::Refuse(8, "rate limit exceeded[rate=1]"),
            Fault::QuotaDenied => Answer::Refuse(9, "quota exceeded[reason=force deny]"),
            Fault::Unavailable => Answer::Refuse(106, "on recovering"),
            Fault::Gateway => Answer::Gateway { status: 503, retry_after: Some(1) },
            Fault::Unexpected => Answer::Refuse(5, "something went wrong"),
            Fault::ResetBefore => Answer::ResetBefore,
            Fault::ResetAfter => Answer::ResetAfter,
            Fault::AnswerLost => Answer::Lost,
            Fault::HalfWritten => Answer::Half(106, "on recovering"),
            Fault::Slow => Answer::Slow(Duration::from_secs(1)),
            _ => return None,
        })
    }

    pub fn concerns(self, world: &World) -> bool {
        match self {
            Fault::MilvusKilled | Fault::MilvusPaused => matches!(world.milvus, Target::Lite(_)),
            other => other.answer().is_none() || matches!(world.milvus, Target::Scripted(..)),
        }
    }

    /// Every world has it.
    pub fn is_everywhere(self) -> bool {
        self.answer().is_none() && !matches!(self, Fault::MilvusKilled | Fault::MilvusPaused)
    }

    /// The daemon ends by it.
    pub fn ends_daemon(self) -> bool {
        matches!(self, Fault::DaemonKilled | Fault::StateNotWritable)
    }
}

pub enum Target {
    Lite(Box<MilvusLite>),
    Scripted(Box<Scripted>, Transport),
}

pub struct World {
    pub postgres: Postgres,
    pub milvus: Target,
    source: Proxy,
    target: Proxy,
}

impl World {
    /// With Milvus Lite.
    pub async fn real(major: u16) -> World {
        let lite = MilvusLite::start(MilvusLiteOptions::default()).await.expect("Milvus Lite starts");
        World::over(major, lite.port(), Target::Lite(Box::new(lite))).await
    }

    pub async fn scripted(major: u16, transport: Transport) -> World {
        let milvus = Scripted::start(Options::default()).await;
        World::over(major, milvus.port(), Target::Scripted(Box::new(milvus), transport)).await
    }

    async fn over(major: u16, port: u16, milvus: Target) -> World {
        let settings =
            ["max_replication_slots", "max_wal_senders"].map(|name| (name.to_owned(), "300".to_owned())).to_vec();
        let options = PostgresOptions { major, settings, ..PostgresOptions::default() };
        let postgres = Postgres::start(options).await.expect("PostgreSQL starts");
        let client = postgres.connect("postgres").await.expect("connected");
        client.batch_execute("create extension vector").await.expect("pgvector is there");
        let (source, target) = (Proxy::start(postgres.port()).await, Proxy::start(port).await);
        World { postgres, milvus, source, target }
    }

    /// A daemon's surroundings in it: a database of its own, and both lines in between. Losses are noticed soon.
    pub async fn scene(&self) -> Scene {
        let database = super::unique("world");
        let admin = self.postgres.connect("postgres").await.expect("connected");
        admin.batch_execute(&format!("create database {database} template postgres")).await.expect("a database");
        let client = self.postgres.connect(&database).await.expect("connected");
        let url = self.postgres.url(&database);
        let mut scene = match &self.milvus {
            Target::Scripted(scripted, transport) => Scene::over_scripted(client, url, scripted, *transport).await,
            Target::Lite(lite) => Scene::new(client, url, lite.url()).await,
        };
        let through = |url: &str, from: u16, to: u16| url.replace(&format!(":{from}"), &format!(":{to}"));
        scene.source_url = through(&scene.source_url, self.postgres.port(), self.source.port());
        scene.target_url = through(&scene.target_url, self.milvus_port(), self.target.port());
        scene.source = "connect_timeout = \"2s\"\nwal_sender_timeout = \"2s\"".to_owned();
        scene
    }

    fn milvus_port(&self) -> u16 {
        match &self.milvus {
            Target::Lite(lite) => lite.port(),
            Target::Scripted(scripted, _) => scripted.port(),
        }
    }

    /// See the module's head. `scene.client` is another session where PostgreSQL was restarted.
    pub async fn strike(&mut self, fault: Fault, scene: &mut Scene, daemon: &mut Daemon) {
        if let (Some(answer), Target::Scripted(milvus, _)) = (fault.answer(), &self.milvus) {
            for operation in [Operation::Upsert, Operation::Delete, Operation::Truncate] {
                milvus.fail(operation, When::Next(2), answer.clone());
            }
        }
        match fault {
            Fault::DaemonKilled => daemon.kill(),
            Fault::StateNotWritable => {
                daemon.deny_writes();
                daemon.thaw();
                daemon.ended(PATIENCE).await;
            }
            Fault::PostgresFast => {
                let port = self.postgres.url("postgres");
                let refuses = async {
                    // A shutdown waits for what the daemon has not confirmed: it must be awake by then.
                    until("PostgreSQL shuts down", PATIENCE, async || {
                        tokio_postgres::connect(&port, tokio_postgres::NoTls).await.is_err().then_some(())
                    })
                    .await;
                    daemon.thaw();
                };
                let (stopped, ()) = tokio::join!(self.postgres.stop(Stop::Fast), refuses);
                stopped.expect("stopped");
                self.restart_postgres(scene).await;
            }
            Fault::PostgresImmediate => {
                self.postgres.stop(Stop::Immediate).await.expect("stopped");
                daemon.thaw();
                self.restart_postgres(scene).await;
            }
            Fault::WalsenderTerminated => {
                let slot = &scene.slot;
                let sql = format!(
                    "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = '{slot}' and active"
                );
                scene.sql(&sql).await;
            }
            Fault::SourceCut => self.source.cut(),
            Fault::TargetCut => self.target.cut(),
            Fault::SourceStalled => {
                self.source.stall();
                daemon.thaw();
                let before = lost(daemon);
                until("the silence is noticed", PATIENCE, async || (lost(daemon) > before).then_some(())).await;
                self.source.cut();
                self.source.heal();
            }
            Fault::TargetStalled => {
                self.target.stall();
                daemon.thaw();
                no_answer(daemon).await;
                self.target.cut();
                self.target.heal();
            }
            Fault::MilvusKilled => {
                let Target::Lite(lite) = &mut self.milvus else { panic!("a real one") };
                lite.kill().await.expect("killed");
                daemon.thaw();
                lite.restart().await.expect("starts again");
            }
            Fault::MilvusPaused => {
                let Target::Lite(lite) = &mut self.milvus else { panic!("a real one") };
                lite.pause().await.expect("paused");
                daemon.thaw();
                no_answer(daemon).await;
                lite.resume().expect("goes on");
            }
            _ => {}
        }
        daemon.thaw();
    }

    /// What the scripted Milvus still has in store.
    pub fn heal(&self) {
        if let Target::Scripted(milvus, _) = &self.milvus {
            milvus.heal();
        }
    }

    /// Requests that Milvus would not understand.
    pub fn violations(&self) -> Vec<String> {
        match &self.milvus {
            Target::Scripted(milvus, _) => milvus.violations(),
            Target::Lite(_) => Vec::new(),
        }
    }

    async fn restart_postgres(&mut self, scene: &mut Scene) {
        self.postgres.restart().await.expect("starts again");
        let database = scene.database();
        scene.client = self.postgres.connect(&database).await.expect("connected");
    }
}

fn lost(daemon: &Daemon) -> usize {
    let log = daemon.log();
    log.matches("the source was lost").count() + log.matches("cannot start").count()
}

/// A request of the daemon's has waited in vain, or it has none to send.
async fn no_answer(daemon: &mut Daemon) {
    daemon
        .status("Milvus does not answer", PATIENCE, |status| {
            let tables = status["tables"].as_array().into_iter().flatten();
            let waits = tables.into_iter().all(|table| table["phase"] != "following");
            !status["target"]["last_error"].is_null() || status["state"] == "connecting" || waits
        })
        .await;
}
