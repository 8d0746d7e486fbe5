//! `walvec dead-letters`: rows that Milvus will not take: list them, try them again, give them up.
//!
//! Asks the running daemon. Where none runs, lists and discards work on its state directly; a retry needs the daemon.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::commands::{Taken, Which};
use crate::config::Settings;
use crate::letters::{self, Letter, Listed};

use super::place::{self, Place, temporary};
use super::{Exit, Failure, Global, status};

/// Rows that Milvus will not take
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// One line each; exit code 1 if there is any
    List {
        #[command(flatten)]
        some: Several,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Everything that is known of one
    Show {
        #[command(flatten)]
        one: One,
    },
    /// Read the rows again and send them; waits for what becomes of them, exit code 1 if one is refused again
    Retry {
        #[command(flatten)]
        some: Several,
    },
    /// Forget them; their rows stay absent from the collection until they change
    Discard {
        #[command(flatten)]
        some: Several,
        /// Every letter of every table, which must be said
        #[arg(long, conflicts_with = "table")]
        all: bool,
    },
}

#[derive(Debug, clap::Args)]
struct Several {
    /// `schema.table`; default: all
    table: Option<String>,
    /// A key of it, as it is listed; default: all
    #[arg(allow_hyphen_values = true)]
    key: Option<String>,
}

#[derive(Debug, clap::Args)]
struct One {
    /// `schema.table`
    table: String,
    /// Its key, as it is listed
    #[arg(allow_hyphen_values = true)]
    key: String,
}

impl From<Several> for Which {
    fn from(Several { table, key }: Several) -> Which {
        Which { table, key }
    }
}

impl From<One> for Which {
    fn from(One { table, key }: One) -> Which {
        Which { table: table.into(), key: key.into() }
    }
}

/// A retried row is read and sent at once; a target that is throttled or away takes longer.
const RETRY_WITHIN: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(100);

pub async fn run(args: Args, global: &Global) -> Result<Exit, Failure> {
    let settings = global.load_with_warnings()?;
    let place = Place::find(&settings).await?;
    match args.action {
        Action::List { some, json } => {
            let listed = place.list(&some.into()).await?;
            match json {
                true => println!("{}", serde_json::to_string_pretty(&listed).map_err(temporary)?),
                false => print!("{}", render_list(&listed, unix_seconds())),
            }
            Ok(if listed.is_empty() { Exit::Ok } else { Exit::No })
        }
        Action::Show { one } => {
            let which = one.into();
            let listed = place.list(&which).await?;
            let Some(letter) = listed.first() else { return Err(nothing(&which)) };
            print!("{}", render_one(letter));
            Ok(Exit::Ok)
        }
        Action::Retry { some } => retry(&place, &settings, some.into()).await,
        Action::Discard { some, all } => {
            let which: Which = some.into();
            if which.table.is_none() && !all {
                return Err(Failure::new(Exit::Configuration, "name a table, or give up every dead letter with --all"));
            }
            let discarded = place.discard(&settings, &which).await?;
            if discarded == 0 {
                return Err(nothing(&which));
            }
            println!("{discarded} discarded");
            Ok(Exit::Ok)
        }
    }
}

impl Place {
    async fn list(&self, which: &Which) -> Result<Vec<Listed>, Failure> {
        match self {
            Place::Daemon(address) => list(*address, which).await,
            Place::State(state) => Ok(letters::list(&state.1.letters, which)),
        }
    }

    async fn discard(&self, settings: &Settings, which: &Which) -> Result<usize, Failure> {
        match self {
            Place::Daemon(address) => Ok(place::wish(*address, settings, "dead-letters/discard", which).await?.taken),
            Place::State(state) => {
                let (store, saved) = &**state;
                let mut discarded = 0;
                for (table, letters) in &saved.letters {
                    let keys: Vec<_> = letters.keys().filter(|key| which.includes(table, key)).cloned().collect();
                    discarded += keys.len();
                    store.clear_letters(table, keys).await.map_err(|error| Failure::new(Exit::State, error))?;
                }
                Ok(discarded)
            }
        }
    }
}

/// Ask, then look until each row is at the target or refused once more.
async fn retry(place: &Place, settings: &Settings, which: Which) -> Result<Exit, Failure> {
    let Place::Daemon(address) = place else {
        let sentence = "no daemon runs: dead letters are tried again by the daemon, beside everything else";
        return Err(Failure::new(Exit::Temporary, sentence).with_way_out(Some("start it with `walvec run`".to_owned())));
    };
    let before = list(*address, &which).await?;
    if before.is_empty() {
        return Err(nothing(&which));
    }
    let Taken { taken, .. } = place::wish(*address, settings, "dead-letters/retry", &which).await?;
    let until = Instant::now() + RETRY_WITHIN;
    let tried = |now: &[Listed], old: &Listed| {
        let now = now.iter().find(|now| now.table == old.table && now.key == old.key);
        now.is_none_or(|now| now.letter.attempts > old.letter.attempts)
    };
    let mut now = list(*address, &which).await?;
    while before.iter().filter(|old| tried(&now, old)).count() < taken && Instant::now() < until {
        tokio::time::sleep(POLL_INTERVAL).await;
        now = list(*address, &which).await?;
    }
    let done = before.iter().filter(|old| !now.iter().any(|new| new.table == old.table && new.key == old.key)).count();
    let again: Vec<&Listed> = before.iter().filter(|old| tried(&now, old)).collect();
    println!("{done} at the target, {} refused again, {} waiting", again.len() - done, before.len() - again.len());
    for listed in &now {
        println!("{}", line(listed, unix_seconds()));
    }
    Ok(if done == before.len() { Exit::Ok } else { Exit::No })
}

async fn list(address: SocketAddr, which: &Which) -> Result<Vec<Listed>, Failure> {
    let mut query = Vec::new();
    query.extend(which.table.iter().map(|table| ("table", table.as_str())));
    query.extend(which.key.iter().map(|key| ("key", key.as_str())));
    let request = status::client().map_err(temporary)?.get(format!("http://{address}/dead-letters")).query(&query);
    let answer = request.send().await.and_then(reqwest::Response::error_for_status).map_err(temporary)?;
    answer.json().await.map_err(temporary)
}

fn nothing(which: &Which) -> Failure {
    let of = match (&which.table, &which.key) {
        (Some(table), Some(key)) => format!(" of {table} with key {key}"),
        (Some(table), None) => format!(" of {table}"),
        _ => String::new(),
    };
    Failure::new(Exit::No, format!("there is no dead letter{of}"))
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn render_list(listed: &[Listed], now: u64) -> String {
    let mut out = String::new();
    for letter in listed {
        push(&mut out, format_args!("{}", line(letter, now)));
    }
    push(&mut out, format_args!("{} dead letters", listed.len()));
    out
}

fn line(Listed { table, key, letter }: &Listed, now: u64) -> String {
    let field = letter.field.as_ref().map(|field| format!("field {field:?}: ")).unwrap_or_default();
    let age = age(now.saturating_sub(letter.unix_seconds));
    format!("{table}  {key}  {age} ago, {} attempts: {field}{}", letter.attempts, letter.reason)
}

/// Two figures are enough.
fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

fn render_one(Listed { table, key, letter }: &Listed) -> String {
    let Letter { field, reason, lsn, origin, unix_seconds, attempts, payload } = letter;
    let mut out = String::new();
    let origin = match origin {
        letters::Origin::Copy => "the copy",
        letters::Origin::Stream => "the stream",
    };
    for (name, value) in [
        ("table", table.clone()),
        ("key", key.clone()),
        ("field", field.clone().unwrap_or_else(|| "(the server does not say)".to_owned())),
        ("reason", reason.clone()),
        ("came by", origin.to_owned()),
        ("lsn", lsn.clone()),
        ("since", format!("{unix_seconds} s since 1970")),
        ("attempts", attempts.to_string()),
    ] {
        push(&mut out, format_args!("{name:<9} {value}"));
    }
    for (column, text) in payload {
        push(&mut out, format_args!("  {column} = {text:?}"));
    }
    out
}

fn push(out: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(out, "{line}").expect("writing to a String does not fail");
}
