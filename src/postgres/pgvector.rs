//! pgvector's types: from their binary or text form straight into a packed little-endian column.
//!
//! In: the bytes of one value and the dimension of the field. Out: `dim` × `f32` (`vector`) or binary16 (`halfvec`)
//! little-endian, appended; of a `sparsevec` its elements.
//!
//! Holds: on an error nothing is appended. One pass over the data, no allocation a float: this is the hot loop of the
//! whole daemon. pgvector refuses NaN and infinity on input, yet a cast from another type or an older version may let
//! one in, and servers disagree about them, so they are an error here.
//!
//! See: pgvector's `vector_send` and `halfvec_send` (i16 dimensions, i16 unused, floats big-endian), `sparsevec_send` (i32
//! dimensions, i32 elements, i32 unused, indexes from 0, floats), `vector_out`.

use half::f16;

use super::decode::{DecodeError, Reader, number_text, print, print_float4};

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
    packed(value, 4, "vector")
}

fn packed<'a>(value: &'a [u8], width: usize, type_name: &'static str) -> Result<(usize, &'a [u8]), DecodeError> {
    let mut reader = Reader(value);
    let dim = usize::try_from(reader.i16()?).map_err(|_| DecodeError::Malformed(type_name))?;
    reader.i16()?; // unused, for a later pgvector
    let floats = reader.take(dim * width)?;
    reader.end()?;
    Ok((dim, floats))
}

const HALF_EXPONENT: u16 = 0x7C00;

/// A binary `halfvec` as binary16, bit for bit.
pub fn append_half_binary(value: &[u8], dim: usize, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let (found, halves) = packed(value, 2, "halfvec")?;
    if found != dim {
        return Err(DecodeError::Dimension { expected: dim, found });
    }
    let halves = halves.as_chunks::<2>().0.iter().map(|&bytes| u16::from_be_bytes(bytes));
    if halves.clone().any(|bits| bits & HALF_EXPONENT == HALF_EXPONENT) {
        return Err(DecodeError::NotFinite);
    }
    out.extend(halves.flat_map(u16::to_le_bytes));
    Ok(())
}

/// The text of a `halfvec` as binary16. pgvector prints the shortest `float4` of each, so the way back is exact.
pub fn append_half_text(text: &[u8], dim: usize, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let mut floats = Vec::with_capacity(dim * 4);
    append_text(text, dim, &mut floats)?;
    let start = out.len();
    for &bytes in floats.as_chunks::<4>().0 {
        let half = f16::from_f32(f32::from_le_bytes(bytes));
        if !half.is_finite() {
            out.truncate(start);
            return Err(DecodeError::NotFinite);
        }
        out.extend(half.to_le_bytes());
    }
    Ok(())
}

/// A binary `halfvec` as `f32`: every binary16 is one.
pub fn append_half_as_floats(value: &[u8], dim: usize, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let mut halves = Vec::with_capacity(dim * 2);
    append_half_binary(value, dim, &mut halves)?;
    let floats = halves.as_chunks::<2>().0.iter().map(|&bytes| f16::from_le_bytes(bytes).to_f32());
    out.extend(floats.flat_map(f32::to_le_bytes));
    Ok(())
}

/// As `halfvec_out` prints it.
pub fn print_halfvec(value: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let (_, halves) = packed(value, 2, "halfvec")?;
    out.push(b'[');
    for (i, half) in halves.as_chunks::<2>().0.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        print_float4(f16::from_be_bytes(*half).to_f32(), out);
    }
    out.push(b']');
    Ok(())
}

/// A sparse vector: its dimension, and its elements by ascending index, counted from 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Sparse {
    pub dim: u32,
    pub elements: Vec<(u32, f32)>,
}

const MALFORMED_SPARSE: DecodeError = DecodeError::Malformed("sparsevec");

impl Sparse {
    /// # Errors
    /// `NotFinite`; `Malformed` when an index is not below the dimension or not above the one before.
    pub fn from_binary(value: &[u8]) -> Result<Sparse, DecodeError> {
        let mut reader = Reader(value);
        let (dim, count) = (reader.i32()?, reader.i32()?);
        reader.i32()?; // unused, for a later pgvector
        let count = usize::try_from(count).map_err(|_| MALFORMED_SPARSE)?;
        let indexes = reader.take(count.checked_mul(4).ok_or(DecodeError::Truncated)?)?;
        let floats = reader.take(count * 4)?;
        reader.end()?;
        let indexes = indexes.as_chunks::<4>().0.iter().map(|&bytes| u32::from_be_bytes(bytes));
        let floats = floats.as_chunks::<4>().0.iter().map(|&bytes| f32::from_be_bytes(bytes));
        Sparse { dim: u32::try_from(dim).map_err(|_| MALFORMED_SPARSE)?, elements: indexes.zip(floats).collect() }
            .checked()
    }

    /// The same from `{1:0.5,3:2}/5`, whose indexes count from 1.
    pub fn from_text(text: &[u8]) -> Result<Sparse, DecodeError> {
        let text = std::str::from_utf8(text).map_err(|_| MALFORMED_SPARSE)?;
        let (list, dim) = text.strip_prefix('{').and_then(|rest| rest.split_once("}/")).ok_or(MALFORMED_SPARSE)?;
        let number = |text: &str| number_text::<u32>(text.as_bytes(), "sparsevec");
        let element = |item: &str| {
            let (index, float) = item.split_once(':').ok_or(MALFORMED_SPARSE)?;
            let index = number(index)?.checked_sub(1).ok_or(MALFORMED_SPARSE)?;
            Ok((index, number_text::<f32>(float.as_bytes(), "sparsevec")?))
        };
        let items = list.split(',').filter(|_| !list.is_empty());
        Sparse { dim: number(dim)?, elements: items.map(element).collect::<Result<_, DecodeError>>()? }.checked()
    }

    fn checked(self) -> Result<Sparse, DecodeError> {
        let mut next = 0;
        for &(index, float) in &self.elements {
            if index < next || index >= self.dim {
                return Err(MALFORMED_SPARSE);
            }
            if !float.is_finite() {
                return Err(DecodeError::NotFinite);
            }
            next = index + 1;
        }
        Ok(self)
    }
}

/// As `sparsevec_out` prints it.
pub fn print_sparsevec(value: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let sparse = Sparse::from_binary(value)?;
    out.push(b'{');
    for (i, &(index, float)) in sparse.elements.iter().enumerate() {
        print!(out, "{}{}:", if i == 0 { "" } else { "," }, u64::from(index) + 1);
        print_float4(float, out);
    }
    print!(out, "}}/{}", sparse.dim);
    Ok(())
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

    fn sparse(dim: i32, elements: &[(i32, f32)]) -> Vec<u8> {
        let mut value = [dim, elements.len() as i32, 0].map(i32::to_be_bytes).concat();
        value.extend(elements.iter().flat_map(|(index, _)| index.to_be_bytes()));
        value.extend(elements.iter().flat_map(|(_, float)| float.to_be_bytes()));
        value
    }

    #[test]
    fn sparse_vectors_count_from_zero() {
        let value = sparse(5, &[(0, 0.5), (2, 2.0)]);
        let expected = Sparse { dim: 5, elements: vec![(0, 0.5), (2, 2.0)] };
        assert_eq!(Sparse::from_binary(&value), Ok(expected.clone()));
        let mut text = Vec::new();
        print_sparsevec(&value, &mut text).expect("prints");
        assert_eq!(text, b"{1:0.5,3:2}/5");
        assert_eq!(Sparse::from_text(&text), Ok(expected));
        assert_eq!(Sparse::from_text(b"{}/3"), Ok(Sparse { dim: 3, elements: vec![] }));
        for (bad, error) in [
            (sparse(5, &[(2, 1.0), (0, 1.0)]), MALFORMED_SPARSE),
            (sparse(5, &[(5, 1.0)]), MALFORMED_SPARSE),
            (sparse(-1, &[]), MALFORMED_SPARSE),
            (sparse(5, &[(1, f32::NAN)]), DecodeError::NotFinite),
        ] {
            assert_eq!(Sparse::from_binary(&bad), Err(error));
        }
        for bad in ["", "{}", "{0:1}/3", "{1:1,}/3", "{1}/3", "{1:x}/3", "{1:1}/"] {
            assert_eq!(Sparse::from_text(bad.as_bytes()), Err(MALFORMED_SPARSE), "{bad}");
        }
        for cut in 0..value.len() {
            assert!(Sparse::from_binary(&value[..cut]).is_err());
        }
    }

    proptest! {
        /// Every binary16 but those without a number goes all ways bit for bit.
        #[test]
        fn halves_are_exact(bits in proptest::collection::vec(any::<u16>(), 1..20)) {
            let bits: Vec<u16> = bits.into_iter().map(|b| if b & HALF_EXPONENT == HALF_EXPONENT { b & !HALF_EXPONENT } else { b }).collect();
            let mut value = (bits.len() as i16).to_be_bytes().to_vec();
            value.extend([0, 0]);
            value.extend(bits.iter().flat_map(|half| half.to_be_bytes()));
            let expected: Vec<u8> = bits.iter().flat_map(|half| half.to_le_bytes()).collect();
            let (mut binary, mut printed, mut text) = (Vec::new(), Vec::new(), Vec::new());
            append_half_binary(&value, bits.len(), &mut binary).expect("fits");
            print_halfvec(&value, &mut printed).expect("prints");
            append_half_text(&printed, bits.len(), &mut text).expect("fits");
            prop_assert_eq!(&binary, &expected);
            prop_assert_eq!(&text, &expected);
            let (mut floats, mut from_text) = (Vec::new(), Vec::new());
            append_half_as_floats(&value, bits.len(), &mut floats).expect("fits");
            append_text(&printed, bits.len(), &mut from_text).expect("fits");
            prop_assert_eq!(floats, from_text);
            for cut in 0..value.len() {
                prop_assert!(append_half_binary(&value[..cut], bits.len(), &mut Vec::new()).is_err());
            }
            let infinite = [&1i16.to_be_bytes()[..], &[0, 0], &HALF_EXPONENT.to_be_bytes()].concat();
            prop_assert_eq!(append_half_binary(&infinite, 1, &mut Vec::new()), Err(DecodeError::NotFinite));
        }

        #[test]
        fn any_bytes_are_a_vector_or_an_error(value in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut out = Vec::new();
            drop((print_vector(&value, &mut out), print_halfvec(&value, &mut out), print_sparsevec(&value, &mut out)));
            drop((Sparse::from_text(&value), append_half_text(&value, 1, &mut out)));
        }

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
