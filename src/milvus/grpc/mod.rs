//! The gRPC client: `Milvus` over one HTTP/2 connection.
//!
//! In: the calls of the trait. Out: their results, or a `MilvusError` that names the RPC. Any number of calls may be under way;
//! they share the connection, which is opened at the first call and again whenever it is gone.
//!
//! Holds:
//! - Every request carries its deadline to the server (`grpc-timeout`), so that a server which wakes late lets it go. The transport
//!   gives up when the same deadline has passed here; a second, longer limit covers what it does not time, connecting.
//! - A mutation is acknowledged only by a body whose status is there and says success in both of its numbers: OK as
//!   the gRPC status means nothing more than that the server could answer.
//! - The answer of a query is complete and in key order, whatever the server's pages are like (`page`).
//! - The token is sent and nowhere else to be seen.
//!
//! Not here: what is in the messages (`encode`, `decode`, `wire`), what errors mean (`super::error`).
//!
//! Why no SDK and no generated code: twenty RPCs in a few hundred lines, no protoc in the build, and a response limit and error
//! details that the official SDK hides.

mod decode;
mod encode;
#[cfg(test)]
mod tests;
pub mod wire;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep, timeout};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic_prost::ProstCodec;

use super::connect::{KnownSchemas, MilvusOptions, configuration};
use super::error::{Condition, MilvusError};
use super::page::Page;
use super::{
    CollectionSchema, FieldColumn, FieldSchema, IndexProgress, IndexSpec, Key, Keys, Milvus, Query, Selection,
    ServerInfo, columns, filter,
};

/// Strong: a read sees every write that was acknowledged before it.
const CONSISTENCY_STRONG: i32 = 0;

/// `LoadState::LoadStateLoaded`.
const LOADED: i32 = 3;

/// Milvus sends up to 256 MiB; we ask for pages that stay far below this.
const ANSWER_BYTES_MAX: usize = 128 << 20;

/// Between two looks at the progress of loading: there is no event to wait for.
const LOAD_POLL: Duration = Duration::from_millis(100);

/// See the module's head. `connect_lazy` makes one.
pub struct GrpcClient {
    channel: Channel,
    authorization: Option<MetadataValue<Ascii>>,
    /// The database as a header, where one is named.
    database_header: Option<MetadataValue<Ascii>>,
    database: String,
    deadline: Duration,
    patience: Duration,
    /// Milvus Lite, as `server_info` learned; it numbers its errors differently.
    lite: AtomicBool,
    known: KnownSchemas,
}

impl GrpcClient {
    /// Check the options and read the certificates; nothing is sent before the first call. Must be called within a tokio runtime.
    ///
    /// Errors are of condition `Configuration`.
    pub fn connect_lazy(options: &MilvusOptions) -> Result<GrpcClient, MilvusError> {
        let wrong = configuration;
        let mut endpoint = Endpoint::from_shared(options.url.clone())
            .map_err(|error| wrong("target.url is no URL").with_source(error))?
            .connect_timeout(options.connect_timeout)
            .tcp_nodelay(true)
            // Milvus closes connections that ping more often than every 5 s.
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(5))
            .keep_alive_while_idle(true)
            // Pages of vectors are megabytes: the default window of 64 KiB costs a round trip for each.
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(8 << 20);
        match endpoint.uri().scheme_str() {
            Some("http") => {}
            Some("https") => {
                endpoint = endpoint
                    .tls_config(tls_config(options)?)
                    .map_err(|error| wrong("the TLS settings cannot be used").with_source(error))?;
            }
            _ => return Err(wrong("target.url must begin with http:// or https://")),
        }
        let authorization = match &options.token {
            None => None,
            Some(token) => {
                let mut value = MetadataValue::try_from(STANDARD.encode(token.expose()))
                    .map_err(|_| wrong("target.token cannot be sent"))?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let database_header = match options.database.as_str() {
            "" => None,
            name => Some(
                MetadataValue::try_from(name)
                    .map_err(|_| wrong("target.database has characters that no database name has"))?,
            ),
        };
        Ok(GrpcClient {
            channel: endpoint.connect_lazy(),
            authorization,
            database_header,
            database: options.database.clone(),
            deadline: options.request_deadline,
            patience: options.patience(),
            lite: AtomicBool::new(false),
            known: KnownSchemas::default(),
        })
    }

    /// One RPC. A gRPC status that is not OK is the error; the body's status is the caller's to check (`self.accept`).
    async fn call<Request, Response>(&self, method: &'static str, message: Request) -> Result<Response, MilvusError>
    where
        Request: prost::Message + 'static,
        Response: prost::Message + Default + 'static,
    {
        let path = PathAndQuery::try_from(format!("/milvus.proto.milvus.MilvusService/{method}"))
            .expect("names of RPCs are path segments");
        let mut request = tonic::Request::new(message);
        request.set_timeout(self.deadline);
        let headers = request.metadata_mut();
        if let Some(value) = &self.authorization {
            headers.insert("authorization", value.clone());
        }
        if let Some(value) = &self.database_header {
            headers.insert("dbname", value.clone());
        }
        let mut grpc = tonic::client::Grpc::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
        let exchange = async {
            grpc.ready().await.map_err(|error| tonic::Status::from_error(Box::new(error)))?;
            grpc.unary(request, path, ProstCodec::<Request, Response>::default()).await
        };
        match timeout(self.patience, exchange).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(MilvusError::from_grpc(method, status)),
            Err(_) => Err(MilvusError::new(Condition::TimedOut, method, "")),
        }
    }

    /// Is the body's status success? `collection`'s remembered schema goes if it is not.
    fn accept(&self, method: &'static str, collection: &str, status: Option<wire::Status>) -> Result<(), MilvusError> {
        let Some(status) = status else {
            return Err(MilvusError::new(Condition::InvalidAnswer, method, "the answer has no status"));
        };
        let input_error = status.extra_info.get("is_input_error").is_some_and(|value| value == "true");
        let lite = self.lite.load(Ordering::Relaxed);
        match MilvusError::from_body(method, status.code, status.error_code, input_error, status.reason, lite) {
            None => Ok(()),
            Some(error) => {
                self.known.forget(collection);
                Err(error)
            }
        }
    }

    /// An RPC about one collection that answers with a bare status.
    async fn command<Request>(
        &self,
        method: &'static str,
        collection: &str,
        message: Request,
    ) -> Result<(), MilvusError>
    where
        Request: prost::Message + 'static,
    {
        let status: wire::Status = self.call(method, message).await?;
        self.accept(method, collection, Some(status))
    }

    fn about(&self, collection: &str) -> wire::CollectionRequest {
        wire::CollectionRequest { db_name: self.database.clone(), collection_name: collection.to_owned() }
    }

    fn about_alias(&self, alias: &str) -> wire::AliasRequest {
        wire::AliasRequest { db_name: self.database.clone(), alias: alias.to_owned() }
    }

    fn pointing(&self, alias: &str, collection: &str) -> wire::PointAliasRequest {
        wire::PointAliasRequest {
            db_name: self.database.clone(),
            collection_name: collection.to_owned(),
            alias: alias.to_owned(),
        }
    }

    async fn describe(&self, name: &str) -> Result<Option<Arc<CollectionSchema>>, MilvusError> {
        let response: wire::DescribeCollectionResponse = self.call("DescribeCollection", self.about(name)).await?;
        match self.accept("DescribeCollection", name, response.status.clone()) {
            Err(error) if error.condition() == Condition::NoCollection => return Ok(None),
            accepted => accepted?,
        }
        Ok(Some(self.known.learn(name, decode::collection_schema(name, response)?)))
    }

    /// The remembered schema, or a fresh one.
    async fn schema(&self, method: &'static str, collection: &str) -> Result<Arc<CollectionSchema>, MilvusError> {
        match self.known.get(collection) {
            Some(schema) => Ok(schema),
            None => self
                .describe(collection)
                .await?
                .ok_or_else(|| MilvusError::new(Condition::NoCollection, method, format!("collection {collection:?}"))),
        }
    }

    async fn checked_schema(
        &self,
        collection: &str,
        columns: &[FieldColumn],
        rows: usize,
    ) -> Result<Arc<CollectionSchema>, MilvusError> {
        let schema = self.schema("Upsert", collection).await?;
        if columns::check(&schema, columns, rows).is_ok() {
            return Ok(schema);
        }
        // Perhaps somebody has altered the collection since.
        self.known.forget(collection);
        let schema = self.schema("Upsert", collection).await?;
        match columns::check(&schema, columns, rows) {
            Ok(()) => Ok(schema),
            Err(slip) => Err(MilvusError::new(Condition::InvalidRequest, "Upsert", slip)),
        }
    }

    async fn ask(
        &self,
        schema: &CollectionSchema,
        query: &Query<'_>,
        expr: String,
        query_params: Vec<wire::KeyValuePair>,
    ) -> Result<Vec<FieldColumn>, MilvusError> {
        let message = wire::QueryRequest {
            db_name: self.database.clone(),
            collection_name: query.collection.to_owned(),
            expr,
            output_fields: query.output_fields.iter().map(|name| name.as_ref().to_owned()).collect(),
            query_params,
            consistency_level: CONSISTENCY_STRONG,
        };
        let response: wire::QueryResults = self.call("Query", message).await?;
        self.accept("Query", query.collection, response.status)?;
        decode::columns(schema, query.output_fields, response.fields_data)
    }

    /// The `limit` smallest keys behind `after`, in order.
    ///
    /// There is no promise of order in Milvus's documents; this is what servers do (measured with 20,000 keys in several segments
    /// and two shards, integers from -2^63 on and texts of hostile characters, part of them rewritten or deleted):
    /// - Milvus 2.3.5 gives the smallest keys, sorted, to every query with a limit.
    /// - Milvus Lite 3.2.2 gives any keys, in the order of its storage, unless the parameter `iterator` is there, whatever its
    ///   value: paging without it loses rows.
    /// - Milvus from 2.4 on merges its sources by key. For an iterator with `reduce_stop_for_best` = False it keeps to the
    ///   limit and stops where one source runs dry, so an answer may be short though more follows [source of 2.5, 2.6, 3.0].
    ///
    /// So ask as an iterator does; `Page` fills what is short and refuses what is out of order.
    async fn page(
        &self,
        schema: &CollectionSchema,
        primary: &FieldSchema,
        query: &Query<'_>,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<FieldColumn>, MilvusError> {
        let Some(at) = query.output_fields.iter().position(|name| **name == *primary.name) else {
            let reason = format!("output fields lack the primary field {:?}", primary.name);
            return Err(MilvusError::new(Condition::InvalidRequest, "Query", reason));
        };
        let mut page = Page::new(at, after.cloned(), limit);
        while let Some((after, limit)) = page.wants() {
            let expr = after.map_or_else(String::new, |key| filter::after(&primary.name, key));
            let params = vec![
                encode::key_value("limit", limit.to_string()),
                encode::key_value("iterator", "True"),
                encode::key_value("reduce_stop_for_best", "False"),
            ];
            page.take(self.ask(schema, query, expr, params).await?)?;
        }
        Ok(page.into_columns())
    }
}

fn tls_config(options: &MilvusOptions) -> Result<ClientTlsConfig, MilvusError> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|error| configuration(format!("cannot read {}", path.display())).with_source(error))
    };
    let mut tls = match &options.ca {
        Some(path) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(path)?)),
        None => ClientTlsConfig::new().with_webpki_roots(),
    };
    if let Some((certificate, key)) = options.identity()? {
        tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
    }
    if let Some(name) = &options.server_name {
        tls = tls.domain_name(name);
    }
    Ok(tls)
}

impl Milvus for GrpcClient {
    fn server_info(&self) -> BoxFuture<'_, Result<ServerInfo, MilvusError>> {
        Box::pin(async move {
            let client_info = wire::ClientInfo {
                sdk_type: env!("CARGO_PKG_NAME").to_owned(),
                sdk_version: env!("CARGO_PKG_VERSION").to_owned(),
            };
            // The first call that a server checks our token on; old servers do not have it.
            let message = wire::ConnectRequest { client_info: Some(client_info) };
            match self.call::<_, wire::StatusResponse>("Connect", message).await {
                Ok(response) => self.accept("Connect", "", response.status)?,
                Err(error) if error.condition() == Condition::Unsupported => {}
                Err(error) => return Err(error),
            }
            let version = match self.call::<_, wire::GetVersionResponse>("GetVersion", wire::GetVersionRequest {}).await
            {
                Ok(response) => {
                    self.accept("GetVersion", "", response.status)?;
                    response.version
                }
                Err(error) if error.condition() == Condition::Unsupported => String::new(),
                Err(error) => return Err(error),
            };
            let info = ServerInfo { version };
            self.lite.store(info.is_lite(), Ordering::Relaxed);
            Ok(info)
        })
    }

    fn describe_collection<'a>(
        &'a self,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<CollectionSchema>, MilvusError>> {
        Box::pin(async move { Ok(self.describe(name).await?.map(|schema| CollectionSchema::clone(&schema))) })
    }

    fn create_collection<'a>(&'a self, schema: &'a CollectionSchema) -> BoxFuture<'a, Result<(), MilvusError>> {
        Box::pin(async move {
            // Milvus says yes to an identical collection, data and all; Milvus Lite says only "unexpected".
            if self.describe(&schema.name).await?.is_some() {
                let reason = format!("collection {:?}", schema.name);
                return Err(MilvusError::new(Condition::AlreadyExists, "CreateCollection", reason));
            }
            let message = encode::create_collection(&self.database, schema);
            self.command("CreateCollection", &schema.name, message).await
        })
    }

    fn drop_collection<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), MilvusError>> {
        Box::pin(async move {
            self.known.forget(name);
            match self.command("DropCollection", name, self.about(name)).await {
                // Milvus says yes to an absent collection, Milvus Lite does not; a repeated drop is no error.
                Err(error) if error.condition() == Condition::NoCollection => Ok(()),
                result => result,
            }
        })
    }

    fn add_field<'a>(&'a self, collection: &'a str, field: &'a FieldSchema) -> BoxFuture<'a, Result<(), MilvusError>> {
        Box::pin(async move {
            self.known.forget(collection);
            let message = encode::add_field(&self.database, collection, field);
            self.command("AddCollectionField", collection, message).await
        })
    }

    fn truncate_collection<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), MilvusError>> {
        Box::pin(async move {
            let response: wire::StatusResponse = self.call("TruncateCollection", self.about(name)).await?;
            self.accept("TruncateCollection", name, response.status)
        })
    }

    fn describe_alias<'a>(&'a self, alias: &'a str) -> BoxFuture<'a, Result<Option<String>, MilvusError>> {
        Box::pin(async move {
            let response: wire::DescribeAliasResponse = self.call("DescribeAlias", self.about_alias(alias)).await?;
            match self.accept("DescribeAlias", "", response.status) {
                // Milvus Lite has one number for both.
                Err(error) if matches!(error.condition(), Condition::NoAlias | Condition::NoCollection) => Ok(None),
                accepted => accepted.map(|()| Some(response.collection)),
            }
        })
    }

    fn create_alias<'a>(&'a self, alias: &'a str, collection: &'a str) -> BoxFuture<'a, Result<(), MilvusError>> {
        Box::pin(async move { self.command("CreateAlias", collection, self.pointing(alias, collection)).await })
    }

    fn alter_alias<'a>(&'a self, alias: &'a str, collection: &'a str) -> BoxFuture<'a, Result<(), MilvusError>> {
        self.known.forget(alias);
        Box::pin(async move { self.command("AlterAlias", collection, self.pointing(alias, collection)).await })
    }

    fn drop_alias<'a>(&'a self, alias: &'a str) -> BoxFuture<'a, Result<(), MilvusError>> {
        self.known.forget(alias);
        Box::pin(async move {
            match self.command("DropAlias", alias, self.about_alias(alias)).await {
                Err(error) if matches!(error.condition(), Condition::NoAlias | Condition::NoCollection) => Ok(()),
                result => result,
            }
        })
    }

    fn describe_indexes<'a>(&'a self, collection: &'a str) -> BoxFuture<'a, Result<Vec<IndexSpec>, MilvusError>> {
        Box::pin(async move {
            let response: wire::DescribeIndexResponse = self.call("DescribeIndex", self.about(collection)).await?;
            match self.accept("DescribeIndex", collection, response.status.clone()) {
                Err(error) if error.condition() == Condition::NoIndex => Ok(Vec::new()),
                accepted => accepted.map(|()| decode::indexes(response)),
            }
        })
    }

    fn index_progress<'a>(&'a self, collection: &'a str) -> BoxFuture<'a, Result<Vec<IndexProgress>, MilvusError>> {
        Box::pin(async move {
            let response: wire::DescribeIndexResponse = self.call("DescribeIndex", self.about(collection)).await?;
            match self.accept("DescribeIndex", collection, response.status.clone()) {
                Err(error) if error.condition() == Condition::NoIndex => Ok(Vec::new()),
                accepted => accepted.map(|()| decode::index_progress(response)),
            }
        })
    }

    /// Done when the server has accepted the index; it builds in the background. An index of the same type and metric that
    /// is there already is what was asked for.
    fn create_index<'a>(&'a self, collection: &'a str, index: &'a IndexSpec) -> BoxFuture<'a, Result<(), MilvusError>> {
        Box::pin(async move {
            let message = encode::create_index(&self.database, collection, index);
            match self.command("CreateIndex", collection, message).await {
                Err(error) if error.condition() == Condition::AlreadyExists => {
                    let found = self.describe_indexes(collection).await?;
                    if found.iter().any(|found| found.is_like(index)) { Ok(()) } else { Err(error) }
                }
                result => result,
            }
        })
    }

    fn load_collection<'a>(&'a self, name: &'a str, timeout: Duration) -> BoxFuture<'a, Result<(), MilvusError>> {
        Box::pin(async move {
            let end = Instant::now() + timeout;
            self.command("LoadCollection", name, self.about(name)).await?;
            loop {
                let message =
                    wire::GetLoadStateRequest { collection_name: name.to_owned(), db_name: self.database.clone() };
                let response: wire::GetLoadStateResponse = self.call("GetLoadState", message).await?;
                self.accept("GetLoadState", name, response.status)?;
                if response.state == LOADED {
                    return Ok(());
                }
                if Instant::now() >= end {
                    let reason = format!("collection {name:?} is still loading");
                    return Err(MilvusError::new(Condition::NotLoaded, "GetLoadState", reason));
                }
                sleep(LOAD_POLL).await;
            }
        })
    }

    fn upsert<'a>(
        &'a self,
        collection: &'a str,
        columns: Vec<FieldColumn>,
        rows: usize,
    ) -> BoxFuture<'a, Result<(), MilvusError>> {
        Box::pin(async move {
            let schema = self.checked_schema(collection, &columns, rows).await?;
            let nullable = |name: &str| schema.fields.iter().any(|field| field.name == name && field.nullable);
            let num_rows = u32::try_from(rows)
                .map_err(|_| MilvusError::new(Condition::RequestTooLarge, "Upsert", format!("{rows} entities")))?;
            let message = wire::UpsertRequest {
                db_name: self.database.clone(),
                collection_name: collection.to_owned(),
                fields_data: columns
                    .into_iter()
                    .map(|column| encode::field_data(nullable(&column.name), column))
                    .collect(),
                num_rows,
            };
            let response: wire::StatusResponse = self.call("Upsert", message).await?;
            self.accept("Upsert", collection, response.status)
        })
    }

    fn delete<'a>(
        &'a self,
        collection: &'a str,
        primary_field: &'a str,
        keys: &'a Keys,
    ) -> BoxFuture<'a, Result<(), MilvusError>> {
        Box::pin(async move {
            if keys.is_empty() {
                return Err(MilvusError::new(Condition::InvalidRequest, "Delete", "no keys"));
            }
            let message = wire::DeleteRequest {
                db_name: self.database.clone(),
                collection_name: collection.to_owned(),
                expr: filter::among(primary_field, keys),
            };
            let response: wire::StatusResponse = self.call("Delete", message).await?;
            self.accept("Delete", collection, response.status)
        })
    }

    fn query<'a>(&'a self, query: Query<'a>) -> BoxFuture<'a, Result<Vec<FieldColumn>, MilvusError>> {
        Box::pin(async move {
            let schema = self.schema("Query", query.collection).await?;
            let Some(primary) = schema.fields.iter().find(|field| field.is_primary) else {
                return Err(MilvusError::new(Condition::InvalidAnswer, "Query", "the collection has no primary field"));
            };
            match query.selection {
                Selection::Keys(keys) if keys.is_empty() => decode::columns(&schema, query.output_fields, Vec::new()),
                Selection::Keys(keys) => {
                    self.ask(&schema, &query, filter::among(&primary.name, keys), Vec::new()).await
                }
                Selection::After { limit: 0, .. } => {
                    Err(MilvusError::new(Condition::InvalidRequest, "Query", "a page of no entities"))
                }
                Selection::After { after, limit } => self.page(&schema, primary, &query, after, limit).await,
            }
        })
    }

    fn count<'a>(&'a self, collection: &'a str) -> BoxFuture<'a, Result<u64, MilvusError>> {
        Box::pin(async move {
            let message = wire::QueryRequest {
                db_name: self.database.clone(),
                collection_name: collection.to_owned(),
                expr: String::new(),
                output_fields: vec!["count(*)".to_owned()],
                query_params: Vec::new(),
                consistency_level: CONSISTENCY_STRONG,
            };
            let response: wire::QueryResults = self.call("Query", message).await?;
            self.accept("Query", collection, response.status)?;
            let counted =
                response.fields_data.first().and_then(|data| data.scalars.as_ref()?.long_data.as_ref()?.data.first());
            counted
                .and_then(|&count| u64::try_from(count).ok())
                .ok_or_else(|| MilvusError::new(Condition::InvalidAnswer, "Query", "the answer has no count"))
        })
    }
}
