//! The slot and the start gate.

use super::*;

#[tokio::test]
async fn a_slot_that_cannot_be_made_names_the_blocker_and_leaves_nothing() {
    for major in majors() {
        let database = Database::create(major).await;
        let mut settings = source(&database);
        // Names that need their quotes, and a wait that another test's transactions cannot end.
        settings.slot = format!("1_{}", settings.slot);
        settings.slot_lock_timeout = Duration::from_millis(300);
        let writer = database.session().await;
        writer
            .batch_execute("set application_name = 'the culprit'; begin; create table t (id int)")
            .await
            .expect("open");
        let pid: i32 = writer.query_one("select pg_backend_pid()", &[]).await.expect("row").get(0);
        let mut session = Session::open(&settings, Lsn::ZERO, StreamFormat::Binary).await.expect("session");
        match session.create_slot().await {
            Err(error @ PostgresError::SlotBlocked { .. }) => {
                let text = error.to_string();
                assert!(text.contains(&format!("pid {pid}, the culprit")), "{text}");
                assert_eq!(error.disposition(), Disposition::Transient);
            }
            other => panic!("created beside a writer: {other:?}"),
        }
        assert_eq!(session.slot().await.expect("read"), None, "a half-made slot was left");
        writer.batch_execute("rollback").await.expect("ended");
        let consistent_point = until("the slot is made on the same session", PATIENCE, async || {
            match session.create_slot().await {
                Ok(lsn) => Some(lsn),
                Err(PostgresError::SlotBlocked { .. }) => None, // another test writes
                Err(error) => panic!("{error:?}"),
            }
        })
        .await;
        let slot = session.slot().await.expect("read").expect("made");
        assert_eq!((slot.name.as_str(), slot.plugin.as_deref()), (settings.slot.as_str(), Some("pgoutput")));
        assert_eq!(slot.confirmed_flush_lsn, Some(consistent_point));
        assert_eq!((slot.active_pid, slot.temporary, slot.two_phase), (None, false, false));
        match session.create_slot().await {
            Err(error) => assert_eq!(error.sqlstate(), Some("42710"), "{error:?}"),
            Ok(_) => panic!("made twice"),
        }
    }
}

#[tokio::test]
async fn a_stream_resumes_at_its_checkpoint_and_nowhere_else() {
    for major in majors() {
        let database = Database::create(major).await;
        let settings = source(&database);
        let client = &database.client;
        client.batch_execute("create table docs (id int8 primary key)").await.expect("created");
        let docs = tables(&settings, &["docs"]).await;
        let (mut stream, consistent_point) = first_stream(&settings, &docs).await;
        let mut ends = Vec::new();
        for id in 1..=4 {
            client.execute("insert into docs values ($1)", &[&i64::from(id)]).await.expect("written");
            let seen = commits(&mut stream, 1).await;
            let Some(Event::Commit { end_lsn }) = seen.last() else { panic!("no commit: {seen:?}") };
            ends.push(*end_lsn);
        }
        // Confirmed is 1, the checkpoint is 2: 3 and 4 come again, and nothing else.
        stream.confirm(ends[0]);
        stream.shutdown(PATIENCE).await.expect("the last position was told");
        let probe = Probe::connect(&settings).await.expect("probe");
        let slot = probe.slot(&settings.slot).await.expect("read").expect("there");
        assert_eq!(slot.confirmed_flush_lsn, Some(ends[0]), "shutdown waits until the position was told");
        assert!(ends[0] > consistent_point);

        let mut stream = streams_from(&settings, &docs, ends[1]).await;
        let inserted: Vec<Value> = changes(&commits(&mut stream, 2).await)
            .into_iter()
            .map(|(_, change)| match change {
                Change::Insert { new } => new.0[0].clone(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(inserted, [int(3), int(4)]);

        // Somebody else holds the slot: the gate waits, and START_REPLICATION is refused as transient.
        let mut second = Session::open(&settings, ends[1], StreamFormat::Binary).await.expect("session");
        let (identity, slot) = (second.identify().await.expect("identity"), second.slot().await.expect("slot"));
        let saved = Saved {
            system_identifier: identity.system_identifier,
            timeline: identity.timeline,
            checkpoint: ends[1],
            sent_limit: ends[1],
        };
        match decide(Some(&saved), &identity, slot.as_ref()) {
            Verdict::Wait(reason) => assert!(reason.contains(&settings.application_name), "{reason}"),
            other => panic!("{other:?}"),
        }
        match second.start(Vec::new(), Lsn::ZERO).await {
            Err(error) => assert_eq!(error.sqlstate(), Some("55006"), "{error:?}"),
            Ok(_) => panic!("two streams on one slot"),
        }
        stream.abort();
        let slot = until("the slot is released", PATIENCE, async || {
            probe.slot(&settings.slot).await.expect("read").filter(|slot| slot.active_pid.is_none())
        })
        .await;
        assert_eq!(decide(Some(&saved), &identity, Some(&slot)), Verdict::StartAt(ends[1]));
        let behind = Saved { checkpoint: consistent_point, ..saved };
        assert!(matches!(decide(Some(&behind), &identity, Some(&slot)), Verdict::Refuse(_)), "the slot is ahead");
    }
}

#[tokio::test]
async fn a_slot_whose_wal_was_removed_is_refused_and_the_error_of_the_stream_says_so_too() {
    for major in majors() {
        let sizes = [("max_slot_wal_keep_size", "1MB"), ("max_wal_size", "32MB"), ("min_wal_size", "32MB")];
        let sizes = sizes.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let options = PostgresOptions { settings: sizes, ..options_of(major) };
        let server = Postgres::start(options).await.expect("PostgreSQL starts");
        let settings = settings(&server, "postgres");
        let client = server.connect("postgres").await.expect("connected");
        client.batch_execute("create table docs (id int8 primary key)").await.expect("created");
        let docs = tables(&settings, &["docs"]).await;
        let (stream, consistent_point) = first_stream(&settings, &docs).await;
        stream.abort();
        let probe = Probe::connect(&settings).await.expect("probe");
        let lost = until("the slot is lost", PATIENCE, async || {
            client
                .batch_execute(
                    "insert into docs select coalesce(max(id), 0) + 1 from docs; select pg_switch_wal(); checkpoint",
                )
                .await
                .expect("written");
            let slot = probe.slot(&settings.slot).await.expect("read").expect("there");
            slot.wal_status.filter(|&status| status == walvec::postgres::slot::WalStatus::Lost).map(|_| slot)
        })
        .await;
        let mut session = Session::open(&settings, consistent_point, StreamFormat::Binary).await.expect("session");
        let identity = session.identify().await.expect("identity");
        let saved = Saved {
            system_identifier: identity.system_identifier,
            timeline: identity.timeline,
            checkpoint: consistent_point,
            sent_limit: consistent_point,
        };
        assert_eq!(session.slot().await.expect("read").as_ref(), Some(&lost));
        match decide(Some(&saved), &identity, Some(&lost)) {
            Verdict::Refuse(refusal @ GateRefusal::SlotLost { .. }) => {
                assert!(refusal.way_out().contains(&settings.slot), "{}", refusal.way_out());
            }
            other => panic!("{other:?}"),
        }
        match session.start(all_tracked(&docs), Lsn::ZERO).await {
            Err(error) => assert_eq!((error.sqlstate(), error.disposition()), (Some("55000"), Disposition::Definite)),
            Ok(_) => panic!("a lost slot streams"),
        }
    }
}

#[tokio::test]
async fn a_new_timeline_is_followed_only_from_before_its_switch() {
    let mut server = Postgres::start(options()).await.expect("PostgreSQL starts");
    let settings = settings(&server, "postgres");
    let client = server.connect("postgres").await.expect("connected");
    client.batch_execute("create table docs (id int8 primary key)").await.expect("created");
    let docs = tables(&settings, &["docs"]).await;
    let (mut stream, _) = first_stream(&settings, &docs).await;
    client.batch_execute("insert into docs values (1)").await.expect("written");
    let seen = commits(&mut stream, 1).await;
    let Some(&Event::Commit { end_lsn: checkpoint }) = seen.last() else { panic!("{seen:?}") };
    stream.shutdown(PATIENCE).await.expect("ended");
    let before = Session::open(&settings, checkpoint, StreamFormat::Binary)
        .await
        .expect("session")
        .identify()
        .await
        .expect("identity");
    assert_eq!((before.timeline, before.history.len()), (1, 0));

    // As a restored backup does: recovery to the end of the WAL, then a timeline of its own.
    server.stop(Stop::Fast).await.expect("stopped");
    std::fs::write(server.directory().join("data/recovery.signal"), "").expect("written");
    configure(&server, "restore_command = 'false'");
    server.restart().await.expect("recovered");
    until("recovery is over", PATIENCE, async || {
        let client = server.connect("postgres").await.ok()?;
        let recovering: bool = client.query_one("select pg_is_in_recovery()", &[]).await.ok()?.get(0);
        (!recovering).then_some(())
    })
    .await;

    let mut session = Session::open(&settings, checkpoint, StreamFormat::Binary).await.expect("session");
    let (identity, slot) = (session.identify().await.expect("identity"), session.slot().await.expect("slot"));
    assert_eq!(identity.system_identifier, before.system_identifier);
    let [switch] = identity.history[..] else { panic!("{identity:?}") };
    assert_eq!((identity.timeline, switch.timeline), (2, 1));
    assert!(switch.switch_lsn >= checkpoint);
    let saved = Saved { system_identifier: before.system_identifier, timeline: 1, checkpoint, sent_limit: checkpoint };
    assert_eq!(decide(Some(&saved), &identity, slot.as_ref()), Verdict::StartAt(checkpoint));
    let sent = Saved { sent_limit: Lsn(switch.switch_lsn.0 + 1), ..saved };
    let diverged = GateRefusal::Diverged { timeline: 1, switch_lsn: switch.switch_lsn, limit: sent.sent_limit };
    assert_eq!(decide(Some(&sent), &identity, slot.as_ref()), Verdict::Refuse(diverged));

    server.connect("postgres").await.expect("connected").batch_execute("insert into docs values (2)").await.expect("");
    let mut stream = session.start(all_tracked(&docs), Lsn::ZERO).await.expect("started");
    let insert = (TableId(0), Change::Insert { new: row([int(2)]) });
    assert_changes(&commits(&mut stream, 1).await, &[insert]);
}

/// Adds a line to postgresql.conf.
fn configure(server: &Postgres, line: &str) {
    use std::io::Write;
    let path = server.directory().join("data/postgresql.conf");
    let mut file = std::fs::OpenOptions::new().append(true).open(path).expect("opened");
    writeln!(file, "{line}").expect("written");
}
