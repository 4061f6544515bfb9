//! What the operating system says about this process's memory. Knows nothing of tiles.

/// Highest resident memory of this process so far in bytes (`VmHWM`); `None` where the system does not tell.
pub fn peak_rss() -> Option<u64> {
    status("VmHWM:")
}

/// Resident memory of this process now in bytes (`VmRSS`); `None` where the system does not tell.
pub fn resident() -> Option<u64> {
    status("VmRSS:")
}

/// A field of Linux's `/proc/self/status`, which counts in KiB (`man 5 proc_pid_status`).
fn status(field: &str) -> Option<u64> {
    parse(&std::fs::read_to_string("/proc/self/status").ok()?, field)
}

fn parse(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|l| l.strip_prefix(field))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_kibibytes() {
        let text = "Name:\tx\nVmHWM:\t    1234 kB\nVmRSS:\t     12 kB\n";
        assert_eq!(parse(text, "VmHWM:"), Some(1234 * 1024));
        assert_eq!(parse(text, "VmRSS:"), Some(12 * 1024));
        assert_eq!(parse(text, "VmSwap:"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_peak_is_at_least_what_is_resident_now() {
        let now = resident().unwrap();
        assert!(now > 0 && peak_rss().unwrap() >= now);
    }
}
