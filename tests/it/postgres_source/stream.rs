//! What the stream says of each kind of change.

use super::*;

#[tokio::test]
async fn every_kind_of_change_comes_out_as_postgres_made_it() {
    for major in majors() {
        let database = Database::create(major).await;
        let settings = source(&database);
        let client = &database.client;
        client
            .batch_execute(
                "create table docs (id int8 primary key, title text, e vector(600));
                 create table whole (id int8 primary key, e vector(600)); alter table whole replica identity full;
                 create table other (id int8 primary key)",
            )
            .await
            .expect("created");
        let both = tables(&settings, &["docs", "whole"]).await;
        let (mut stream, consistent_point) = first_stream(&settings, &both).await;
        let (docs, whole) = (TableId(0), TableId(1));
        let unchanged = || Value::UnchangedToast;

        client.batch_execute(&format!("insert into docs values (1, 'a', {LONG})")).await.expect("written");
        let seen = commits(&mut stream, 1).await;
        let [Event::Begin { final_lsn, xid, commit_micros }, Event::Change { .. }, Event::Commit { end_lsn }] =
            &seen[..]
        else {
            panic!("not one transaction of one change: {seen:?}")
        };
        assert!(consistent_point <= *final_lsn && final_lsn < end_lsn && *xid > 0);
        let now: i64 =
            client.query_one("select (extract(epoch from now()) * 1000000)::int8", &[]).await.expect("row").get(0);
        assert!((now - commit_micros).abs() < 60_000_000, "the commit time is of today: {commit_micros}");
        assert_changes(&seen, &[(docs, Change::Insert { new: row([int(1), text("a"), long()]) })]);

        client
            .batch_execute(&format!(
                "begin;
                 update docs set title = null where id = 1;
                 update docs set id = 2 where id = 1;
                 update docs set e = {LONG}, title = 'c' where id = 2;
                 delete from docs where id = 2;
                 commit;
                 begin;
                 insert into whole values (7, {LONG});
                 update whole set id = 8 where id = 7;
                 delete from whole where id = 8;
                 commit"
            ))
            .await
            .expect("written");
        let key = |id| OldRow::Key(row([int(id), Value::Null, Value::Null]));
        assert_changes(
            &commits(&mut stream, 2).await,
            &[
                (docs, Change::Update { old: None, new: row([int(1), Value::Null, unchanged()]) }),
                (docs, Change::Update { old: Some(key(1)), new: row([int(2), Value::Null, unchanged()]) }),
                (docs, Change::Update { old: None, new: row([int(2), text("c"), long()]) }),
                (docs, Change::Delete { old: key(2) }),
                (whole, Change::Insert { new: row([int(7), long()]) }),
                (whole, Change::Update { old: Some(OldRow::Full(row([int(7), long()]))), new: row([int(8), long()]) }),
                (whole, Change::Delete { old: OldRow::Full(row([int(8), long()])) }),
            ],
        );

        // A savepoint that is rolled back never appears, a foreign message is ignored, ours is not, TRUNCATE
        // names every table, and another table's changes are nobody's.
        client
            .batch_execute(
                "begin; savepoint s; insert into docs values (3); rollback to s;
                 select pg_logical_emit_message(true, 'somebody', E'\\\\x00ff'::bytea);
                 select pg_logical_emit_message(true, 'walvec', 'fence 1');
                 insert into docs values (4); truncate docs, whole; insert into docs values (5); insert into other values (1);
                 commit",
            )
            .await
            .expect("written");
        let seen = commits(&mut stream, 1).await;
        let [
            Event::Begin { .. },
            Event::Message { content, .. },
            Event::Change { .. },
            Event::Truncate { tables: emptied },
            Event::Change { change: after, .. },
            Event::Commit { .. },
        ] = &seen[..]
        else {
            panic!("unexpected: {seen:?}")
        };
        assert_eq!(content.as_ref(), b"fence 1");
        assert_eq!(emptied.iter().collect::<BTreeSet<_>>(), BTreeSet::from([&docs, &whole]));
        assert_eq!(*after, Change::Insert { new: row([int(5), Value::Null, Value::Null]) });

        // A transaction that was replayed here from elsewhere.
        let origin = unique("origin");
        client
            .batch_execute(&format!(
                "select pg_replication_origin_create('{origin}'); select pg_replication_origin_session_setup('{origin}');
                 begin; select pg_replication_origin_xact_setup('0/42', now()); insert into docs values (6); commit;
                 select pg_replication_origin_session_reset(); select pg_replication_origin_drop('{origin}')"
            ))
            .await
            .expect("written");
        let seen = events(&mut stream, |events| !changes(events).is_empty()).await;
        assert_changes(&seen, &[(docs, Change::Insert { new: row([int(6), Value::Null, Value::Null]) })]);
    }
}

#[tokio::test]
async fn a_changed_table_is_told_once_and_an_added_column_is_no_concern() {
    for major in majors() {
        let database = Database::create(major).await;
        let settings = source(&database);
        let client = &database.client;
        client
            .batch_execute(
                "create table a (id int8 primary key, x text); create table b (id int8 primary key, e vector(3))",
            )
            .await
            .expect("created");
        let both = tables(&settings, &["a", "b"]).await;
        let (mut stream, _) = first_stream(&settings, &both).await;
        client
            .batch_execute(
                "alter table a add column y int default 5; insert into a values (1, 'x', 2);
                 alter table b alter e type vector(4); insert into b values (1, '[1,2,3,4]');
                 insert into b values (2, '[1,2,3,4]'); alter table b drop column e;
                 insert into a values (2, 'z', 3)",
            )
            .await
            .expect("written");
        let seen = events(&mut stream, |events| changes(events).len() >= 2).await;
        let a = |id, x: &str| (TableId(0), Change::Insert { new: row([int(id), text(x)]) });
        assert_changes(&seen, &[a(1, "x"), a(2, "z")]);
        let reasons: Vec<&String> = seen
            .iter()
            .filter_map(|event| match event {
                Event::Unfit { table, reason } => {
                    assert_eq!(*table, TableId(1));
                    Some(reason)
                }
                _ => None,
            })
            .collect();
        assert_eq!(reasons.len(), 1, "{reasons:?}");
        assert!(reasons[0].contains("\"e\"") && reasons[0].contains("4 instead of 3"), "{}", reasons[0]);
    }
}

#[tokio::test]
async fn partitions_come_as_their_root_and_a_leaf_that_is_not_full_gives_keys_only() {
    for major in majors() {
        let database = Database::create(major).await;
        let settings = source(&database);
        let client = &database.client;
        client
            .batch_execute(
                "create table parts (id int8, place int8, e vector(600), primary key (id, place)) partition by list (place);
                 create table parts_1 partition of parts for values in (1);
                 create table parts_2 (e vector(600), place int8 not null, extra int, id int8 not null);
                 alter table parts_2 drop column extra;
                 alter table parts attach partition parts_2 for values in (2);
                 alter table parts replica identity full",
            )
            .await
            .expect("created");
        let parts = tables(&settings, &["parts"]).await;
        let (mut stream, _) = first_stream(&settings, &parts).await;
        client
            .batch_execute(&format!(
                "insert into parts values (1, 1, {LONG}), (2, 2, {LONG});
                 update parts set place = 2 where id = 1;
                 delete from parts where id = 2;
                 alter table parts_1 replica identity full; alter table parts_2 replica identity full;
                 insert into parts values (3, 1, null); delete from parts where id in (1, 3);
                 truncate parts"
            ))
            .await
            .expect("written");
        let seen =
            events(&mut stream, |events| events.iter().any(|event| matches!(event, Event::Truncate { .. }))).await;
        let id = TableId(0);
        let at = |key, place| row([int(key), int(place), Value::Null]);
        assert_changes(
            &seen,
            &[
                (id, Change::Insert { new: row([int(1), int(1), long()]) }),
                (id, Change::Insert { new: row([int(2), int(2), long()]) }),
                // Row movement is a delete in one leaf and a whole insert in the other.
                (id, Change::Delete { old: OldRow::Key(at(1, 1)) }),
                (id, Change::Insert { new: row([int(1), int(2), long()]) }),
                (id, Change::Delete { old: OldRow::Key(at(2, 2)) }),
                (id, Change::Insert { new: at(3, 1) }),
                // parts_2 is FULL too by now, but the stream says so only with its next change.
                (id, Change::Delete { old: OldRow::Key(at(3, 1)) }),
                (id, Change::Delete { old: OldRow::Full(row([int(1), int(2), long()])) }),
            ],
        );
    }
}

#[tokio::test]
async fn a_publication_by_leaf_maps_each_leaf_by_name() {
    for major in majors() {
        let database = Database::create(major).await;
        let settings = source(&database);
        let client = &database.client;
        client
            .batch_execute(&format!(
                "create table parts (id int8 primary key, title text) partition by range (id);
                 create table low (title text, id int8 not null); alter table parts attach partition low for values from (0) to (10);
                 create table high partition of parts for values from (10) to (20);
                 create publication \"{}\" for table parts",
                settings.publication
            ))
            .await
            .expect("created");
        let parts = tables(&settings, &["parts"]).await;
        let mut session = Session::open(&settings, Lsn::ZERO, StreamFormat::Binary).await.expect("session");
        session.create_slot().await.expect("slot");
        let mut stream = session.start(all_tracked(&parts), Lsn::ZERO).await.expect("started");
        client
            .batch_execute("insert into parts values (1, 'low'), (11, 'high'); truncate parts; truncate low")
            .await
            .expect("written");
        let seen = events(&mut stream, |events| events.iter().any(|event| matches!(event, Event::Unfit { .. }))).await;
        let insert = |id, title: &str| (TableId(0), Change::Insert { new: row([int(id), text(title)]) });
        assert_changes(&seen, &[insert(1, "low"), insert(11, "high")]);
        assert!(seen.contains(&Event::Truncate { tables: vec![TableId(0)] }), "{seen:?}");
    }
}

#[tokio::test]
async fn idle_neighbours_move_the_position_by_keepalives() {
    let database = Database::create(major()).await;
    let mut settings = source(&database);
    settings.wal_sender_timeout = Duration::from_secs(2);
    database
        .client
        .batch_execute("create table docs (id int8 primary key); create table busy (id int8)")
        .await
        .expect("");
    let docs = tables(&settings, &["docs"]).await;
    let (mut stream, _) = first_stream(&settings, &docs).await;
    database.client.batch_execute("insert into busy select generate_series(1, 1000)").await.expect("written");
    let probe = Probe::connect(&settings).await.expect("probe");
    let target = probe.insert_lsn().await.expect("position");
    let reading = async {
        loop {
            let mut batch = Vec::new();
            stream.next_batch(&mut batch, 1 << 20).await.expect("stream");
            // Before 15, transactions that touch none of our tables come as well, empty.
            batch.retain(|event| major() >= 15 || !matches!(event, Event::Begin { .. } | Event::Commit { .. }));
            let Some(event) = batch.pop() else { continue };
            let Event::KeepAlive { wal_end, server_micros } = event else { panic!("{event:?}, {batch:?}") };
            assert!(batch.iter().all(|event| matches!(event, Event::KeepAlive { .. })), "{batch:?}");
            assert!(server_micros > 1_500_000_000_000_000, "microseconds since 1970: {server_micros}");
            stream.confirm(wal_end);
            if wal_end >= target {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("keepalives pass the neighbour's writes");
    until("the slot follows", PATIENCE, async || {
        let slot = probe.slot(&settings.slot).await.expect("read").expect("there");
        slot.confirmed_flush_lsn.filter(|&confirmed| confirmed >= target)
    })
    .await;
    assert!(stream.stats().confirmed_lsn >= target);
}

#[tokio::test]
async fn our_message_comes_back_and_positions_only_grow() {
    let database = Database::create(major()).await;
    let settings = source(&database);
    database.client.batch_execute("create table docs (id int8 primary key)").await.expect("created");
    let docs = tables(&settings, &["docs"]).await;
    let (mut stream, consistent_point) = first_stream(&settings, &docs).await;
    let probe = Probe::connect(&settings).await.expect("probe");
    let first = probe.current_xid().await.expect("xid");
    let at = probe.emit("it's a fence \\").await.expect("written");
    let seen = events(&mut stream, |events| events.iter().any(|event| matches!(event, Event::Message { .. }))).await;
    let message = seen.iter().find(|event| matches!(event, Event::Message { .. }));
    let Some(Event::Message { lsn, content }) = message else { panic!("{seen:?}") };
    assert_eq!(content.as_ref(), b"it's a fence \\");
    assert!(*lsn <= at && *lsn >= consistent_point, "{lsn} {at}");
    let flushed = probe.flush_lsn().await.expect("position");
    assert!(flushed >= at && probe.insert_lsn().await.expect("position") >= flushed);
    assert!(probe.current_xid().await.expect("xid") > first);
    probe.close().await.expect("closed");
}
