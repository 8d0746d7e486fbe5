//! Chunks.

use super::*;

#[tokio::test]
async fn chunks_cover_a_table_exactly_once_while_it_is_written_to() {
    for major in majors() {
        let database = Database::create(major).await;
        let settings = source(&database);
        let client = &database.client;
        client
            .batch_execute(&format!(
                "create table docs (id int8 primary key, gone int, title text, e vector(600));
                 insert into docs select i, 1, 'title ' || i, case when i % 3 = 0 then {LONG} end from generate_series(1, 3000) i;
                 alter table docs drop column gone; delete from docs where id % 10 = 0"
            ))
            .await
            .expect("written");
        let docs = tables(&settings, &["docs"]).await;
        let leaf = docs[0].leaves[0].oid;
        let connection = sql(&settings).await;
        let planned = plan_ranges(&connection, leaf, 1 << 20).await.expect("planned");
        assert!(planned.ranges.len() > 3, "{:?}", planned.ranges);
        let columns: [SelectColumn; 3] = ["title".into(), "id".into(), "e".into()];
        let mut reader = ChunkReader::connect(&settings).await.expect("reader");
        let probe = Probe::connect(&settings).await.expect("probe");

        for bytes_max in [usize::MAX, 64 << 10] {
            let mut seen: Vec<i64> = Vec::new();
            let mut todo = planned.ranges.clone();
            let mut split = 0;
            todo.reverse();
            while let Some(range) = todo.pop() {
                let view = reader.begin(leaf).await.expect("begun");
                assert_eq!(view.filenode, planned.filenode);
                assert!(view.insert_lsn <= probe.insert_lsn().await.expect("position"));
                let chunk = reader.read_rows(&columns, None, range, bytes_max).await.expect("read");
                reader.finish().await.expect("ended");
                assert_eq!(chunk.bytes, chunk.rows.iter().map(Row::size).sum::<usize>());
                for row in &chunk.rows {
                    let Value::Binary(id) = &row.0[1] else { panic!("{row:?}") };
                    let id = i64::from_be_bytes(id[..].try_into().expect("eight bytes"));
                    assert_eq!(row.0[0], text(&format!("title {id}")));
                    assert_eq!(row.0[2], if id % 3 == 0 { long() } else { Value::Null });
                    seen.push(id);
                }
                if let Some(rest) = chunk.rest {
                    assert!(rest.from_block > range.from_block && rest.to_block == range.to_block, "{rest:?}");
                    split += 1;
                    todo.push(rest);
                }
            }
            assert_eq!(split > 0, bytes_max < usize::MAX);
            seen.sort_unstable();
            let expected: Vec<i64> = (1..=3000).filter(|id| id % 10 != 0).collect();
            assert_eq!(seen, expected, "every row once");
        }

        // The last range is open above: rows that came after the plan are in it.
        client.batch_execute("insert into docs select i, 'late' from generate_series(10001, 12000) i").await.expect("");
        reader.begin(leaf).await.expect("begun");
        let last = *planned.ranges.last().expect("a range");
        let late = reader.read_rows(&columns, None, last, usize::MAX).await.expect("read");
        assert!(late.rows.iter().filter(|row| row.0[0] == text("late")).count() > 1000);

        // The snapshot stays the same within a chunk and is another after `resnapshot`.
        client.batch_execute("insert into docs values (20000, 'later')").await.expect("written");
        let count = |chunk: &walvec::postgres::copy::ChunkRows| chunk.rows.len();
        let again = reader.read_rows(&columns, None, last, usize::MAX).await.expect("read");
        assert_eq!(count(&again), count(&late));
        reader.resnapshot().await.expect("again");
        let again = reader.read_rows(&columns, None, last, usize::MAX).await.expect("read");
        assert_eq!(count(&again), count(&late) + 1);
    }
}

#[tokio::test]
async fn a_rewrite_is_seen_by_the_file_node_and_never_as_an_empty_table() {
    for major in majors() {
        let database = Database::create(major).await;
        let settings = source(&database);
        let client = &database.client;
        client
            .batch_execute("create table docs (id int8 primary key); insert into docs select generate_series(1, 100)")
            .await
            .expect("written");
        let leaf = tables(&settings, &["docs"]).await[0].oid;
        let planned = plan_ranges(&sql(&settings).await, leaf, 1 << 20).await.expect("planned");
        let mut reader = ChunkReader::connect(&settings).await.expect("reader");
        let all = Range { from_block: 0, to_block: None };
        let columns: [SelectColumn; 1] = ["id".into()];

        let view = reader.begin(leaf).await.expect("begun");
        assert_eq!(view.filenode, planned.filenode);
        // The rewrite waits for our chunk, which still reads everything.
        let mut rewriter = tokio::spawn({
            let session = database.session().await;
            async move { session.batch_execute("vacuum full docs").await }
        });
        let waiting = "select count(*) from pg_locks where relation = 'docs'::regclass and not granted";
        until("the rewrite waits", PATIENCE, async || {
            let count: i64 = client.query_one(waiting, &[]).await.expect("row").get(0);
            (count > 0).then_some(())
        })
        .await;
        assert_eq!(reader.read_rows(&columns, None, all, usize::MAX).await.expect("read").rows.len(), 100);
        assert!(!rewriter.is_finished());
        reader.finish().await.expect("ended");
        tokio::time::timeout(PATIENCE, &mut rewriter).await.expect("in time").expect("joined").expect("rewritten");

        let view = reader.begin(leaf).await.expect("begun");
        assert_ne!(view.filenode, planned.filenode, "a rewrite gives another file node");
        assert_eq!(reader.read_rows(&columns, None, all, usize::MAX).await.expect("read").rows.len(), 100);
        reader.finish().await.expect("ended");

        // Its name may change, it may not.
        client.batch_execute("alter table docs rename to papers").await.expect("renamed");
        reader.begin(leaf).await.expect("found by its oid");
        match reader.read_rows(&["absent".into()], None, all, usize::MAX).await {
            Err(error) => assert_eq!(error.sqlstate(), Some("42703"), "{error:?}"),
            Ok(_) => panic!("a column that is not there was read"),
        }
        let view = reader.begin(leaf).await.expect("usable after an error");
        assert_ne!(view.filenode, planned.filenode);
        reader.finish().await.expect("ended");
        client.batch_execute("drop table papers; create table papers (id int8)").await.expect("made anew");
        let error = reader.begin(leaf).await.expect_err("another table");
        assert!(matches!(error, PostgresError::RelationChanged { oid } if oid == leaf), "{error:?}");
    }
}
