//! Floats as PostgreSQL prints them.
//!
//! In: a float. Out: its text, as `float4out` and `float8out` write it with extra_float_digits at least 1.
//!
//! Holds: the text reads back as the same float and is the shortest that does, save for one change that PostgreSQL
//! makes to Ryu: never the exact midpoint between two floats, which reads back only where the reader rounds half to even
//! (`STRICTLY_SHORTEST` in its src/common/ryu_common.h). Where Ryu's answer is one, the next best is searched.

use super::decode::print;

/// As `float4out`: fixed notation for exponents -4 … 5.
pub fn print_float4(value: f32, out: &mut Vec<u8>) {
    if let Some(digits) = special_or_digits(f64::from(value), out, || Digits::of_f32(value)) {
        digits.print(6, out);
    }
}

/// As `float8out`: fixed notation for exponents -4 … 14.
pub fn print_float8(value: f64, out: &mut Vec<u8>) {
    if let Some(digits) = special_or_digits(value, out, || Digits::of_f64(value)) {
        digits.print(15, out);
    }
}

/// Prints the sign and, for what has no digits, the whole value.
fn special_or_digits(value: f64, out: &mut Vec<u8>, digits: impl FnOnce() -> Digits) -> Option<Digits> {
    if value.is_nan() {
        out.extend_from_slice(b"NaN");
        return None;
    }
    if value.is_sign_negative() {
        out.push(b'-');
    }
    if value.is_infinite() {
        out.extend_from_slice(b"Infinity");
    } else if value == 0.0 {
        out.push(b'0');
    } else {
        return Some(digits());
    }
    None
}

/// A positive decimal, `digits` × 10^`exponent`, without trailing zeros.
struct Digits {
    digits: u64,
    exponent: i32,
}

impl Digits {
    fn of_f32(value: f32) -> Digits {
        let value = value.abs();
        let shortest = Digits::parse(ryu::Buffer::new().format_finite(value));
        let bits = value.to_bits();
        // The significand and its binary exponent; subnormals have no hidden bit.
        let (fraction, biased) = (u64::from(bits & 0x007F_FFFF), (bits >> 23) as i32);
        let (significand, exponent) = if biased == 0 { (fraction, -149) } else { (fraction | 1 << 23, biased - 150) };
        let allowed = |d: &Digits| {
            d.text().parse() == Ok(value) && !d.is_midpoint(significand, exponent, fraction == 0 && biased > 1)
        };
        shortest.or_next_best(allowed, f64::from(value), 9)
    }

    fn of_f64(value: f64) -> Digits {
        let value = value.abs();
        let shortest = Digits::parse(ryu::Buffer::new().format_finite(value));
        let bits = value.to_bits();
        let (fraction, biased) = (bits & 0x000F_FFFF_FFFF_FFFF, (bits >> 52) as i32);
        let (significand, exponent) = if biased == 0 { (fraction, -1074) } else { (fraction | 1 << 52, biased - 1075) };
        let allowed = |d: &Digits| {
            d.text().parse() == Ok(value) && !d.is_midpoint(significand, exponent, fraction == 0 && biased > 1)
        };
        shortest.or_next_best(allowed, value, 17)
    }

    /// From Ryu's own notation: `1.0`, `1.5e-7`, `123.25`, `1e16`.
    fn parse(text: &str) -> Digits {
        let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
        let exponent: i32 = exponent.parse().expect("Ryu prints a decimal exponent");
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{whole}{fraction}").parse().expect("Ryu prints at most 17 digits and a zero");
        Digits { digits, exponent: exponent - fraction.len() as i32 }.trimmed()
    }

    fn trimmed(mut self) -> Digits {
        while self.digits != 0 && self.digits.is_multiple_of(10) {
            self.digits /= 10;
            self.exponent += 1;
        }
        self
    }

    fn text(&self) -> String {
        format!("{}e{}", self.digits, self.exponent)
    }

    /// Itself where allowed; else the shortest that is, nearest to `value`. The way on is taken by about one float
    /// in a million, so it may be slow.
    fn or_next_best(self, allowed: impl Fn(&Digits) -> bool, value: f64, digits_max: usize) -> Digits {
        if allowed(&self) {
            return self;
        }
        let first = self.digits.checked_ilog10().map_or(1, |n| n as usize + 1);
        for count in first..=digits_max {
            // Rust rounds exactly, so this is the nearest decimal of `count` digits. Next to a power of two the
            // interval is lopsided: its neighbour may be allowed where the nearest is not.
            let text = format!("{value:.*e}", count - 1);
            let (mantissa, exponent) = text.split_once('e').expect("scientific notation has an exponent");
            let digits: u64 = mantissa.replace('.', "").parse().expect("at most 17 digits");
            let exponent = exponent.parse::<i32>().expect("a decimal exponent") - (count as i32 - 1);
            for digits in [digits, digits + 1, digits - 1] {
                let candidate = Digits { digits, exponent }.trimmed();
                if allowed(&candidate) {
                    return candidate;
                }
            }
        }
        self
    }

    /// Is this exactly half way between `significand` × 2^`exponent` and one of its neighbours?
    fn is_midpoint(&self, significand: u64, exponent: i32, lower_is_half_as_far: bool) -> bool {
        let above = (2 * significand + 1, exponent - 1);
        let below = if lower_is_half_as_far {
            (4 * significand - 1, exponent - 2)
        } else {
            (2 * significand - 1, exponent - 1)
        };
        [above, below].into_iter().any(|(odd, exponent)| self.equals(odd, exponent))
    }

    /// Is this `odd` × 2^`exponent`? Compared without rounding: digits × 10^e = odd × 2^x iff the odd parts and the powers of
    /// two agree; an odd part that overflows 128 bits is larger than any `odd`.
    fn equals(&self, odd: u64, exponent: i32) -> bool {
        let twos = self.digits.trailing_zeros() as i32;
        let ours = u128::from(self.digits >> twos);
        let power = 5u128.checked_pow(self.exponent.unsigned_abs());
        let (left, right) = if self.exponent >= 0 {
            (power.and_then(|p| p.checked_mul(ours)), Some(u128::from(odd)))
        } else {
            (Some(ours), power.and_then(|p| p.checked_mul(u128::from(odd))))
        };
        left.is_some() && left == right && twos + self.exponent == exponent
    }

    /// `fixed_below`: the decimal exponent from which on PostgreSQL changes to scientific notation.
    fn print(&self, fixed_below: i32, out: &mut Vec<u8>) {
        let digits = self.digits.to_string();
        let point = digits.len() as i32 + self.exponent; // digits before the decimal point
        let scientific = point - 1;
        let digits = digits.as_bytes();
        if !(-4..fixed_below).contains(&scientific) {
            let (first, rest) = digits.split_at(1);
            out.extend_from_slice(first);
            if !rest.is_empty() {
                out.push(b'.');
                out.extend_from_slice(rest);
            }
            let sign = if scientific < 0 { '-' } else { '+' };
            print!(out, "e{sign}{:02}", scientific.abs());
        } else if point <= 0 {
            out.extend_from_slice(b"0.");
            out.resize(out.len() + point.unsigned_abs() as usize, b'0');
            out.extend_from_slice(digits);
        } else if point as usize >= digits.len() {
            out.extend_from_slice(digits);
            out.resize(out.len() + (point as usize - digits.len()), b'0');
        } else {
            let (whole, fraction) = digits.split_at(point as usize);
            out.extend_from_slice(whole);
            out.push(b'.');
            out.extend_from_slice(fraction);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::decode::number_text;
    use proptest::prelude::*;

    fn text(print: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        print(&mut out);
        String::from_utf8(out).expect("ASCII")
    }

    fn float4(value: f32) -> String {
        text(|out| print_float4(value, out))
    }

    fn float8(value: f64) -> String {
        text(|out| print_float8(value, out))
    }

    #[test]
    fn floats_print_as_postgres_prints_them() {
        for (value, expected) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (100_000.0, "100000"),
            (1_000_000.0, "1e+06"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (f32::MAX, "3.4028235e+38"),
            (f32::from_bits(1), "1e-45"),
            (f32::NAN, "NaN"),
            (f32::NEG_INFINITY, "-Infinity"),
            (123.456, "123.456"),
            (16_777_216.0, "1.6777216e+07"),
        ] {
            assert_eq!(float4(value), expected);
        }
        for (value, expected) in [
            (1e14, "100000000000000"),
            (1e15, "1e+15"),
            (1e-4, "0.0001"),
            (1e-5, "1e-05"),
            (-1.25, "-1.25"),
            (f64::MAX, "1.7976931348623157e+308"),
            (5e-324, "5e-324"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1e100, "1e+100"),
        ] {
            assert_eq!(float8(value), expected);
        }
    }

    /// From 2^25 on floats are 4 apart: the even numbers between two of them are midpoints, and never printed.
    #[test]
    fn floats_avoid_the_midpoint_that_reads_back_only_by_luck() {
        let mut differ = 0;
        for i in 0..100_000u32 {
            let value = f32::from_bits(0x4C00_0000 + i);
            let ours: Digits = Digits::of_f32(value);
            let shortest = Digits::parse(ryu::Buffer::new().format_finite(value));
            differ += u32::from((ours.digits, ours.exponent) != (shortest.digits, shortest.exponent));
            let exact = i128::from(ours.digits) * 10i128.pow(ours.exponent.unsigned_abs());
            let half = i128::from(value.next_up() as i64 - value as i64) / 2;
            assert!(ours.exponent >= 0 && (exact - value as i128).abs() < half, "{value}");
        }
        assert!(differ > 0, "the range holds such floats");
    }

    proptest! {
        /// What is printed reads back as the same float.
        #[test]
        fn floats_survive_their_text(bits4 in any::<u32>(), bits8 in any::<u64>()) {
            let (value4, value8) = (f32::from_bits(bits4), f64::from_bits(bits8));
            if !value4.is_nan() {
                prop_assert_eq!(number_text::<f32>(float4(value4).as_bytes(), "real").map(f32::to_bits), Ok(bits4));
            }
            if !value8.is_nan() {
                prop_assert_eq!(number_text::<f64>(float8(value8).as_bytes(), "double").map(f64::to_bits), Ok(bits8));
            }
        }
    }
}
