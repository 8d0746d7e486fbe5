//! Private authorities, certificates of clients, and tokens.

use super::*;

/// A private authority with certificates of it on disk.
struct Authority {
    directory: tempfile::TempDir,
    pem: String,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let directory = tempfile::tempdir().expect("a directory");
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("an authority").pem();
        fs::write(directory.path().join("ca.pem"), &pem).expect("written");
        Authority { directory, pem, issuer: rcgen::Issuer::new(params, key) }
    }

    /// Certificate and key, valid now or not any more.
    fn issue(&self, name: &str, expired: bool) -> (String, String) {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        if expired {
            params.not_after = rcgen::date_time_ymd(2024, 1, 1);
        }
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }

    fn tls(&self, expired: bool, mutual: bool) -> TlsPem {
        let (certificate, key) = self.issue("milvus.test", expired);
        TlsPem { certificate, key, client_ca: mutual.then(|| self.pem.clone()) }
    }

    fn ca(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// Client certificate and key, as files.
    fn client(&self, name: &str) -> (PathBuf, PathBuf) {
        let (certificate, key) = self.issue(name, false);
        let path = |kind: &str| self.directory.path().join(format!("{name}.{kind}"));
        fs::write(path("pem"), certificate).expect("written");
        fs::write(path("key"), key).expect("written");
        (path("pem"), path("key"))
    }
}

/// TLS with a private authority, and a token: the right one, a wrong one and none.
async fn tls_and_a_token(url: &str, authority: &Authority, transports: &[Transport]) {
    let with = |token: Option<&str>, ca: Option<PathBuf>, name: &str| {
        let options =
            MilvusOptions { token: token.map(Token::new), ca, server_name: Some(name.to_owned()), ..options(url) };
        clients(&options, transports)
    };
    for right in with(Some("root:Milvus"), Some(authority.ca()), "milvus.test") {
        right.server_info().await.expect("let in");
        assert_eq!(right.describe_collection("absent").await.expect("an answer"), None);
    }
    for token in [Some("root:guess"), None] {
        for client in with(token, Some(authority.ca()), "milvus.test") {
            let error = client.describe_collection("absent").await.expect_err("turned away");
            assert_eq!((error.condition(), error.class()), (Condition::Unauthenticated, Class::Fatal), "{error}");
            assert!(error.hint().is_some() && !format!("{error} {error:?}").contains("guess"));
            assert!(client.server_info().await.is_err(), "the first call finds it out");
        }
    }
    // Another name, or the public roots: the handshake fails and nothing is sent.
    let strangers = with(None, Some(authority.ca()), "other.test");
    for client in strangers.into_iter().chain(with(None, None, "milvus.test")) {
        let error = client.server_info().await.expect_err("not trusted");
        assert!(error.never_sent() && error.hint().is_some(), "{error}");
    }
}

/// Only who shows a certificate of the authority is let in.
async fn mutual_tls(url: &str, authority: &Authority, transports: &[Transport]) {
    let with = |identity: Option<(PathBuf, PathBuf)>| {
        let (client_cert, client_key) = identity.unzip();
        let name = Some("milvus.test".to_owned());
        let ca = Some(authority.ca());
        let mut options = MilvusOptions { ca, client_cert, client_key, server_name: name, ..options(url) };
        options.request_deadline = Duration::from_secs(3);
        clients(&options, transports)
    };
    for client in with(Some(authority.client("walvec"))) {
        client.server_info().await.expect("let in");
    }
    let stranger = Authority::new();
    for client in with(None).into_iter().chain(with(Some(stranger.client("stranger")))) {
        let error = client.server_info().await.expect_err("turned away");
        // TLS 1.3 turns a client away after its first bytes; tonic may then connect again until the deadline.
        let expected = [Condition::ConnectFailed, Condition::ConnectionLost, Condition::TimedOut];
        assert!(expected.contains(&error.condition()), "{error:?}");
    }
}

#[tokio::test]
async fn milvus_asks_for_tls_and_a_token() {
    let authority = Authority::new();
    let tls = Some(authority.tls(false, false));
    let server =
        Milvus23::start(Milvus23Options { authorization: true, tls, ..Default::default() }).await.expect("starts");
    tls_and_a_token(&server.url(), &authority, &[Transport::Grpc]).await;
}

#[tokio::test]
async fn milvus_asks_for_a_client_certificate() {
    let authority = Authority::new();
    let tls = Some(authority.tls(false, true));
    let server = Milvus23::start(Milvus23Options { tls, ..Default::default() }).await.expect("starts");
    mutual_tls(&server.url(), &authority, &[Transport::Grpc]).await;
}

#[tokio::test]
async fn the_scripted_milvus_asks_for_the_same_over_both_transports() {
    let authority = Authority::new();
    let start = async |expired, mutual, token: Option<&str>| {
        let tls = Some(authority.tls(expired, mutual));
        let version = Version::V2_6;
        Scripted::start(scripted::Options { version, token: token.map(str::to_owned), tls }).await
    };
    let server = start(false, false, Some("root:Milvus")).await;
    tls_and_a_token(&server.url(), &authority, BOTH).await;
    let server = start(false, true, None).await;
    mutual_tls(&server.url(), &authority, BOTH).await;
    let server = start(true, false, None).await;
    let expired =
        MilvusOptions { ca: Some(authority.ca()), server_name: Some("milvus.test".into()), ..options(&server.url()) };
    for client in clients(&expired, BOTH) {
        let error = client.server_info().await.expect_err("expired");
        assert!(error.condition() == Condition::ConnectFailed && error.never_sent(), "{error:?}");
    }
}
