//! How to reach PostgreSQL, as people write it: libpq's URL, libpq's keyword string, or a JDBC URL.
//!
//! In: one string. Out: libpq's parameters by libpq's names, in the order written, a later one overriding an earlier.
//!
//! Holds: no error repeats a value, which may be a password. Nothing is looked up (no environment, no service file).
//! See: PostgreSQL manual 32.1.1 "Connection Strings"; pgJDBC manual, "Connecting to the Database".

use std::collections::BTreeMap;

/// Parameters under libpq's names.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Conninfo {
    parameters: BTreeMap<String, String>,
    port: Option<u16>,
    /// Parameters that are known but mean nothing here, for a warning.
    pub ignored: Vec<String>,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConninfoError {
    #[error(
        "neither \"postgresql://user@host:port/database\", nor \"host=… dbname=… user=…\", nor \"jdbc:postgresql://host:port/database\""
    )]
    UnknownForm,
    #[error("percent-encoding is broken: a literal % is written %25, and what is encoded must be UTF-8")]
    BadPercent,
    #[error("several hosts; give the one that is the primary (walvec must read where the rows are written)")]
    SeveralHosts,
    #[error("port is not a number from 1 to 65535")]
    BadPort,
    #[error("the bracket of an IPv6 address is not closed, as in [::1]:5432")]
    OpenBracket,
    #[error("a quoted value is not closed: quote with ' and write \\' for a quote inside")]
    OpenQuote,
    /// Without the word itself: it may be the rest of a password that was not quoted.
    #[error("a parameter has no value: expected name=value, with '…' around a value that holds spaces")]
    NoValue,
    #[error("unknown connection parameter {name:?}{}", suggestion(.nearest))]
    UnknownParameter { name: String, nearest: Option<String> },
    #[error("parameter {name:?} is not supported: {way_out}")]
    Unsupported { name: &'static str, way_out: &'static str },
}

fn suggestion(nearest: &Option<String>) -> String {
    match nearest {
        Some(name) => format!("; did you mean {name:?}?"),
        None => format!(" (not shown, it may be a part of a password); known are {}", USED.join(", ")),
    }
}

/// What we use.
const USED: &[&str] = &[
    "host",
    "port",
    "user",
    "password",
    "dbname",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "application_name",
    "connect_timeout",
    "passfile",
];

/// Known to libpq or pgJDBC, without a meaning or with a fixed one here.
const IGNORED: &[&str] = &[
    "channel_binding",
    "client_encoding",
    "fallback_application_name",
    "gssencmode",
    "gsslib",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "krbsrvname",
    "load_balance_hosts",
    "replication",
    "requirepeer",
    "require_auth",
    "sslcompression",
    "sslcrl",
    "sslcrldir",
    "sslsni",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "target_session_attrs",
    "tcp_user_timeout",
];

/// pgJDBC's name, libpq's name (empty: ignored).
const JDBC: &[(&str, &str)] = &[
    ("user", "user"),
    ("password", "password"),
    ("sslmode", "sslmode"),
    ("sslrootcert", "sslrootcert"),
    ("sslcert", "sslcert"),
    ("sslkey", "sslkey"),
    ("ApplicationName", "application_name"),
    ("connectTimeout", "connect_timeout"),
    ("loginTimeout", ""),
    ("socketTimeout", ""),
    ("tcpKeepAlive", ""),
    ("currentSchema", ""),
    ("targetServerType", ""),
    ("prepareThreshold", ""),
    ("reWriteBatchedInserts", ""),
    ("stringtype", ""),
    ("binaryTransfer", ""),
    ("sslfactory", ""),
    ("preferQueryMode", ""),
];

impl Conninfo {
    pub fn parse(text: &str) -> Result<Conninfo, ConninfoError> {
        let text = text.trim();
        let mut info = Conninfo::default();
        if let Some(rest) = text.strip_prefix("jdbc:postgresql:") {
            info.url(rest.strip_prefix("//").map_or_else(|| format!("/{rest}"), str::to_owned).as_str(), true)?;
        } else if let Some(rest) = text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://")) {
            info.url(rest, false)?;
        } else if text.contains('=') && !text.contains("://") || text.is_empty() {
            info.keywords(text)?;
        } else {
            return Err(ConninfoError::UnknownForm);
        }
        if let Some(host) = info.get("host")
            && host.contains(',')
        {
            return Err(ConninfoError::SeveralHosts);
        }
        let port = |port: &str| port.parse().ok().filter(|&port| port != 0).ok_or(ConninfoError::BadPort);
        info.port = info.get("port").map(port).transpose()?;
        Ok(info)
    }

    /// A parameter's value; an empty one is as good as none, as in libpq.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// libpq's default is 5432.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(5432)
    }

    fn url(&mut self, rest: &str, jdbc: bool) -> Result<(), ConninfoError> {
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        // The last @: a password may hold one, as libpq accepts too.
        let (userinfo, hostport) =
            authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
        if let Some(userinfo) = userinfo {
            let (user, password) = userinfo.split_once(':').map_or((userinfo, None), |(u, p)| (u, Some(p)));
            self.set("user", percent_decode(user)?);
            if let Some(password) = password {
                self.set("password", percent_decode(password)?);
            }
        }
        if hostport.contains(',') {
            return Err(ConninfoError::SeveralHosts);
        }
        let (host, port) = if let Some(bracketed) = hostport.strip_prefix('[') {
            let (host, rest) = bracketed.split_once(']').ok_or(ConninfoError::OpenBracket)?;
            match rest.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if rest.is_empty() => (host, None),
                None => return Err(ConninfoError::BadPort),
            }
        } else {
            hostport.rsplit_once(':').map_or((hostport, None), |(host, port)| (host, Some(port)))
        };
        self.set("host", percent_decode(host)?);
        if let Some(port) = port {
            self.set("port", port.to_owned());
        }
        self.set("dbname", percent_decode(path)?);
        for pair in query.into_iter().flat_map(|query| query.split('&')).filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or(ConninfoError::NoValue)?;
            let (name, value) = (percent_decode(name)?, percent_decode(value)?);
            if jdbc { self.jdbc_parameter(&name, value)? } else { self.parameter(&name, value)? }
        }
        Ok(())
    }

    fn jdbc_parameter(&mut self, name: &str, value: String) -> Result<(), ConninfoError> {
        if name == "ssl" {
            // pgJDBC: ssl=true means sslmode=verify-full, whatever order the two are in.
            if value != "false" && self.get("sslmode").is_none() {
                self.set("sslmode", "verify-full".to_owned());
            }
            return Ok(());
        }
        match JDBC.iter().find(|(jdbc, _)| *jdbc == name) {
            Some((_, "")) => self.ignored.push(name.to_owned()),
            Some((_, libpq)) => self.set(libpq, value),
            None => return Err(Self::unknown(name, JDBC.iter().map(|(name, _)| *name))),
        }
        Ok(())
    }

    fn parameter(&mut self, name: &str, value: String) -> Result<(), ConninfoError> {
        let unsupported = |name, way_out| Err(ConninfoError::Unsupported { name, way_out });
        match name {
            "database" => self.set("dbname", value),
            // libpq accepts JDBC's spelling in URLs.
            "ssl" if value == "true" => self.set("sslmode", "require".to_owned()),
            "hostaddr" => return unsupported("hostaddr", "write the address as host"),
            "service" | "servicefile" => {
                return unsupported("service", "write host, port, dbname and user instead");
            }
            "options" => return unsupported("options", "walvec sets what its sessions need; use ALTER ROLE … SET"),
            "sslpassword" => {
                return unsupported("sslpassword", "give an unencrypted key file that only walvec may read");
            }
            "sslnegotiation" if value == "postgres" => self.ignored.push(name.to_owned()),
            "sslnegotiation" => return unsupported("sslnegotiation", "leave it out"),
            _ if USED.contains(&name) => self.set(name, value),
            _ if IGNORED.contains(&name) => self.ignored.push(name.to_owned()),
            _ => return Err(Self::unknown(name, USED.iter().chain(IGNORED).copied())),
        }
        Ok(())
    }

    fn unknown<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> ConninfoError {
        // What is like no known name may be the tail of a password without quotes, or `password` and its value without `=`.
        let nearest = super::nearest(name, known).map(str::to_owned);
        let name = if nearest.is_some() { name.to_owned() } else { "…".to_owned() };
        ConninfoError::UnknownParameter { name, nearest }
    }

    fn set(&mut self, name: &str, value: String) {
        if !value.is_empty() {
            self.parameters.insert(name.to_owned(), value);
        }
    }

    /// `name = value name='quoted \' value'`, as libpq's `conninfo_parse`.
    fn keywords(&mut self, text: &str) -> Result<(), ConninfoError> {
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            let end = rest.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(rest.len());
            let (name, after) = rest.split_at(end);
            let Some(after) = after.trim_start().strip_prefix('=') else {
                return Err(ConninfoError::NoValue);
            };
            let after = after.trim_start();
            let quoted = after.strip_prefix('\'');
            let mut value = String::new();
            let mut characters = quoted.unwrap_or(after).chars();
            loop {
                match characters.next() {
                    Some('\\') => match characters.next() {
                        Some(escaped) => value.push(escaped),
                        None if quoted.is_some() => return Err(ConninfoError::OpenQuote),
                        None => break,
                    },
                    Some('\'') if quoted.is_some() => break,
                    Some(c) if quoted.is_none() && c.is_whitespace() => break,
                    Some(c) => value.push(c),
                    None if quoted.is_some() => return Err(ConninfoError::OpenQuote),
                    None => break,
                }
            }
            rest = characters.as_str().trim_start();
            self.parameter(name, value)?;
        }
        Ok(())
    }
}

fn percent_decode(text: &str) -> Result<String, ConninfoError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16)).ok_or(ConninfoError::BadPercent);
            let (high, low) = (digit()?, digit()?);
            let decoded = (high << 4 | low) as u8;
            if decoded == 0 {
                return Err(ConninfoError::BadPercent);
            }
            bytes.push(decoded);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).map_err(|_| ConninfoError::BadPercent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Result<String, ConninfoError> {
        let info = Conninfo::parse(text)?;
        Ok(info.parameters.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn every_form_reads_as_its_own_driver_reads_it() {
        for (text, expected) in [
            ("postgresql://", ""),
            ("postgresql://db.internal", "host=db.internal"),
            ("postgres://u@h:6432/app", "dbname=app host=h port=6432 user=u"),
            ("postgresql://u:p%40ss%2Fw@h/app", "dbname=app host=h password=p@ss/w user=u"),
            ("postgresql://u:a@b@h/app", "dbname=app host=h password=a@b user=u"),
            ("postgresql://[2001:db8::1]:5433/app", "dbname=app host=2001:db8::1 port=5433"),
            ("postgresql://%2Fvar%2Frun%2Fpostgresql/app", "dbname=app host=/var/run/postgresql"),
            ("postgresql:///app?host=/tmp&user=u", "dbname=app host=/tmp user=u"),
            (
                "postgresql://h/app?sslmode=verify-full&application_name=x",
                "application_name=x dbname=app host=h sslmode=verify-full",
            ),
            ("postgresql://h/app?ssl=true", "dbname=app host=h sslmode=require"),
            ("host=h dbname = app  user='o\\'brien' password='a b'", "dbname=app host=h password=a b user=o'brien"),
            ("host=h password=back\\\\slash\\ space", "host=h password=back\\slash space"),
            ("host=h password=''", "host=h"),
            ("host=h port=1 port=2", "host=h port=2"),
            (
                "jdbc:postgresql://h:5433/app?user=u&password=p&ssl=true",
                "dbname=app host=h password=p port=5433 sslmode=verify-full user=u",
            ),
            ("jdbc:postgresql://h/app?ssl=true&sslmode=require", "dbname=app host=h sslmode=require"),
            ("jdbc:postgresql:app", "dbname=app"),
            (
                "jdbc:postgresql://h/app?ApplicationName=x&connectTimeout=5&loginTimeout=3",
                "application_name=x connect_timeout=5 dbname=app host=h",
            ),
        ] {
            assert_eq!(shown(text), Ok(expected.to_owned()), "{text}");
        }
    }

    /// Valid forms, with pieces cut out and others put in.
    fn mutated() -> impl proptest::strategy::Strategy<Value = String> {
        use proptest::prelude::*;
        let form = prop::sample::select(vec![
            "postgresql://u:secret@h:5432/app?sslmode=require&options=-c%20x",
            "host=h port=5432 user=u password='se cret\\'' dbname=app",
            "jdbc:postgresql://[::1]:5433/app?user=u&password=secret",
            "postgresql://[2001:db8::1],h2:1/app",
        ]);
        let piece = "[:/?#@&=%'\\\\\\[\\] a-z0-9é\\x00]{0,6}";
        (form, any::<prop::sample::Index>(), any::<prop::sample::Index>(), piece).prop_map(
            |(form, from, length, piece)| {
                let chars: Vec<char> = form.chars().collect();
                let from = from.index(chars.len() + 1);
                let to = from + length.index(chars.len() + 1 - from);
                chars[..from].iter().copied().chain(piece.chars()).chain(chars[to..].iter().copied()).collect()
            },
        )
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in proptest::prelude::any::<String>(), mutated in mutated()) {
            for text in [text, mutated] {
                drop(Conninfo::parse(&text));
            }
        }

        #[test]
        fn no_error_repeats_a_password(mutated in mutated()) {
            if let Err(error) = Conninfo::parse(&mutated) {
                proptest::prop_assert!(!error.to_string().contains("secret"), "{mutated}: {error}");
            }
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_the_value() {
        for (text, expected) in [
            ("mysql://h/app", ConninfoError::UnknownForm),
            ("app", ConninfoError::UnknownForm),
            ("postgresql://u:p%4@h/app", ConninfoError::BadPercent),
            ("postgresql://u:p%00@h/app", ConninfoError::BadPercent),
            ("postgresql://u:%ff@h/app", ConninfoError::BadPercent),
            ("postgresql://a,b/app", ConninfoError::SeveralHosts),
            ("host=a,b", ConninfoError::SeveralHosts),
            ("postgresql://h:0/app", ConninfoError::BadPort),
            ("postgresql://h:x/app", ConninfoError::BadPort),
            ("host=h port=70000", ConninfoError::BadPort),
            ("postgresql://[::1/app", ConninfoError::OpenBracket),
            ("host=h password='x", ConninfoError::OpenQuote),
            ("host=h user", ConninfoError::NoValue),
            (
                "postgresql://h/app?ssl_mode=require",
                ConninfoError::UnknownParameter { name: "ssl_mode".into(), nearest: Some("sslmode".into()) },
            ),
            ("host=h p&ss=x", ConninfoError::UnknownParameter { name: "…".into(), nearest: None }),
            ("host=h password2hunter2=", ConninfoError::UnknownParameter { name: "…".into(), nearest: None }),
        ] {
            assert_eq!(shown(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn what_means_nothing_here_is_reported() {
        let info = Conninfo::parse("postgresql://h/app?channel_binding=require&target_session_attrs=read-write");
        assert_eq!(info.expect("valid").ignored, ["channel_binding", "target_session_attrs"]);
    }
}
