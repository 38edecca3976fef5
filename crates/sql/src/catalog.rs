//! Which tables there are: `logs`, `metrics`, `traces`, `usage`, `charges` and `lineage`, of all lakes put together.
//!
//! In: snapshots and tails of lakes; out: tables for DataFusion, made when a query names them. A table has the columns that this
//! release writes, with those of all fields that the lake's commits name; what a file lacks is missing in its rows. With a tenant, only
//! this tenant's files are looked at, so nothing of another one is in a name, a number or a plan. Memory: the list of files, 300 bytes each.

use crate::error::failed;
use crate::query::Source;
use crate::scan::{Counters, LakeTable, Place};
use async_trait::async_trait;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::error::Result;
use lake::tables::Table;
use std::fmt;
use std::sync::Arc;

pub(crate) const CATALOG: &str = "weir";
pub(crate) const SCHEMA: &str = "public";

/// The one catalog, its one schema and the tables in it.
#[derive(Clone)]
pub(crate) struct Catalog {
    pub sources: Arc<Vec<Source>>,
    pub tenant: Option<Vec<u8>>,
    pub read_bytes_max: Option<u64>,
    pub counters: Arc<Counters>,
}

impl fmt::Debug for Catalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("lake") // what is in it is not for plans to show
    }
}

impl CatalogProviderList for Catalog {
    fn register_catalog(&self, _: String, _: Arc<dyn CatalogProvider>) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        vec![CATALOG.to_owned()]
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        (name == CATALOG).then(|| Arc::new(self.clone()) as Arc<dyn CatalogProvider>)
    }
}

impl CatalogProvider for Catalog {
    fn schema_names(&self) -> Vec<String> {
        vec![SCHEMA.to_owned()]
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        (name == SCHEMA).then(|| Arc::new(self.clone()) as Arc<dyn SchemaProvider>)
    }
}

#[async_trait]
impl SchemaProvider for Catalog {
    fn table_names(&self) -> Vec<String> {
        Table::ALL.iter().map(|table| table.name().to_owned()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let Some(table) = Table::ALL.into_iter().find(|table| table.name() == name) else { return Ok(None) };
        let made = self.make(table).map_err(failed)?;
        Ok(Some(Arc::new(made)))
    }

    fn table_exist(&self, name: &str) -> bool {
        Table::ALL.iter().any(|table| table.name() == name)
    }
}

impl Catalog {
    fn make(&self, table: Table) -> anyhow::Result<LakeTable> {
        let mut columns: Vec<Field> = Vec::new();
        let mut places = Vec::new();
        for source in self.sources.iter() {
            source.snapshot.columns(table, source.writer.as_deref()).iter().for_each(|schema| merge(&mut columns, schema));
            let files = source.snapshot.files(table, self.tenant.as_deref())?;
            let tail = source.snapshot.tail(table, &source.tail, source.writer.as_deref())?;
            places.push(Arc::new(Place { snapshot: Arc::clone(&source.snapshot), files, tail }));
        }
        let schema = Arc::new(Schema::new(columns));
        let Catalog { tenant, read_bytes_max, counters, .. } = self.clone();
        Ok(LakeTable { table, schema, places, tenant, read_bytes_max, counters })
    }
}

/// Adds the columns of one more kind of file. Every column may be missing somewhere.
fn merge(columns: &mut Vec<Field>, schema: &SchemaRef) {
    for field in schema.fields() {
        match columns.iter_mut().find(|column| column.name() == field.name()) {
            Some(column) => column.set_data_type(common_type(column.data_type(), field.data_type())),
            None => columns.push(Field::new(field.name(), field.data_type().clone(), true)),
        }
    }
}

/// The type that shows values of both; text where there is no other.
fn common_type(a: &DataType, b: &DataType) -> DataType {
    match (a, b) {
        _ if a == b => a.clone(),
        (DataType::Timestamp(x, zone), DataType::Timestamp(y, _)) => DataType::Timestamp(finer(*x, *y), zone.clone()),
        (DataType::Decimal128(_, x), DataType::Decimal128(_, y)) => DataType::Decimal128(38, *x.max(y)),
        _ => DataType::Utf8,
    }
}

fn finer(a: TimeUnit, b: TimeUnit) -> TimeUnit {
    let rank = |unit| match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 1,
        TimeUnit::Microsecond => 2,
        TimeUnit::Nanosecond => 3,
    };
    if rank(a) >= rank(b) { a } else { b }
}
