//! The process itself: memory, processor time, open files, under the names that every Prometheus exporter uses.
//!
//! Read from `/proc` when asked; where there is none (not Linux) the values stay 0.

use prometheus::{Counter, Gauge};

use super::Maker;

/// `USER_HZ`, which Linux fixes at 100 for programs whatever the kernel's own tick is (`man 5 proc`, `man 7 time`).
const TICKS_PER_SECOND: f64 = 100.0;

pub(super) struct ProcessMetrics {
    resident_bytes: Gauge,
    cpu_seconds: Counter,
    open_files: Gauge,
}

impl ProcessMetrics {
    pub(super) fn new(make: &Maker<'_>) -> Result<ProcessMetrics, prometheus::Error> {
        Ok(ProcessMetrics {
            resident_bytes: make.gauge("process_resident_memory_bytes", "Resident memory.")?,
            cpu_seconds: make
                .register(Counter::new("process_cpu_seconds_total", "Processor time, user and system.")?)?,
            open_files: make.gauge("process_open_fds", "Open file descriptors.")?,
        })
    }

    pub(super) fn refresh(&self) {
        if let Some(kib) = std::fs::read_to_string("/proc/self/status").ok().and_then(|text| resident_kib(&text)) {
            self.resident_bytes.set((kib * 1024) as f64);
        }
        if let Some(ticks) = std::fs::read_to_string("/proc/self/stat").ok().and_then(|text| cpu_ticks(&text)) {
            let seconds = ticks as f64 / TICKS_PER_SECOND;
            self.cpu_seconds.inc_by((seconds - self.cpu_seconds.get()).max(0.0));
        }
        if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
            self.open_files.set(entries.count() as f64);
        }
    }
}

fn resident_kib(status: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse().ok()
}

/// `utime` and `stime` of `/proc/self/stat`: fields 14 and 15, counted behind the name, which may hold spaces.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(ticks()? + ticks()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read_where_the_manual_says() {
        assert_eq!(resident_kib("VmHWM:\t    9000 kB\nVmRSS:\t    2500 kB\n"), Some(2500));
        let stat = "42 (wal) vec) S 1 42 42 0 -1 4194560 100 0 0 0 17 25 0 0 20 0 4 0 1000 1000000 250";
        assert_eq!(cpu_ticks(stat), Some(42));
        assert_eq!((resident_kib(""), cpu_ticks("")), (None, None));
    }
}
