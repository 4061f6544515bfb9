//! Byte sizes as people write them: `256MiB`, `5GB`, `1073741824`.

/// Parses a size. `K M G T` and `KiB MiB GiB TiB` are powers of 1024, `KB MB GB TB` powers of 1000 (as on the
/// Hugging Face Hub); letter case does not matter.
pub fn parse(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        other => return Err(format!("unknown unit {other:?}; write a size like 256MiB, 5GB or 1073741824")),
    };
    let bytes = if let Ok(n) = number.parse::<u64>() {
        n.checked_mul(factor)
    } else {
        let n: f64 = number.parse().map_err(|_| "write a size like 256MiB, 5GB or 1073741824".to_owned())?;
        let b = n * factor as f64;
        (b < 2f64.powi(63)).then_some(b as u64)
    };
    match bytes {
        Some(0) | None => Err(format!("{text} is not a usable size")),
        Some(b) => Ok(b),
    }
}

/// Prints a size with a binary unit and three significant digits: `1.24 GiB`.
pub fn human(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit < UNITS.len() - 1 {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ if value >= 100.0 => format!("{value:.0} {}", UNITS[unit]),
        _ if value >= 10.0 => format!("{value:.1} {}", UNITS[unit]),
        _ => format!("{value:.2} {}", UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_people_write_them() {
        assert_eq!(parse("256MiB"), Ok(256 << 20));
        assert_eq!(parse("1g"), Ok(1 << 30));
        assert_eq!(parse("5GB"), Ok(5_000_000_000));
        assert_eq!(parse("1.5 GiB"), Ok(3 << 29));
        assert_eq!(parse("42"), Ok(42));
        for bad in ["", "0", "MiB", "12 parsecs", "99999999999999999999", "-1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_as_people_read_them() {
        assert_eq!(human(999), "999 B");
        assert_eq!(human(1536), "1.50 KiB");
        assert_eq!(human(1_288_490_188), "1.20 GiB");
    }
}
