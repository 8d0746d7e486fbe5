//! Connections: SQL ones through tokio-postgres, the replication one's settings for pgwire-replication.
//!
//! In: `SourceSettings`. Out: a `Connection` whose task is owned and whose last words are kept, or a
//! `ReplicationConfig`. TLS means the same on both: one list of roots, one reading of `sslmode`. One exception: under
//! `verify-ca` pgwire-replication 0.5.0 checks the name as well (rustls reports a wrong name as
//! `NotValidForNameContext`, which it does not know), so it refuses more than it should, never less.
//!
//! Holds: every session runs under the same pins (`PINS`), which PostgreSQL ranks above ALTER ROLE and ALTER DATABASE:
//! a text from the copy and a text from the stream are equal, row security fails instead of hiding rows, and no timeout
//! of the role ends a session that waits for the target.
//!
//! Not here: when to try again (`PostgresError::disposition`, the pipeline).

use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use std::{io, path::Path};

use pgwire_replication::{FeedbackObserver, ReplicationConfig, TlsConfig};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinHandle;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres::{Client, SimpleQueryMessage};

use super::{PostgresError, Result, StreamFormat, quote_ident};
use crate::change::Lsn;
use crate::config::settings::{SourceSettings, SslMode};

/// Settings of every session. All exist since PostgreSQL 14; an unknown one would be refused with 42704 at connect.
/// `transaction_timeout` (17 and newer) is set after connecting for that reason.
const PINS: &[(&str, &str)] = &[
    ("datestyle", "ISO"),
    ("intervalstyle", "postgres"),
    ("timezone", "UTC"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    ("xmloption", "content"),
    ("lc_monetary", "C"),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("idle_session_timeout", "0"),
    ("row_security", "off"),
];

/// `transaction_timeout` came with 17.
pub(super) const TRANSACTION_TIMEOUT_SINCE: u32 = 170_000;
const OLDEST_VERSION: u32 = 140_000;

fn pins() -> Vec<String> {
    PINS.iter().map(|(name, value)| format!("-c {name}={value}")).collect()
}

/// Where we connect to, for people; without user or password.
pub(super) fn address(settings: &SourceSettings) -> String {
    format!("{}:{}/{}", settings.host, settings.port, settings.database)
}

fn is_unix(settings: &SourceSettings) -> bool {
    settings.host.starts_with('/')
}

/// What is verified of the server. libpq reads `require` with a root certificate as `verify-ca`; so do we.
fn effective_sslmode(settings: &SourceSettings) -> SslMode {
    match settings.sslmode {
        _ if is_unix(settings) => SslMode::Disable,
        SslMode::Require if settings.sslrootcert.is_some() => SslMode::VerifyCa,
        mode => mode,
    }
}

/// An SQL session. Dereferences to the client; the methods here explain errors better than the client does.
pub struct Connection {
    client: Client,
    task: Mutex<Option<JoinHandle<Result<(), tokio_postgres::Error>>>>,
    version_num: u32,
    /// How long an answer is waited for.
    patience: Duration,
}

impl Deref for Connection {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

/// Of `wal_sender_timeout`, after which a stream without a sign of life is given up. A server that is slow gets more time than that, one
/// that is gone behind a line that still acknowledges would keep us for ever: TCP's own timeouts see nothing of it.
pub(super) const PATIENCE: u32 = 3;

/// Opens an SQL session with the pins in force. Its application_name is that of the settings and `purpose`.
pub async fn connect(settings: &SourceSettings, purpose: &str) -> Result<Connection> {
    let tls = Tls::new(settings)?;
    let mut config = tokio_postgres::Config::new();
    config
        .host(&settings.host)
        .port(settings.port)
        .user(&settings.user)
        .dbname(&settings.database)
        .application_name(format!("{} {purpose}", settings.application_name))
        .options(pins().join(" "))
        .connect_timeout(settings.connect_timeout)
        .keepalives_idle(Duration::from_secs(30))
        .keepalives_interval(Duration::from_secs(10))
        .keepalives_retries(3)
        .tcp_user_timeout(Duration::from_secs(60))
        .ssl_mode(match effective_sslmode(settings) {
            SslMode::Disable => tokio_postgres::config::SslMode::Disable,
            SslMode::Prefer => tokio_postgres::config::SslMode::Prefer,
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => tokio_postgres::config::SslMode::Require,
        });
    if let Some(password) = &settings.password {
        config.password(password.expose());
    }
    let failed = |source| PostgresError::Connect { address: address(settings), source };
    let connecting = async {
        let (client, connection) = config.connect(tls).await.map_err(failed)?;
        let version = connection.parameter("server_version").unwrap_or("unknown").to_owned();
        // Owned by the `Connection`: it ends when the client is dropped, and its error is asked for in `explain`.
        let task = tokio::spawn(connection);
        let patience = settings.wal_sender_timeout * PATIENCE;
        let mut connection = Connection { client, task: Mutex::new(Some(task)), version_num: 0, patience };
        connection.version_num = connection.read_version(&version).await?;
        Ok(connection)
    };
    match tokio::time::timeout(settings.connect_timeout, connecting).await {
        Ok(result) => result,
        Err(_) => Err(PostgresError::ConnectTimeout { address: address(settings), after: settings.connect_timeout }),
    }
}

impl Connection {
    /// `server_version_num`: 180003 is 18.3.
    pub fn version_num(&self) -> u32 {
        self.version_num
    }

    async fn read_version(&self, version: &str) -> Result<u32> {
        const DOING: &str = "read the server's version";
        let rows = self.simple(DOING, "SHOW server_version_num").await?;
        let number: u32 = rows
            .first()
            .and_then(|row| row.first()?.as_deref()?.parse().ok())
            .ok_or_else(|| PostgresError::Answer { doing: DOING, what: "no number".to_owned() })?;
        if number < OLDEST_VERSION {
            return Err(PostgresError::TooOld { version: version.to_owned() });
        }
        let rows = self.simple("check our session settings", CHECK_PINS).await?;
        check_pins(rows.first().map_or(&[], Vec::as_slice))?;
        if number >= TRANSACTION_TIMEOUT_SINCE {
            self.simple("pin transaction_timeout", "SET transaction_timeout = 0").await?;
        }
        // What we have given up is not to wait on for a lock at the server. A server on Windows has no such check.
        let check = "SET client_connection_check_interval = '10s'";
        match self.simple("have a lost session ended", check).await {
            Err(error) if error.sqlstate().is_none() => Err(error),
            _ => Ok(number),
        }
    }

    /// Runs SQL with the simple protocol and returns the rows as text.
    pub(super) async fn simple(&self, doing: &'static str, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        let messages = self.in_time(doing, self.client.simple_query(sql)).await?;
        let row = |message| match message {
            SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect()),
            _ => None,
        };
        Ok(messages.into_iter().filter_map(row).collect())
    }

    /// Runs one statement with parameters.
    pub(super) async fn rows(
        &self,
        doing: &'static str,
        sql: &str,
        parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) -> Result<Vec<tokio_postgres::Row>> {
        self.in_time(doing, self.client.query(sql, parameters)).await
    }

    /// What the server answers. Without an answer in time the connection is of no use any more and closed: something may be under way on it.
    pub(super) async fn in_time<T>(
        &self,
        doing: &'static str,
        answer: impl Future<Output = std::result::Result<T, tokio_postgres::Error>>,
    ) -> Result<T> {
        match tokio::time::timeout(self.patience, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.explain(doing, error).await),
            Err(_) => {
                if let Some(task) = self.task.lock().unwrap_or_else(PoisonError::into_inner).take() {
                    task.abort();
                }
                Err(PostgresError::QueryTimeout { doing, after: self.patience })
            }
        }
    }

    /// "connection closed" is no explanation: the reason (a 57P01, a reset) is what the connection's task ended with.
    pub(super) async fn explain(&self, doing: &'static str, error: tokio_postgres::Error) -> PostgresError {
        if error.is_closed() {
            let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(task) = task
                && let Ok(Ok(Err(reason))) = tokio::time::timeout(Duration::from_secs(1), task).await
            {
                return PostgresError::Query { doing, source: reason };
            }
        }
        PostgresError::Query { doing, source: error }
    }

    /// Closes the connection at once, whatever still arrives on it.
    pub(super) fn abort(self) {
        if let Some(task) = self.task.into_inner().unwrap_or_else(PoisonError::into_inner) {
            task.abort();
        }
    }

    /// Ends the session and waits until it is closed.
    pub async fn close(self) -> Result<()> {
        let Connection { client, task, .. } = self;
        drop(client);
        let task = task.into_inner().unwrap_or_else(PoisonError::into_inner);
        match task {
            Some(task) => match task.await {
                Ok(Err(source)) => Err(PostgresError::Query { doing: "close a connection", source }),
                Ok(Ok(())) | Err(_) => Ok(()),
            },
            None => Ok(()),
        }
    }
}

/// A pooler may drop startup options without a word; then texts would differ between sessions.
pub(super) const CHECK_PINS: &str = "SELECT pg_catalog.current_setting('TimeZone'), \
     pg_catalog.current_setting('row_security'), pg_catalog.current_setting('extra_float_digits')";

pub(super) fn check_pins(row: &[Option<String>]) -> Result<()> {
    let expected = [("timezone", "UTC"), ("row_security", "off"), ("extra_float_digits", "3")];
    for (i, (setting, value)) in expected.into_iter().enumerate() {
        let found = row.get(i).cloned().flatten().unwrap_or_default();
        if found != value {
            return Err(PostgresError::SettingsIgnored { setting, found });
        }
    }
    Ok(())
}

/// The settings of the replication session: pins, quoted names, and a clock that notices a dead line.
///
/// PostgreSQL asks for a reply after half of `wal_sender_timeout` without a word from us. Our own idle repeats
/// come later than that (1.5 times the timeout), so an idle but healthy line carries a keepalive each half timeout, and
/// `stream` can tell it from a dead one. Confirmed positions still go out within a second.
pub(super) fn replication_config(
    settings: &SourceSettings,
    start_lsn: Lsn,
    format: StreamFormat,
    observer: FeedbackObserver,
) -> ReplicationConfig {
    let mut options = pins();
    options.push(format!("-c wal_sender_timeout={}ms", settings.wal_sender_timeout.as_millis()));
    let password = settings.password.as_ref().map_or("", |password| password.expose());
    ReplicationConfig::new(
        settings.host.as_str(),
        settings.user.as_str(),
        password,
        settings.database.as_str(),
        quote_ident(&settings.slot),
        quote_ident(&settings.publication),
    )
    .with_port(settings.port)
    .with_tls(replication_tls(settings))
    .with_start_lsn(pgwire_replication::Lsn::from(start_lsn.0))
    .with_status_interval(Duration::from_secs(1).min(settings.wal_sender_timeout / 4))
    .with_wakeup_interval(settings.wal_sender_timeout.mul_f32(1.5))
    // Events, not bytes: 256 vectors of 16,000 dimensions are 16 MB, outside of the memory budget.
    .with_buffer_size(256)
    .with_binary(format == StreamFormat::Binary)
    .with_options(options.join(" "))
    .with_application_name(settings.application_name.as_str())
    .with_feedback_observer(observer)
}

fn replication_tls(settings: &SourceSettings) -> TlsConfig {
    let mut tls = match effective_sslmode(settings) {
        SslMode::Disable => return TlsConfig::disabled(),
        SslMode::Prefer => {
            let mut tls = TlsConfig::require();
            tls.mode = pgwire_replication::SslMode::Prefer;
            tls
        }
        SslMode::Require => TlsConfig::require(),
        SslMode::VerifyCa => TlsConfig::verify_ca(settings.sslrootcert.clone()),
        SslMode::VerifyFull => TlsConfig::verify_full(settings.sslrootcert.clone()),
    };
    if let (Some(cert), Some(key)) = (&settings.sslcert, &settings.sslkey) {
        tls = tls.with_client_cert(cert, key);
    }
    // The crate refuses verify-full with an address unless the name is given; a certificate may well name an address.
    if settings.host.parse::<std::net::IpAddr>().is_ok() {
        tls = tls.with_sni_hostname(settings.host.as_str());
    }
    tls
}

/// TLS for tokio-postgres over rustls; `None` when it is off.
#[derive(Clone)]
struct Tls(Option<Arc<ClientConfig>>);

impl Tls {
    fn new(settings: &SourceSettings) -> Result<Tls> {
        let mode = effective_sslmode(settings);
        if mode == SslMode::Disable {
            return Ok(Tls(None));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let unusable = |what: &str, source: rustls::Error| PostgresError::Tls {
            what: what.to_owned(),
            source: Some(Box::new(source)),
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable("no protocol version", error))?;
        let verifier: Arc<dyn ServerCertVerifier> = match mode {
            SslMode::Disable | SslMode::Prefer | SslMode::Require => Arc::new(Unverified(Arc::clone(&provider))),
            SslMode::VerifyCa | SslMode::VerifyFull => {
                let roots = Arc::new(roots(settings.sslrootcert.as_deref())?);
                let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
                    .build()
                    .map_err(|error| PostgresError::Tls {
                        what: "no usable root certificate".to_owned(),
                        source: Some(Box::new(error)),
                    })?;
                if mode == SslMode::VerifyCa { Arc::new(ChainOnly(verifier)) } else { verifier }
            }
        };
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let config = match (&settings.sslcert, &settings.sslkey) {
            (Some(cert), Some(key)) => {
                let chain = certificates(cert)?;
                let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable("private key", key, error))?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| unusable("client certificate and key do not fit", error))?
            }
            (None, None) => builder.with_no_client_auth(),
            _ => {
                return Err(PostgresError::Tls { what: "sslcert and sslkey belong together".to_owned(), source: None });
            }
        };
        Ok(Tls(Some(Arc::new(config))))
    }
}

fn unreadable(what: &str, path: &Path, error: rustls::pki_types::pem::Error) -> PostgresError {
    PostgresError::Tls { what: format!("{what} {}", path.display()), source: Some(Box::new(error)) }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| unreadable("certificate", path, error))
}

/// Mozilla's roots as pgwire-replication has them, or those of the file alone.
fn roots(file: Option<&Path>) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match file {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| PostgresError::Tls {
                    what: format!("root certificate {}", path.display()),
                    source: Some(Box::new(error)),
                })?;
            }
        }
    }
    Ok(roots)
}

/// `prefer` and `require`: encrypted, but to whom is not asked.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// `verify-ca`: the chain must be right, the name may be another.
#[derive(Debug)]
struct ChainOnly(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for ChainOnly {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // The name is checked last, after chain and dates.
        match self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MakeTlsConnect<S> for Tls {
    type Stream = Encrypted<S>;
    type TlsConnect = Connector;
    type Error = io::Error;

    fn make_tls_connect(&mut self, domain: &str) -> io::Result<Connector> {
        // A Unix socket has no name; TLS is off there.
        let name = ServerName::try_from(domain.to_owned());
        Ok(Connector(self.0.clone().zip(name.ok())))
    }
}

struct Connector(Option<(Arc<ClientConfig>, ServerName<'static>)>);

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for Connector {
    type Stream = Encrypted<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Encrypted<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move {
            let (config, name) =
                self.0.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no name to verify for TLS"))?;
            tokio_rustls::TlsConnector::from(config).connect(name, stream).await.map(Encrypted)
        })
    }
}

/// A TLS stream without channel binding: SCRAM runs as SCRAM-SHA-256, as on the replication session.
struct Encrypted<S>(tokio_rustls::client::TlsStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Encrypted<S> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Encrypted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Encrypted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
