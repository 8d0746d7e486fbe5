//! The forms in which a value may be written: durations, sizes and secrets.
//!
//! In: TOML values. Out: numbers in one unit, or where a secret is to be had. Every error says the forms that are
//! right and never repeats what was typed where that may be a secret.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// A duration, written as a number with a unit: `"250ms"`, `"10s"`, `"5min"`, `"1h"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HumanDuration(pub Duration);

const DURATION_FORM: &str = "a duration with its unit, such as \"250ms\", \"10s\", \"5min\" or \"1h\"";

impl HumanDuration {
    pub fn parse(text: &str) -> Option<HumanDuration> {
        let (number, unit) = split_number(text)?;
        let milliseconds = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        Some(HumanDuration(Duration::from_millis(number.checked_mul(milliseconds)?)))
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.0.as_millis();
        match milliseconds {
            0 => f.write_str("0s"),
            n if n % 3_600_000 == 0 => write!(f, "{}h", n / 3_600_000),
            n if n % 60_000 == 0 => write!(f, "{}min", n / 60_000),
            n if n % 1_000 == 0 => write!(f, "{}s", n / 1_000),
            n => write!(f, "{n}ms"),
        }
    }
}

/// A number of bytes, written as a number with a unit: `"64MiB"`, `"500kB"`, `"4096B"`, or a bare number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

const SIZE_FORM: &str = "a size with its unit, such as \"64MiB\", \"500kB\" or \"1GiB\"";

impl ByteSize {
    pub fn parse(text: &str) -> Option<ByteSize> {
        let (number, unit) = split_number(text)?;
        let bytes = match unit {
            "" | "B" => 1,
            "kB" | "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return None,
        };
        Some(ByteSize(number.checked_mul(bytes)?))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if n >= 1 << 30 && n % (1 << 30) == 0 => write!(f, "{}GiB", n >> 30),
            n if n >= 1 << 20 && n % (1 << 20) == 0 => write!(f, "{}MiB", n >> 20),
            n if n >= 1 << 10 && n % (1 << 10) == 0 => write!(f, "{}KiB", n >> 10),
            n => write!(f, "{n}B"),
        }
    }
}

fn split_number(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, unit.trim()))
}

/// Where a password or token is to be had. No `Debug`: a plain one is a secret.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// Typed into the file. Works, with a warning.
    Plain(String),
    /// An environment variable.
    Env(String),
    /// A file's content without its last line break.
    File(String),
    /// Standard output of a command, run once at start, without its last line break.
    Command(Vec<String>),
}

const SECRET_FORM: &str =
    "{ env = \"NAME\" }, { file = \"/run/secrets/name\" } or { command = [\"program\", \"argument\"] }";

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;
        impl Visitor<'_> for Form {
            type Value = HumanDuration;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(DURATION_FORM)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<HumanDuration, E> {
                HumanDuration::parse(text).ok_or_else(|| E::custom(format!("{text:?} is not {DURATION_FORM}")))
            }
        }
        deserializer.deserialize_any(Form)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;
        impl Visitor<'_> for Form {
            type Value = ByteSize;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(SIZE_FORM)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
                ByteSize::parse(text).ok_or_else(|| E::custom(format!("{text:?} is not {SIZE_FORM}")))
            }
            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<ByteSize, E> {
                let bytes = u64::try_from(bytes).map_err(|_| E::custom(format!("{bytes} is not {SIZE_FORM}")))?;
                Ok(ByteSize(bytes))
            }
        }
        deserializer.deserialize_any(Form)
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SecretSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = SecretSource;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(SECRET_FORM)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<SecretSource, E> {
                Ok(SecretSource::Plain(text.to_owned()))
            }
            // serde's own errors would quote the number, which may be the secret.
            fn visit_i64<E: de::Error>(self, _: i64) -> Result<SecretSource, E> {
                Err(E::custom(format!("a number is no secret; write {SECRET_FORM}")))
            }
            fn visit_f64<E: de::Error>(self, _: f64) -> Result<SecretSource, E> {
                Err(E::custom(format!("a number is no secret; write {SECRET_FORM}")))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SecretSource, A::Error> {
                let wrong = || de::Error::custom(format!("a secret is exactly one of {SECRET_FORM}"));
                let key: String = map.next_key()?.ok_or_else(wrong)?;
                let source = match key.as_str() {
                    "env" => SecretSource::Env(map.next_value()?),
                    "file" => SecretSource::File(map.next_value()?),
                    "command" => SecretSource::Command(map.next_value()?),
                    _ => return Err(wrong()),
                };
                match map.next_key::<String>()? {
                    None => Ok(source),
                    Some(_) => Err(wrong()),
                }
            }
        }
        deserializer.deserialize_any(Form)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_numbers_with_units() {
        for (text, milliseconds) in
            [("0s", 0), ("250ms", 250), ("10s", 10_000), ("5min", 300_000), ("2 h", 7_200_000), ("1d", 86_400_000)]
        {
            assert_eq!(HumanDuration::parse(text), Some(HumanDuration(Duration::from_millis(milliseconds))), "{text}");
        }
        for text in ["", "10", "s", "-1s", "1.5s", "10 seconds", "18446744073709551615h", "é"] {
            assert_eq!(HumanDuration::parse(text), None, "{text}");
        }
        for (text, bytes) in
            [("0", 0), ("4096", 4096), ("1B", 1), ("64MiB", 64 << 20), ("500kB", 500_000), ("2 GiB", 2 << 30)]
        {
            assert_eq!(ByteSize::parse(text), Some(ByteSize(bytes)), "{text}");
        }
        for text in ["", "MiB", "1Mb", "1.5GiB", "-1", "18446744073709551615GiB"] {
            assert_eq!(ByteSize::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_printed_reads_back() {
        for milliseconds in [0, 1, 999, 1_000, 90_000, 3_600_000, 5_400_000] {
            let duration = HumanDuration(Duration::from_millis(milliseconds));
            assert_eq!(HumanDuration::parse(&duration.to_string()), Some(duration));
        }
        for bytes in [0, 1, 1023, 1024, 1 << 20, (1 << 20) + 1, 3 << 30] {
            assert_eq!(ByteSize::parse(&ByteSize(bytes).to_string()), Some(ByteSize(bytes)));
        }
    }
}
