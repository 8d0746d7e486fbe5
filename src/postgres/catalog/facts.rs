//! Facts of the server and of our role that decide whether replication can work at all.

use crate::postgres::{Connection, PostgresError, Result};

/// The server as we see it: version, identity, settings that replication needs, and what the role may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFacts {
    /// `server_version_num`: 180003 is 18.3.
    pub version_num: u32,
    /// As the server writes it, e.g. `18.3 (Debian 18.3-1)`.
    pub version: String,
    /// `None` when the provider does not let the role read it; the replication session tells it in any case.
    pub system_identifier: Option<u64>,
    pub timeline: Option<u32>,
    pub in_recovery: bool,
    pub database: String,
    pub role: String,
    pub superuser: bool,
    /// The attribute REPLICATION, or the membership that stands for it at a provider (`rds_replication`).
    pub replication: bool,
    pub wal_level: String,
    /// In megabytes; `None` = no limit: a slot that is not read fills the disk.
    pub max_slot_wal_keep_size_mb: Option<u64>,
    /// In seconds; `None` = never, or older than 18.
    pub idle_replication_slot_timeout_s: Option<u64>,
    pub synchronous_standby_names: String,
    pub max_replication_slots: u32,
    pub replication_slots_used: u32,
    pub max_wal_senders: u32,
    pub wal_senders_used: u32,
    /// In milliseconds, the server's own; our session sets another.
    pub wal_sender_timeout_ms: u64,
}

impl ServerFacts {
    /// Commits would wait for our confirmation: see [`waits_for`].
    pub fn waits_for(&self, application_name: &str) -> bool {
        waits_for(&self.synchronous_standby_names, application_name)
    }
}

/// Reads everything but the identity in one statement.
pub async fn read_facts(connection: &Connection) -> Result<ServerFacts> {
    const DOING: &str = "read the server's settings";
    let rows = connection.rows(DOING, FACTS, &[]).await?;
    let row = rows.first().ok_or_else(|| answer(DOING, "no row"))?;
    let unreadable = |error: tokio_postgres::Error| answer(DOING, &error.to_string());
    let text = |i: usize| row.try_get::<_, String>(i).map_err(unreadable);
    let flag = |i: usize| row.try_get::<_, bool>(i).map_err(unreadable);
    let number = |i: usize| row.try_get::<_, i64>(i).map_err(unreadable);
    let count = |i: usize| Ok::<_, PostgresError>(u32::try_from(number(i)?).unwrap_or(0));
    let (system_identifier, timeline) = read_identity(connection).await?;
    Ok(ServerFacts {
        version_num: connection.version_num(),
        version: text(0)?,
        system_identifier,
        timeline,
        in_recovery: flag(1)?,
        database: text(2)?,
        role: text(3)?,
        superuser: flag(4)?,
        replication: flag(5)?,
        wal_level: text(6)?,
        max_slot_wal_keep_size_mb: u64::try_from(number(7)?).ok(),
        idle_replication_slot_timeout_s: u64::try_from(number(8)?).ok().filter(|&seconds| seconds > 0),
        synchronous_standby_names: text(9)?,
        max_replication_slots: count(10)?,
        replication_slots_used: count(11)?,
        max_wal_senders: count(12)?,
        wal_senders_used: count(13)?,
        wal_sender_timeout_ms: u64::try_from(number(14)?).unwrap_or(0),
    })
}

/// `pg_settings` gives numbers in the unit of the setting (MB, s, ms); a setting that a version does not have is NULL.
const FACTS: &str = "\
WITH s AS (SELECT pg_catalog.jsonb_object_agg(name, setting) AS v FROM pg_catalog.pg_settings
  WHERE name IN ('wal_level', 'max_slot_wal_keep_size', 'idle_replication_slot_timeout', 'synchronous_standby_names',
                 'max_replication_slots', 'max_wal_senders'))
SELECT pg_catalog.current_setting('server_version'), pg_catalog.pg_is_in_recovery(),
  pg_catalog.current_database()::text, CURRENT_USER::text, r.rolsuper,
  r.rolsuper OR r.rolreplication OR EXISTS (SELECT 1 FROM pg_catalog.pg_roles g
    WHERE g.rolname = 'rds_replication' AND pg_catalog.pg_has_role(CURRENT_USER, g.oid, 'USAGE')),
  v->>'wal_level', coalesce((v->>'max_slot_wal_keep_size')::int8, -1),
  coalesce((v->>'idle_replication_slot_timeout')::int8, -1), coalesce(v->>'synchronous_standby_names', ''),
  (v->>'max_replication_slots')::int8, (SELECT count(*) FROM pg_catalog.pg_replication_slots),
  (v->>'max_wal_senders')::int8, (SELECT count(*) FROM pg_catalog.pg_stat_replication),
  (SELECT reset_val::int8 FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout')
FROM s, pg_catalog.pg_roles r WHERE r.rolname = CURRENT_USER";

/// Some providers take EXECUTE on the control functions away: then nothing is known, which is no error.
async fn read_identity(connection: &Connection) -> Result<(Option<u64>, Option<u32>)> {
    const DOING: &str = "read the system identifier";
    let sql = "SELECT (SELECT system_identifier FROM pg_catalog.pg_control_system()), \
               (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint())";
    match connection.simple(DOING, sql).await {
        Ok(rows) => {
            let field = |i: usize| rows.first().and_then(|row| row.get(i)?.clone());
            Ok((field(0).and_then(|text| text.parse().ok()), field(1).and_then(|text| text.parse().ok())))
        }
        Err(error) if error.sqlstate() == Some("42501") => Ok((None, None)),
        Err(error) => Err(error),
    }
}

/// The list of synchronous standbys now: it can be changed while we run.
pub async fn read_synchronous_standby_names(connection: &Connection) -> Result<String> {
    let rows = connection
        .simple("read synchronous_standby_names", "SELECT pg_catalog.current_setting('synchronous_standby_names')")
        .await?;
    Ok(rows.into_iter().next().and_then(|row| row.into_iter().next().flatten()).unwrap_or_default())
}

/// Does this `synchronous_standby_names` name us? Then a commit would wait for our confirmation, and our fetch for that
/// commit: a deadlock. `*` names everybody. Names compare without case, as PostgreSQL compares them.
pub fn waits_for(synchronous_standby_names: &str, application_name: &str) -> bool {
    standby_names(synchronous_standby_names)
        .iter()
        .any(|name| name == "*" || name.eq_ignore_ascii_case(application_name))
}

/// The names of `[FIRST|ANY] n (a, "b", …)` or of a bare list.
fn standby_names(setting: &str) -> Vec<String> {
    let list = match (setting.find('('), setting.rfind(')')) {
        // A parenthesis inside a quoted name is not a list; such a setting begins with the quote.
        (Some(open), Some(close)) if open < close && !setting.trim_start().starts_with('"') => {
            setting.get(open + 1..close).unwrap_or_default()
        }
        _ => setting,
    };
    let (mut names, mut name, mut quoted) = (Vec::new(), String::new(), false);
    let mut characters = list.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                name.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => names.push(std::mem::take(&mut name)),
            character if !quoted && character.is_whitespace() => {}
            character => name.push(character),
        }
    }
    names.push(name);
    names.retain(|name| !name.is_empty());
    names
}

fn answer(doing: &'static str, what: &str) -> PostgresError {
    PostgresError::Answer { doing, what: what.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synchronous_standby_names_is_read_as_postgres_reads_it() {
        for (setting, waits) in [
            ("", false),
            ("*", true),
            ("walvec", true),
            ("WalVec", true),
            ("a, walvec", true),
            ("FIRST 1 (a, walvec)", true),
            ("ANY 2 (a, \"walvec\", b)", true),
            ("2 (a, *)", true),
            ("FIRST 1 (a, b)", false),
            ("walvec2", false),
            ("\"walvec (x)\"", false),
            ("\"a,walvec\"", false),
        ] {
            assert_eq!(waits_for(setting, "walvec"), waits, "{setting}");
        }
    }
}
