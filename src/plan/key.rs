//! The key of an entity, made from the key columns of a row.

/// How the primary field is filled.
#[derive(Clone, Debug, PartialEq)]
pub enum KeyPlan {
    /// One column is the primary field.
    Single {
        /// Index into `TablePlan::columns`.
        column: usize,
        /// Index into `collection.fields`.
        field: usize,
    },
    /// Several columns: the primary field is a VARCHAR made from them by an injective encoding; they stay fields too.
    Composite { columns: Vec<usize>, field: usize },
}

impl KeyPlan {
    /// Indexes into `TablePlan::columns`, in key order.
    pub fn columns(&self) -> &[usize] {
        match self {
            KeyPlan::Single { column, .. } => std::slice::from_ref(column),
            KeyPlan::Composite { columns, .. } => columns,
        }
    }

    /// Index of the primary field in `collection.fields`.
    pub fn field(&self) -> usize {
        match *self {
            KeyPlan::Single { field, .. } | KeyPlan::Composite { field, .. } => field,
        }
    }
}
