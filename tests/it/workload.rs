//! The demo's writers against a real PostgreSQL: what they count is what is there.

use std::sync::atomic::Ordering;
use std::time::Duration;

use walvec::cli::demo::workload::{self, Load, Workload};

use crate::support::postgres::{Database, major};
use crate::support::wait::until;

#[tokio::test]
async fn the_writers_count_what_they_committed() {
    let database = Database::create(major()).await;
    let workload = Workload { rows: 300, dimensions: 24, seed: 42, writers: 2, rate: 100_000 };
    workload::create(&database.client, &workload).await.expect("the table is made");
    let mut filled = 0;
    workload::fill(&database.client, &workload, |rows| filled = rows).await.expect("the table is filled");
    assert_eq!(filled, 300);
    workload::build_index(&database.client).await.expect("the index is built");

    let load = Load::start(vec![database.session().await, database.session().await], workload);
    until("a thousand changes of every kind", Duration::from_secs(60), async || {
        assert!(!load.failed(), "a writer ended");
        (load.counts.changes() >= 1000 && load.counts.rollbacks.load(Ordering::Relaxed) > 0).then_some(())
    })
    .await;
    let counts = load.stop().await.expect("the writers stop");
    let read = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed) as i64;
    for count in [&counts.scalar_updates, &counts.embedding_updates, &counts.key_changes, &counts.deletes] {
        assert!(read(count) > 0);
    }
    let rows: i64 = database.client.query_one("select count(*) from documents", &[]).await.expect("counted").get(0);
    assert_eq!(rows, 300 + read(&counts.inserts) - read(&counts.deletes));
    let length: f64 = database
        .client
        .query_one("select max(abs(vector_norm(embedding) - 1)) from documents", &[])
        .await
        .expect("measured")
        .get(0);
    assert!(length < 1e-3, "{length}");
}
