//! What a caller may conclude from each way in which a request fails.

use super::*;

/// A frozen server, a killed one, a port where nobody listens any more: what a caller may conclude from each.
#[tokio::test]
async fn faults_say_whether_the_request_may_still_land() {
    let mut server = MilvusLite::start(MilvusLiteOptions::default()).await.expect("starts");
    let proxy = Proxy::start(server.port()).await;
    let url = format!("http://127.0.0.1:{}", proxy.port());
    let client = GrpcClient::connect_lazy(&MilvusOptions { request_deadline: Duration::from_secs(2), ..options(&url) })
        .expect("a client");
    let schema = keyed("docs", FieldSchema { is_primary: true, ..field("id", DataType::Int64) }, LITE);
    ready(&client, &schema).await;
    let batch = |id: i64| {
        vec![
            column("id", ColumnData::Int64(vec![id])),
            column("v", ColumnData::FloatVector { dim: 2, packed: floats(&[1.0, 2.0]) }),
        ]
    };
    client.upsert("docs", batch(1), 1).await.expect("written");

    // The answer is lost after the work was done.
    proxy.cut_after(Direction::ToClient, 0);
    let error = client.upsert("docs", batch(2), 1).await.expect_err("no answer");
    assert_eq!((error.condition(), error.class()), (Condition::ConnectionLost, Class::Retry), "{error}");
    assert!(error.outcome_unknown() && !error.never_sent());
    proxy.heal();
    // The channel connects anew by itself; whether the row of the lost answer is there is just what nobody knows.
    client.upsert("docs", batch(2), 1).await.expect("the same request again");
    assert_eq!(client.count("docs").await.expect("counted"), 2);

    // A frozen server: the deadline ends the wait, not before its time and not much later.
    server.pause().await.expect("frozen");
    let begin = Instant::now();
    let error = client.upsert("docs", batch(3), 1).await.expect_err("no answer");
    assert_eq!((error.condition(), error.class()), (Condition::TimedOut, Class::Retry), "{error}");
    assert!(error.outcome_unknown() && !error.never_sent());
    assert!((Duration::from_millis(1900)..Duration::from_secs(6)).contains(&begin.elapsed()), "{:?}", begin.elapsed());

    // Killed with a request on its way.
    let sent = proxy.counts().to_server;
    let (error, ()) = tokio::join!(client.upsert("docs", batch(4), 1), async {
        until("the request is on its way", Duration::from_secs(2), async || {
            (proxy.counts().to_server > sent + 50).then_some(())
        })
        .await;
        server.kill().await.expect("killed");
        proxy.cut(); // as the kernel of a killed server does
    });
    let error = error.expect_err("no answer");
    assert_eq!(error.condition(), Condition::ConnectionLost, "{error}");
    assert!(error.outcome_unknown());

    // Nobody listens: nothing was sent, nothing to wait for.
    drop(proxy);
    let error = until("the broken connection is noticed", Duration::from_secs(5), async || {
        client.upsert("docs", batch(5), 1).await.err().filter(|error| error.never_sent())
    })
    .await;
    assert_eq!((error.condition(), error.class()), (Condition::ConnectFailed, Class::Retry));
    assert!(!error.outcome_unknown());

    // What was acknowledged is there after the kill; the collection has to be loaded again.
    server.restart().await.expect("starts again");
    let client = connect(&server.url());
    let keys = Keys::Int64(vec![1, 2]);
    let fields = [Arc::from("id")];
    let query = || Query { collection: "docs", selection: Selection::Keys(&keys), output_fields: &fields };
    assert_unloaded(client.query(query()).await.expect_err("not loaded"));
    client.load_collection("docs", Duration::from_secs(30)).await.expect("loaded");
    assert_eq!(row_count(&client.query(query()).await.expect("read")), 2);
}

/// What the scripted server is told to do, seen over both transports: the condition, and whether the rows are there.
#[tokio::test]
async fn every_fault_is_understood_over_both_transports() {
    let cases: [(&str, Fault, Condition, bool, Option<u64>); 16] = [
        ("a rate limit", Fault::Refuse(8, "rate limit exceeded[rate=1]"), Condition::RateLimited, false, Some(0)),
        ("denied", Fault::Refuse(9, "quota exceeded[reason=force deny]"), Condition::QuotaExceeded, false, Some(0)),
        ("memory", Fault::Refuse(3, "memory limit exceeded"), Condition::QuotaExceeded, false, Some(0)),
        ("a bad value", Fault::Refuse(1100, "invalid parameter"), Condition::InvalidData, false, Some(0)),
        ("a schema that changed", Fault::Refuse(109, "schema mismatch"), Condition::SchemaStale, false, Some(0)),
        ("a standby", Fault::Refuse(108, "standby"), Condition::NotWritable, false, Some(0)),
        ("recovering", Fault::Refuse(106, "on recovering"), Condition::Unavailable, true, Some(0)),
        ("no reason", Fault::Refuse(65535, "?"), Condition::Unexpected, true, Some(0)),
        ("half of it", Fault::Half(65535, "?"), Condition::Unexpected, true, None),
        ("applied late", Fault::Late, Condition::TimedOut, true, Some(0)),
        ("no answer", Fault::Lost, Condition::TimedOut, true, Some(4)),
        ("cut before", Fault::ResetBefore, Condition::ConnectionLost, true, Some(0)),
        ("cut after", Fault::ResetAfter, Condition::ConnectionLost, true, Some(4)),
        ("a gateway", Fault::Gateway { status: 502, retry_after: None }, Condition::Unavailable, true, Some(0)),
        ("too large", Fault::Gateway { status: 413, retry_after: None }, Condition::RequestTooLarge, false, Some(0)),
        ("too many", Fault::Gateway { status: 429, retry_after: Some(7) }, Condition::RateLimited, false, Some(0)),
    ];
    let server = Scripted::start(scripted::Options::default()).await;
    let mut slow = options(&server.url());
    slow.request_deadline = Duration::from_millis(700);
    for (client, rest) in clients(&slow, BOTH).into_iter().zip([false, true]) {
        for (what, fault, condition, unknown, rows) in &cases {
            let primary = FieldSchema { is_primary: true, ..field("id", DataType::Int64) };
            let schema = keyed(&unique("faults"), primary, scripted(Version::V2_6, rest));
            ready(&*client, &schema).await;
            let batch = || {
                vec![
                    column("id", ColumnData::Int64(vec![1, 2, 3, 4])),
                    column("v", ColumnData::FloatVector { dim: 2, packed: floats(&[1.0, 2.0]).repeat(4) }),
                ]
            };
            server.heal();
            server.fail(Operation::Upsert, When::Nth(1), fault.clone());
            let error = client.upsert(&schema.name, batch(), 4).await.expect_err(what);
            // A gateway's 502 comes to a gRPC client as UNAVAILABLE, and a stream that is reset as whatever tonic makes of it.
            let alike = match condition {
                Condition::Unavailable | Condition::ConnectionLost if !rest => {
                    matches!(
                        error.condition(),
                        Condition::Unavailable | Condition::ConnectionLost | Condition::Unexpected
                    )
                }
                condition => error.condition() == *condition,
            };
            assert!(alike && error.outcome_unknown() == *unknown, "{what}, REST {rest}: {error:?}");
            let found = client.count(&schema.name).await.expect("counted");
            match rows {
                Some(rows) => assert_eq!(found, *rows, "{what}, REST {rest}"),
                None => assert!(found < 4, "{what}: only one shard"),
            }
            server.release_late(Duration::from_secs(60));
            client.upsert(&schema.name, batch(), 4).await.expect("the same request again");
            assert_eq!(client.count(&schema.name).await.expect("counted"), 4, "{what}, REST {rest}");
        }
    }
    assert_eq!(server.violations(), Vec::<String>::new());
}
