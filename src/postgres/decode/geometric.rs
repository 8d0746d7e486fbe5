//! Geometric types: float8s in brackets.

use super::{DecodeError, Reader, print_float8};

/// `(x,y)`.
fn point(reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    out.push(b'(');
    print_float8(reader.f64()?, out);
    out.push(b',');
    print_float8(reader.f64()?, out);
    out.push(b')');
    Ok(())
}

fn points(count: usize, reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    for i in 0..count {
        if i > 0 {
            out.push(b',');
        }
        point(reader, out)?;
    }
    Ok(())
}

pub fn print_point(value: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let mut reader = Reader(value);
    point(&mut reader, out)?;
    reader.end()
}

/// `{A,B,C}` of Ax + By + C = 0.
pub fn print_line(value: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let mut reader = Reader(value);
    for open in [b'{', b',', b','] {
        out.push(open);
        print_float8(reader.f64()?, out);
    }
    out.push(b'}');
    reader.end()
}

pub fn print_lseg(value: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let mut reader = Reader(value);
    out.push(b'[');
    points(2, &mut reader, out)?;
    out.push(b']');
    reader.end()
}

/// box: the upper right and the lower left corner.
pub fn print_box(value: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let mut reader = Reader(value);
    points(2, &mut reader, out)?;
    reader.end()
}

/// path: whether it is closed, then its points.
pub fn print_path(value: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let mut reader = Reader(value);
    let (open, close) = if reader.u8()? != 0 { (b'(', b')') } else { (b'[', b']') };
    let count = usize::try_from(reader.i32()?).map_err(|_| DecodeError::Malformed("path"))?;
    out.push(open);
    points(count, &mut reader, out)?;
    out.push(close);
    reader.end()
}

pub fn print_polygon(value: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let mut reader = Reader(value);
    let count = usize::try_from(reader.i32()?).map_err(|_| DecodeError::Malformed("polygon"))?;
    out.push(b'(');
    points(count, &mut reader, out)?;
    out.push(b')');
    reader.end()
}

/// circle: its centre and its radius.
pub fn print_circle(value: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let mut reader = Reader(value);
    out.push(b'<');
    point(&mut reader, out)?;
    out.push(b',');
    print_float8(reader.f64()?, out);
    out.push(b'>');
    reader.end()
}

#[cfg(test)]
mod tests {
    use super::super::Print;
    use super::super::tests::{cuts_are_errors, text};
    use super::*;

    #[test]
    fn shapes_print_as_postgres_does() {
        let floats = |numbers: &[f64]| numbers.iter().flat_map(|number| number.to_be_bytes()).collect::<Vec<u8>>();
        let triangle = [&3i32.to_be_bytes()[..], &floats(&[0.0, 0.0, 1.0, 1.0, 1.0, -0.0])].concat();
        let cases: [(Print, Vec<u8>, &str); 8] = [
            (print_point, floats(&[1.0, -2.5]), "(1,-2.5)"),
            (print_line, floats(&[1.0, -1.0, 1e300]), "{1,-1,1e+300}"),
            (print_lseg, floats(&[0.0, f64::NAN, 1.0, f64::INFINITY]), "[(0,NaN),(1,Infinity)]"),
            (print_box, floats(&[1.0, 1.0, 0.0, 0.0]), "(1,1),(0,0)"),
            (print_path, [&[0][..], &triangle].concat(), "[(0,0),(1,1),(1,-0)]"),
            (print_path, [&[1][..], &triangle].concat(), "((0,0),(1,1),(1,-0))"),
            (print_polygon, triangle.clone(), "((0,0),(1,1),(1,-0))"),
            (print_circle, floats(&[0.1, 0.0, 2.0]), "<(0.1,0),2>"),
        ];
        for (print, value, expected) in cases {
            assert_eq!(text(|out| print(&value, out)), expected);
            cuts_are_errors(print, &value);
        }
    }
}
