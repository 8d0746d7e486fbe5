//! Where secrets come from: the environment, a file, a command, and libpq's own places for a password.
//!
//! In: a `SecretSource`. Out: a `Secret`, read once at start. Nothing here puts a secret into an error or a log.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::settings::Secret;
use super::values::SecretSource;

/// Longer than any token in use; a bound so that a wrong path (a device, a log) is an error and not a full memory.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// A credential helper that asks a person would block the start for ever.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// The process's environment variables, or given ones in tests.
pub struct Environment(Option<BTreeMap<String, String>>);

impl Environment {
    pub fn process() -> Environment {
        Environment(None)
    }

    pub fn of<const N: usize>(variables: [(&str, &str); N]) -> Environment {
        Environment(Some(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect()))
    }

    pub fn get(&self, name: &str) -> Option<String> {
        let value = match &self.0 {
            None => std::env::var(name).ok(),
            Some(variables) => variables.get(name).cloned(),
        };
        value.filter(|value| !value.is_empty())
    }
}

/// Read the secret. The error is a sentence with the way out; the secret itself is in none. A warning may be added.
pub fn read(source: &SecretSource, environment: &Environment, warnings: &mut Vec<String>) -> Result<Secret, String> {
    match source {
        SecretSource::Plain(secret) if secret.is_empty() => Err("is empty; leave the key out if there is none".into()),
        SecretSource::Plain(secret) => Ok(Secret::new(secret)),
        SecretSource::Env(name) => environment.get(name).map(Secret::new).ok_or_else(|| {
            format!("environment variable {name:?} is not set or empty; export it where walvec is started")
        }),
        SecretSource::File(path) => file(Path::new(path), warnings),
        SecretSource::Command(command) => self::command(command),
    }
}

fn file(path: &Path, warnings: &mut Vec<String>) -> Result<Secret, String> {
    let shown = path.display();
    let file = std::fs::File::open(path).map_err(|error| format!("cannot open secret file {shown}: {error}"))?;
    if let Ok(metadata) = file.metadata()
        && metadata.permissions().mode() & 0o007 != 0
    {
        warnings.push(format!("secret file {shown} can be read by every user; chmod o= it"));
    }
    one_line(file).map_err(|problem| format!("secret file {shown} {problem}"))
}

fn command(command: &[String]) -> Result<Secret, String> {
    let (program, arguments) = command.split_first().ok_or("command is empty; write [\"program\", \"argument\"]")?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot run {program:?}: {error}"))?;
    let stdout = child.stdout.take().expect("stdout was asked to be piped");
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || drop(sender.send(one_line(stdout))));
    let secret = receiver.recv_timeout(COMMAND_TIMEOUT);
    if secret.is_err() {
        drop(child.kill());
    }
    let status = child.wait().map_err(|error| format!("cannot wait for {program:?}: {error}"))?;
    let secret = secret.map_err(|_| format!("{program:?} gave nothing within {} s", COMMAND_TIMEOUT.as_secs()))?;
    if !status.success() {
        return Err(format!("{program:?} failed ({status}); its standard error says why"));
    }
    secret.map_err(|problem| format!("output of {program:?} {problem}"))
}

/// The content without its last line break; empty, too long and not UTF-8 are errors.
fn one_line(mut from: impl Read) -> Result<Secret, String> {
    let mut bytes = Vec::new();
    from.by_ref()
        .take(SECRET_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > SECRET_BYTES_MAX {
        return Err(format!("is longer than {SECRET_BYTES_MAX} bytes"));
    }
    let text = String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())?;
    let secret = text.strip_suffix('\n').unwrap_or(&text);
    let secret = secret.strip_suffix('\r').unwrap_or(secret);
    if secret.is_empty() { Err("is empty".into()) } else { Ok(Secret::new(secret)) }
}

/// The password that libpq would find when none was given: `PGPASSWORD`, then the password file.
pub fn libpq_password(
    environment: &Environment,
    passfile: Option<&str>,
    (host, port, database, user): (&str, u16, &str, &str),
    warnings: &mut Vec<String>,
) -> Option<Secret> {
    if let Some(password) = environment.get("PGPASSWORD") {
        return Some(Secret::new(password));
    }
    let path = passfile
        .map(PathBuf::from)
        .or_else(|| environment.get("PGPASSFILE").map(PathBuf::from))
        .or_else(|| environment.get("HOME").map(|home| Path::new(&home).join(".pgpass")))?;
    let metadata = std::fs::metadata(&path).ok()?;
    if !metadata.is_file() {
        return None;
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        // As libpq does.
        warnings.push(format!("password file {} is ignored: others may read it; chmod 600 it", path.display()));
        return None;
    }
    let text = std::fs::read_to_string(&path).ok()?;
    // libpq looks a socket in the default directory up as "localhost"; so do we for any socket.
    let host = if host.starts_with('/') { "localhost" } else { host };
    pgpass(&text, [host, &port.to_string(), database, user]).map(Secret::new)
}

/// The first line of a `.pgpass` that matches. Fields are parted by `:`, `\` takes the next character as it is,
/// `*` alone matches everything.
fn pgpass(text: &str, wanted: [&str; 4]) -> Option<String> {
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut rest = line;
        for wanted in wanted {
            let (field, literal, after) = pgpass_field(rest, true)?;
            if field != wanted && !(field == "*" && literal) {
                return None;
            }
            rest = after;
        }
        let (password, ..) = pgpass_field(rest, false)?;
        (!password.is_empty()).then_some(password)
    })
}

/// One field, whether it was without escapes, and what follows its colon; `None` where a colon is missing.
fn pgpass_field(text: &str, colon: bool) -> Option<(String, bool, &str)> {
    let (mut field, mut literal) = (String::new(), true);
    let mut characters = text.chars();
    loop {
        match characters.next() {
            Some('\\') => {
                literal = false;
                field.extend(characters.next());
            }
            Some(':') if colon => return Some((field, literal, characters.as_str())),
            Some(c) => field.push(c),
            None if colon => return None,
            None => return Some((field, literal, "")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_to_text(source: &SecretSource, environment: &Environment) -> Result<String, String> {
        read(source, environment, &mut Vec::new()).map(|secret| secret.expose().to_owned())
    }

    #[test]
    fn each_source_gives_its_secret_without_the_line_break() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("token");
        std::fs::write(&path, "s3cret \r\n").expect("write");
        let file = SecretSource::File(path.display().to_string());
        let environment = Environment::of([("TOKEN", "from env"), ("EMPTY", "")]);
        assert_eq!(read_to_text(&file, &environment).as_deref(), Ok("s3cret "));
        assert_eq!(read_to_text(&SecretSource::Env("TOKEN".into()), &environment).as_deref(), Ok("from env"));
        let command = SecretSource::Command(vec!["printf".into(), "a\\nb\\n".into()]);
        assert_eq!(read_to_text(&command, &environment).as_deref(), Ok("a\nb"));
    }

    #[test]
    fn a_secret_that_is_not_there_is_said_with_its_place() {
        let environment = Environment::of([("EMPTY", "")]);
        for (source, part) in [
            (SecretSource::Env("NOPE".into()), "\"NOPE\" is not set"),
            (SecretSource::Env("EMPTY".into()), "\"EMPTY\" is not set or empty"),
            (SecretSource::File("/nonexistent/token".into()), "/nonexistent/token"),
            (SecretSource::Command(vec![]), "command is empty"),
            (SecretSource::Command(vec!["/nonexistent/helper".into()]), "/nonexistent/helper"),
            (SecretSource::Command(vec!["false".into()]), "\"false\" failed"),
            (SecretSource::Command(vec!["true".into()]), "\"true\" is empty"),
            (SecretSource::File("/dev/zero".into()), "longer than"),
        ] {
            let error = read_to_text(&source, &environment).expect_err("nothing to be had");
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn pgpass_is_read_as_libpq_reads_it() {
        let text = "# comment\n\nh:5432:app:u:first\n*:*:app:o\\:b:with\\:colon\\\\\nh:*:*:*:any:thing\nshort:line\n";
        assert_eq!(pgpass(text, ["h", "5432", "app", "u"]).as_deref(), Some("first"));
        assert_eq!(pgpass(text, ["x", "1", "app", "o:b"]).as_deref(), Some("with:colon\\"));
        assert_eq!(pgpass(text, ["h", "1", "other", "u"]).as_deref(), Some("any:thing"));
        assert_eq!(pgpass(text, ["x", "1", "app", "u"]), None);
        assert_eq!(pgpass("\\*:1:d:u:p", ["h", "1", "d", "u"]), None);
    }

    #[test]
    fn a_password_file_that_others_may_read_is_ignored_with_a_warning() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("pgpass");
        std::fs::write(&path, "*:*:*:*:secret\n").expect("write");
        let find = |mode: u32| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("chmod");
            let mut warnings = Vec::new();
            let passfile = path.to_str();
            let found = libpq_password(&Environment::of([]), passfile, ("h", 5432, "app", "u"), &mut warnings);
            (found.map(|secret| secret.expose().to_owned()), warnings.len())
        };
        assert_eq!(find(0o600), (Some("secret".into()), 0));
        assert_eq!(find(0o644), (None, 1));
    }
}
