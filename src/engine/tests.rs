//! Coalescing equals applying one by one. Crashes, copies and lost answers are the simulator's.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::change::Snapshot;

/// What the source does to one of a few keys; an update may leave the wide column out, as TOAST does.
#[derive(Clone, Debug)]
enum Step {
    Put {
        key: i64,
        whole: bool,
    },
    Rekey {
        from: i64,
        to: i64,
    },
    Delete {
        key: i64,
    },
    /// The transaction ends here.
    Commit,
    /// Effects are carried out and so many requests answered.
    Answer(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..5i64;
    prop_oneof![
        4 => (key.clone(), any::<bool>()).prop_map(|(key, whole)| Step::Put { key, whole }),
        2 => (key.clone(), key.clone()).prop_map(|(from, to)| Step::Rekey { from, to }),
        2 => key.prop_map(|key| Step::Delete { key }),
        2 => Just(Step::Commit),
        2 => (0..3usize).prop_map(Step::Answer),
    ]
}

type Source = BTreeMap<i64, (u64, u64)>;

fn number(number: u64) -> Value {
    Value::Binary(Bytes::copy_from_slice(&number.to_be_bytes()))
}

fn row(key: i64, narrow: u64, wide: Option<u64>) -> Row {
    Row(Box::new([number(key as u64), number(narrow), wide.map_or(Value::UnchangedToast, number)]))
}

/// A target and the requests that it has not answered.
#[derive(Default)]
struct World {
    target: BTreeMap<Key, Row>,
    requests: Vec<Request>,
    fetches: Vec<FetchRequest>,
}

impl World {
    fn collect(&mut self, engine: &mut Engine) {
        while let Some(effect) = engine.poll_effect() {
            match effect {
                Effect::RaiseSentLimit(lsn) => engine.sent_limit_raised(lsn),
                Effect::Send(request) => self.requests.push(request),
                Effect::Fetch(fetch) => self.fetches.push(fetch),
                Effect::WaitFlushed(lsn) => engine.flushed(lsn),
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    fn answer(&mut self, engine: &mut Engine, source: &Source) {
        if let Some(fetch) = self.fetches.pop() {
            let rows = fetch.rows.iter().filter_map(|(key, _)| {
                let Key::Int(number_of) = key else { panic!("keys are numbers") };
                let (narrow, wide) = source.get(number_of)?;
                let column = |c: usize| if c == 1 { number(*narrow) } else { number(*wide) };
                let columns = (1..3).filter(|c| fetch.columns & (1 << c) != 0).map(|c| (c, column(c))).collect();
                Some((key.clone(), columns))
            });
            let rows = rows.collect();
            engine.fetched(fetch.id, &Snapshot { xmin: 100_000, xmax: 100_000, running: vec![] }, Lsn(1), rows);
        } else if !self.requests.is_empty() {
            let request = self.requests.remove(0);
            for (key, row) in &request.mutations.upserts {
                assert_eq!(row.missing(), 0, "an upsert is complete");
                assert!(!request.mutations.deletes.contains(key), "upserts and deletes are disjoint");
                self.target.insert(key.clone(), row.clone());
            }
            for key in &request.mutations.deletes {
                self.target.remove(key);
            }
            engine.answered(request.id, Vec::new(), None);
        }
        self.collect(engine);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn coalescing_equals_applying_one_by_one(steps in prop::collection::vec(step(), 1..60), lanes in 1..4usize, rows_max in 1..4usize) {
        let settings = EngineSettings { lanes, request_rows_max: rows_max, request_bytes_max: 10_000, touched_bytes_max: 1000, memory_bytes: 1 << 20, fetch_retry_ms: 1 };
        let table = TableStart { columns: 3, key_columns: 1, reread_columns: 0, copied: true, sweep: false, letters_max: 0 };
        let start = Start { checkpoint: Lsn(1), server_lsn: Lsn(1), sent_limit: Lsn(1), visible_from: 1, quiet_until: 0, now: 0 };
        let mut engine = Engine::new(settings, vec![table], start);
        let (mut source, mut world) = (Source::new(), World::default());
        let (mut lsn, mut version, mut open) = (10u64, 0u64, false);
        for step in steps {
            version += 1;
            let mut begin = |engine: &mut Engine| {
                if !open {
                    open = true;
                    engine.begin(Lsn(lsn), lsn as u32);
                }
            };
            match step {
                Step::Put { key, whole } => {
                    begin(&mut engine);
                    let wide = match source.get(&key) {
                        Some((_, wide)) if !whole => *wide,
                        _ => version,
                    };
                    let known = source.contains_key(&key);
                    let sent = (whole || !known).then_some(wide);
                    source.insert(key, (version, wide));
                    let row = row(key, version, sent);
                    engine.change(TableId(0), match known {
                        true => KeyedChange::Update { old_key: None, key: Key::Int(key), row },
                        false => KeyedChange::Insert { key: Key::Int(key), row },
                    });
                }
                Step::Rekey { from, to } => {
                    if from != to && !source.contains_key(&to) && let Some((_, wide)) = source.remove(&from) {
                        begin(&mut engine);
                        source.insert(to, (version, wide));
                        engine.change(TableId(0), KeyedChange::Update { old_key: Some(Key::Int(from)), key: Key::Int(to), row: row(to, version, None) });
                    }
                }
                Step::Delete { key } => {
                    if source.remove(&key).is_some() {
                        begin(&mut engine);
                        engine.change(TableId(0), KeyedChange::Delete { key: Key::Int(key) });
                    }
                }
                Step::Commit => {
                    if open {
                        open = false;
                        lsn += 10;
                        engine.commit(Lsn(lsn));
                    }
                }
                Step::Answer(times) => {
                    world.collect(&mut engine);
                    for _ in 0..times {
                        world.answer(&mut engine, &source);
                    }
                }
            }
        }
        if open {
            lsn += 10;
            engine.commit(Lsn(lsn));
        }
        world.collect(&mut engine);
        for _ in 0..1000 {
            world.answer(&mut engine, &source);
        }
        prop_assert!(engine.is_idle());
        prop_assert_eq!(engine.held_bytes(), 0);
        prop_assert!(lsn == 10 || engine.progress() == Lsn(lsn), "everything is acknowledged");
        let expected: BTreeMap<Key, Row> = source.iter().map(|(key, (narrow, wide))| (Key::Int(*key), row(*key, *narrow, Some(*wide)))).collect();
        prop_assert_eq!(world.target, expected);
    }
}
