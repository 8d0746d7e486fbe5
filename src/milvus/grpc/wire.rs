//! The messages of Milvus's wire protocol that we use, derived by hand: only the fields that we set or read.
//!
//! Field numbers are those of milvus-proto, which never reuses one; fields not declared here are skipped on decoding, so
//! newer servers are no problem. Names follow the protocol's, in Rust's case.
//!
//! Packed `float`, `double` and `bool` arrays and strings are declared as bytes: on the wire they are the same, encoding them is
//! one memcpy, and text is not validated twice. Servers in Go and Python always emit the packed form.
//!
//! Not here: what the fields mean (`encode`, `decode`).

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message;

// milvus.proto.common

#[derive(Clone, PartialEq, Message)]
pub struct Status {
    /// The old enumeration; counts where `code` is 0.
    #[prost(int32, tag = "1")]
    pub error_code: i32,
    #[prost(string, tag = "2")]
    pub reason: String,
    #[prost(int32, tag = "3")]
    pub code: i32,
    /// `is_input_error` = `true`: unchanged, the request can never succeed (from Milvus 2.5 on).
    #[prost(map = "string, string", tag = "6")]
    pub extra_info: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct KeyValuePair {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct ClientInfo {
    #[prost(string, tag = "1")]
    pub sdk_type: String,
    #[prost(string, tag = "2")]
    pub sdk_version: String,
}

// milvus.proto.schema

#[derive(Clone, PartialEq, Message)]
pub struct FieldSchema {
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(bool, tag = "3")]
    pub is_primary_key: bool,
    #[prost(string, tag = "4")]
    pub description: String,
    #[prost(int32, tag = "5")]
    pub data_type: i32,
    #[prost(message, repeated, tag = "6")]
    pub type_params: Vec<KeyValuePair>,
    #[prost(bool, tag = "8")]
    pub auto_id: bool,
    #[prost(int32, tag = "10")]
    pub element_type: i32,
    #[prost(message, optional, tag = "11")]
    pub default_value: Option<ValueField>,
    /// The hidden `$meta`.
    #[prost(bool, tag = "12")]
    pub is_dynamic: bool,
    #[prost(bool, tag = "13")]
    pub is_partition_key: bool,
    #[prost(bool, tag = "15")]
    pub nullable: bool,
}

/// One of these: a `oneof` of the published protocol.
#[derive(Clone, PartialEq, Message)]
pub struct ValueField {
    #[prost(bool, optional, tag = "1")]
    pub bool_data: Option<bool>,
    #[prost(int32, optional, tag = "2")]
    pub int_data: Option<i32>,
    #[prost(int64, optional, tag = "3")]
    pub long_data: Option<i64>,
    #[prost(float, optional, tag = "4")]
    pub float_data: Option<f32>,
    #[prost(double, optional, tag = "5")]
    pub double_data: Option<f64>,
    #[prost(string, optional, tag = "6")]
    pub string_data: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct CollectionSchema {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub description: String,
    #[prost(bool, tag = "3")]
    pub auto_id: bool,
    #[prost(message, repeated, tag = "4")]
    pub fields: Vec<FieldSchema>,
    #[prost(bool, tag = "5")]
    pub enable_dynamic_field: bool,
}

/// `BoolArray`, `FloatArray`, `DoubleArray`: fixed-width values, packed.
#[derive(Clone, PartialEq, Message)]
pub struct PackedArray {
    #[prost(bytes = "bytes", tag = "1")]
    pub data: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub struct IntArray {
    #[prost(int32, repeated, tag = "1")]
    pub data: Vec<i32>,
}

#[derive(Clone, PartialEq, Message)]
pub struct LongArray {
    #[prost(int64, repeated, tag = "1")]
    pub data: Vec<i64>,
}

/// `StringArray`, `JSONArray`.
#[derive(Clone, PartialEq, Message)]
pub struct BytesArray {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub data: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ArrayArray {
    #[prost(message, repeated, tag = "1")]
    pub data: Vec<ScalarField>,
    #[prost(int32, tag = "2")]
    pub element_type: i32,
}

/// A oneof in the protocol: exactly one is set.
#[derive(Clone, PartialEq, Message)]
pub struct ScalarField {
    #[prost(message, optional, tag = "1")]
    pub bool_data: Option<PackedArray>,
    #[prost(message, optional, tag = "2")]
    pub int_data: Option<IntArray>,
    #[prost(message, optional, tag = "3")]
    pub long_data: Option<LongArray>,
    #[prost(message, optional, tag = "4")]
    pub float_data: Option<PackedArray>,
    #[prost(message, optional, tag = "5")]
    pub double_data: Option<PackedArray>,
    #[prost(message, optional, tag = "6")]
    pub string_data: Option<BytesArray>,
    #[prost(message, optional, tag = "8")]
    pub array_data: Option<ArrayArray>,
    #[prost(message, optional, tag = "9")]
    pub json_data: Option<BytesArray>,
}

#[derive(Clone, PartialEq, Message)]
pub struct VectorField {
    #[prost(int64, tag = "1")]
    pub dim: i64,
    #[prost(message, optional, tag = "2")]
    pub float_vector: Option<PackedArray>,
    #[prost(bytes = "bytes", optional, tag = "3")]
    pub binary_vector: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "4")]
    pub float16_vector: Option<Bytes>,
    #[prost(message, optional, tag = "6")]
    pub sparse_float_vector: Option<SparseFloatArray>,
}

/// An entity each: `u32` index and `f32` value, little-endian, by index.
#[derive(Clone, PartialEq, Message)]
pub struct SparseFloatArray {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub contents: Vec<Bytes>,
    #[prost(int64, tag = "2")]
    pub dim: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct FieldData {
    #[prost(int32, tag = "1")]
    pub data_type: i32,
    #[prost(string, tag = "2")]
    pub field_name: String,
    #[prost(message, optional, tag = "3")]
    pub scalars: Option<ScalarField>,
    #[prost(message, optional, tag = "4")]
    pub vectors: Option<VectorField>,
    /// Of the hidden `$meta`.
    #[prost(bool, tag = "6")]
    pub is_dynamic: bool,
    /// One bool an entity. In a request the values of entities marked 0 are left out.
    #[prost(bytes = "bytes", tag = "7")]
    pub valid_data: Bytes,
}

// milvus.proto.milvus, requests

#[derive(Clone, PartialEq, Message)]
pub struct ConnectRequest {
    #[prost(message, optional, tag = "2")]
    pub client_info: Option<ClientInfo>,
}

#[derive(Clone, PartialEq, Message)]
pub struct GetVersionRequest {}

/// The common beginning of requests about one collection: also `DropCollectionRequest`, `TruncateCollectionRequest` and
/// `LoadCollectionRequest` (one replica).
#[derive(Clone, PartialEq, Message)]
pub struct CollectionRequest {
    #[prost(string, tag = "2")]
    pub db_name: String,
    #[prost(string, tag = "3")]
    pub collection_name: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct CreateCollectionRequest {
    #[prost(string, tag = "2")]
    pub db_name: String,
    #[prost(string, tag = "3")]
    pub collection_name: String,
    /// A serialized `CollectionSchema`.
    #[prost(bytes = "bytes", tag = "4")]
    pub schema: Bytes,
    #[prost(int32, tag = "5")]
    pub shards_num: i32,
    #[prost(int32, tag = "6")]
    pub consistency_level: i32,
    #[prost(message, repeated, tag = "7")]
    pub properties: Vec<KeyValuePair>,
    #[prost(int64, tag = "8")]
    pub num_partitions: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct AddCollectionFieldRequest {
    #[prost(string, tag = "2")]
    pub db_name: String,
    #[prost(string, tag = "3")]
    pub collection_name: String,
    /// A serialized `FieldSchema`.
    #[prost(bytes = "bytes", tag = "5")]
    pub schema: Bytes,
}

/// `DescribeAliasRequest`, `DropAliasRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct AliasRequest {
    #[prost(string, tag = "2")]
    pub db_name: String,
    #[prost(string, tag = "3")]
    pub alias: String,
}

/// `CreateAliasRequest`, `AlterAliasRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct PointAliasRequest {
    #[prost(string, tag = "2")]
    pub db_name: String,
    #[prost(string, tag = "3")]
    pub collection_name: String,
    #[prost(string, tag = "4")]
    pub alias: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct CreateIndexRequest {
    #[prost(string, tag = "2")]
    pub db_name: String,
    #[prost(string, tag = "3")]
    pub collection_name: String,
    #[prost(string, tag = "4")]
    pub field_name: String,
    #[prost(message, repeated, tag = "5")]
    pub extra_params: Vec<KeyValuePair>,
}

#[derive(Clone, PartialEq, Message)]
pub struct GetLoadStateRequest {
    #[prost(string, tag = "2")]
    pub collection_name: String,
    #[prost(string, tag = "4")]
    pub db_name: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct UpsertRequest {
    #[prost(string, tag = "2")]
    pub db_name: String,
    #[prost(string, tag = "3")]
    pub collection_name: String,
    #[prost(message, repeated, tag = "5")]
    pub fields_data: Vec<FieldData>,
    #[prost(uint32, tag = "7")]
    pub num_rows: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct DeleteRequest {
    #[prost(string, tag = "2")]
    pub db_name: String,
    #[prost(string, tag = "3")]
    pub collection_name: String,
    #[prost(string, tag = "5")]
    pub expr: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct QueryRequest {
    #[prost(string, tag = "2")]
    pub db_name: String,
    #[prost(string, tag = "3")]
    pub collection_name: String,
    #[prost(string, tag = "4")]
    pub expr: String,
    #[prost(string, repeated, tag = "5")]
    pub output_fields: Vec<String>,
    #[prost(message, repeated, tag = "9")]
    pub query_params: Vec<KeyValuePair>,
    #[prost(int32, tag = "11")]
    pub consistency_level: i32,
}

// milvus.proto.milvus, answers

#[derive(Clone, PartialEq, Message)]
pub struct DescribeAliasResponse {
    #[prost(message, optional, tag = "1")]
    pub status: Option<Status>,
    #[prost(string, tag = "4")]
    pub collection: String,
}

/// Any answer of which only the status matters: `MutationResult`, `ConnectResponse`, `TruncateCollectionResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    pub status: Option<Status>,
}

#[derive(Clone, PartialEq, Message)]
pub struct GetVersionResponse {
    #[prost(message, optional, tag = "1")]
    pub status: Option<Status>,
    #[prost(string, tag = "2")]
    pub version: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct DescribeCollectionResponse {
    #[prost(message, optional, tag = "1")]
    pub status: Option<Status>,
    #[prost(message, optional, tag = "2")]
    pub schema: Option<CollectionSchema>,
    #[prost(int32, tag = "8")]
    pub shards_num: i32,
    #[prost(int32, tag = "11")]
    pub consistency_level: i32,
    #[prost(message, repeated, tag = "13")]
    pub properties: Vec<KeyValuePair>,
    #[prost(int64, tag = "15")]
    pub num_partitions: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct IndexDescription {
    #[prost(message, repeated, tag = "3")]
    pub params: Vec<KeyValuePair>,
    #[prost(string, tag = "4")]
    pub field_name: String,
    #[prost(int64, tag = "5")]
    pub indexed_rows: i64,
    #[prost(int64, tag = "6")]
    pub total_rows: i64,
    /// `IndexState`: 1 unissued, 2 in progress, 3 finished, 4 failed, 5 retry; Milvus Lite says 0.
    #[prost(int32, tag = "7")]
    pub state: i32,
    #[prost(string, tag = "8")]
    pub index_state_fail_reason: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct DescribeIndexResponse {
    #[prost(message, optional, tag = "1")]
    pub status: Option<Status>,
    #[prost(message, repeated, tag = "2")]
    pub index_descriptions: Vec<IndexDescription>,
}

#[derive(Clone, PartialEq, Message)]
pub struct GetLoadStateResponse {
    #[prost(message, optional, tag = "1")]
    pub status: Option<Status>,
    #[prost(int32, tag = "2")]
    pub state: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct QueryResults {
    #[prost(message, optional, tag = "1")]
    pub status: Option<Status>,
    #[prost(message, repeated, tag = "2")]
    pub fields_data: Vec<FieldData>,
}
