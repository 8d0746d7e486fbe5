//! Network addresses: inet, cidr, macaddr, macaddr8.

use super::{DecodeError, Reader, exactly, print};

/// inet and cidr: family, bits of the netmask, whether it is a cidr, length, address. An inet shows its netmask only when
/// it is not the whole address, a cidr always.
pub fn print_inet(value: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    const MALFORMED: DecodeError = DecodeError::Malformed("inet");
    let mut reader = Reader(value);
    let (family, bits, is_cidr, length) = (reader.u8()?, reader.u8()?, reader.u8()?, reader.u8()?);
    let bits_max = match (family, length) {
        (2, 4) => {
            let [a, b, c, d] = reader.array()?;
            print!(out, "{a}.{b}.{c}.{d}");
            32
        }
        (3, 16) => {
            print_ipv6(reader.array()?, out);
            128
        }
        _ => return Err(MALFORMED),
    };
    reader.end()?;
    if bits > bits_max {
        return Err(MALFORMED);
    }
    if is_cidr != 0 || bits < bits_max {
        print!(out, "/{bits}");
    }
    Ok(())
}

/// The longest run of two and more zero words (the first of several) as `::`; the last four bytes as IPv4 where the zeros
/// say that it is one. Not `Ipv6Addr`'s form: that writes `::ffff:1.2.3.4` alike, but `::1.2.3.4` in hexadecimal.
fn print_ipv6(address: [u8; 16], out: &mut Vec<u8>) {
    let words: Vec<u16> = address.as_chunks::<2>().0.iter().map(|&pair| u16::from_be_bytes(pair)).collect();
    let (mut start, mut length) = (8, 1);
    let mut run = 0;
    for (i, &word) in words.iter().enumerate() {
        run = if word == 0 { run + 1 } else { 0 };
        if run > length {
            (start, length) = (i + 1 - run, run);
        }
    }
    let end = if start < 8 { start + length } else { 8 };
    for (i, &word) in words.iter().enumerate() {
        if (start..end).contains(&i) && start < 8 {
            if i == start {
                out.push(b':');
            }
            continue;
        }
        if i > 0 {
            out.push(b':');
        }
        let is_mapped = length == 5 && words.get(5) == Some(&0xFFFF);
        if i == 6 && start == 0 && (length == 6 || is_mapped) {
            let [.., a, b, c, d] = address;
            print!(out, "{a}.{b}.{c}.{d}");
            return;
        }
        print!(out, "{word:x}");
    }
    if start < 8 && end == 8 {
        out.push(b':');
    }
}

pub fn print_macaddr(value: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    print_octets(&exactly::<6>(value)?, out);
    Ok(())
}

pub fn print_macaddr8(value: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    print_octets(&exactly::<8>(value)?, out);
    Ok(())
}

fn print_octets(octets: &[u8], out: &mut Vec<u8>) {
    for (i, byte) in octets.iter().enumerate() {
        print!(out, "{}{byte:02x}", if i == 0 { "" } else { ":" });
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{cuts_are_errors, text};
    use super::*;

    #[test]
    fn addresses_print_as_postgres_does() {
        let v4 = |bits: u8, cidr: u8, address: [u8; 4]| [&[2, bits, cidr, 4][..], &address].concat();
        let v6 = |bits: u8, words: [u16; 8]| [&[3, bits, 0, 16][..], &words.map(u16::to_be_bytes).concat()].concat();
        for (value, expected) in [
            (v4(32, 0, [10, 0, 0, 1]), "10.0.0.1"),
            (v4(8, 0, [10, 0, 0, 1]), "10.0.0.1/8"),
            (v4(32, 1, [10, 0, 0, 1]), "10.0.0.1/32"),
            (v4(0, 1, [0, 0, 0, 0]), "0.0.0.0/0"),
            (v6(128, [0; 8]), "::"),
            (v6(128, [0, 0, 0, 0, 0, 0, 0, 1]), "::1"),
            (v6(64, [1, 0, 0, 0, 0, 0, 0, 0]), "1::/64"),
            (v6(128, [1, 0, 0, 2, 0, 0, 0, 3]), "1:0:0:2::3"),
            (v6(128, [1, 0, 2, 3, 4, 5, 6, 7]), "1:0:2:3:4:5:6:7"),
            (v6(128, [0, 0, 0, 0, 0, 0xFFFF, 0x0102, 0x0304]), "::ffff:1.2.3.4"),
            (v6(128, [0, 0, 0, 0, 0, 0, 0x0102, 0x0304]), "::1.2.3.4"),
            (v6(128, [0x2001, 0xDB8, 0, 0, 1, 0, 0, 1]), "2001:db8::1:0:0:1"),
        ] {
            assert_eq!(text(|out| print_inet(&value, out)), expected);
            cuts_are_errors(print_inet, &value);
        }
        assert!(print_inet(&v4(33, 0, [0; 4]), &mut Vec::new()).is_err());
        assert_eq!(text(|out| print_macaddr(&[8, 0, 0x2B, 1, 2, 3], out)), "08:00:2b:01:02:03");
        cuts_are_errors(print_macaddr, &[8, 0, 0x2B, 1, 2, 3]);
    }
}
