//! pgvector's `vector`: from its binary or text form straight into a packed little-endian column.
//!
//! In: the bytes of one value and the dimension of the field. Out: `dim` × `f32` little-endian, appended.
//!
//! Holds: on an error nothing is appended. One pass over the data, no allocation a float: this is the hot loop of the
//! whole daemon. pgvector refuses NaN and infinity on input, yet a cast from another type or an older version may let
//! one in, and servers disagree about them, so they are an error here.
//!
//! See: pgvector's `vector_send` (i16 dimensions, i16 unused, floats big-endian) and `vector_out`.

use super::decode::{DecodeError, Reader, print_float4};

const EXPONENT: u32 = 0x7F80_0000;

pub fn append_binary(value: &[u8], dim: usize, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let (found, floats) = floats(value)?;
    if found != dim {
        return Err(DecodeError::Dimension { expected: dim, found });
    }
    let start = out.len();
    out.resize(start + floats.len(), 0);
    let (_, room) = out.split_at_mut(start);
    let mut not_finite = false;
    for (to, from) in room.as_chunks_mut::<4>().0.iter_mut().zip(floats.as_chunks::<4>().0) {
        let bits = u32::from_be_bytes(*from);
        not_finite |= bits & EXPONENT == EXPONENT;
        *to = bits.to_le_bytes();
    }
    if not_finite {
        out.truncate(start);
        return Err(DecodeError::NotFinite);
    }
    Ok(())
}

/// `[1,2.5,-3e-05]`.
pub fn append_text(text: &[u8], dim: usize, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    const MALFORMED: DecodeError = DecodeError::Malformed("vector");
    let start = out.len();
    let result = (|| {
        let text = std::str::from_utf8(text).map_err(|_| MALFORMED)?;
        let list = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).ok_or(MALFORMED)?;
        let mut found = 0;
        for item in list.split(',') {
            let float: f32 = item.parse().map_err(|_| MALFORMED)?;
            if !float.is_finite() {
                return Err(DecodeError::NotFinite);
            }
            out.extend_from_slice(&float.to_le_bytes());
            found += 1;
        }
        if found == dim { Ok(()) } else { Err(DecodeError::Dimension { expected: dim, found }) }
    })();
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// As `vector_out` prints it.
pub fn print_vector(value: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let (_, floats) = floats(value)?;
    out.push(b'[');
    for (i, float) in floats.as_chunks::<4>().0.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        print_float4(f32::from_be_bytes(*float), out);
    }
    out.push(b']');
    Ok(())
}

/// Dimension and floats of a binary value.
fn floats(value: &[u8]) -> Result<(usize, &[u8]), DecodeError> {
    let mut reader = Reader(value);
    let dim = usize::try_from(reader.i16()?).map_err(|_| DecodeError::Malformed("vector"))?;
    reader.i16()?; // unused, for a later pgvector
    let floats = reader.take(dim * 4)?;
    reader.end()?;
    Ok((dim, floats))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn binary(floats: &[f32]) -> Vec<u8> {
        let mut value = (floats.len() as i16).to_be_bytes().to_vec();
        value.extend([0, 0]);
        value.extend(floats.iter().flat_map(|f| f.to_be_bytes()));
        value
    }

    fn packed(floats: &[f32]) -> Vec<u8> {
        floats.iter().flat_map(|f| f.to_le_bytes()).collect()
    }

    #[test]
    fn what_does_not_fit_leaves_the_column_as_it_was() {
        let mut out = vec![7];
        let dimension = Err(DecodeError::Dimension { expected: 2, found: 3 });
        assert_eq!(append_binary(&binary(&[1.0, 2.0, 3.0]), 2, &mut out), dimension);
        assert_eq!(append_text(b"[1,2,3]", 2, &mut out), dimension);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(append_binary(&binary(&[1.0, bad]), 2, &mut out), Err(DecodeError::NotFinite));
        }
        assert_eq!(append_text(b"[1,NaN]", 2, &mut out), Err(DecodeError::NotFinite));
        for bad in ["", "[", "[]", "1,2", "[1,2", "[1,,2]", "[1,2]x", "[a,b]"] {
            assert_eq!(append_text(bad.as_bytes(), 2, &mut out), Err(DecodeError::Malformed("vector")), "{bad}");
        }
        let mut long = binary(&[1.0, 2.0]);
        long.push(0);
        assert_eq!(append_binary(&long, 2, &mut out), Err(DecodeError::Trailing));
        assert_eq!(out, [7]);
    }

    proptest! {
        #[test]
        fn both_forms_give_the_same_floats(floats in proptest::collection::vec(proptest::num::f32::NORMAL | proptest::num::f32::SUBNORMAL | proptest::num::f32::ZERO, 1..40)) {
            let value = binary(&floats);
            let (mut from_binary, mut text, mut from_text) = (vec![1, 2, 3], Vec::new(), Vec::new());
            append_binary(&value, floats.len(), &mut from_binary).expect("fits");
            prop_assert_eq!(&from_binary[3..], &packed(&floats)[..]);
            print_vector(&value, &mut text).expect("prints");
            append_text(&text, floats.len(), &mut from_text).expect("fits");
            prop_assert_eq!(from_text, packed(&floats));
            for cut in 0..value.len() {
                prop_assert_eq!(append_binary(&value[..cut], floats.len(), &mut Vec::new()), Err(DecodeError::Truncated));
            }
        }
    }
}
