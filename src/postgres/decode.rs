//! Value decoders: what a type's send function wrote, as a number or as the text its output function prints.
//!
//! In: the bytes of one value, binary or text. Out: a number, or text appended to the caller's buffer, or a
//! `DecodeError`. Nothing here knows columns, tables or targets; `plan::types` says which decoder a type has.
//!
//! Holds: every read is checked, so a value cut off anywhere is an error and never a panic, and bytes left over are
//! an error too. Text is byte for byte what PostgreSQL prints with DateStyle ISO, TimeZone UTC and
//! extra_float_digits at least 1, because a key read from a binary copy must equal the one read from a text stream.
//!
//! Not here: printing floats (`postgres::float`), vectors (`postgres::pgvector`), arrays (`postgres::array`).
//! See: PostgreSQL's `*send` and `*out` functions (src/backend/utils/adt); `tests/it/types.rs` asks a server.

/// A value is not what its type's send or output function writes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("the value ends before its type does")]
    Truncated,
    #[error("the value goes on after its type ends")]
    Trailing,
    /// The type's name.
    #[error("the bytes are not a value of type {0}")]
    Malformed(&'static str),
    #[error("the array has {0} dimensions; an ARRAY field holds one")]
    Dimensions(i32),
    #[error("the array holds a NULL; an ARRAY field holds none")]
    NullElement,
    #[error("the vector holds NaN or infinity")]
    NotFinite,
    #[error("the vector has {found} dimensions, the field {expected}")]
    Dimension { expected: usize, found: usize },
    #[error("the value was not sent: it is stored out of line and unchanged")]
    UnchangedToast,
}

/// Checked reads from the front of a value, all big-endian.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self.0.split_at_checked(n).ok_or(DecodeError::Truncated)?;
        self.0 = tail;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(DecodeError::Truncated)?;
        self.0 = tail;
        Ok(*head)
    }

    pub(crate) fn i16(&mut self) -> Result<i16, DecodeError> {
        self.array().map(i16::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, DecodeError> {
        self.array().map(i32::from_be_bytes)
    }

    pub(crate) fn end(&self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Trailing) }
    }
}

/// The whole value as an array of its only possible length.
fn exactly<const N: usize>(value: &[u8]) -> Result<[u8; N], DecodeError> {
    value.try_into().map_err(|_| if value.len() < N { DecodeError::Truncated } else { DecodeError::Trailing })
}

pub fn bool(value: &[u8]) -> Result<bool, DecodeError> {
    exactly::<1>(value).map(|[byte]| byte != 0)
}

pub fn int2(value: &[u8]) -> Result<i64, DecodeError> {
    exactly(value).map(|bytes| i64::from(i16::from_be_bytes(bytes)))
}

pub fn int4(value: &[u8]) -> Result<i64, DecodeError> {
    exactly(value).map(|bytes| i64::from(i32::from_be_bytes(bytes)))
}

pub fn int8(value: &[u8]) -> Result<i64, DecodeError> {
    exactly(value).map(i64::from_be_bytes)
}

pub fn float4(value: &[u8]) -> Result<f32, DecodeError> {
    exactly(value).map(f32::from_be_bytes)
}

pub fn float8(value: &[u8]) -> Result<f64, DecodeError> {
    exactly(value).map(f64::from_be_bytes)
}

pub fn bool_text(text: &[u8]) -> Result<bool, DecodeError> {
    match text {
        b"t" => Ok(true),
        b"f" => Ok(false),
        _ => Err(DecodeError::Malformed("boolean")),
    }
}

/// A number that PostgreSQL printed; `type_name` is for the error. `NaN`, `Infinity` and `-Infinity` are spelled alike
/// in Rust. Parse a float4 as `f32`: the way over `f64` can round twice.
pub fn number_text<T: std::str::FromStr>(text: &[u8], type_name: &'static str) -> Result<T, DecodeError> {
    let malformed = || DecodeError::Malformed(type_name);
    std::str::from_utf8(text).map_err(|_| malformed())?.parse().map_err(|_| malformed())
}

/// jsonb without the version byte before its text (1, the only one so far).
pub fn jsonb(value: &[u8]) -> Result<&[u8], DecodeError> {
    match value.split_first() {
        Some((1, text)) => Ok(text),
        Some(_) => Err(DecodeError::Malformed("jsonb")),
        None => Err(DecodeError::Truncated),
    }
}

/// Formatting into memory: the only error would be a failing allocation, which aborts.
macro_rules! print {
    ($out:expr, $($arg:tt)*) => { std::io::Write::write_fmt($out, format_args!($($arg)*)).expect("a Vec takes every write") };
}
pub(crate) use print;

pub use super::float::{print_float4, print_float8};

pub fn print_bool(value: bool, out: &mut Vec<u8>) {
    out.push(if value { b't' } else { b'f' });
}

pub fn print_int(value: i64, out: &mut Vec<u8>) {
    print!(out, "{value}");
}

/// numeric: groups of four decimal digits, `weight` the power of 10,000 of the first, printed with `dscale` decimals.
pub fn print_numeric(value: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    const MALFORMED: DecodeError = DecodeError::Malformed("numeric");
    let mut reader = Reader(value);
    let count = usize::try_from(reader.i16()?).map_err(|_| MALFORMED)?;
    let weight = i32::from(reader.i16()?);
    let sign = reader.u16()?;
    let dscale = usize::from(reader.u16()?);
    let groups = reader.take(count * 2)?;
    reader.end()?;
    let prefix: &[u8] = match sign {
        0x0000 => b"",
        0x4000 => b"-",
        0xC000 => b"NaN",
        0xD000 => b"Infinity",
        0xF000 => b"-Infinity",
        _ => return Err(MALFORMED),
    };
    out.extend_from_slice(prefix);
    if sign >= 0xC000 {
        return Ok(());
    }
    if dscale > 0x3FFF {
        return Err(MALFORMED);
    }
    // Group i, counted from the first; groups that are not stored are zero.
    let group = |i: i32| -> Result<u16, DecodeError> {
        let stored = usize::try_from(i).ok().and_then(|i| groups.get(2 * i..2 * i + 2));
        let Some(&[high, low]) = stored else { return Ok(0) };
        Some(u16::from_be_bytes([high, low])).filter(|&digits| digits < 10_000).ok_or(MALFORMED)
    };
    if weight < 0 {
        out.push(b'0');
    }
    for i in 0..=weight {
        if i == 0 {
            print!(out, "{}", group(i)?);
        } else {
            print!(out, "{:04}", group(i)?);
        }
    }
    if dscale > 0 {
        out.push(b'.');
        let end = out.len() + dscale;
        let mut i = weight + 1;
        while out.len() < end {
            print!(out, "{:04}", group(i)?);
            i += 1;
        }
        out.truncate(end);
    }
    Ok(())
}

pub fn print_uuid(value: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for (i, byte) in exactly::<16>(value)?.into_iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            out.push(b'-');
        }
        for nibble in [byte >> 4, byte & 15] {
            out.extend(HEX.get(usize::from(nibble)));
        }
    }
    Ok(())
}

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// date: days since 2000-01-01.
pub fn print_date(value: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    match exactly(value).map(i32::from_be_bytes)? {
        i32::MAX => out.extend_from_slice(b"infinity"),
        i32::MIN => out.extend_from_slice(b"-infinity"),
        days => {
            let year = print_day(i64::from(days), out);
            print_era(year, out);
        }
    }
    Ok(())
}

/// time: microseconds since midnight; 24:00:00 is a value.
pub fn print_time(value: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let micros = exactly(value).map(i64::from_be_bytes)?;
    if !(0..=MICROS_PER_DAY).contains(&micros) {
        return Err(DecodeError::Malformed("time"));
    }
    print_time_of_day(micros, out);
    Ok(())
}

/// timestamp: microseconds since 2000-01-01 00:00:00.
pub fn print_timestamp(value: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    print_moment(value, b"", out)
}

/// timestamptz, with TimeZone UTC.
pub fn print_timestamptz(value: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    print_moment(value, b"+00", out)
}

fn print_moment(value: &[u8], zone: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    match exactly(value).map(i64::from_be_bytes)? {
        i64::MAX => out.extend_from_slice(b"infinity"),
        i64::MIN => out.extend_from_slice(b"-infinity"),
        micros => {
            let year = print_day(micros.div_euclid(MICROS_PER_DAY), out);
            out.push(b' ');
            print_time_of_day(micros.rem_euclid(MICROS_PER_DAY), out);
            out.extend_from_slice(zone);
            print_era(year, out);
        }
    }
    Ok(())
}

/// Prints year-month-day of the proleptic Gregorian calendar and returns the astronomical year (0 is 1 BC).
///
/// The calendar is counted in eras of 400 years (146,097 days) that begin on 1 March, so that the leap day is a year's last
/// and month lengths follow (153 × month + 2) / 5.
fn print_day(days_since_2000: i64, out: &mut Vec<u8>) -> i64 {
    const DAYS_PER_ERA: i64 = 146_097;
    // 2000-03-01 begins an era and is day 60.
    let days = days_since_2000 - 60;
    let era = days.div_euclid(DAYS_PER_ERA);
    let day_of_era = days.rem_euclid(DAYS_PER_ERA);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = 2000 + era * 400 + year_of_era + i64::from(month <= 2);
    let shown = if year > 0 { year } else { 1 - year };
    print!(out, "{shown:04}-{month:02}-{day:02}");
    year
}

fn print_era(year: i64, out: &mut Vec<u8>) {
    if year <= 0 {
        out.extend_from_slice(b" BC");
    }
}

fn print_time_of_day(micros: i64, out: &mut Vec<u8>) {
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    print!(out, "{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60);
    if fraction != 0 {
        print!(out, ".{fraction:06}");
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(print: impl FnOnce(&mut Vec<u8>) -> Result<(), DecodeError>) -> String {
        let mut out = Vec::new();
        print(&mut out).expect("a valid value");
        String::from_utf8(out).expect("PostgreSQL prints UTF-8")
    }

    fn numeric(groups: &[i16], weight: i16, sign: u16, dscale: u16) -> Vec<u8> {
        let mut value = (groups.len() as i16).to_be_bytes().to_vec();
        value.extend(weight.to_be_bytes());
        value.extend(sign.to_be_bytes());
        value.extend(dscale.to_be_bytes());
        value.extend(groups.iter().flat_map(|g| g.to_be_bytes()));
        value
    }

    #[test]
    fn numerics_are_exact() {
        for (value, expected) in [
            (numeric(&[], 0, 0, 0), "0"),
            (numeric(&[], 0, 0, 2), "0.00"),
            (numeric(&[1], 1, 0, 0), "10000"),
            (numeric(&[1], 2, 0, 1), "100000000.0"),
            (numeric(&[1, 2345, 6780], 1, 0, 4), "12345.6780"),
            (numeric(&[1, 2000], -1, 0x4000, 5), "-0.00012"),
            (numeric(&[1], -3, 0, 12), "0.000000000001"),
            (numeric(&[], 0, 0xC000, 0), "NaN"),
            (numeric(&[], 0, 0xD000, 0), "Infinity"),
            (numeric(&[], 0, 0xF000, 0), "-Infinity"),
        ] {
            assert_eq!(text(|out| print_numeric(&value, out)), expected);
        }
        for bad in [numeric(&[10_000], 0, 0, 0), numeric(&[-1], 0, 0, 0), numeric(&[1], 0, 1, 0)] {
            assert_eq!(print_numeric(&bad, &mut Vec::new()), Err(DecodeError::Malformed("numeric")));
        }
    }

    #[test]
    fn dates_and_times_reach_both_ends_of_the_calendar() {
        let date = |days: i32| text(|out| print_date(&days.to_be_bytes(), out));
        assert_eq!(date(0), "2000-01-01");
        assert_eq!(date(59), "2000-02-29");
        assert_eq!(date(-1), "1999-12-31");
        assert_eq!(date(-730_119), "0001-01-01");
        assert_eq!(date(-730_120), "0001-12-31 BC");
        assert_eq!(date(-2_451_545), "4714-11-24 BC");
        assert_eq!(date(2_145_031_948), "5874897-12-31");
        assert_eq!(date(i32::MAX), "infinity");
        assert_eq!(date(i32::MIN), "-infinity");
        let time = |micros: i64| text(|out| print_time(&micros.to_be_bytes(), out));
        assert_eq!(time(0), "00:00:00");
        assert_eq!(time(MICROS_PER_DAY), "24:00:00");
        assert_eq!(time(36_672_500_000), "10:11:12.5");
        assert_eq!(time(1), "00:00:00.000001");
        assert!(print_time(&(MICROS_PER_DAY + 1).to_be_bytes(), &mut Vec::new()).is_err());
        let moment = |micros: i64| text(|out| print_timestamptz(&micros.to_be_bytes(), out));
        assert_eq!(moment(0), "2000-01-01 00:00:00+00");
        assert_eq!(moment(-1), "1999-12-31 23:59:59.999999+00");
        assert_eq!(moment(-63_082_281_600_000_001), "0001-12-31 23:59:59.999999+00 BC");
        assert_eq!(moment(i64::MAX), "infinity");
        assert_eq!(text(|out| print_timestamp(&(i64::MAX - 1).to_be_bytes(), out)), "294277-01-09 04:00:54.775806");
    }

    #[test]
    fn uuid_prints_lower_case() {
        let value: Vec<u8> = (0xF0..=0xFF).collect();
        assert_eq!(text(|out| print_uuid(&value, out)), "f0f1f2f3-f4f5-f6f7-f8f9-fafbfcfdfeff");
    }

    proptest! {
        /// Days count on by one: the next day is the next date.
        #[test]
        fn calendar_has_no_gaps(days in -2_451_545i32..2_145_031_948) {
            let parts = |days: i32| {
                let mut out = Vec::new();
                let year = print_day(i64::from(days), &mut out);
                let text = String::from_utf8(out).expect("digits");
                let mut tail = text.rsplitn(3, '-').map(|s| s.parse::<i64>().expect("a number"));
                let (day, month) = (tail.next().expect("day"), tail.next().expect("month"));
                (year, month, day)
            };
            let leap = |y: i64| y % 4 == 0 && (y % 100 != 0 || y % 400 == 0);
            let length = |y, m| match m { 2 => 28 + i64::from(leap(y)), 4 | 6 | 9 | 11 => 30, _ => 31 };
            let (year, month, day) = parts(days);
            let next = if day < length(year, month) { (year, month, day + 1) }
                else if month < 12 { (year, month + 1, 1) } else { (year + 1, 1, 1) };
            prop_assert_eq!(parts(days + 1), next);
        }

        /// No bytes make a decoder panic.
        #[test]
        fn any_bytes_are_a_value_or_an_error(value in proptest::collection::vec(any::<u8>(), 0..40)) {
            for print in [print_numeric, print_uuid, print_date, print_time, print_timestamp, print_timestamptz] {
                let mut out = Vec::new();
                if print(&value, &mut out).is_ok() {
                    prop_assert!(out.is_ascii());
                }
            }
            drop((bool(&value), int2(&value), int4(&value), int8(&value), jsonb(&value)));
        }

        /// A numeric cut off anywhere is an error.
        #[test]
        fn a_truncated_numeric_is_an_error(groups in proptest::collection::vec(0i16..10_000, 0..8), cut in 1usize..10) {
            let value = numeric(&groups, 2, 0, 8);
            let cut = value.len().saturating_sub(cut);
            prop_assert_eq!(print_numeric(&value[..cut], &mut Vec::new()), Err(DecodeError::Truncated));
        }
    }
}
