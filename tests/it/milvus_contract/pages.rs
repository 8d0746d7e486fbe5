//! A collection read page by page in the order of its key: whatever the keys, each comes once.

use super::*;

/// 20,000 random keys and the extremes; a third written twice, some deleted; every page size gives all of them in order.
pub(super) async fn integer_keys_page_in_order(client: &dyn Milvus, server: ServerTraits) {
    let mut random = Random(7);
    let mut keys: BTreeSet<i64> = (0..20_000).map(|_| random.next() as i64).collect();
    keys.extend(-500..500);
    keys.extend([i64::MIN, i64::MIN + 1, i64::MAX - 1]);
    if !server.loses_largest_key {
        keys.insert(i64::MAX);
    }
    let mut shuffled: Vec<i64> = keys.iter().copied().collect();
    random.shuffle(&mut shuffled);

    let schema = keyed(&unique("ints"), FieldSchema { is_primary: true, ..field("id", DataType::Int64) }, server);
    let name = &schema.name;
    ready(client, &schema).await;
    let third = &shuffled[..shuffled.len() / 3];
    for part in shuffled.chunks(5000).chain(third.chunks(5000)) {
        let vectors = ColumnData::FloatVector { dim: 2, packed: floats(&[1.0, 2.0]).repeat(part.len()) };
        let batch = vec![column("id", ColumnData::Int64(part.to_vec())), column("v", vectors)];
        client.upsert(name, batch, part.len()).await.expect("written");
    }
    let mut gone: Vec<i64> = shuffled[..500].to_vec();
    gone.push(i64::MIN);
    client.delete(name, "id", &Keys::Int64(gone.clone())).await.expect("deleted");
    keys.retain(|key| !gone.contains(key));
    // -2^63 is found, deleted and written again like any other.
    let smallest = || {
        vec![
            column("id", ColumnData::Int64(vec![i64::MIN])),
            column("v", ColumnData::FloatVector { dim: 2, packed: floats(&[1.0, 2.0]) }),
        ]
    };
    let fields = [Arc::from("id")];
    let find = async |keys: Vec<i64>| {
        let keys = Keys::Int64(keys);
        client
            .query(Query { collection: name, selection: Selection::Keys(&keys), output_fields: &fields })
            .await
            .expect("found")
    };
    assert_eq!(row_count(&find(vec![i64::MIN]).await), 0);
    client.upsert(name, smallest(), 1).await.expect("written");
    keys.insert(i64::MIN);
    let other = *keys.iter().nth(100).expect("many keys");
    assert_eq!(row_count(&find(vec![i64::MIN, other]).await), 2);

    assert_eq!(client.count(name).await.expect("counted"), keys.len() as u64);
    let expected: Vec<Key> = keys.iter().copied().map(Key::Int64).collect();
    for limit in [777, 16_384] {
        assert_pages(client, name, limit, &expected).await;
    }
    let last = Key::Int64(i64::MAX);
    let beyond = Query {
        collection: name,
        selection: Selection::After { after: Some(&last), limit: 5 },
        output_fields: &fields,
    };
    assert_eq!(row_count(&client.query(beyond).await.expect("an empty page")), 0);
    client.drop_collection(name).await.expect("dropped");
}

pub(super) async fn text_keys_page_in_order(client: &dyn Milvus) {
    const PIECES: [&str; 22] = [
        "\"",
        "\\",
        "\n",
        "\t",
        "\r",
        "'",
        "%",
        "_",
        "{id}",
        "\u{1}",
        "\u{7f}",
        "a",
        "B",
        "0",
        " ",
        "é",
        "日",
        "\u{2028}",
        "\u{e000}",
        "\u{ffff}",
        "🦀",
        "\" or id != \"",
    ];
    let mut random = Random(11);
    let mut keys: BTreeSet<String> = BTreeSet::from([String::new(), "\\".repeat(40), "\"".repeat(40), "x".repeat(200)]);
    while keys.len() < 20_000 {
        let length = random.next() % 9;
        keys.insert((0..length).map(|_| PIECES[(random.next() % 22) as usize]).collect());
    }
    let mut shuffled: Vec<&String> = keys.iter().collect();
    random.shuffle(&mut shuffled);
    let key_field = FieldSchema { is_primary: true, max_length: Some(200), ..field("id", DataType::VarChar) };
    let schema = keyed(&unique("texts"), key_field, LITE);
    let name = &schema.name;
    ready(client, &schema).await;
    for part in shuffled.chunks(5000) {
        let ids = part.iter().map(|key| Bytes::copy_from_slice(key.as_bytes())).collect();
        let vectors = ColumnData::FloatVector { dim: 2, packed: floats(&[1.0, 2.0]).repeat(part.len()) };
        let batch = vec![column("id", ColumnData::VarChar(ids)), column("v", vectors)];
        client.upsert(name, batch, part.len()).await.expect("written");
    }
    // Each of these is deleted alone: a literal that the server reads otherwise would spare it or take another.
    let some: Vec<Arc<str>> = shuffled.iter().take(300).map(|key| Arc::from(key.as_str())).collect();
    let fields = [Arc::from("id")];
    let of = Keys::VarChar(some.clone());
    let query = || Query { collection: name, selection: Selection::Keys(&of), output_fields: &fields };
    assert_eq!(row_count(&client.query(query()).await.expect("found")), some.len());
    client.delete(name, "id", &of).await.expect("deleted");
    assert_eq!(row_count(&client.query(query()).await.expect("found")), 0);

    let gone: BTreeSet<&str> = some.iter().map(|key| &**key).collect();
    let expected: Vec<Key> =
        keys.iter().filter(|key| !gone.contains(key.as_str())).map(|key| Key::VarChar(key.as_str().into())).collect();
    assert_eq!(client.count(name).await.expect("counted"), expected.len() as u64);
    for limit in [999, 16_384] {
        assert_pages(client, name, limit, &expected).await;
    }
    client.drop_collection(name).await.expect("dropped");
}

/// Reads the whole collection page by page and compares.
async fn assert_pages(client: &dyn Milvus, name: &str, limit: usize, expected: &[Key]) {
    let fields = [Arc::from("id")];
    let mut found: Vec<Key> = Vec::new();
    loop {
        let selection = Selection::After { after: found.last(), limit };
        let page = client.query(Query { collection: name, selection, output_fields: &fields }).await.expect("a page");
        let keys: Vec<Key> = match &page[0].data {
            ColumnData::Int64(keys) => keys.iter().copied().map(Key::Int64).collect(),
            ColumnData::VarChar(keys) => {
                keys.iter().map(|key| Key::VarChar(std::str::from_utf8(key).expect("text").into())).collect()
            }
            other => panic!("no keys: {:?}", other.data_type()),
        };
        assert!(keys.len() <= limit, "{} keys on a page of {limit}", keys.len());
        let end = keys.len() < limit;
        found.extend(keys);
        if end {
            break;
        }
    }
    let missing = expected.iter().filter(|key| found.binary_search(key).is_err()).count();
    assert!(found == expected, "pages of {limit}: {} keys for {}, {missing} are missing", found.len(), expected.len());
}

/// splitmix64: the same keys in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, (self.next() % (i as u64 + 1)) as usize);
        }
    }
}
