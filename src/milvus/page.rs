//! One page of entities in key order, put together from the answers to `key > last limit n`.
//!
//! In: the answers, one by one. Out: what to ask next, and in the end exactly the entities that the page must have.
//!
//! Holds: keys ascend strictly, over the borders of answers too. An answer may be shorter than was asked for though more follows
//! (newer servers stop where one of their sources runs dry), or longer; only an empty one means the end. An answer out of order
//! is an error: paging on behind its greatest key would miss entities in silence.
//!
//! Text keys compare bytewise, as they do in the servers' C++ and Python.

use super::error::{Condition, MilvusError};
use super::{ColumnData, FieldColumn, Key};

pub(crate) struct Page {
    /// Which column holds the keys.
    key_column: usize,
    last: Option<Key>,
    limit: usize,
    rows: usize,
    ended: bool,
    columns: Vec<FieldColumn>,
}

impl Page {
    /// A page of the `limit` smallest keys behind `after`; every answer has its keys in column `key_column`.
    pub fn new(key_column: usize, after: Option<Key>, limit: usize) -> Page {
        Page { key_column, last: after, limit, rows: 0, ended: false, columns: Vec::new() }
    }

    /// What to ask for: keys greater than this, so many. `None` when the page is complete.
    pub fn wants(&self) -> Option<(Option<&Key>, usize)> {
        (!self.ended && self.rows < self.limit).then(|| (self.last.as_ref(), self.limit - self.rows))
    }

    /// An answer, a column for each output field.
    pub fn take(&mut self, answer: Vec<FieldColumn>) -> Result<(), MilvusError> {
        let keys = answer.get(self.key_column).expect("an answer has a column for each output field");
        let found = keys.rows();
        self.ended = found == 0;
        if found > 0 {
            self.last = Some(last_in_order(&keys.data, self.last.as_ref())?);
        }
        self.rows += found;
        if self.columns.is_empty() {
            self.columns = answer;
        } else if !self.columns.iter_mut().zip(answer).all(|(column, more)| column.append(more)) {
            return Err(MilvusError::new(Condition::InvalidAnswer, "Query", "types differ from answer to answer"));
        }
        Ok(())
    }

    pub fn into_columns(mut self) -> Vec<FieldColumn> {
        self.columns.iter_mut().for_each(|column| column.truncate(self.limit));
        self.columns
    }
}

/// The greatest key of a page, after checking that the page ascends from `before` on.
fn last_in_order(keys: &ColumnData, before: Option<&Key>) -> Result<Key, MilvusError> {
    let out_of_order = || {
        MilvusError::new(Condition::InvalidAnswer, "Query", "keys do not ascend: this server cannot be paged by key")
    };
    match keys {
        ColumnData::Int64(keys) => {
            let mut last = match before {
                Some(Key::Int64(key)) => Some(*key),
                _ => None,
            };
            for &key in keys {
                if last.is_some_and(|last| last >= key) {
                    return Err(out_of_order());
                }
                last = Some(key);
            }
            last.map(Key::Int64).ok_or_else(out_of_order)
        }
        ColumnData::VarChar(keys) => {
            let mut last: Option<&[u8]> = match before {
                Some(Key::VarChar(key)) => Some(key.as_bytes()),
                _ => None,
            };
            for key in keys {
                if last.is_some_and(|last| last >= &key[..]) {
                    return Err(out_of_order());
                }
                last = Some(key);
            }
            let text = std::str::from_utf8(last.ok_or_else(out_of_order)?);
            text.map(|text| Key::VarChar(text.into()))
                .map_err(|_| MilvusError::new(Condition::InvalidAnswer, "Query", "a key is not UTF-8"))
        }
        _ => Err(MilvusError::new(Condition::InvalidAnswer, "Query", "the primary field is neither INT64 nor VARCHAR")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn column(name: &str, valid: Option<Vec<u8>>, data: ColumnData) -> FieldColumn {
        FieldColumn { name: name.into(), valid, data }
    }

    fn text(keys: &[&'static str]) -> ColumnData {
        ColumnData::VarChar(keys.iter().map(|key| Bytes::from_static(key.as_bytes())).collect())
    }

    #[test]
    fn pages_must_ascend_bytewise() {
        let int = |keys: &[i64], before: Option<i64>| {
            last_in_order(&ColumnData::Int64(keys.to_vec()), before.map(Key::Int64).as_ref()).ok()
        };
        assert_eq!(int(&[i64::MIN, 0, 5], None), Some(Key::Int64(5)));
        assert_eq!(int(&[6], Some(5)), Some(Key::Int64(6)));
        assert_eq!(int(&[5], Some(5)), None);
        assert_eq!(int(&[1, 3, 2], None), None);
        assert_eq!(int(&[1, 1], None), None);
        let utf8 = |keys: &[&'static str]| last_in_order(&text(keys), None).ok();
        // UTF-16 would put the surrogates of U+1F980 before U+FFFF.
        assert_eq!(utf8(&["", "B", "a", "\u{ffff}", "\u{1f980}"]), Some(Key::VarChar("\u{1f980}".into())));
        assert_eq!(utf8(&["a", "B"]), None);
    }

    /// A server with the keys 1 to 10 that answers with at most `generous` of them, whatever it is asked for.
    fn page_of(generous: usize, after: Option<i64>, limit: usize) -> (Vec<i64>, usize) {
        let mut page = Page::new(1, after.map(Key::Int64), limit);
        let mut asked = 0;
        while let Some((after, _)) = page.wants() {
            asked += 1;
            let after = match after {
                Some(Key::Int64(key)) => *key,
                _ => 0,
            };
            let keys: Vec<i64> = (1..=10).filter(|&key| key > after).take(generous).collect();
            let even: Vec<i64> = keys.iter().copied().filter(|key| key % 2 == 0).collect();
            let valid = keys.iter().map(|key| u8::from(key % 2 == 0)).collect();
            let answer =
                vec![column("even", Some(valid), ColumnData::Int64(even)), column("id", None, ColumnData::Int64(keys))];
            page.take(answer).expect("in order");
        }
        let columns = page.into_columns();
        let ColumnData::Int64(keys) = &columns[1].data else { panic!("not integers") };
        let evens: Vec<i64> = keys.iter().copied().filter(|key| key % 2 == 0).collect();
        assert_eq!((columns[0].rows(), &columns[0].data), (keys.len(), &ColumnData::Int64(evens)), "columns in step");
        (keys.clone(), asked)
    }

    #[test]
    fn short_answers_are_filled_and_long_ones_cut() {
        assert_eq!(page_of(4, None, 4), (vec![1, 2, 3, 4], 1));
        assert_eq!(page_of(3, None, 7), (vec![1, 2, 3, 4, 5, 6, 7], 3));
        assert_eq!(page_of(9, Some(2), 5), (vec![3, 4, 5, 6, 7], 1));
        assert_eq!(page_of(3, Some(7), 5), (vec![8, 9, 10], 2), "less only after an empty answer");
        assert_eq!(page_of(3, Some(10), 5), (vec![], 1));
    }

    #[test]
    fn an_answer_out_of_order_is_an_error_and_no_gap() {
        let mut page = Page::new(0, None, 9);
        page.take(vec![column("id", None, ColumnData::Int64(vec![1, 7]))]).expect("in order");
        let error = page.take(vec![column("id", None, ColumnData::Int64(vec![7, 8]))]).expect_err("7 again");
        assert_eq!(error.condition(), Condition::InvalidAnswer);
        let mut page = Page::new(0, None, 9);
        page.take(vec![column("id", None, ColumnData::Int64(vec![1]))]).expect("in order");
        let other = page.take(vec![column("id", None, text(&["b"]))]);
        assert_eq!(other.map_err(|error| error.condition()), Err(Condition::InvalidAnswer));
    }
}
