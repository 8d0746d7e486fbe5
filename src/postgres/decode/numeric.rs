//! numeric and money.

use super::{DecodeError, Reader, exactly, print};

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

/// money with lc_monetary C: cents as `-$1,234.56`.
pub fn print_money(value: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let cents = exactly(value).map(i64::from_be_bytes)?;
    if cents < 0 {
        out.push(b'-');
    }
    let dollars = (cents.unsigned_abs() / 100).to_string();
    out.push(b'$');
    for (i, digit) in dollars.bytes().enumerate() {
        if i > 0 && (dollars.len() - i).is_multiple_of(3) {
            out.push(b',');
        }
        out.push(digit);
    }
    print!(out, ".{:02}", cents.unsigned_abs() % 100);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::text;
    use super::*;
    use proptest::prelude::*;

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
    fn money_has_groups_of_three() {
        let money = |cents: i64| text(|out| print_money(&cents.to_be_bytes(), out));
        assert_eq!(money(0), "$0.00");
        assert_eq!(money(-5), "-$0.05");
        assert_eq!(money(99_999), "$999.99");
        assert_eq!(money(123_456_789), "$1,234,567.89");
        assert_eq!(money(i64::MIN), "-$92,233,720,368,547,758.08");
    }

    proptest! {
        /// A numeric cut off anywhere is an error.
        #[test]
        fn a_truncated_numeric_is_an_error(groups in proptest::collection::vec(0i16..10_000, 0..8), cut in 1usize..10) {
            let value = numeric(&groups, 2, 0, 8);
            let cut = value.len().saturating_sub(cut);
            prop_assert_eq!(print_numeric(&value[..cut], &mut Vec::new()), Err(DecodeError::Truncated));
        }
    }
}
