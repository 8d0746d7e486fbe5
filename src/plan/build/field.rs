//! One column to one field: its type, limits and policy.

use crate::config::settings::{Encoding, FieldSettings, OnMisfit};
use crate::milvus::{DataType, FieldSchema};
use crate::postgres::catalog::Column;

use super::super::names::{self, identifier};
use super::super::types::{ARRAY_MAX, BINARY_DIMENSIONS, DIMENSIONS, KeyUse, VARCHAR_MAX, resolve};
use super::super::{ColumnPlan, SourceType};
use super::Builder;

impl Builder<'_> {
    /// The column and its field; `None` after a refusal that leaves nothing to go on with.
    pub(super) fn column(
        &mut self,
        column: &Column,
        is_key: bool,
        composite: bool,
    ) -> Option<(ColumnPlan, FieldSchema)> {
        let settings = self.field_settings(&column.name);
        let mut source = resolve(&column.data_type);
        let entry = source.entry();
        if is_key {
            self.check_key_type(column, &source, composite);
        }
        let single_key = is_key && !composite;
        let (data_type, mut reason) = if single_key {
            self.primary_type(column, &settings, &source)
        } else {
            self.target(column, &settings, &source)?
        };
        if let SourceType::Vector { dim } | SourceType::HalfVec { dim } = &mut source {
            *dim = self.dimension(column, &settings, *dim, data_type)?;
        }
        let dim = match (&source, data_type) {
            (&(SourceType::Vector { dim } | SourceType::HalfVec { dim }), target) if target.is_vector() => Some(dim),
            (&SourceType::Bit { length }, DataType::BinaryVector) => Some(self.bits(column, length)?),
            _ => None,
        };
        let element = match (&source, data_type) {
            (SourceType::Array { element, .. }, DataType::Array) => Some(&**element),
            _ => None,
        };
        let element_type = element.and_then(SourceType::element_target);
        let is_text = data_type == DataType::VarChar || element_type == Some(DataType::VarChar);
        let encoding = self.encoding(column, &settings, &source, data_type, is_key);
        self.check_limits(column, &settings, is_text, element.is_some());
        let text_max = if encoding.is_some() { None } else { element.map_or(entry, SourceType::entry).text_max };

        let is_partition_key = self.settings.partition_key.as_ref() == Some(&column.name);
        let nullable = self.nullable(column, &settings, data_type, is_key || is_partition_key);
        let default_value = self.default_value(column, &settings, data_type, is_key || is_partition_key);
        let on_misfit = self.policy(column, &settings, data_type, nullable, is_key);
        if default_value.is_some() {
            reason.push_str("; NULL becomes the default");
        } else if !nullable && !is_key && !column.not_null && !on_misfit.leaves_out() {
            reason.push_str(match data_type.is_vector() {
                true => "; a row without a vector is refused",
                false if is_partition_key => "; a row with NULL is refused",
                false if self.server.has_nullable() => "; a row with NULL is refused",
                false => "; this server has no nullable fields, so a row with NULL is refused",
            });
        }
        if source.is_opaque() {
            let stream = if source.needs_text_stream() { ", and the stream is asked for text" } else { "" };
            self.remarks.push(format!(
                "column {:?} is of type {}, which PostgreSQL itself prints{stream}",
                column.name, column.type_name
            ));
        }
        let field = FieldSchema {
            name: self.field_name(column, &settings),
            data_type,
            is_primary: single_key,
            auto_id: false,
            nullable,
            element_type,
            max_length: is_text.then(|| settings.max_length.or(text_max).unwrap_or(VARCHAR_MAX)),
            max_capacity: element.map(|_| settings.max_capacity.unwrap_or(ARRAY_MAX)),
            dim,
            description: column.type_name.clone(),
            default_value,
            is_partition_key,
            mmap: settings.mmap,
        };
        let plan = ColumnPlan {
            name: column.name.clone(),
            type_oid: column.type_oid,
            typmod: column.typmod,
            type_name: column.type_name.clone(),
            source,
            encoding,
            on_misfit,
            reread: false,
            field: 0, // set where the field is placed
            reason,
        };
        Some((plan, field))
    }

    pub(super) fn field_settings(&self, column: &str) -> FieldSettings {
        self.settings.fields.iter().find(|(name, _)| name == column).map(|(_, s)| s.clone()).unwrap_or_default()
    }

    fn check_key_type(&mut self, column: &Column, source: &SourceType, composite: bool) {
        let mendable = "choose another primary key";
        match source.entry().key {
            KeyUse::Never(reason) => {
                self.refuse(Some(&column.name), format!("key of type {}: {reason}", column.type_name), mendable);
            }
            KeyUse::Part if !composite => {
                let target = source.targets().first().map_or("VARCHAR", |target| target.name());
                self.refuse(Some(&column.name), format!("Milvus has no primary key of type {target}"), mendable);
            }
            KeyUse::Part | KeyUse::Int | KeyUse::Text => {}
        }
    }

    /// Integers of every width are one kind of key in Milvus.
    fn primary_type(&mut self, column: &Column, settings: &FieldSettings, source: &SourceType) -> (DataType, String) {
        let entry = source.entry();
        let (data_type, reason) = match entry.key {
            KeyUse::Int if source.targets().first() == Some(&DataType::Int64) => (DataType::Int64, entry.reason),
            KeyUse::Int => (DataType::Int64, "integer keys are INT64 in Milvus"),
            _ => (DataType::VarChar, entry.reason),
        };
        if let Some(asked) = settings.data_type.as_deref().filter(|asked| *asked != data_type.name()) {
            let remedy = format!("remove `type` from [table.fields.{}]", column.name);
            self.refuse(Some(&column.name), format!("`type = {asked:?}`, but as the key it is {data_type}"), remedy);
        }
        (data_type, reason.to_owned())
    }

    /// The type asked for, or the first that the server has, with the reason.
    fn target(&mut self, column: &Column, settings: &FieldSettings, source: &SourceType) -> Option<(DataType, String)> {
        let targets = source.targets();
        let version = &self.server.version;
        if let Some(asked) = &settings.data_type {
            let wanted = DataType::named(asked).filter(|wanted| targets.contains(wanted));
            let Some(wanted) = wanted else {
                let names: Vec<&str> = targets.iter().map(|target| target.name()).collect();
                let reason = format!("`type = {asked:?}`, which {} cannot become", column.type_name);
                self.refuse(Some(&column.name), reason, format!("take one of {}", names.join(", ")));
                return None;
            };
            if !self.server.has_type(wanted) {
                let reason = format!("Milvus {version} has no {wanted}");
                self.refuse(Some(&column.name), reason, format!("remove `type` from [table.fields.{}]", column.name));
                return None;
            }
            let default = targets.first() == Some(&wanted);
            return Some((wanted, if default { source.entry().reason } else { "as configured" }.to_owned()));
        }
        // A vector that the server lacks does not become text without a word.
        if self.settings.partition_key.as_ref() == Some(&column.name) && targets.contains(&DataType::Int64) {
            return Some((DataType::Int64, "a partition key of numbers is INT64 in Milvus".to_owned()));
        }
        let vector = targets.first().is_some_and(|target| target.is_vector());
        let fits = |target: &&DataType| self.server.has_type(**target) && target.is_vector() == vector;
        match targets.iter().find(fits) {
            Some(&found) if targets.first() == Some(&found) => Some((found, source.entry().reason.to_owned())),
            Some(&found) => {
                let first = targets.first().map_or("", |target| target.name());
                Some((found, format!("the same numbers; Milvus {version} has no {first}")))
            }
            None => {
                let first = targets.first().map_or("", |target| target.name());
                let remedy = format!(
                    "leave it out with `columns = {{ exclude = [{:?}] }}`, or take its text with `type = \"VARCHAR\"` in \
                     [table.fields.{}]",
                    column.name, column.name
                );
                self.refuse(Some(&column.name), format!("Milvus {version} has no {first}"), remedy);
                None
            }
        }
    }

    fn dimension(
        &mut self,
        column: &Column,
        settings: &FieldSettings,
        declared: u32,
        data_type: DataType,
    ) -> Option<u32> {
        let setting = format!("[table.fields.{}] dimension", column.name);
        let kind = &column.data_type.name;
        let dim = match (declared, settings.dimension, column.sampled_dimension) {
            (0, None, Some(sampled)) => {
                self.remarks.push(format!(
                    "column {:?} declares no dimension: {sampled} is that of a row, and every other must have the same",
                    column.name
                ));
                sampled
            }
            // Its text needs none.
            (0, None, None) if !data_type.is_vector() => return Some(0),
            (0, None, None) => {
                let reason = "the vector has no declared dimension, and no row to take it from";
                let remedy = format!(
                    "ALTER TABLE {} ALTER COLUMN {} TYPE {kind}(n), or set `{setting}`",
                    self.sql_name(),
                    identifier(&column.name)
                );
                self.refuse(Some(&column.name), reason, remedy);
                return None;
            }
            (0, Some(dim), _) => dim,
            (declared, Some(dim), _) if declared != dim => {
                let reason = format!("`dimension = {dim}`, but the column is {}", column.type_name);
                self.refuse(Some(&column.name), reason, format!("remove `{setting}`"));
                return None;
            }
            (declared, _, _) => declared,
        };
        if data_type.is_vector() && !DIMENSIONS.contains(&dim) {
            let reason = format!("{dim} dimensions; a {data_type} has {} to {}", DIMENSIONS.start(), DIMENSIONS.end());
            self.refuse(Some(&column.name), reason, leave_out(column));
            return None;
        }
        Some(dim)
    }

    fn bits(&mut self, column: &Column, length: u32) -> Option<u32> {
        if length.is_multiple_of(8) && BINARY_DIMENSIONS.contains(&length) {
            return Some(length);
        }
        let reason = format!("{length} bits; a BINARY_VECTOR has a multiple of 8, up to {}", BINARY_DIMENSIONS.end());
        self.refuse(Some(&column.name), reason, format!("remove `type` from [table.fields.{}]", column.name));
        None
    }

    fn encoding(
        &mut self,
        column: &Column,
        settings: &FieldSettings,
        source: &SourceType,
        data_type: DataType,
        is_key: bool,
    ) -> Option<Encoding> {
        let encoding = settings.encoding?;
        let name = match encoding {
            Encoding::Base64 | Encoding::Hex => "bytea",
            Encoding::Trimmed => "bpchar",
        };
        let remedy = format!("remove it from [table.fields.{}]", column.name);
        if is_key {
            let reason =
                format!("`encoding = {:?}` of a key: rows are looked up by PostgreSQL's own text", encoding.name());
            self.refuse(Some(&column.name), reason, remedy);
        } else if *source != SourceType::named(name) || data_type != DataType::VarChar {
            let reason = format!("`encoding = {:?}` does not apply to type {}", encoding.name(), column.type_name);
            self.refuse(Some(&column.name), reason, remedy);
        }
        Some(encoding)
    }

    /// Settings that do not apply to the field, or are out of bounds.
    fn check_limits(&mut self, column: &Column, settings: &FieldSettings, is_text: bool, is_array: bool) {
        let is_vector = matches!(resolve(&column.data_type), SourceType::Vector { .. } | SourceType::HalfVec { .. });
        for (setting, value, applies, max) in [
            ("max_length", settings.max_length, is_text, Some(VARCHAR_MAX)),
            ("max_capacity", settings.max_capacity, is_array, Some(ARRAY_MAX)),
            ("dimension", settings.dimension, is_vector, None), // bounded where it is used
        ] {
            let Some(value) = value else { continue };
            if !applies {
                let reason = format!("`{setting}` does not apply to type {}", column.type_name);
                self.refuse(Some(&column.name), reason, format!("remove it from [table.fields.{}]", column.name));
            } else if let Some(max) = max.filter(|max| !(1..=*max).contains(&value)) {
                self.refuse(Some(&column.name), format!("`{setting} = {value}`"), format!("take one from 1 to {max}"));
            }
        }
    }

    fn nullable(&mut self, column: &Column, settings: &FieldSettings, data_type: DataType, is_key: bool) -> bool {
        let able = if data_type.is_vector() { self.server.has_nullable_vectors() } else { self.server.has_nullable() };
        if settings.nullable == Some(true) && (is_key || !able) {
            let reason = match is_key {
                true => "`nullable = true` of a key or partition key".to_owned(),
                false if data_type.is_vector() => {
                    format!("`nullable = true`, and Milvus {} has no nullable vectors", self.server.version)
                }
                false => format!("`nullable = true`, and Milvus {} has no nullable fields", self.server.version),
            };
            self.refuse(Some(&column.name), reason, format!("remove it from [table.fields.{}]", column.name));
        }
        !is_key && able && settings.nullable != Some(false)
    }

    /// The field's own policy must apply to it; the table's applies where it can.
    fn policy(
        &mut self,
        column: &Column,
        settings: &FieldSettings,
        data_type: DataType,
        nullable: bool,
        is_key: bool,
    ) -> OnMisfit {
        let policy = settings.on_misfit.unwrap_or(self.settings.on_misfit);
        let unfit = match policy {
            OnMisfit::Error => None,
            _ if is_key => Some("and a key is never altered or left out"),
            OnMisfit::Null if !nullable => Some("and the field is not nullable"),
            OnMisfit::Truncate if !matches!(data_type, DataType::VarChar | DataType::Array) => {
                Some("and only VARCHAR and ARRAY can be cut")
            }
            OnMisfit::Null | OnMisfit::Truncate | OnMisfit::SkipRow | OnMisfit::DeadLetter => None,
        };
        match unfit {
            None => policy,
            Some(reason) => {
                if settings.on_misfit.is_some() {
                    let reason = format!("`on_misfit = {:?}`, {reason}", policy.name());
                    self.refuse(Some(&column.name), reason, format!("remove it from [table.fields.{}]", column.name));
                }
                OnMisfit::Error
            }
        }
    }

    fn field_name(&mut self, column: &Column, settings: &FieldSettings) -> String {
        match &settings.rename {
            Some(name) => {
                if !names::is_valid(name) || names::is_reserved(name) {
                    let remedy = format!("set `rename` to {}, and no word of Milvus's own", names::RULE);
                    self.refuse(Some(&column.name), format!("{name:?} is no name for a field"), remedy);
                }
                name.clone()
            }
            None => {
                let name = names::field(&column.name);
                if name != column.name {
                    self.remarks
                        .push(format!("column {:?} becomes field {name:?}: Milvus takes no such name", column.name));
                }
                name
            }
        }
    }
}

fn leave_out(column: &Column) -> String {
    format!("leave it out with `columns = {{ exclude = [{:?}] }}`", column.name)
}

#[cfg(test)]
mod tests {
    use super::super::build;
    use super::*;
    use crate::config::settings::TableSettings;
    use crate::milvus::ServerInfo;
    use crate::plan::tests::{assert_refused, column, plan_of, server, settings, table, vector};

    fn with(type_name: &str, field: FieldSettings) -> (crate::postgres::catalog::Table, TableSettings) {
        let table = table(vec![column("id", "int4"), column("x", type_name), vector("v", 2)]);
        (table, TableSettings { fields: vec![("x".to_owned(), field)], ..settings() })
    }

    fn of_type(name: &str) -> FieldSettings {
        FieldSettings { data_type: Some(name.into()), ..Default::default() }
    }

    #[test]
    fn every_target_of_every_type_can_be_chosen() {
        let newest = ServerInfo { version: "v3.0.0".into() };
        for type_name in
            ["bool", "int4", "numeric", "timestamptz", "jsonb", "int4[]", "bit(16)", "halfvec(4)", "sparsevec(9)"]
        {
            for target in resolve(&column("x", type_name).data_type).targets() {
                let plan =
                    build(&[with(type_name, of_type(target.name()))], &newest).expect(type_name).tables.remove(0);
                assert_eq!(plan.collection.fields[1].data_type, *target, "{type_name}");
            }
        }
    }

    #[test]
    fn a_server_that_lacks_a_type_gets_the_next_vector_or_a_refusal() {
        let lite = ServerInfo { version: "milvus_lite-3.2.2".into() };
        let half = build(&[with("halfvec(4)", FieldSettings::default())], &lite).expect("a plan").tables.remove(0);
        assert_eq!(half.collection.fields[1].data_type, DataType::FloatVector);
        assert_eq!(
            half.columns[1].reason,
            "the same numbers; Milvus milvus_lite-3.2.2 has no FLOAT16_VECTOR; a row without a vector is refused"
        );
        let old = ServerInfo { version: "v2.4.1".into() };
        let refused = |table, server: &ServerInfo| build(&[table], server).expect_err("refused").remove(0).to_string();
        assert_eq!(
            refused(with("sparsevec(9)", FieldSettings::default()), &ServerInfo { version: "v2.3.5".into() }),
            "table public.docs, column \"x\": Milvus v2.3.5 has no SPARSE_FLOAT_VECTOR; leave it out with `columns = { exclude \
             = [\"x\"] }`, or take its text with `type = \"VARCHAR\"` in [table.fields.x]"
        );
        assert_eq!(
            refused(with("timestamptz", of_type("TIMESTAMPTZ")), &old),
            "table public.docs, column \"x\": Milvus v2.4.1 has no TIMESTAMPTZ; remove `type` from [table.fields.x]"
        );
    }

    #[test]
    fn what_does_not_apply_is_refused_by_name() {
        let nullable = |nullable| FieldSettings { nullable: Some(nullable), ..Default::default() };
        let policy = |policy| FieldSettings { on_misfit: Some(policy), ..Default::default() };
        let encoded = |encoding| FieldSettings { encoding: Some(encoding), ..Default::default() };
        for (type_name, field, expected) in [
            (
                "int4",
                of_type("FLOAT"),
                "`type = \"FLOAT\"`, which int4 cannot become; take one of INT32, INT8, INT16, INT64, VARCHAR",
            ),
            (
                "bit(12)",
                of_type("BINARY_VECTOR"),
                "12 bits; a BINARY_VECTOR has a multiple of 8, up to 262144; remove `type` from [table.fields.x]",
            ),
            (
                "int4",
                encoded(Encoding::Base64),
                "`encoding = \"base64\"` does not apply to type int4; remove it from [table.fields.x]",
            ),
            (
                "bytea",
                encoded(Encoding::Trimmed),
                "`encoding = \"trimmed\"` does not apply to type bytea; remove it from [table.fields.x]",
            ),
            (
                "int4",
                policy(OnMisfit::Truncate),
                "`on_misfit = \"truncate\"`, and only VARCHAR and ARRAY can be cut; remove it from [table.fields.x]",
            ),
            (
                "vector(3)",
                policy(OnMisfit::Null),
                "`on_misfit = \"null\"`, and the field is not nullable; remove it from [table.fields.x]",
            ),
            (
                "vector(3)",
                nullable(true),
                "`nullable = true`, and Milvus v2.6.4 has no nullable vectors; remove it from [table.fields.x]",
            ),
        ] {
            let (table, settings) = with(type_name, field);
            assert_refused(table, settings, &format!("table public.docs, column \"x\": {expected}"));
        }
        for (field, expected) in [
            (
                of_type("VARCHAR"),
                "`type = \"VARCHAR\"`, but as the key it is INT64; remove `type` from [table.fields.id]",
            ),
            (
                policy(OnMisfit::SkipRow),
                "`on_misfit = \"skip_row\"`, and a key is never altered or left out; remove it from [table.fields.id]",
            ),
            (nullable(true), "`nullable = true` of a key or partition key; remove it from [table.fields.id]"),
        ] {
            let (table, settings) = with("int4", FieldSettings::default());
            let settings = TableSettings { fields: vec![("id".to_owned(), field)], ..settings };
            assert_refused(table, settings, &format!("table public.docs, column \"id\": {expected}"));
        }
    }

    #[test]
    fn policies_of_the_table_apply_where_they_can() {
        let columns = vec![column("id", "int4"), column("t", "text"), column("n", "int4"), vector("v", 2)];
        let settings = TableSettings { on_misfit: OnMisfit::Truncate, ..settings() };
        let policies: Vec<OnMisfit> = plan_of(table(columns), settings).columns.iter().map(|c| c.on_misfit).collect();
        assert_eq!(policies, [OnMisfit::Error, OnMisfit::Truncate, OnMisfit::Error, OnMisfit::Error]);
    }

    #[test]
    fn vectors_are_nullable_where_the_server_can_and_measured_where_nothing_declares_them() {
        let mut sampled = column("x", "vector");
        sampled.sampled_dimension = Some(5);
        let sampled = table(vec![column("id", "int4"), sampled]);
        let newest = ServerInfo { version: "v2.6.18".into() };
        let plan = build(&[(sampled.clone(), settings())], &newest).expect("a plan").tables.remove(0);
        assert_eq!((plan.collection.fields[1].dim, plan.collection.fields[1].nullable), (Some(5), true));
        assert!(plan.remarks[0].contains("5 is that of a row"), "{:?}", plan.remarks);
        let field = FieldSettings { nullable: Some(false), ..Default::default() };
        let strict = TableSettings { fields: vec![("x".to_owned(), field)], ..settings() };
        let plan = build(&[(sampled, strict)], &newest).expect("a plan").tables.remove(0);
        assert!(!plan.collection.fields[1].nullable);
    }

    #[test]
    fn a_table_without_a_vector_may_have_a_placeholder() {
        let columns = vec![column("id", "int4"), column("placeholder_vector", "text")];
        let settings = TableSettings { placeholder_vector: true, ..settings() };
        let plan = plan_of(table(columns), settings.clone());
        assert_eq!((plan.placeholder, &*plan.collection.fields[2].name), (Some(2), "placeholder_vector_"));
        assert_eq!(plan.indexes.len(), 1);
        let plan = plan_of(table(vec![column("id", "int4"), vector("v", 2)]), settings);
        assert_eq!(plan.placeholder, None);
    }

    #[test]
    fn a_type_that_only_postgresql_prints_is_announced() {
        let mut cube = column("x", "cube");
        cube.data_type.extension = Some("cube".into());
        let plan =
            build(&[(table(vec![column("id", "int4"), cube, vector("v", 2)]), settings())], &server()).expect("a plan");
        assert_eq!(plan.columns_that_need_text().collect::<Vec<_>>(), ["public.docs.x"]);
        assert_eq!(
            plan.tables[0].remarks,
            ["column \"x\" is of type cube, which PostgreSQL itself prints, and the stream is asked for text"]
        );
    }
}
