//! Dates and times: date, time, timetz, timestamp, timestamptz, interval; as text, and as numbers since 1970.

use super::{DecodeError, Reader, exactly, number_text, print};

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
    print_fraction(fraction.unsigned_abs(), out);
}

fn print_fraction(micros: u64, out: &mut Vec<u8>) {
    if micros != 0 {
        print!(out, ".{micros:06}");
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
}

/// timetz: microseconds since midnight and seconds west of Greenwich.
pub fn print_timetz(value: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let mut reader = Reader(value);
    let (micros, west) = (reader.i64()?, reader.i32()?);
    reader.end()?;
    if !(0..=MICROS_PER_DAY).contains(&micros) {
        return Err(DecodeError::Malformed("time with time zone"));
    }
    print_time_of_day(micros, out);
    let seconds = west.unsigned_abs();
    print!(out, "{}{:02}", if west > 0 { '-' } else { '+' }, seconds / 3_600);
    if seconds % 3_600 != 0 {
        print!(out, ":{:02}", seconds / 60 % 60);
    }
    if seconds % 60 != 0 {
        print!(out, ":{:02}", seconds % 60);
    }
    Ok(())
}

/// interval: microseconds, days and months, in IntervalStyle postgres. All three at an end of their range: infinity, from
/// PostgreSQL 17 on.
pub fn print_interval(value: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let mut reader = Reader(value);
    let (micros, days, months) = (reader.i64()?, reader.i32()?, reader.i32()?);
    reader.end()?;
    match (micros, days, months) {
        (i64::MAX, i32::MAX, i32::MAX) => out.extend_from_slice(b"infinity"),
        (i64::MIN, i32::MIN, i32::MIN) => out.extend_from_slice(b"-infinity"),
        _ => {
            let start = out.len();
            let mut follows_negative = false;
            for (number, unit) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
                if number == 0 {
                    continue;
                }
                let space = if out.len() == start { "" } else { " " };
                let sign = if follows_negative && number > 0 { "+" } else { "" };
                print!(out, "{space}{sign}{number} {unit}{}", if number == 1 { "" } else { "s" });
                follows_negative = number < 0;
            }
            if out.len() == start || micros != 0 {
                let space = if out.len() == start { "" } else { " " };
                let sign = if micros < 0 {
                    "-"
                } else if follows_negative {
                    "+"
                } else {
                    ""
                };
                print!(out, "{space}{sign}");
                let magnitude = micros.unsigned_abs();
                let seconds = magnitude / 1_000_000;
                print!(out, "{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60);
                print_fraction(magnitude % 1_000_000, out);
            }
        }
    }
    Ok(())
}

/// Days and microseconds from 1970-01-01 to 2000-01-01, PostgreSQL's epoch.
const EPOCH_DAYS: i64 = 10_957;
const EPOCH_MICROS: i64 = EPOCH_DAYS * MICROS_PER_DAY;

/// date: days since 1970-01-01.
///
/// # Errors
/// `Infinite` for infinity, in all functions like this.
pub fn date_days(value: &[u8]) -> Result<i64, DecodeError> {
    match exactly(value).map(i32::from_be_bytes)? {
        i32::MAX | i32::MIN => Err(DecodeError::Infinite),
        days => Ok(i64::from(days) + EPOCH_DAYS),
    }
}

pub fn date_days_text(text: &[u8]) -> Result<i64, DecodeError> {
    if let b"infinity" | b"-infinity" = text {
        return Err(DecodeError::Infinite);
    }
    let (body, is_bc) = era(text);
    days_of(body, is_bc).ok_or(DecodeError::Malformed("date"))
}

/// time: microseconds since midnight.
pub fn time_micros(value: &[u8]) -> Result<i64, DecodeError> {
    let micros = exactly(value).map(i64::from_be_bytes)?;
    if (0..=MICROS_PER_DAY).contains(&micros) { Ok(micros) } else { Err(DecodeError::Malformed("time")) }
}

pub fn time_micros_text(text: &[u8]) -> Result<i64, DecodeError> {
    time_of_day(text).ok_or(DecodeError::Malformed("time"))
}

/// timestamp and timestamptz: microseconds since 1970-01-01 00:00, of UTC.
pub fn moment_micros(value: &[u8]) -> Result<i64, DecodeError> {
    match exactly(value).map(i64::from_be_bytes)? {
        i64::MAX | i64::MIN => Err(DecodeError::Infinite),
        micros => micros.checked_add(EPOCH_MICROS).ok_or(DecodeError::OutOfRange("INT64")),
    }
}

pub fn moment_micros_text(text: &[u8]) -> Result<i64, DecodeError> {
    const MALFORMED: DecodeError = DecodeError::Malformed("timestamp");
    if let b"infinity" | b"-infinity" = text {
        return Err(DecodeError::Infinite);
    }
    let (body, is_bc) = era(text);
    let body = body.strip_suffix(b"+00").unwrap_or(body);
    let space = body.iter().position(|&byte| byte == b' ').ok_or(MALFORMED)?;
    let (date, time) = body.split_at(space);
    let days = days_of(date, is_bc).ok_or(MALFORMED)?;
    let micros = time.get(1..).and_then(time_of_day).ok_or(MALFORMED)?;
    let whole = i128::from(days) * i128::from(MICROS_PER_DAY) + i128::from(micros);
    i64::try_from(whole).map_err(|_| DecodeError::OutOfRange("INT64"))
}

fn era(text: &[u8]) -> (&[u8], bool) {
    text.strip_suffix(b" BC").map_or((text, false), |body| (body, true))
}

/// Days since 1970 of `year-month-day`; the inverse of `print_day`.
fn days_of(text: &[u8], is_bc: bool) -> Option<i64> {
    let mut parts = text.split(|&byte| byte == b'-').map(|part| number_text::<i64>(part, "date").ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some()
        || !(1..=12).contains(&month)
        || !(1..=31).contains(&day)
        || !(1..=6_000_000).contains(&year)
    {
        return None;
    }
    let year = if is_bc { 1 - year } else { year };
    let (year, month_from_march) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    // 0000-03-01 is 719,468 days before 1970.
    Some(era * 146_097 + day_of_era - 719_468)
}

/// Microseconds of `hours:minutes:seconds[.fraction]`.
fn time_of_day(text: &[u8]) -> Option<i64> {
    let mut parts = text.split(|&byte| byte == b':');
    let (hours, minutes, seconds) = (parts.next()?, parts.next()?, parts.next()?);
    let (seconds, fraction) = match seconds.iter().position(|&byte| byte == b'.') {
        Some(point) => (seconds.get(..point)?, seconds.get(point + 1..)?),
        None => (seconds, &b"0"[..]),
    };
    if parts.next().is_some() || !(1..=6).contains(&fraction.len()) {
        return None;
    }
    let number = |digits: &[u8]| {
        (digits.len() <= 6 && digits.iter().all(u8::is_ascii_digit)).then(|| number_text::<i64>(digits, "time").ok())?
    };
    let micros = number(fraction)? * 10i64.pow(6 - fraction.len() as u32);
    let micros = ((number(hours)? * 60 + number(minutes)?) * 60 + number(seconds)?) * 1_000_000 + micros;
    (0..=MICROS_PER_DAY).contains(&micros).then_some(micros)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{cuts_are_errors, text};
    use super::*;
    use proptest::prelude::*;

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
    fn intervals_and_zones_print_as_postgres_does() {
        let value = |micros: i64, days: i32, months: i32| {
            [&micros.to_be_bytes()[..], &days.to_be_bytes(), &months.to_be_bytes()].concat()
        };
        for (micros, days, months, expected) in [
            (0, 0, 0, "00:00:00"),
            (0, 1, 1, "1 mon 1 day"),
            (0, 0, -14, "-1 years -2 mons"),
            (-14_706_700_000, 3, -14, "-1 years -2 mons +3 days -04:05:06.7"),
            (3_600_000_000, -1, 0, "-1 days +01:00:00"),
            (1, 0, 12, "1 year 00:00:00.000001"),
            (i64::MIN, 0, 0, "-2562047788:00:54.775808"),
            (i64::MAX, i32::MAX, i32::MAX, "infinity"),
            (i64::MIN, i32::MIN, i32::MIN, "-infinity"),
        ] {
            let value = value(micros, days, months);
            assert_eq!(text(|out| print_interval(&value, out)), expected);
            cuts_are_errors(print_interval, &value);
        }
        let timetz = |micros: i64, west: i32| [&micros.to_be_bytes()[..], &west.to_be_bytes()].concat();
        for (micros, west, expected) in [
            (0, 0, "00:00:00+00"),
            (MICROS_PER_DAY, 57_599, "24:00:00-15:59:59"),
            (43_200_500_000, -19_800, "12:00:00.5+05:30"),
            (0, 3_600, "00:00:00-01"),
        ] {
            let value = timetz(micros, west);
            assert_eq!(text(|out| print_timetz(&value, out)), expected);
            cuts_are_errors(print_timetz, &value);
        }
    }

    #[test]
    fn numbers_count_from_1970() {
        assert_eq!(date_days(&(-10_957i32).to_be_bytes()), Ok(0));
        assert_eq!(date_days_text(b"1970-01-02"), Ok(1));
        assert_eq!(moment_micros_text(b"1970-01-01 00:00:00.5+00"), Ok(500_000));
        assert_eq!(time_micros_text(b"24:00:00"), Ok(MICROS_PER_DAY));
        assert_eq!(moment_micros(&i64::MAX.to_be_bytes()), Err(DecodeError::Infinite));
        assert_eq!(date_days_text(b"-infinity"), Err(DecodeError::Infinite));
        // The last timestamp is beyond 64 bits when counted from 1970.
        let last = b"294276-12-31 23:59:59.999999";
        assert_eq!(moment_micros_text(last), Err(DecodeError::OutOfRange("INT64")));
        for bad in
            ["", "1970", "1970-13-01", "1970-01-01 25:00:00", "1970-01-01 00:00", "1970-01-01 00:00:00.", "x-y-z 1:2:3"]
        {
            assert!(moment_micros_text(bad.as_bytes()).is_err(), "{bad}");
        }
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

        #[test]
        fn both_forms_are_one_number(days in -2_451_545i32..2_145_031_948, micros in -211_813_488_000_000_000i64..9_223_371_331_200_000_000, time in 0..=MICROS_PER_DAY) {
            let (days, micros, time) = (days.to_be_bytes(), micros.to_be_bytes(), time.to_be_bytes());
            let of = |print: super::super::Print, value: &[u8]| text(|out| print(value, out)).into_bytes();
            prop_assert_eq!(date_days_text(&of(print_date, &days)), date_days(&days));
            prop_assert_eq!(time_micros_text(&of(print_time, &time)), time_micros(&time));
            prop_assert_eq!(moment_micros_text(&of(print_timestamp, &micros)), moment_micros(&micros));
            prop_assert_eq!(moment_micros_text(&of(print_timestamptz, &micros)), moment_micros(&micros));
        }
    }
}
