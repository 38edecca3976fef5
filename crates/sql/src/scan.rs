//! Files and tail as rows of one table, as few of them as the query's conditions allow.
//!
//! In: the columns and conditions that DataFusion asks for; out: batches. Whole files are left out by their tenant and times, which
//! the commit log has; row groups by the least and greatest values in the footer. Of the rest, the columns of the conditions are read
//! first and the others only where they hold. DataFusion judges each row again, so leaving out too little is never wrong. Memory: one
//! batch per partition, counted in the query's pool.

use crate::error::{TooMuch, failed};
use async_trait::async_trait;
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, StringArray, UInt64Array, new_null_array,
};
use datafusion::arrow::array::{TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray, TimestampSecondArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Schema, SchemaRef, TimeUnit};
use datafusion::arrow::error::ArrowError;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::pruning::{PruningPredicate, PruningPredicateBuilder};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use flow::units::UnixNanos;
use lake::Snapshot;
use lake::tables::{Bounds, FileView, Predicate, Rows, Table, TableFile, Tail};
use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What a query did, counted while it runs.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub files: AtomicU64,
    pub files_read: AtomicU64,
    pub groups: AtomicU64,
    pub groups_read: AtomicU64,
    pub rows_read: AtomicU64,
    pub bytes_read: AtomicU64,
    pub tail_rows: AtomicU64,
    /// Nobody waits for the answer any more.
    pub stop: AtomicBool,
    /// Rows that were read stay counted: an operator keeps them and does not say so.
    pub hold: AtomicBool,
}

impl Counters {
    pub(crate) fn check_stop(&self) -> anyhow::Result<()> {
        if self.stop.load(Ordering::Relaxed) { Err(anyhow::anyhow!("the query was stopped")) } else { Ok(()) }
    }

    fn add(counter: &AtomicU64, n: usize) {
        counter.fetch_add(n as u64, Ordering::Relaxed);
    }
}

/// What one lake has of a table.
pub(crate) struct Place {
    pub snapshot: Arc<Snapshot>,
    pub files: Vec<FileView>,
    pub tail: Tail,
}

pub(crate) struct LakeTable {
    pub table: Table,
    pub schema: SchemaRef,
    pub places: Vec<Arc<Place>>,
    pub tenant: Option<Vec<u8>>,
    pub read_bytes_max: Option<u64>,
    pub counters: Arc<Counters>,
}

impl fmt::Debug for LakeTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.table.name())
    }
}

#[async_trait]
impl TableProvider for LakeTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = match projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => Arc::clone(&self.schema),
        };
        let filter = Filter::of(state, &self.schema, filters)?.map(Arc::new);
        let mut jobs = Vec::new();
        for place in &self.places {
            Counters::add(&self.counters.files, place.files.len());
            let keep = match &filter {
                Some(filter) => filter.prune(&FileStatistics { table: self.table, schema: &self.schema, files: &place.files }),
                None => vec![true; place.files.len()],
            };
            let kept = (0..place.files.len()).filter(|at| keep[*at]);
            jobs.extend(kept.map(|at| (place.files[at].rows, Job::File(Arc::clone(place), at))));
            // The tail's rows are not counted beforehand; there are few of them beside those of a file.
            jobs.extend((0..place.tail.parts()).map(|at| (0, Job::Tail(Arc::clone(place), at))));
        }
        let scan = Arc::new(Scan {
            schema: Arc::clone(&schema),
            table_schema: Arc::clone(&self.schema),
            tenant: self.tenant.clone(),
            filter,
            read_bytes_max: self.read_bytes_max,
            counters: Arc::clone(&self.counters),
        });
        let partitions = split(jobs, state.config().target_partitions())
            .into_iter()
            .map(|jobs| Arc::new(Partition { scan: Arc::clone(&scan), jobs }) as Arc<dyn PartitionStream>)
            .collect();
        Ok(Arc::new(StreamingTableExec::try_new(schema, partitions, None, None, false, limit)?))
    }
}

/// Stretches of jobs with about as many rows each: what lies together stays together.
fn split(jobs: Vec<(u64, Job)>, parts: usize) -> Vec<VecDeque<Job>> {
    let parts = parts.max(1);
    let total: u64 = jobs.iter().map(|job| job.0).sum();
    let mut split: Vec<VecDeque<Job>> = (0..parts).map(|_| VecDeque::new()).collect();
    let mut before = 0u64;
    for (rows, job) in jobs {
        let at = u128::from(before) * parts as u128 / u128::from(total.max(1));
        split[usize::try_from(at).unwrap_or(parts).min(parts - 1)].push_back(job);
        before += rows;
    }
    split
}

/// One file of a place, or one part of its tail.
#[derive(Clone)]
enum Job {
    File(Arc<Place>, usize),
    Tail(Arc<Place>, usize),
}

/// What all partitions have in common.
struct Scan {
    /// The columns that are asked for, in their order.
    schema: SchemaRef,
    table_schema: SchemaRef,
    tenant: Option<Vec<u8>>,
    filter: Option<Arc<Filter>>,
    read_bytes_max: Option<u64>,
    counters: Arc<Counters>,
}

struct Partition {
    scan: Arc<Scan>,
    jobs: VecDeque<Job>,
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("rows")
    }
}

impl PartitionStream for Partition {
    fn schema(&self) -> &SchemaRef {
        &self.scan.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let reservation = MemoryConsumer::new("reading").register(context.memory_pool());
        let batches = Batches { scan: Arc::clone(&self.scan), jobs: self.jobs.clone(), rows: None, reservation, ended: false };
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.scan.schema), futures::stream::iter(batches)))
    }
}

/// The rows of one partition. Reading waits for the disk: each partition has a thread of the query's own.
struct Batches {
    scan: Arc<Scan>,
    jobs: VecDeque<Job>,
    rows: Option<Rows>,
    reservation: MemoryReservation,
    ended: bool,
}

impl Iterator for Batches {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Result<RecordBatch>> {
        if self.ended {
            return None;
        }
        let next = self.next_batch().and_then(|batch| {
            let bytes = batch.as_ref().map_or(0, RecordBatch::get_array_memory_size);
            let held = if self.scan.counters.hold.load(Ordering::Relaxed) { self.reservation.size() } else { 0 };
            self.reservation.try_resize(held.saturating_add(bytes))?;
            Ok(batch)
        });
        self.ended = !matches!(next, Ok(Some(_)));
        next.transpose()
    }
}

impl Batches {
    fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        let counters = Arc::clone(&self.scan.counters);
        loop {
            counters.check_stop().map_err(failed)?;
            if let Some(rows) = &mut self.rows {
                match rows.next() {
                    Some(batch) => {
                        let batch = batch.map_err(failed)?;
                        Counters::add(&counters.rows_read, batch.num_rows());
                        return adapt(&batch, &self.scan.schema).map(Some);
                    }
                    None => self.rows = None,
                }
            }
            match self.jobs.pop_front() {
                None => return Ok(None),
                Some(Job::File(place, at)) => self.rows = self.scan.open(&place.snapshot, &place.files[at])?,
                Some(Job::Tail(place, at)) => {
                    let names: Vec<&str> = self.scan.schema.fields().iter().map(|field| field.name().as_str()).collect();
                    let batch = place.tail.batch(at, &names, self.scan.tenant.as_deref()).map_err(failed)?;
                    Counters::add(&counters.tail_rows, batch.num_rows());
                    if batch.num_rows() > 0 {
                        return adapt(&batch, &self.scan.schema).map(Some);
                    }
                }
            }
        }
    }
}

impl Scan {
    /// The rows of a file that may be asked for; `None`: there are none.
    fn open(&self, snapshot: &Snapshot, view: &FileView) -> Result<Option<Rows>> {
        // The list of files is the tenant's own already; this is the last door before the disk.
        if self.tenant.as_ref().is_some_and(|tenant| *tenant != view.tenant) {
            return Err(failed(anyhow::anyhow!("a file of another tenant was asked for")));
        }
        let file = snapshot.open(view).map_err(failed)?;
        Counters::add(&self.counters.files_read, 1);
        let group_rows = file.group_rows();
        Counters::add(&self.counters.groups, group_rows.len());
        let keep = match &self.filter {
            Some(filter) => filter.prune(&GroupStatistics { schema: &self.table_schema, file: &file, rows: &group_rows }),
            None => vec![true; group_rows.len()],
        };
        let groups: Vec<usize> = (0..group_rows.len()).filter(|at| keep[*at]).collect();
        Counters::add(&self.counters.groups_read, groups.len());
        if groups.is_empty() {
            return Ok(None);
        }
        let names: Vec<&str> = self.schema.fields().iter().map(|field| field.name().as_str()).collect();
        let bytes = file.stored_bytes(&names, &groups);
        let read = self.counters.bytes_read.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if let Some(bytes_max) = self.read_bytes_max.filter(|max| read > *max) {
            return Err(failed(TooMuch { bytes_max }.into()));
        }
        let filter = self.filter.as_ref().and_then(|filter| filter.predicate(&file));
        file.read(&names, groups, filter).map(Some).map_err(failed)
    }
}

/// The query's conditions on one table.
struct Filter {
    pruning: Option<PruningPredicate>,
    /// Those that can be judged while a file is read.
    early: Option<Condition>,
}

/// A condition, and the columns that it looks at, in the table's order.
struct Condition {
    schema: SchemaRef,
    expr: Arc<dyn PhysicalExpr>,
}

impl Condition {
    /// All of `filters` at once; `None`: there are none.
    fn all(state: &dyn Session, schema: &SchemaRef, filters: impl IntoIterator<Item = Expr>) -> Result<Option<Condition>> {
        let Some(all) = conjunction(filters) else { return Ok(None) };
        let columns = all.column_refs();
        let names: HashSet<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        let wanted: Vec<usize> = (0..schema.fields().len()).filter(|at| names.contains(schema.field(*at).name().as_str())).collect();
        let own: SchemaRef = Arc::new(schema.project(&wanted)?);
        let expr = state.create_physical_expr(all, &DFSchema::try_from(Schema::clone(&own))?)?;
        Ok(Some(Condition { schema: own, expr }))
    }
}

impl Filter {
    fn of(state: &dyn Session, schema: &SchemaRef, filters: &[Expr]) -> Result<Option<Filter>> {
        let Some(all) = Condition::all(state, schema, filters.iter().cloned())? else { return Ok(None) };
        let pruning = PruningPredicateBuilder::new().with_file_schema(all.schema).try_build(all.expr);
        let pruning = pruning.ok().filter(|pruning| !pruning.always_true());
        // A line is put together from all its columns: judging it first would save nothing.
        let is_early = |filter: &&Expr| !filter.column_refs().iter().any(|column| column.name == "raw");
        let early = Condition::all(state, schema, filters.iter().filter(is_early).cloned())?;
        Ok(Some(Filter { pruning, early }))
    }

    /// Which of the containers may hold a row that is asked for.
    fn prune<S: PruningStatistics>(&self, statistics: &S) -> Vec<bool> {
        let pruned = self.pruning.as_ref().and_then(|pruning| pruning.prune(statistics).ok());
        pruned.unwrap_or_else(|| vec![true; statistics.num_containers()])
    }

    /// The conditions, to be judged while a file is read. `None` where that saves nothing: the file has none of their columns.
    fn predicate(self: &Arc<Self>, file: &TableFile) -> Option<(Vec<String>, Predicate)> {
        let names: Vec<String> = self.early.as_ref()?.schema.fields().iter().map(|field| field.name().clone()).collect();
        let stored = |name: &String| name != "tenant" && file.schema().field_with_name(name).is_ok();
        if !names.iter().any(stored) {
            return None;
        }
        let filter = Arc::clone(self);
        let judge = move |batch: RecordBatch| -> std::result::Result<BooleanArray, ArrowError> {
            let rows = batch.num_rows();
            let verdict = filter
                .early
                .as_ref()
                .map(|early| adapt(&batch, &early.schema).and_then(|batch| early.expr.evaluate(&batch)?.into_array(rows)));
            // What fails here fails again above, where it is the query's fault and not the file's.
            let known = verdict.and_then(Result::ok).and_then(|verdict| verdict.as_boolean_opt().cloned());
            Ok(known.unwrap_or_else(|| BooleanArray::from(vec![true; rows])))
        };
        Some((names, Box::new(judge)))
    }
}

/// What the commit log knows of files.
struct FileStatistics<'a> {
    table: Table,
    schema: &'a SchemaRef,
    files: &'a [FileView],
}

impl FileStatistics<'_> {
    fn bound(&self, column: &Column, time: impl Fn(&FileView) -> UnixNanos) -> Option<ArrayRef> {
        if column.name == "tenant" {
            return Some(Arc::new(self.files.iter().map(|file| Some(file.tenant_text())).collect::<StringArray>()));
        }
        if !self.table.time_columns().contains(&column.name.as_str()) {
            return None;
        }
        let DataType::Timestamp(unit, zone) = self.schema.field_with_name(&column.name).ok()?.data_type() else { return None };
        let times = |divisor: i64| self.files.iter().map(move |file| time(file).0.div_euclid(divisor)).collect::<Vec<i64>>();
        // A column's value is the time without what its unit cannot say; so are its bounds.
        Some(match unit {
            TimeUnit::Nanosecond => Arc::new(TimestampNanosecondArray::from(times(1)).with_timezone_opt(zone.clone())),
            TimeUnit::Microsecond => Arc::new(TimestampMicrosecondArray::from(times(1_000)).with_timezone_opt(zone.clone())),
            TimeUnit::Millisecond => Arc::new(TimestampMillisecondArray::from(times(1_000_000)).with_timezone_opt(zone.clone())),
            TimeUnit::Second => Arc::new(TimestampSecondArray::from(times(1_000_000_000)).with_timezone_opt(zone.clone())),
        })
    }
}

impl PruningStatistics for FileStatistics<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bound(column, |file| file.min_time)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bound(column, |file| file.max_time)
    }

    fn num_containers(&self) -> usize {
        self.files.len()
    }

    fn null_counts(&self, _: &Column) -> Option<ArrayRef> {
        None
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(self.files.iter().map(|file| Some(file.rows)).collect::<UInt64Array>()))
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}

/// What a footer knows of its row groups.
struct GroupStatistics<'a> {
    schema: &'a SchemaRef,
    file: &'a TableFile,
    rows: &'a [u64],
}

impl GroupStatistics<'_> {
    fn bounds(&self, column: &Column) -> Option<Bounds> {
        // A file of another age may have another type: then its bounds are not those of the column.
        let same = self.schema.field_with_name(&column.name).ok()?.data_type()
            == self.file.schema().field_with_name(&column.name).ok()?.data_type();
        same.then(|| self.file.bounds(&column.name))?
    }
}

impl PruningStatistics for GroupStatistics<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        Some(self.bounds(column)?.min)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        Some(self.bounds(column)?.max)
    }

    fn num_containers(&self) -> usize {
        self.rows.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        Some(Arc::new(self.bounds(column)?.missing))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(UInt64Array::from(self.rows.to_vec())))
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}

/// A batch with exactly these columns: by name, as their types, missing ones as missing values.
fn adapt(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let column = |field: &datafusion::arrow::datatypes::FieldRef| -> Result<ArrayRef> {
        match batch.column_by_name(field.name()) {
            None => Ok(new_null_array(field.data_type(), batch.num_rows())),
            Some(array) if array.data_type() == field.data_type() => Ok(Arc::clone(array)),
            Some(array) => Ok(cast(array, field.data_type())?),
        }
    };
    let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}
