//! Text search: tsvector.

use super::{DecodeError, Reader, print};

/// tsvector: lexemes, each with its positions and their weights; D, the default weight, is not shown.
pub fn print_tsvector(value: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let mut reader = Reader(value);
    let count = reader.i32()?;
    for i in 0..count {
        if i > 0 {
            out.push(b' ');
        }
        let length = reader.0.iter().position(|&byte| byte == 0).ok_or(DecodeError::Truncated)?;
        out.push(b'\'');
        for &byte in reader.take(length)? {
            if matches!(byte, b'\'' | b'\\') {
                out.push(byte);
            }
            out.push(byte);
        }
        out.push(b'\'');
        reader.u8()?; // the NUL
        for j in 0..reader.u16()? {
            let position = reader.u16()?;
            let weight = ["", "C", "B", "A"].get(usize::from(position >> 14)).copied().unwrap_or_default();
            print!(out, "{}{}{weight}", if j == 0 { ':' } else { ',' }, position & 0x3FFF);
        }
    }
    reader.end()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{cuts_are_errors, text};
    use super::*;

    #[test]
    fn lexemes_print_as_postgres_does() {
        let mut value = 3i32.to_be_bytes().to_vec();
        for (lexeme, positions) in [("a", &[1u16 | 3 << 14, 5][..]), ("it's", &[]), ("b\\", &[2 | 1 << 14])] {
            value.extend(lexeme.as_bytes());
            value.push(0);
            value.extend((positions.len() as u16).to_be_bytes());
            value.extend(positions.iter().flat_map(|position| position.to_be_bytes()));
        }
        assert_eq!(text(|out| print_tsvector(&value, out)), "'a':1A,5 'it''s' 'b\\\\':2C");
        cuts_are_errors(print_tsvector, &value);
    }
}
