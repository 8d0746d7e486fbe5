//! The replication slot: what the server says of it, and the command that makes it.
//!
//! In: rows of text, from an SQL session or from the replication session itself. Out: `Slot`. One statement serves 14
//! to 18: columns that came later are read through `to_jsonb`.
//!
//! Not here: whether the slot may be used (`gate`), creating it (`stream::Session`, as that needs its session).

use super::{Connection, PostgresError, Result, quote_ident, quote_literal};
use crate::change::Lsn;

/// A row of `pg_replication_slots`, with who holds it and how far it is behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    pub name: String,
    pub plugin: Option<String>,
    /// `logical` or `physical`.
    pub slot_type: String,
    pub database: Option<String>,
    pub temporary: bool,
    pub two_phase: bool,
    pub active_pid: Option<i32>,
    /// application_name of the holder; `None` also when the role may not see it.
    pub active_application: Option<String>,
    pub wal_status: Option<WalStatus>,
    /// Bytes that may still be written before the slot may be lost; `None` without a limit, or when it is lost.
    pub safe_wal_size: Option<i64>,
    pub restart_lsn: Option<Lsn>,
    pub confirmed_flush_lsn: Option<Lsn>,
    /// Transactions since the oldest one whose catalog rows the slot keeps from VACUUM.
    pub catalog_xmin_age: Option<i64>,
    /// 17 and newer: `wal_removed`, `rows_removed`, `wal_level_insufficient`, `idle_timeout`.
    pub invalidation_reason: Option<String>,
    pub conflicting: bool,
    pub failover: bool,
    /// Copied from a primary to this standby.
    pub synced: bool,
    /// Standbys that `synchronized_standby_slots` names and that are not connected: a failover slot is sent nothing meanwhile.
    pub absent_standbys: Option<String>,
    /// WAL that the server keeps for the slot, in bytes: from `restart_lsn`.
    pub retained_bytes: Option<u64>,
    /// WAL that we have not confirmed, in bytes: from `confirmed_flush_lsn`.
    pub lag_bytes: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalStatus {
    Reserved,
    Extended,
    /// The next checkpoint may remove WAL that the slot needs.
    Unreserved,
    /// That WAL is gone.
    Lost,
}

impl WalStatus {
    /// As `pg_replication_slots.wal_status` shows it.
    pub fn as_str(self) -> &'static str {
        match self {
            WalStatus::Reserved => "reserved",
            WalStatus::Extended => "extended",
            WalStatus::Unreserved => "unreserved",
            WalStatus::Lost => "lost",
        }
    }
}

const DOING: &str = "read the replication slot";

/// The slot of that name, of any kind and any database; `None` when there is none.
pub async fn read_slot(connection: &Connection, name: &str) -> Result<Option<Slot>> {
    let rows = connection.simple(DOING, &select(name)).await?;
    rows.first().map(|row| parse(row)).transpose()
}

/// Slots that nobody reads, and that keep WAL all the same: those of pgoutput in this database, and whatever keeps
/// `retained_bytes` or more. Without the one of that name.
pub async fn read_idle_slots(connection: &Connection, but: &str, retained_bytes: u64) -> Result<Vec<Slot>> {
    let idle = format!(
        "NOT s.active AND NOT s.temporary AND s.slot_name <> {but} AND s.restart_lsn IS NOT NULL \
         AND coalesce(pg_catalog.to_jsonb(s)->>'synced', 'f') <> 'true' \
         AND ((s.plugin = 'pgoutput' AND s.database = pg_catalog.current_database()) \
         OR pg_catalog.pg_wal_lsn_diff(w.lsn, s.restart_lsn) >= {retained_bytes}) ORDER BY 1",
        but = quote_literal(but)
    );
    connection.simple(DOING, &select_where(&idle)).await?.iter().map(|row| parse(row)).collect()
}

/// Drop the slot. It must not be active.
pub async fn drop_slot(connection: &Connection, name: &str) -> Result<()> {
    connection.simple("drop the replication slot", &drop_statement(name)).await?;
    Ok(())
}

/// For us and for people.
pub fn drop_statement(name: &str) -> String {
    format!("SELECT pg_drop_replication_slot({})", quote_literal(name))
}

/// The statement whose row `parse` understands. Literals instead of parameters: a replication session has none.
pub(super) fn select(name: &str) -> String {
    select_where(&format!("s.slot_name = {}", quote_literal(name)))
}

/// Older servers than 17 do not have the setting. A slot's name needs no quotes, but may be written with them.
const ABSENT_STANDBYS: &str = "(SELECT pg_catalog.string_agg(name, ', ') FROM pg_catalog.unnest(pg_catalog.string_to_array(\
     pg_catalog.current_setting('synchronized_standby_slots', true), ',')) AS listed(item), \
     LATERAL (SELECT pg_catalog.btrim(item, ' \"') AS name) AS trimmed WHERE name <> '' AND NOT EXISTS \
     (SELECT 1 FROM pg_catalog.pg_replication_slots p WHERE p.slot_name::text = name AND p.active_pid IS NOT NULL))";

/// `s` is the slot, `w.lsn` where the server is.
fn select_where(condition: &str) -> String {
    format!(
        "SELECT s.slot_name, s.plugin, s.slot_type, s.database, s.temporary, s.two_phase, s.active_pid, \
         r.application_name, s.wal_status, s.safe_wal_size, s.restart_lsn, s.confirmed_flush_lsn, \
         pg_catalog.age(s.catalog_xmin), pg_catalog.to_jsonb(s)->>'invalidation_reason', \
         coalesce(pg_catalog.to_jsonb(s)->>'conflicting', 'f'), coalesce(pg_catalog.to_jsonb(s)->>'failover', 'f'), \
         coalesce(pg_catalog.to_jsonb(s)->>'synced', 'f'), \
         pg_catalog.trunc(pg_catalog.pg_wal_lsn_diff(w.lsn, s.restart_lsn)), \
         pg_catalog.trunc(pg_catalog.pg_wal_lsn_diff(w.lsn, s.confirmed_flush_lsn)), \
         CASE WHEN pg_catalog.to_jsonb(s)->>'failover' = 'true' THEN {ABSENT_STANDBYS} END \
         FROM pg_catalog.pg_replication_slots s \
         CROSS JOIN (SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() \
         ELSE pg_catalog.pg_current_wal_lsn() END AS lsn) w \
         LEFT JOIN pg_catalog.pg_stat_activity r ON r.pid = s.active_pid WHERE {condition}"
    )
}

pub(super) fn parse(row: &[Option<String>]) -> Result<Slot> {
    let text = |i: usize| row.get(i).cloned().flatten();
    let flag = |i: usize| matches!(row.get(i), Some(Some(text)) if text == "t" || text == "true");
    let not_understood = |what: &str| PostgresError::Answer { doing: DOING, what: what.to_owned() };
    let lsn = |i: usize| text(i).map(|text| text.parse::<Lsn>()).transpose().map_err(|_| not_understood("an LSN"));
    let number = |i: usize| text(i).map(|text| text.parse::<i64>()).transpose().map_err(|_| not_understood("a number"));
    let wal_status = match text(8).as_deref() {
        None => None,
        Some("reserved") => Some(WalStatus::Reserved),
        Some("extended") => Some(WalStatus::Extended),
        Some("unreserved") => Some(WalStatus::Unreserved),
        Some("lost") => Some(WalStatus::Lost),
        Some(other) => return Err(not_understood(other)),
    };
    Ok(Slot {
        name: text(0).ok_or_else(|| not_understood("no name"))?,
        plugin: text(1),
        slot_type: text(2).unwrap_or_default(),
        database: text(3),
        temporary: flag(4),
        two_phase: flag(5),
        active_pid: number(6)?.and_then(|pid| i32::try_from(pid).ok()),
        active_application: text(7),
        wal_status,
        safe_wal_size: number(9)?,
        restart_lsn: lsn(10)?,
        confirmed_flush_lsn: lsn(11)?,
        catalog_xmin_age: number(12)?,
        invalidation_reason: text(13),
        conflicting: flag(14),
        failover: flag(15),
        synced: flag(16),
        // Negative for an instant, when the slot is ahead of what `pg_current_wal_lsn` said.
        retained_bytes: number(17)?.map(|bytes| bytes.max(0).unsigned_abs()),
        lag_bytes: number(18)?.map(|bytes| bytes.max(0).unsigned_abs()),
        absent_standbys: text(19),
    })
}

/// CREATE_REPLICATION_SLOT without a snapshot: each chunk of the copy takes its own, later. 14 has the older grammar.
pub(super) fn create_command(name: &str, version_num: u32, failover: bool) -> String {
    let options = match (version_num, failover) {
        (..150_000, _) => "NOEXPORT_SNAPSHOT",
        (170_000.., true) => "(SNAPSHOT 'nothing', FAILOVER 'true')",
        _ => "(SNAPSHOT 'nothing')",
    };
    format!("CREATE_REPLICATION_SLOT {} LOGICAL pgoutput {options}", quote_ident(name))
}

/// Who holds a transaction id, oldest first: creating a slot waits for all of them to end.
pub(super) const WRITERS: &str = "\
SELECT a.pid, coalesce(nullif(a.application_name, ''), a.backend_type), a.state, \
  pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - a.xact_start)::int8 \
FROM pg_catalog.pg_stat_activity a WHERE a.backend_xid IS NOT NULL AND a.pid <> pg_catalog.pg_backend_pid() \
UNION ALL SELECT NULL, 'prepared transaction ' || p.gid, 'prepared', \
  pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - p.prepared)::int8 FROM pg_catalog.pg_prepared_xacts p \
ORDER BY 4 DESC NULLS LAST LIMIT 5";

pub(super) fn describe_writer(row: &[Option<String>]) -> String {
    let text = |i: usize| row.get(i).cloned().flatten();
    let who = text(1).unwrap_or_default();
    let what = text(2).unwrap_or_default();
    let age = text(3).map(|age| format!(" for {age} s")).unwrap_or_default();
    match text(0) {
        Some(pid) => format!("pid {pid}, {who}, {what}{age}"),
        None => format!("{who}{age}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_follows_the_version() {
        for (version, failover, command) in [
            (140_012, true, "CREATE_REPLICATION_SLOT \"My s\" LOGICAL pgoutput NOEXPORT_SNAPSHOT"),
            (160_014, true, "CREATE_REPLICATION_SLOT \"My s\" LOGICAL pgoutput (SNAPSHOT 'nothing')"),
            (170_000, false, "CREATE_REPLICATION_SLOT \"My s\" LOGICAL pgoutput (SNAPSHOT 'nothing')"),
            (180_003, true, "CREATE_REPLICATION_SLOT \"My s\" LOGICAL pgoutput (SNAPSHOT 'nothing', FAILOVER 'true')"),
        ] {
            assert_eq!(create_command("My s", version, failover), command);
        }
    }

    #[test]
    fn a_row_is_understood_or_refused() {
        let mut row: Vec<Option<String>> = vec![None; 19];
        assert!(parse(&row).is_err());
        row[0] = Some("s".to_owned());
        row[8] = Some("unreserved".to_owned());
        row[11] = Some("0/2044B50".to_owned());
        row[14] = Some("true".to_owned());
        row[18] = Some("-8".to_owned());
        let slot = parse(&row).expect("a slot");
        assert_eq!(slot.wal_status, Some(WalStatus::Unreserved));
        assert_eq!(slot.confirmed_flush_lsn, Some(Lsn(0x204_4B50)));
        assert_eq!((slot.conflicting, slot.lag_bytes), (true, Some(0)));
        row[8] = Some("new in 19".to_owned());
        assert!(parse(&row).is_err());
    }
}
