//! What a process has used, and the middle of several measurements.

use std::fs;
use std::io;
use std::time::Duration;

/// Linux counts CPU time for user space in ticks of 1/100 s on every architecture (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

/// What a process has used since it began.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// User and system time of all its threads.
    pub cpu: Duration,
    /// The most memory that was resident at a time (`VmHWM`).
    pub peak_rss_bytes: u64,
    /// Resident now (`VmRSS`).
    pub rss_bytes: u64,
}

/// Of a process that is alive.
pub fn usage(pid: u32) -> io::Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let cpu = cpu_ticks(&stat).ok_or_else(|| io::Error::other("no CPU time in /proc/PID/stat"))?;
    let bytes = |name| status_bytes(&status, name).ok_or_else(|| io::Error::other("no memory in /proc/PID/status"));
    Ok(Usage { cpu: TICK * cpu, peak_rss_bytes: bytes("VmHWM:")?, rss_bytes: bytes("VmRSS:")? })
}

/// `utime + stime`: the 14th and 15th field; the second is a name in brackets that may hold spaces.
fn cpu_ticks(stat: &str) -> Option<u32> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u32>().ok();
    Some(ticks()? + ticks()?)
}

fn status_bytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// The middle one; of an even number the lower of the two in the middle. NaN when there is none.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The smallest value that at least `share` of all values do not exceed.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}
