//! The REST client: `Milvus` over the v2 routes, `POST {url}/v2/vectordb/{category}/{action}`.
//!
//! In: the calls of the trait. Out: their results, or a `MilvusError` that names the route. HTTP/2 where the server's TLS offers it,
//! else HTTP/1.1 with connections kept open; a proxy of the environment (`HTTPS_PROXY`, `NO_PROXY`) is used.
//!
//! Holds:
//! - The body's `code` decides before the HTTP status: released servers answer 200 to nearly every failure. An answer
//!   that is no JSON came from something in between, and its status decides.
//! - `Request-Timeout` (whole seconds, rounded up) goes with every request, and we wait longer than it. A request that is
//!   cut off after it left may have been applied, and says so.
//! - 64-bit integers are asked for as numbers and taken as strings too.
//! - Keys that are texts go as values of an expression template, never quoted into the filter, where the server has templates.
//! - The answer of a query is complete and in key order, whatever the server's pages are like (`page`).
//!
//! Not here: bodies and answers (`encode`, `decode`), what errors mean (`super::error`).
//!
//! REST v2 tells no version. `server_info` asks for routes that came with one: an unknown route is answered with 404,
//! a known one refuses the empty body (code 1802). Facts: Milvus 2.4 to 3.0, `internal/distributed/proxy/httpserver`.

mod decode;
mod encode;
#[cfg(test)]
mod tests;
mod tls;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};

use super::connect::{KnownSchemas, MilvusOptions, configuration};
use super::error::{Class, Condition, MilvusError};
use super::page::Page;
use super::{
    CollectionSchema, FieldColumn, FieldSchema, IndexProgress, IndexSpec, Key, Keys, Milvus, Query, Selection,
    ServerInfo, columns, filter,
};
use decode::Envelope;

/// We ask for pages that stay far below this.
const ANSWER_BYTES_MAX: usize = 128 << 20;

/// Between two looks at the progress of loading: there is no event to wait for.
const LOAD_POLL: Duration = Duration::from_millis(100);

/// See the module's head. `new` makes one.
pub struct RestClient {
    http: reqwest::Client,
    /// Ends in `/v2/vectordb/`.
    base: String,
    database: String,
    /// The server reads expression templates (`exprParams`), as `server_info` learned; true until then.
    templates: AtomicBool,
    known: KnownSchemas,
}

/// The data of an answer whose code is 0.
type Data = Box<RawValue>;

impl RestClient {
    /// Check the options and read the certificates; nothing is sent before the first call.
    ///
    /// Errors are of condition `Configuration`.
    pub fn new(options: &MilvusOptions) -> Result<RestClient, MilvusError> {
        let url = reqwest::Url::parse(&options.url)
            .map_err(|error| configuration("target.url is no URL").with_source(error))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(configuration("target.url must begin with http:// or https://"));
        }
        let header = |value: &str, wrong: &str| HeaderValue::from_str(value).map_err(|_| configuration(wrong));
        let mut headers = HeaderMap::from_iter([
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (HeaderName::from_static("accept-type-allow-int64"), HeaderValue::from_static("true")),
            (HeaderName::from_static("request-timeout"), HeaderValue::from(seconds(options.request_deadline))),
        ]);
        if let Some(token) = &options.token {
            let mut value = header(&format!("Bearer {}", token.expose()), "target.token cannot be sent")?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        if !options.database.is_empty() {
            let wrong = "target.database has characters that no database name has";
            headers.insert(HeaderName::from_static("db-name"), header(&options.database, wrong)?);
        }
        let http = reqwest::Client::builder()
            // With http:// too: the proxy of the environment may speak TLS.
            .use_preconfigured_tls(tls::config(options)?)
            .default_headers(headers)
            .connect_timeout(options.connect_timeout)
            .timeout(options.patience())
            .tcp_nodelay(true)
            .tcp_keepalive(Duration::from_secs(10))
            .http2_keep_alive_interval(Duration::from_secs(10))
            .http2_keep_alive_timeout(Duration::from_secs(5))
            .http2_initial_stream_window_size(4 << 20)
            // Shorter than the servers' and gateways' own limits on idle connections: ours goes first.
            .pool_idle_timeout(Duration::from_secs(30))
            // A POST that is redirected would become a GET elsewhere.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| configuration("the TLS settings cannot be used").with_source(error))?;
        Ok(RestClient {
            http,
            base: format!("{}/v2/vectordb/", options.url.trim_end_matches('/')),
            database: options.database.clone(),
            templates: AtomicBool::new(true),
            known: KnownSchemas::default(),
        })
    }

    async fn post(&self, route: &'static str, body: impl Into<reqwest::Body>) -> Result<Data, MilvusError> {
        let broken = |error: reqwest::Error| MilvusError::from_http_client(route, error);
        let response = self.http.post(format!("{}{route}", self.base)).body(body).send().await.map_err(broken)?;
        let status = response.status().as_u16();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let answer = read(route, response).await?;
        match serde_json::from_slice::<Envelope>(&answer) {
            Ok(Envelope { code: 0, data, .. }) if status < 300 => {
                Ok(data.map_or_else(|| RawValue::NULL.to_owned(), RawValue::to_owned))
            }
            Ok(Envelope { code, message, .. }) if code != 0 => {
                Err(MilvusError::from_rest(route, status, Some(code), message, retry_after.map(Duration::from_secs)))
            }
            // No JSON, or a code of success in a status of failure: not Milvus speaks.
            _ => {
                let start = String::from_utf8_lossy(&answer[..answer.len().min(200)]).into_owned();
                Err(MilvusError::from_rest(route, status, None, start, retry_after.map(Duration::from_secs)))
            }
        }
    }

    /// A request about one collection. Any refusal forgets its remembered schema.
    async fn ask(&self, route: &'static str, collection: &str, body: Vec<u8>) -> Result<Data, MilvusError> {
        let answer = self.post(route, body).await;
        if answer.is_err() {
            self.known.forget(collection);
        }
        answer
    }

    /// The same with a body of `dbName`, `collectionName` and `more`.
    async fn about(
        &self,
        route: &'static str,
        collection: &str,
        more: impl IntoIterator<Item = (&'static str, Value)>,
    ) -> Result<Data, MilvusError> {
        let mut body = encode::about(&self.database, collection);
        body.extend(more.into_iter().map(|(key, value)| (key.to_owned(), value)));
        self.ask(route, collection, Value::Object(body).to_string().into_bytes()).await
    }

    /// Does the server know this route? It must refuse an empty body, so nothing is done; any number of its own tells that the
    /// route is there.
    async fn has_route(&self, route: &'static str) -> Result<bool, MilvusError> {
        match self.post(route, "{}").await {
            Ok(_) => Ok(true),
            Err(error) if error.condition() == Condition::Unsupported && error.code().is_none() => Ok(false),
            Err(error) if error.code().is_some() && error.class() != Class::Retry => Ok(true),
            Err(error) => Err(error),
        }
    }

    async fn describe(&self, name: &str) -> Result<Option<Arc<CollectionSchema>>, MilvusError> {
        match self.about("collections/describe", name, []).await {
            Ok(data) => Ok(Some(self.known.learn(name, decode::collection_schema(name, &data)?))),
            Err(error) if error.condition() == Condition::NoCollection => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The remembered schema, or a fresh one.
    async fn schema(&self, route: &'static str, collection: &str) -> Result<Arc<CollectionSchema>, MilvusError> {
        match self.known.get(collection) {
            Some(schema) => Ok(schema),
            None => self
                .describe(collection)
                .await?
                .ok_or_else(|| MilvusError::new(Condition::NoCollection, route, format!("collection {collection:?}"))),
        }
    }

    /// Do the columns fit the collection? Perhaps somebody has altered it since we looked.
    async fn check(&self, collection: &str, columns: &[FieldColumn], rows: usize) -> Result<(), MilvusError> {
        const ROUTE: &str = "entities/upsert";
        let schema = self.schema(ROUTE, collection).await?;
        if columns::check(&schema, columns, rows).is_ok() {
            return Ok(());
        }
        self.known.forget(collection);
        let schema = self.schema(ROUTE, collection).await?;
        columns::check(&schema, columns, rows).map_err(|slip| MilvusError::new(Condition::InvalidRequest, ROUTE, slip))
    }

    /// A filter for these keys, and the values of its template.
    fn among(&self, primary: &str, keys: &Keys) -> (String, Option<Value>) {
        match keys {
            Keys::VarChar(texts) if self.templates.load(Ordering::Relaxed) => (
                format!("{primary} in {{keys}}"),
                Some(json!({ "keys": texts.iter().map(|text| &**text).collect::<Vec<_>>() })),
            ),
            // Numbers of a template go over f64: literals only.
            keys => (filter::among(primary, keys), None),
        }
    }

    fn after(&self, primary: &str, after: Option<&Key>) -> (String, Option<Value>) {
        match after {
            None => (String::new(), None),
            Some(Key::VarChar(key)) if self.templates.load(Ordering::Relaxed) => {
                (format!("{primary} > {{after}}"), Some(json!({ "after": &**key })))
            }
            Some(key) => (filter::after(primary, key), None),
        }
    }

    async fn entities(
        &self,
        schema: &CollectionSchema,
        query: &Query<'_>,
        (filter, params): (String, Option<Value>),
        limit: usize,
    ) -> Result<Vec<FieldColumn>, MilvusError> {
        let members = [
            ("filter", Value::from(filter)),
            ("outputFields", json!(query.output_fields.iter().map(|name| &**name).collect::<Vec<_>>())),
            // Without one, the server's own is 100.
            ("limit", json!(limit)),
            ("consistencyLevel", json!("Strong")),
        ];
        let params = params.map(|params| ("exprParams", params));
        let data = self.about("entities/query", query.collection, members.into_iter().chain(params)).await?;
        decode::columns(schema, query.output_fields, &decode::rows(&data)?)
    }

    /// The `limit` smallest keys behind `after`, in order. Milvus merges its sources by key where there is a limit, so they are the
    /// smallest (in no document; source of 2.4 to 3.0); `Page` refuses an answer out of order.
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
            return Err(MilvusError::new(Condition::InvalidRequest, "entities/query", reason));
        };
        let mut page = Page::new(at, after.cloned(), limit);
        while let Some((after, limit)) = page.wants() {
            page.take(self.entities(schema, query, self.after(&primary.name, after), limit).await?)?;
        }
        Ok(page.into_columns())
    }
}

/// The header takes whole seconds only; 0 would mean none.
fn seconds(deadline: Duration) -> u64 {
    (deadline.as_secs() + u64::from(deadline.subsec_nanos() > 0)).max(1)
}

/// The whole body, unless it is larger than we take.
async fn read(route: &'static str, mut response: reqwest::Response) -> Result<Bytes, MilvusError> {
    let mut answer = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| MilvusError::from_http_client(route, error))? {
        if answer.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(MilvusError::new(Condition::AnswerTooLarge, route, ""));
        }
        answer.extend_from_slice(&chunk);
    }
    Ok(answer.freeze())
}

impl Milvus for RestClient {
    fn server_info(&self) -> BoxFuture<'_, Result<ServerInfo, MilvusError>> {
        Box::pin(async move {
            // Every release has this one: an address without it is no Milvus, and a bad token shows.
            let mut database = Map::new();
            if !self.database.is_empty() {
                database.insert("dbName".to_owned(), json!(self.database));
            }
            self.post("collections/list", Value::Object(database).to_string()).await?;
            let mut version = "v2.4";
            for (route, since) in [
                ("collections/truncate", "v2.6.11"),
                ("collections/fields/add", "v2.6.0"),
                ("collections/alter_properties", "v2.5.0"),
            ] {
                if self.has_route(route).await? {
                    version = since;
                    break;
                }
            }
            self.templates.store(version != "v2.4", Ordering::Relaxed);
            Ok(ServerInfo { version: format!("{version} or newer, by its REST routes") })
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
            const ROUTE: &str = "collections/create";
            // Milvus says yes to an identical collection, data and all.
            if self.describe(&schema.name).await?.is_some() {
                let reason = format!("collection {:?}", schema.name);
                return Err(MilvusError::new(Condition::AlreadyExists, ROUTE, reason));
            }
            let known = |property: &&String| encode::PROPERTIES.iter().any(|(known, _)| known == *property);
            if let Some(property) = schema.properties.keys().find(|property| !known(property)) {
                let reason = format!("a collection cannot be made with property {property:?} over REST");
                return Err(MilvusError::new(Condition::Configuration, ROUTE, reason));
            }
            let body = encode::create_collection(&self.database, schema).to_string().into_bytes();
            self.ask(ROUTE, &schema.name, body).await.map(drop)
        })
    }

    fn drop_collection<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), MilvusError>> {
        Box::pin(async move {
            self.known.forget(name);
            match self.about("collections/drop", name, []).await {
                Err(error) if error.condition() == Condition::NoCollection => Ok(()),
                result => result.map(drop),
            }
        })
    }

    fn add_field<'a>(&'a self, collection: &'a str, field: &'a FieldSchema) -> BoxFuture<'a, Result<(), MilvusError>> {
        Box::pin(async move {
            self.known.forget(collection);
            let schema = ("schema", encode::field_schema(field));
            self.about("collections/fields/add", collection, [schema]).await.map(drop)
        })
    }

    fn truncate_collection<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), MilvusError>> {
        Box::pin(async move { self.about("collections/truncate", name, []).await.map(drop) })
    }

    fn describe_alias<'a>(&'a self, alias: &'a str) -> BoxFuture<'a, Result<Option<String>, MilvusError>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Found {
            collection_name: String,
        }
        Box::pin(async move {
            const ROUTE: &str = "aliases/describe";
            let mut body = Map::from_iter([("aliasName".to_owned(), json!(alias))]);
            if !self.database.is_empty() {
                body.insert("dbName".to_owned(), json!(self.database));
            }
            match self.post(ROUTE, Value::Object(body).to_string()).await {
                Ok(data) => decode::parse::<Found>(ROUTE, &data).map(|found| Some(found.collection_name)),
                Err(error) if error.condition() == Condition::NoAlias => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    fn create_alias<'a>(&'a self, alias: &'a str, collection: &'a str) -> BoxFuture<'a, Result<(), MilvusError>> {
        let name = ("aliasName", json!(alias));
        Box::pin(async move { self.about("aliases/create", collection, [name]).await.map(drop) })
    }

    fn alter_alias<'a>(&'a self, alias: &'a str, collection: &'a str) -> BoxFuture<'a, Result<(), MilvusError>> {
        self.known.forget(alias);
        let name = ("aliasName", json!(alias));
        Box::pin(async move { self.about("aliases/alter", collection, [name]).await.map(drop) })
    }

    fn drop_alias<'a>(&'a self, alias: &'a str) -> BoxFuture<'a, Result<(), MilvusError>> {
        self.known.forget(alias);
        Box::pin(async move {
            let mut body = Map::from_iter([("aliasName".to_owned(), json!(alias))]);
            if !self.database.is_empty() {
                body.insert("dbName".to_owned(), json!(self.database));
            }
            match self.post("aliases/drop", Value::Object(body).to_string()).await {
                Err(error) if error.condition() == Condition::NoAlias => Ok(()),
                result => result.map(drop),
            }
        })
    }

    fn describe_indexes<'a>(&'a self, collection: &'a str) -> BoxFuture<'a, Result<Vec<IndexSpec>, MilvusError>> {
        Box::pin(async move {
            let names = match self.about("indexes/list", collection, []).await {
                Err(error) if error.condition() == Condition::NoIndex => return Ok(Vec::new()),
                data => decode::parse::<Vec<String>>("indexes/list", &data?)?,
            };
            let mut indexes = Vec::with_capacity(names.len());
            for name in names {
                let data = self.about("indexes/describe", collection, [("indexName", json!(name))]).await?;
                indexes.extend(decode::indexes(&data)?);
            }
            Ok(indexes)
        })
    }

    fn index_progress<'a>(&'a self, collection: &'a str) -> BoxFuture<'a, Result<Vec<IndexProgress>, MilvusError>> {
        Box::pin(async move {
            let names = match self.about("indexes/list", collection, []).await {
                Err(error) if error.condition() == Condition::NoIndex => return Ok(Vec::new()),
                data => decode::parse::<Vec<String>>("indexes/list", &data?)?,
            };
            let mut progress = Vec::with_capacity(names.len());
            for name in names {
                let data = self.about("indexes/describe", collection, [("indexName", json!(name))]).await?;
                progress.extend(decode::index_progress(&data)?);
            }
            Ok(progress)
        })
    }

    /// Done when the server has accepted the index; it builds in the background. An index of the same type and metric that
    /// is there already is what was asked for.
    fn create_index<'a>(&'a self, collection: &'a str, index: &'a IndexSpec) -> BoxFuture<'a, Result<(), MilvusError>> {
        Box::pin(async move {
            let created =
                self.about("indexes/create", collection, [("indexParams", encode::index_params(index))]).await;
            match created {
                Err(error) if error.condition() == Condition::AlreadyExists => {
                    let found = self.describe_indexes(collection).await?;
                    if found.iter().any(|found| found.is_like(index)) { Ok(()) } else { Err(error) }
                }
                result => result.map(drop),
            }
        })
    }

    fn load_collection<'a>(&'a self, name: &'a str, timeout: Duration) -> BoxFuture<'a, Result<(), MilvusError>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Progress {
            load_state: String,
        }
        Box::pin(async move {
            const ROUTE: &str = "collections/get_load_state";
            let end = Instant::now() + timeout;
            self.about("collections/load", name, []).await?;
            loop {
                let data = self.about(ROUTE, name, []).await?;
                if decode::parse::<Progress>(ROUTE, &data)?.load_state == "LoadStateLoaded" {
                    return Ok(());
                }
                if Instant::now() >= end {
                    let reason = format!("collection {name:?} is still loading");
                    return Err(MilvusError::new(Condition::NotLoaded, ROUTE, reason));
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
            const ROUTE: &str = "entities/upsert";
            self.check(collection, &columns, rows).await?;
            let body = encode::upsert(&self.database, collection, &columns, rows)
                .map_err(|unsendable| MilvusError::new(Condition::InvalidData, ROUTE, unsendable.to_string()))?;
            drop(columns);
            self.ask(ROUTE, collection, body).await.map(drop)
        })
    }

    fn delete<'a>(
        &'a self,
        collection: &'a str,
        primary_field: &'a str,
        keys: &'a Keys,
    ) -> BoxFuture<'a, Result<(), MilvusError>> {
        Box::pin(async move {
            const ROUTE: &str = "entities/delete";
            // An empty list makes the server's handler panic.
            if keys.is_empty() {
                return Err(MilvusError::new(Condition::InvalidRequest, ROUTE, "no keys"));
            }
            let (filter, params) = self.among(primary_field, keys);
            let params = params.map(|params| ("exprParams", params));
            self.about(ROUTE, collection, [("filter", filter.into())].into_iter().chain(params)).await.map(drop)
        })
    }

    fn query<'a>(&'a self, query: Query<'a>) -> BoxFuture<'a, Result<Vec<FieldColumn>, MilvusError>> {
        Box::pin(async move {
            const ROUTE: &str = "entities/query";
            let schema = self.schema(ROUTE, query.collection).await?;
            let Some(primary) = schema.fields.iter().find(|field| field.is_primary) else {
                return Err(MilvusError::new(Condition::InvalidAnswer, ROUTE, "the collection has no primary field"));
            };
            match query.selection {
                Selection::Keys(keys) if keys.is_empty() => decode::columns(&schema, query.output_fields, &[]),
                Selection::Keys(keys) => {
                    self.entities(&schema, &query, self.among(&primary.name, keys), keys.len()).await
                }
                Selection::After { limit: 0, .. } => {
                    Err(MilvusError::new(Condition::InvalidRequest, ROUTE, "a page of no entities"))
                }
                Selection::After { after, limit } => self.page(&schema, primary, &query, after, limit).await,
            }
        })
    }

    fn count<'a>(&'a self, collection: &'a str) -> BoxFuture<'a, Result<u64, MilvusError>> {
        Box::pin(async move {
            let members =
                [("filter", json!("")), ("outputFields", json!(["count(*)"])), ("consistencyLevel", json!("Strong"))];
            decode::count(&self.about("entities/query", collection, members).await?)
        })
    }
}
