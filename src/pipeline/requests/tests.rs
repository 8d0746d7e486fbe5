use std::sync::Mutex;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::*;
use crate::change::{Row, Value};
use crate::milvus::{
    CollectionSchema, ColumnData, DataType, FieldColumn, FieldSchema, IndexProgress, IndexSpec, Keys, Query, ServerInfo,
};
use crate::mutation::Mutations;
use crate::plan::{ColumnPlan, KeyPlan, SourceType, TablePlan};

type Write = dyn Fn(&[i64]) -> Result<(), MilvusError> + Send + Sync;

/// A collection of numbers that answers each write and each read as the test says.
struct Scripted {
    write: Box<Write>,
    /// Keys that each upsert and delete brought, in order.
    writes: Mutex<Vec<Vec<i64>>>,
    /// What the queries find, one after the other; nothing after the last.
    found: Mutex<Vec<Vec<i64>>>,
    queries: Mutex<u32>,
}

impl Scripted {
    fn write(&self, keys: Vec<i64>) -> Result<(), MilvusError> {
        let answer = (self.write)(&keys);
        self.writes.lock().expect("not poisoned").push(keys);
        answer
    }
}

fn never<T>() -> BoxFuture<'static, T> {
    unreachable!("requests do not ask for this")
}

impl Milvus for Scripted {
    fn server_info(&self) -> BoxFuture<'_, Result<ServerInfo, MilvusError>> {
        never()
    }
    fn describe_collection<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<CollectionSchema>, MilvusError>> {
        never()
    }
    fn create_collection<'a>(&'a self, _: &'a CollectionSchema) -> BoxFuture<'a, Result<(), MilvusError>> {
        never()
    }
    fn drop_collection<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), MilvusError>> {
        never()
    }
    fn add_field<'a>(&'a self, _: &'a str, _: &'a FieldSchema) -> BoxFuture<'a, Result<(), MilvusError>> {
        never()
    }
    fn truncate_collection<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), MilvusError>> {
        never()
    }
    fn describe_alias<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<String>, MilvusError>> {
        never()
    }
    fn create_alias<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, Result<(), MilvusError>> {
        never()
    }
    fn alter_alias<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, Result<(), MilvusError>> {
        never()
    }
    fn drop_alias<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), MilvusError>> {
        never()
    }
    fn describe_indexes<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<IndexSpec>, MilvusError>> {
        never()
    }
    fn index_progress<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<IndexProgress>, MilvusError>> {
        never()
    }
    fn create_index<'a>(&'a self, _: &'a str, _: &'a IndexSpec) -> BoxFuture<'a, Result<(), MilvusError>> {
        never()
    }
    fn load_collection<'a>(&'a self, _: &'a str, _: Duration) -> BoxFuture<'a, Result<(), MilvusError>> {
        never()
    }
    fn upsert<'a>(
        &'a self,
        _: &'a str,
        columns: Vec<FieldColumn>,
        rows: usize,
    ) -> BoxFuture<'a, Result<(), MilvusError>> {
        let ColumnData::Int64(keys) = &columns[0].data else { panic!("the key comes first") };
        assert_eq!(keys.len(), rows);
        let answer = self.write(keys.clone());
        Box::pin(async { answer })
    }
    fn delete<'a>(&'a self, _: &'a str, _: &'a str, keys: &'a Keys) -> BoxFuture<'a, Result<(), MilvusError>> {
        let Keys::Int64(keys) = keys else { panic!("keys are numbers") };
        let answer = self.write(keys.clone());
        Box::pin(async { answer })
    }
    fn query<'a>(&'a self, _: Query<'a>) -> BoxFuture<'a, Result<Vec<FieldColumn>, MilvusError>> {
        *self.queries.lock().expect("not poisoned") += 1;
        let mut found = self.found.lock().expect("not poisoned");
        let keys = if found.is_empty() { Vec::new() } else { found.remove(0) };
        let column = FieldColumn { name: "id".into(), valid: None, data: ColumnData::Int64(keys) };
        Box::pin(async { Ok(vec![column]) })
    }
    fn count<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<u64, MilvusError>> {
        never()
    }
}

fn target(
    found: Vec<Vec<i64>>,
    write: impl Fn(&[i64]) -> Result<(), MilvusError> + Send + Sync + 'static,
) -> (Arc<Scripted>, Target) {
    let field = FieldSchema {
        name: "id".to_owned(),
        data_type: DataType::Int64,
        is_primary: true,
        auto_id: false,
        nullable: false,
        element_type: None,
        max_length: None,
        max_capacity: None,
        dim: None,
        description: String::new(),
        default_value: None,
        is_partition_key: false,
        mmap: None,
    };
    let plan = TablePlan {
        placeholder: None,
        refused_to_letters: false,
        dead_letters_max: 0,
        on_add_column: Default::default(),
        on_schema_change: Default::default(),
        on_update_delete: Default::default(),
        on_stop: Default::default(),
        id: TableId(0),
        oid: 1,
        schema: "public".to_owned(),
        name: "t".to_owned(),
        is_partitioned: false,
        row_filter: None,
        columns: vec![ColumnPlan {
            name: "id".to_owned(),
            type_oid: 20,
            typmod: -1,
            type_name: "bigint".to_owned(),
            source: SourceType::named("int8"),
            encoding: None,
            on_misfit: OnMisfit::Error,
            reread: false,
            field: 0,
            reason: String::new(),
        }],
        key: KeyPlan::Single { column: 0, field: 0 },
        collection: CollectionSchema {
            name: "t".to_owned(),
            description: String::new(),
            fields: vec![field],
            enable_dynamic_field: false,
            num_shards: None,
            consistency_level: None,
            num_partitions: None,
            properties: std::collections::BTreeMap::new(),
        },
        indexes: Vec::new(),
        remarks: Vec::new(),
    };
    let metrics = Arc::new(Metrics::new().expect("metrics"));
    let milvus = Arc::new(Scripted {
        write: Box::new(write),
        writes: Mutex::default(),
        found: Mutex::new(found),
        queries: Mutex::default(),
    });
    let target = Target {
        milvus: Arc::clone(&milvus) as Arc<dyn Milvus>,
        collections: vec![Collection {
            name: "t".to_owned(),
            primary_field: "id".to_owned(),
            encoder: Encoder::new(&plan),
            refused_to_letters: false,
            metrics: metrics.table("public.t"),
        }],
        metrics,
        clock: Clock::start(),
        deadline: Duration::from_millis(60),
        margin: Duration::from_millis(40),
        trouble: tokio::sync::watch::Sender::new(None),
        pace: Arc::new(Pace::new(None, None)),
        told_at: AtomicU64::new(0),
    };
    (milvus, target)
}

fn request(upserts: std::ops::Range<i64>, deletes: &[i64]) -> Request {
    let row = |key: i64| Row(Box::new([Value::Binary(Bytes::copy_from_slice(&key.to_be_bytes()))]));
    let mutations = Mutations {
        upserts: upserts.map(|key| (Key::Int(key), row(key))).collect(),
        deletes: deletes.iter().map(|key| Key::Int(*key)).collect(),
    };
    Request { id: RequestId(1), table: TableId(0), lane: 0, mutations: Arc::new(mutations) }
}

fn error(condition: Condition, reason: &str) -> MilvusError {
    MilvusError::new(condition, "Upsert", reason)
}

#[tokio::test]
async fn a_bad_row_is_found_by_bisection_and_its_value_is_not_told() {
    let (milvus, target) = target(Vec::new(), |keys| match keys.contains(&7) {
        true => Err(error(Condition::InvalidData, "the value 'hunter2' is too long")),
        false => Ok(()),
    });
    let answer = target.carry_out(request(0..20, &[100, 101])).await.expect("an outcome");
    assert_eq!(answer.refused.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(), [Key::Int(7)]);
    assert!(!answer.refused[0].1.to_string().contains("hunter2"), "{}", answer.refused[0].1);
    assert_eq!(answer.may_land_until, None, "a refusal is certain");
    let writes = milvus.writes.lock().expect("not poisoned");
    let mut acknowledged: Vec<i64> = writes.iter().filter(|keys| !keys.contains(&7)).flatten().copied().collect();
    acknowledged.sort_unstable();
    assert_eq!(acknowledged, (0..20).filter(|key| *key != 7).chain([100, 101]).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_attempt_without_an_answer_is_remembered_when_its_repeat_is_acknowledged() {
    let lost = Mutex::new(true);
    let (milvus, target) =
        target(Vec::new(), move |_| match std::mem::take(&mut *lost.lock().expect("not poisoned")) {
            true => Err(error(Condition::ConnectionLost, "")),
            false => Ok(()),
        });
    let answer = target.carry_out(request(0..3, &[])).await.expect("an outcome");
    assert!(answer.refused.is_empty());
    assert!(answer.may_land_until.is_some_and(|until| until > target.clock.now()));
    assert_eq!(*milvus.writes.lock().expect("not poisoned"), [[0, 1, 2], [0, 1, 2]], "the same rows, repeated");
}

#[tokio::test]
async fn an_attempt_without_an_answer_is_remembered_when_the_request_then_fails_for_good() {
    for (condition, one_collection) in [(Condition::NoCollection, true), (Condition::PermissionDenied, false)] {
        let first = Mutex::new(true);
        let (_, target) =
            target(Vec::new(), move |_| match std::mem::take(&mut *first.lock().expect("not poisoned")) {
                true => Err(error(Condition::TimedOut, "")),
                false => Err(error(condition, "")),
            });
        let fatal = target.carry_out(request(0..3, &[])).await.expect_err("a person must act");
        assert_eq!(fatal.concerns_one_collection(), one_collection);
        assert_eq!(fatal.keys.len(), 3);
        assert!(fatal.may_land_until.is_some_and(|until| until > target.clock.now()), "{condition:?}");
    }
}

#[tokio::test]
async fn a_collection_is_empty_only_when_no_step_of_emptying_it_may_land() {
    let first = Mutex::new(true);
    let (milvus, target) =
        target(vec![vec![1, 2]], move |_| match std::mem::take(&mut *first.lock().expect("not poisoned")) {
            true => Err(error(Condition::TimedOut, "")),
            false => Ok(()),
        });
    let began = std::time::Instant::now();
    target.empty(TableId(0)).await.expect("emptied");
    assert!(began.elapsed() >= target.deadline + target.margin * 2, "{:?}", began.elapsed());
    assert_eq!(*milvus.queries.lock().expect("not poisoned"), 3, "read again after the server's first answer");
}
