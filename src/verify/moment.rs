//! Dates and times as numbers, for fields that hold them so.
//!
//! In: what PostgreSQL prints, or RFC 3339. Out: days, or microseconds, since 1970-01-01 of the proleptic Gregorian calendar.
//! Deliberately not the arithmetic of `postgres::decode`, which is looked over here: days are counted by years and months.

/// `2000-02-29`, `0044-03-15 BC`.
pub fn days(text: &str) -> Option<i64> {
    let (text, is_bc) = text.strip_suffix(" BC").map_or((text, false), |text| (text, true));
    let mut parts = text.split('-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some() || !(1..=12).contains(&month) {
        return None;
    }
    let year = if is_bc { 1 - year } else { year };
    let leap = |year: i64| year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0);
    // Leap years before this one, counted from the year 1.
    let before = year - 1;
    let leaps = before.div_euclid(4) - before.div_euclid(100) + before.div_euclid(400);
    let lengths = [31, if leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let months: i64 = lengths.iter().take(usize::try_from(month - 1).ok()?).sum();
    // 1970-01-01 is day 719,162 after 0001-01-01.
    Some(before * 365 + leaps + months + day - 1 - 719_162)
}

/// `24:00:00`, `01:02:03.5`.
pub fn time(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut parts = whole.split(':').map(|part| part.parse::<i64>().ok());
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some() || fraction.len() > 6 {
        return None;
    }
    let micros: i64 = format!("{fraction:0<6}").parse().ok()?;
    Some(((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros)
}

/// `2000-01-01 00:00:00.5`, `…+00`, `… BC`, `2000-01-01T00:00:00.5Z`.
pub fn moment(text: &str) -> Option<i64> {
    let (text, era) = text.strip_suffix(" BC").map_or((text, ""), |text| (text, " BC"));
    let text = text.strip_suffix("+00").or(text.strip_suffix('Z')).or(text.strip_suffix("+00:00")).unwrap_or(text);
    let (date, clock) = text.split_once([' ', 'T'])?;
    days(&format!("{date}{era}"))?.checked_mul(86_400_000_000)?.checked_add(time(clock)?)
}

#[test]
fn both_ends_of_the_calendar_are_counted() {
    for (text, expected) in [
        ("1970-01-01", 0),
        ("2000-03-01", 11_017),
        ("1969-12-31", -1),
        ("0001-01-01", -719_162),
        ("0001-12-31 BC", -719_163),
        ("4714-11-24 BC", -2_440_588),
        ("5874897-12-31", 2_145_042_905),
    ] {
        assert_eq!(days(text), Some(expected), "{text}");
    }
    assert_eq!(moment("1970-01-01 00:00:01.5+00"), Some(1_500_000));
    assert_eq!(moment("1970-01-01T00:00:01.5Z"), Some(1_500_000));
    assert_eq!(time("24:00:00"), Some(86_400_000_000));
    assert_eq!((days("infinity"), moment("infinity"), time("x")), (None, None, None));
}
