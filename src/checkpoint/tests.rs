//! What the store promises: durable when it says so, all or nothing, one owner, and a way out of each failure.

use std::process::Command;

use super::*;

fn identity() -> Identity {
    Identity { slot: "walvec".into(), publication: "pub".into(), database: "app".into() }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime")
}

fn ranges(count: u32) -> Vec<BlockRange> {
    let range = |i| BlockRange { from_block: i * 8, to_block: (i + 1 < count).then_some((i + 1) * 8) };
    (0..count).map(range).collect()
}

fn leaf(oid: Oid, chunks: u32) -> LeafState {
    LeafState { oid, filenode: oid + 1, ranges: ranges(chunks), done: vec![false; chunks as usize] }
}

fn snapshot() -> crate::change::Snapshot {
    "10:20:12,15".parse().expect("a snapshot")
}

fn table(leaves: Vec<LeafState>) -> TableState {
    TableState {
        oid: 7,
        collection: "docs".into(),
        row_filter: Some("(n > 1)".into()),
        key: vec!["tenant".into(), "id".into()],
        copied: false,
        sweep: false,
        skip: Skip { until: Lsn(9), snapshot: Some(snapshot()) },
        let_go: Some("key 7: \0 too long".into()),
        leaves,
    }
}

/// The directory as a killed process would leave it, while the store is still open.
fn copy_of(directory: &Path) -> tempfile::TempDir {
    fn copy(from: &Path, to: &Path) {
        for entry in std::fs::read_dir(from).expect("read directory") {
            let entry = entry.expect("entry");
            let target = to.join(entry.file_name());
            if entry.file_type().expect("type").is_dir() {
                std::fs::create_dir(&target).expect("create");
                copy(&entry.path(), &target);
            } else {
                std::fs::copy(entry.path(), target).expect("copy");
            }
        }
    }
    let to = tempfile::tempdir().expect("temporary directory");
    copy(directory, to.path());
    to
}

#[test]
fn what_was_written_is_read_again() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("new").join("state");
    runtime().block_on(async {
        let (store, saved) = Store::open(&path, &identity()).expect("opens");
        assert_eq!(saved, Saved::default());
        store.intend_slot(SlotIntent::Creating).await.expect("writes");
        store.close().await.expect("closes");

        let (store, saved) = Store::open(&path, &identity()).expect("opens");
        assert_eq!(saved.intent, Some(SlotIntent::Creating));
        store.slot_created(42, 1, Lsn(100)).await.expect("writes");
        store.put_table("public.docs", table(vec![leaf(10, 3), leaf(11, 3000)])).await.expect("writes");
        store.put_table("public.other", table(vec![])).await.expect("writes");
        store.mark_chunks_done("public.docs", 11, vec![0, 1024, 2999]).await.expect("writes");
        store.mark_copied("public.other").await.expect("writes");
        store.raise_sent_limit(Lsn(500)).await.expect("writes");
        store.raise_sent_limit(Lsn(400)).await.expect("a lower limit changes nothing");
        store.checkpoint(Lsn(200)).await.expect("writes");
        store.adopt_source(42, 2).await.expect("a clean failover");
        store.close().await.expect("closes");

        let (store, saved) = Store::open(&path, &identity()).expect("opens");
        let mut docs = table(vec![leaf(10, 3), leaf(11, 3000)]);
        for chunk in [0, 1024, 2999] {
            docs.leaves[1].done[chunk] = true;
        }
        let other = TableState { copied: true, ..table(vec![]) };
        let (checkpoint, sent_limit) = (Lsn(200), Lsn(500));
        assert_eq!(saved.source, Some(SavedSource { system_identifier: 42, timeline: 2, checkpoint, sent_limit }));
        assert_eq!((saved.intent, saved.clean_stop), (None, false));
        assert_eq!(saved.tables, BTreeMap::from([("public.docs".into(), docs), ("public.other".into(), other)]));
        let again = TableState { skip: Skip { until: Lsn(7), snapshot: None }, ..table(vec![leaf(10, 3)]) }.anew();
        store.put_table("public.docs", again.clone()).await.expect("writes");
        store.put_table("public.other", again.clone()).await.expect("writes");
        store.mark_copied("public.other").await.expect("writes");
        store.clean_stop(true).await.expect("writes");
        store.close().await.expect("closes");

        let (store, saved) = Store::open(&path, &identity()).expect("opens");
        assert!(again.is_asked_anew() && !saved.tables["public.other"].is_asked_anew());
        assert_eq!(saved.tables["public.docs"], again);
        assert_eq!(saved.tables["public.other"], TableState { copied: true, sweep: false, ..again });
        assert!(saved.clean_stop);
        assert_eq!(saved.source.map(|source| source.sent_limit), Some(Lsn(200)));
        store.start_sending().await.expect("writes");
        store.close().await.expect("closes");
        let (_, saved) = Store::open(&path, &identity()).expect("opens");
        assert!(!saved.clean_stop);
    });
}

#[test]
fn letters_stay_with_their_table_until_they_are_cleared() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let letter = |reason: &str| Letter {
        field: Some("title".into()),
        reason: reason.into(),
        lsn: "16/B374D848".into(),
        origin: crate::letters::Origin::Copy,
        unix_seconds: 7,
        attempts: 1,
        payload: vec![("title".into(), "é".into())],
    };
    let keys = [Key::Int(i64::MIN), Key::Int(-1), Key::Int(3), Key::Text("".into()), Key::Text("a|\0é".into())];
    runtime().block_on(async {
        let (store, _) = Store::open(directory.path(), &identity()).expect("opens");
        store.slot_created(1, 1, Lsn(100)).await.expect("writes");
        assert!(store.keep_letter("public.docs", keys[0].clone(), letter("no table")).await.is_err());
        // A name that begins with the other's.
        for name in ["public.docs", "public.docs2"] {
            store.put_table(name, table(vec![leaf(10, 3)])).await.expect("writes");
            for key in &keys {
                store.keep_letter(name, key.clone(), letter("too long")).await.expect("writes");
            }
        }
        store.keep_letter("public.docs", keys[1].clone(), letter("still")).await.expect("in its place");
        store.clear_letters("public.docs", vec![keys[2].clone()]).await.expect("writes");
        store.clear_all_letters("public.docs2").await.expect("writes");
        store.put_table("public.docs", table(vec![])).await.expect("a new plan of the copy");
        store.close().await.expect("closes");

        let (store, saved) = Store::open(directory.path(), &identity()).expect("opens");
        let of = |key: &Key| (key.clone(), letter(if *key == keys[1] { "still" } else { "too long" }));
        let kept = keys.iter().filter(|key| **key != keys[2]).map(of).collect();
        assert_eq!(saved.letters, BTreeMap::from([("public.docs".to_owned(), kept)]));
        store.remove_table("public.docs").await.expect("writes");
        store.close().await.expect("closes");

        let (store, saved) = Store::open(directory.path(), &identity()).expect("opens");
        assert!(saved.letters.is_empty(), "made anew: nothing is absent");
        store.put_table("public.docs", table(vec![])).await.expect("writes");
        store.keep_letter("public.docs", keys[0].clone(), letter("too long")).await.expect("writes");
        store.slot_created(1, 1, Lsn(200)).await.expect("writes");
        store.close().await.expect("closes");
        let (_, saved) = Store::open(directory.path(), &identity()).expect("opens");
        assert!(saved.letters.is_empty(), "a new slot, a new beginning");
    });
}

#[test]
fn a_new_slot_forgets_every_table() {
    let directory = tempfile::tempdir().expect("temporary directory");
    runtime().block_on(async {
        let (store, _) = Store::open(directory.path(), &identity()).expect("opens");
        store.slot_created(1, 1, Lsn(100)).await.expect("writes");
        store.put_table("public.docs", table(vec![leaf(10, 3)])).await.expect("writes");
        store.mark_chunks_done("public.docs", 10, vec![1]).await.expect("writes");
        store.clean_stop(true).await.expect("writes");
        store.slot_created(2, 9, Lsn(50)).await.expect("another cluster, on purpose");
        store.close().await.expect("closes");
        let (store, saved) = Store::open(directory.path(), &identity()).expect("opens");
        let (checkpoint, sent_limit) = (Lsn(50), Lsn(50));
        let source = Some(SavedSource { system_identifier: 2, timeline: 9, checkpoint, sent_limit });
        assert_eq!(saved, Saved { source, ..Saved::default() });
        // No flag of the old list may come back with a new one.
        store.put_table("public.docs", table(vec![leaf(10, 3)])).await.expect("writes");
        store.close().await.expect("closes");
        let (_, saved) = Store::open(directory.path(), &identity()).expect("opens");
        assert_eq!(saved.tables["public.docs"].leaves[0].done, [false; 3]);
    });
}

#[test]
fn list_and_flags_of_a_leaf_are_replaced_together() {
    let directory = tempfile::tempdir().expect("temporary directory");
    runtime().block_on(async {
        let (store, _) = Store::open(directory.path(), &identity()).expect("opens");
        store.slot_created(1, 1, Lsn(100)).await.expect("writes");
        store.put_table("public.docs", table(vec![leaf(10, 2000), leaf(1000, 2)])).await.expect("writes");
        store.mark_chunks_done("public.docs", 10, vec![0, 1999]).await.expect("writes");
        store.mark_chunks_done("public.docs", 1000, vec![1]).await.expect("writes");
        store.mark_copied("public.docs").await.expect("writes");
        let new = LeafState { filenode: 99, done: vec![false, true], ..leaf(10, 2) };
        store.replace_leaf("public.docs", new.clone()).await.expect("writes");
        let after_kill = copy_of(directory.path());
        let (_, saved) = Store::open(after_kill.path(), &identity()).expect("opens");
        let untouched = LeafState { done: vec![false, true], ..leaf(1000, 2) };
        assert_eq!(saved.tables["public.docs"], TableState { leaves: vec![new, untouched], ..table(vec![]) });
    });
}

#[test]
fn what_would_be_wrong_is_refused_and_changes_nothing() {
    let directory = tempfile::tempdir().expect("temporary directory");
    runtime().block_on(async {
        let (store, _) = Store::open(directory.path(), &identity()).expect("opens");
        let refused =
            |result: Result<(), StoreError>| assert!(matches!(result, Err(StoreError::Refused(_))), "{result:?}");
        refused(store.checkpoint(Lsn(1)).await);
        refused(store.raise_sent_limit(Lsn(1)).await);
        refused(store.adopt_source(1, 1).await);
        store.slot_created(1, 1, Lsn(100)).await.expect("writes");
        refused(store.checkpoint(Lsn(99)).await);
        refused(store.mark_copied("public.docs").await);
        store.put_table("public.docs", table(vec![leaf(10, 3)])).await.expect("writes");
        refused(store.mark_chunks_done("public.docs", 10, vec![3]).await);
        refused(store.mark_chunks_done("public.docs", 12, vec![0]).await);
        refused(store.replace_leaf("public.docs", LeafState { done: vec![], ..leaf(10, 1) }).await);
        // All or nothing: the good half of a bad batch is not there either.
        let batch = Batch::new().checkpoint(Lsn(300)).mark_chunks_done("public.docs", 10, vec![0, 9]);
        refused(store.write(batch).await);
        let other = store.adopt_source(2, 1).await;
        assert!(matches!(other, Err(StoreError::OtherSystem { saved: 1, found: 2, .. })), "{other:?}");
        // The store goes on.
        store
            .write(Batch::new().checkpoint(Lsn(150)).mark_chunks_done("public.docs", 10, vec![2]))
            .await
            .expect("writes");
        store.close().await.expect("closes");
        let (_, saved) = Store::open(directory.path(), &identity()).expect("opens");
        assert_eq!(saved.source.map(|source| source.checkpoint), Some(Lsn(150)));
        assert_eq!(saved.tables["public.docs"].leaves[0].done, [false, false, true]);
    });
}

#[test]
fn what_was_answered_survives_a_kill() {
    let directory = tempfile::tempdir().expect("temporary directory");
    runtime().block_on(async {
        let (store, _) = Store::open(directory.path(), &identity()).expect("opens");
        store.slot_created(1, 1, Lsn(100)).await.expect("writes");
        store.put_table("public.docs", table(vec![leaf(10, 50)])).await.expect("writes");
        for step in 0..50_u32 {
            let lsn = Lsn(200 + u64::from(step));
            store
                .write(Batch::new().checkpoint(lsn).mark_chunks_done("public.docs", 10, vec![step]))
                .await
                .expect("writes");
            if step % 10 == 9 {
                let after_kill = copy_of(directory.path());
                let (_, saved) = Store::open(after_kill.path(), &identity()).expect("opens");
                assert_eq!(saved.source.map(|source| source.checkpoint), Some(lsn));
                let done = saved.tables["public.docs"].leaves[0].done.iter().filter(|done| **done).count();
                assert_eq!(done, step as usize + 1);
            }
        }
    });
}

/// The other side of the promise: sled alone keeps unflushed writes in memory, so the flush above is what does it.
#[test]
fn what_was_not_flushed_is_not_there_after_a_kill() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let open = |path: &Path| sled::Config::new().path(path).flush_every_ms(None).open().expect("opens");
    let database = open(directory.path());
    database.insert("flushed", b"1").expect("inserts");
    database.flush().expect("flushes");
    database.insert("unflushed", b"1").expect("inserts");
    let after_kill = copy_of(directory.path());
    let reopened = open(after_kill.path());
    assert!(reopened.contains_key("flushed").expect("reads"));
    assert!(!reopened.contains_key("unflushed").expect("reads"));
}

#[test]
fn a_hundred_thousand_checkpoints_stay_small() {
    let directory = tempfile::tempdir().expect("temporary directory");
    runtime().block_on(async {
        let (store, _) = Store::open(directory.path(), &identity()).expect("opens");
        store.slot_created(1, 1, Lsn(0)).await.expect("writes");
        for step in 0..400_u64 {
            // Asked for at once, so that they share syncs; each is a write of its own.
            let writes = (1..=250).map(|i| {
                let lsn = Lsn(step * 250 + i);
                store.write(Batch::new().checkpoint(lsn).raise_sent_limit(lsn))
            });
            for result in futures_util::future::join_all(writes).await {
                result.expect("writes");
            }
        }
        let size = store.size_on_disk();
        assert!(size < 16 << 20, "{size} bytes on disk");
        store.close().await.expect("closes");
        let (_, saved) = Store::open(directory.path(), &identity()).expect("opens");
        assert_eq!(saved.source.map(|source| source.checkpoint), Some(Lsn(100_000)));
    });
}

#[test]
fn one_process_at_a_time_and_the_other_is_named() {
    let directory = tempfile::tempdir().expect("temporary directory");
    runtime().block_on(async {
        let (store, _) = Store::open(directory.path(), &identity()).expect("opens");
        let error = Store::open(directory.path(), &identity()).map(drop).expect_err("held");
        assert!(
            matches!(&error, StoreError::Held { holder, .. } if *holder == std::process::id().to_string()),
            "{error}"
        );
        let clone = store.clone();
        store.close().await.expect("closes");
        assert!(matches!(clone.checkpoint(Lsn(1)).await, Err(StoreError::Ended { .. })));
        Store::open(directory.path(), &identity()).expect("the lock is free");
    });
}

#[test]
fn a_state_that_is_not_ours_is_refused() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let refused = |identity: &Identity| Store::open(directory.path(), identity).map(drop).expect_err("refused");
    runtime().block_on(async {
        let (store, _) = Store::open(directory.path(), &identity()).expect("opens");
        store.close().await.expect("closes");
        let error = refused(&Identity { slot: "another".into(), ..identity() });
        assert_eq!(
            error.to_string().split("; ").next().map(|s| s.replace(directory.path().to_str().expect("UTF-8"), "…")),
            Some("state in \"…\" is about slot \"walvec\", the configuration about \"another\"".to_owned())
        );
        refused(&Identity { publication: "another".into(), ..identity() });
        refused(&Identity { database: "another".into(), ..identity() });
    });
    let database = sled::open(directory.path().join("sled")).expect("opens");
    database.insert("format", &(codec::FORMAT + 1).to_be_bytes()).expect("inserts");
    database.flush().expect("flushes");
    drop(database);
    lock::wait_for_sled(directory.path()).expect("sled lets go");
    let error = refused(&identity());
    assert!(matches!(error, StoreError::NewerFormat { found: 2, known: 1, .. }), "{error}");
}

#[test]
fn a_damaged_state_is_said_to_be_damaged() {
    for (key, value) in [("checkpoint", &b"short"[..]), ("intent", b"9"), ("t\0public.docs", b"\x07"), ("format", b"")]
    {
        let directory = tempfile::tempdir().expect("temporary directory");
        runtime().block_on(async {
            let (store, _) = Store::open(directory.path(), &identity()).expect("opens");
            store.slot_created(1, 1, Lsn(100)).await.expect("writes");
            store.close().await.expect("closes");
        });
        let database = sled::open(directory.path().join("sled")).expect("opens");
        database.insert(key, value).expect("inserts");
        database.flush().expect("flushes");
        drop(database);
        lock::wait_for_sled(directory.path()).expect("sled lets go");
        let error = Store::open(directory.path(), &identity()).map(drop).expect_err("damaged");
        assert!(matches!(error, StoreError::Damaged { .. }), "{key}: {error}");
    }
}

/// Whatever a disk does to the file: an error with its way out, or a state that was true once. That may be an older one, which
/// the start gate refuses as it does a restored backup; it is never one that was not written.
#[test]
fn a_torn_state_is_refused_or_an_older_one_and_never_a_wrong_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let written: Vec<Lsn> = (1..=60).map(|i| Lsn(i * 1000)).collect();
    runtime().block_on(async {
        let (store, _) = Store::open(directory.path(), &identity()).expect("opened");
        store.intend_slot(SlotIntent::Creating).await.expect("written");
        store.slot_created(7, 1, Lsn(0)).await.expect("written");
        for (i, lsn) in written.iter().enumerate() {
            store.raise_sent_limit(*lsn).await.expect("written");
            store.checkpoint(*lsn).await.expect("written");
            store.put_table(&format!("public.t{i}"), table(vec![leaf(10, 40)])).await.expect("written");
        }
        store.close().await.expect("closed");
    });
    let mut older = 0;
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    for round in 0..150 {
        let torn = copy_of(directory.path());
        let file = torn.path().join("sled/db");
        let mut bytes = std::fs::read(&file).expect("read");
        // What is behind the end of the log is zero, and nothing of it is looked at.
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at = (random >> 20) as usize % (end + 1);
        match round % 3 {
            0 => bytes[at] ^= 1 << (random & 7),
            1 => bytes.truncate(at),
            _ => bytes[at..(at + 512).min(end + 1)].fill(0),
        }
        std::fs::write(&file, bytes).expect("written");
        match Store::open(torn.path(), &identity()) {
            Err(error) => {
                let sentence = error.to_string();
                assert!(
                    sentence.contains("damaged") || sentence.contains("cannot be used"),
                    "round {round}: {sentence}"
                );
            }
            Ok((store, saved)) => {
                runtime().block_on(store.close()).expect("closed");
                let source = saved.source;
                let known = |lsn: Lsn| lsn == Lsn(0) || written.contains(&lsn);
                assert!(source.is_none_or(|s| known(s.checkpoint) && known(s.sent_limit)), "round {round}: {source:?}");
                assert!(saved.tables.values().all(|found| *found == table(vec![leaf(10, 40)])), "round {round}");
                older += usize::from(saved.tables.len() < written.len());
            }
        }
    }
    assert!(older > 0, "sled's checksums find what the disk did");
}

#[test]
fn a_place_that_is_no_directory_is_unusable() {
    let file = tempfile::NamedTempFile::new().expect("temporary file");
    let error = Store::open(file.path(), &identity()).map(drop).expect_err("a file");
    assert!(matches!(error, StoreError::Unusable { .. }), "{error}");
}

/// Names the directory to write into, in the child of the test below.
const FULL_DISK_CHILD: &str = "WALVEC_TEST_FULL_DISK";

/// A file size limit stands in for a full disk: the same call fails, with EFBIG for ENOSPC. It is the whole process's,
/// so the test runs itself again as a child under `ulimit -f`.
#[test]
fn a_full_disk_is_an_error_with_its_way_out_and_loses_nothing() {
    if let Some(path) = std::env::var_os(FULL_DISK_CHILD) {
        return fill_the_disk(Path::new(&path));
    }
    let directory = tempfile::tempdir().expect("temporary directory");
    let this = std::env::current_exe().expect("the test binary");
    let name = "checkpoint::tests::a_full_disk_is_an_error_with_its_way_out_and_loses_nothing";
    // SIGXFSZ ignored, the write fails instead. 2 MiB in blocks of 512 bytes (POSIX) or 1024 (bash).
    let script = format!("trap '' XFSZ; ulimit -f 2048; exec \"$0\" --exact {name} --nocapture");
    let output = Command::new("sh")
        .args(["-c", &script])
        .arg(this)
        .env(FULL_DISK_CHILD, directory.path())
        .output()
        .expect("sh runs");
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{shown}\n{}", String::from_utf8_lossy(&output.stderr));
    let last = shown.lines().find_map(|line| line.strip_prefix("last durable: ")).expect("the child says");
    let last: u64 = last.parse().expect("a number");
    // With room again everything that was answered is there.
    let (_, saved) = Store::open(directory.path(), &identity()).expect("opens");
    let checkpoint = saved.source.map(|source| source.checkpoint.0);
    assert!(checkpoint >= Some(last), "{checkpoint:?} of {last}");
}

fn fill_the_disk(path: &Path) {
    runtime().block_on(async {
        let (store, _) = Store::open(path, &identity()).expect("opens");
        store.slot_created(1, 1, Lsn(0)).await.expect("writes");
        for step in 1..10_000_u32 {
            let name = format!("public.table_{step}");
            let batch = Batch::new().checkpoint(Lsn(step.into())).put_table(&name, table(vec![leaf(step, 1000)]));
            match store.write(batch).await {
                Ok(()) => {}
                Err(error) => {
                    assert!(matches!(error, StoreError::DiskFull { .. }), "{error:?}");
                    let after = store.checkpoint(Lsn(u64::MAX)).await;
                    assert!(matches!(after, Err(StoreError::Ended { .. })), "{after:?}");
                    // The test harness may hold its own line open.
                    println!("\nlast durable: {}", step - 1);
                    return;
                }
            }
        }
        panic!("the limit was never met");
    });
}

/// Said, rather than waited for: also when it is closed.
#[test]
fn a_disk_that_never_answers_is_an_error() {
    let (requests, inbox) = mpsc::unbounded_channel();
    let (path, patience) = (PathBuf::from("/state"), Duration::from_millis(20));
    let store = Store { shared: Arc::new(Shared { requests, path, patience, stuck: AtomicBool::new(false) }) };
    runtime().block_on(async {
        let error = store.checkpoint(Lsn(1)).await.expect_err("nobody writes");
        assert!(matches!(error, StoreError::Stuck { .. }), "{error}");
        assert!(matches!(store.close().await, Err(StoreError::Stuck { .. })));
    });
    drop(inbox);
}
