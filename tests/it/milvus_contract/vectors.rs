//! Vectors of every kind, and moments: whatever the server says that it has, it keeps bit for bit.

use super::*;

fn halves(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|&value| half::f16::from_f32(value).to_le_bytes()).collect()
}

fn sparse(elements: &[(u32, f32)]) -> Bytes {
    elements.iter().flat_map(|(index, value)| [index.to_le_bytes(), value.to_le_bytes()].concat()).collect()
}

/// Two entities of each kind, and a NULL where one may be.
pub(super) async fn every_kind_is_kept(client: &dyn Milvus) {
    let info = client.server_info().await.expect("a server");
    let elements = [sparse(&[(0, 0.5), (7, 1e-45), (4_000_000_000, 3.0)]), sparse(&[(1, 2.0)])];
    for (data, index_type, metric) in [
        (ColumnData::Float16Vector { dim: 2, packed: halves(&[1.0, -65504.0, 6e-8, 0.1]) }, "AUTOINDEX", "L2"),
        (ColumnData::BinaryVector { dim: 16, packed: vec![0x80, 0x01, 0xFF, 0x00] }, "BIN_FLAT", "JACCARD"),
        (ColumnData::SparseFloatVector(elements.to_vec()), "SPARSE_INVERTED_INDEX", "IP"),
        (ColumnData::Timestamptz(vec!["2024-02-29T12:00:00.5Z".into(), "0001-01-01T00:00:00Z".into()]), "", ""),
    ] {
        let data_type = data.data_type();
        if !info.has_type(data_type) {
            continue;
        }
        let nullable = if data_type.is_vector() { info.has_nullable_vectors() } else { info.has_nullable() };
        let dim = match data {
            ColumnData::Float16Vector { dim, .. } | ColumnData::BinaryVector { dim, .. } => Some(dim as u32),
            _ => None,
        };
        let mut fields = vec![
            FieldSchema { is_primary: true, ..field("id", DataType::Int64) },
            FieldSchema { dim, nullable, ..field("x", data_type) },
        ];
        if !data_type.is_vector() {
            fields.push(FieldSchema { dim: Some(2), ..field("v", DataType::FloatVector) });
        }
        let schema = CollectionSchema {
            name: unique("kinds"),
            description: String::new(),
            fields,
            enable_dynamic_field: false,
            num_shards: None,
            consistency_level: None,
            num_partitions: None,
            properties: BTreeMap::new(),
        };
        let name = &schema.name;
        client.create_collection(&schema).await.unwrap_or_else(|error| panic!("{data_type}: {error}"));
        let found = client.describe_collection(name).await.expect("described").expect("it is there");
        let found = found.fields.iter().find(|field| field.name == "x").expect("the field");
        assert_eq!((found.data_type, found.dim, found.nullable), (data_type, dim, nullable));
        let (indexed, index_type, metric) =
            if data_type.is_vector() { ("x", index_type, metric) } else { ("v", "AUTOINDEX", "COSINE") };
        let index = IndexSpec {
            field: indexed.into(),
            index_type: index_type.into(),
            metric_type: metric.into(),
            params: BTreeMap::new(),
        };
        client.create_index(name, &index).await.unwrap_or_else(|error| panic!("{data_type}: {error}"));
        client.load_collection(name, Duration::from_secs(30)).await.expect("loaded");

        let (rows, valid) = if nullable { (3, Some(vec![1, 0, 1])) } else { (2, None) };
        let mut columns =
            vec![column("id", ColumnData::Int64((1..=rows).collect())), FieldColumn { valid, ..column("x", data) }];
        if !data_type.is_vector() {
            let packed = floats(&[1.0, 2.0]).repeat(rows as usize);
            columns.push(column("v", ColumnData::FloatVector { dim: 2, packed }));
        }
        client
            .upsert(name, columns.clone(), rows as usize)
            .await
            .unwrap_or_else(|error| panic!("{data_type}: {error}"));
        let names: Vec<Arc<str>> = columns.iter().map(|column| Arc::clone(&column.name)).collect();
        let keys = Keys::Int64((1..=rows).collect());
        let query = Query { collection: name, selection: Selection::Keys(&keys), output_fields: &names };
        assert_eq!(comparable(client.query(query).await.expect("read")), columns, "{data_type}");
        let one: Vec<FieldColumn> = columns.iter().map(|column| entity(column, 0, 2)).collect();
        client.upsert(name, one.clone(), 1).await.expect("replaced");
        let keys = Keys::Int64(vec![2]);
        let query = Query { collection: name, selection: Selection::Keys(&keys), output_fields: &names };
        assert_eq!(comparable(client.query(query).await.expect("read")), one, "{data_type}");
        client.drop_collection(name).await.expect("dropped");
    }
}
