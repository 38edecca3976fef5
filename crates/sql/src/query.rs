//! One query from its text to its rows.
//!
//! In: lakes as they stand, a statement, bounds; out: batches of rows, in order, and what the query did. Planning and operators run on
//! threads of the query's own, which have deep stacks for deep trees; the caller's thread hands out the rows and asks, every few
//! milliseconds, whether the time is over. Memory: [`SqlOptions::memory_bytes_max`] for what operators hold and files bring, and one
//! batch on its way to the caller; nothing is written to disk. What has no ORDER BY comes in any order, but without sorting, grouping
//! and joining in that of files and tail.

use crate::catalog::{CATALOG, Catalog, SCHEMA};
use crate::error::{Mistake, SqlError, explain};
use crate::functions;
use crate::guard::parse;
use crate::scan::Counters;
use anyhow::{Context, anyhow};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result as PlanResult};
use datafusion::execution::config::SessionConfig;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SessionState, SessionStateBuilder, SessionStateDefaults};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::{Expr, LogicalPlan, Projection};
use datafusion::physical_plan::execute_stream;
use flow::units::UnixNanos;
use futures::StreamExt;
use hub::frame::Frame;
use lake::Snapshot;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

/// Threads of a query, and parts that its work is split into.
const PARTITIONS: usize = 2;
/// Planning walks trees of up to `guard::TOKENS_MAX` levels, at up to some 30 KiB a level. Only what is touched becomes memory.
const STACK_BYTES: usize = 256 << 20;
/// How long the caller's question whether the time is over may go unasked.
const TICK: Duration = Duration::from_millis(5);

/// A lake, and the hub's tail, which was taken before the snapshot was read.
#[derive(Clone)]
pub struct Source {
    pub snapshot: Arc<Snapshot>,
    pub tail: Vec<Arc<Frame>>,
    /// How the lake is written now; without it the tail tells no lineage, and a lake without commits has no columns of fields.
    pub writer: Option<Arc<lake::Options>>,
}

/// The bounds of one query.
pub struct SqlOptions<'a> {
    /// Only this tenant's rows exist, in every table.
    pub tenant: Option<Vec<u8>>,
    /// `query.memory`.
    pub memory_bytes_max: u64,
    /// A query that reads more of files than this has no answer: one over a part of the rows would be wrong.
    pub read_bytes_max: Option<u64>,
    /// More rows than these are not handed out.
    pub rows_max: u64,
    /// What `now()` is.
    pub now: UnixNanos,
    /// Asked every few milliseconds: whether to end with what there is.
    pub is_over: &'a (dyn Fn() -> bool + Sync),
}

/// Why an answer is not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partial {
    /// There are more than `rows_max` rows.
    Rows,
    /// The time was over.
    Time,
    /// The receiver wanted no more.
    Receiver,
}

/// What a query did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Rows that were handed out.
    pub rows: u64,
    pub partial: Option<Partial>,
    /// Files of the tables that the query names; with a tenant, the tenant's.
    pub files: u64,
    pub files_read: u64,
    /// Row groups of the files that were read, and those of which rows were read.
    pub groups: u64,
    pub groups_read: u64,
    /// Rows that came out of files, and out of the tail, before the query's conditions were judged.
    pub rows_read: u64,
    /// Of the columns that were read, as they lie in the files.
    pub bytes_read: u64,
    pub tail_rows: u64,
}

/// Runs one statement over the lakes. `out` gets each batch; all have the same columns, and there is at least one, maybe empty.
///
/// Blocks; not to be called from within an async task. What was handed out before an error is true but not all.
pub fn query(
    sources: Vec<Source>,
    sql: &str,
    options: &SqlOptions<'_>,
    out: &mut dyn FnMut(&RecordBatch) -> ControlFlow<()>,
) -> Result<Stats, SqlError> {
    let counters = Arc::new(Counters::default());
    let SqlOptions { tenant, read_bytes_max, .. } = options;
    let catalog =
        Catalog { sources: Arc::new(sources), tenant: tenant.clone(), read_bytes_max: *read_bytes_max, counters: Arc::clone(&counters) };
    let job = Job { sql: sql.to_owned(), catalog, memory_bytes_max: options.memory_bytes_max, now: options.now };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(PARTITIONS + 1) // one hands out
        .thread_name("sql")
        .thread_stack_size(STACK_BYTES)
        .build()
        .context("cannot start the threads of a query")
        .map_err(SqlError::World)?;
    let (send, receive) = sync_channel(1);
    runtime.spawn(async move {
        if let Err(error) = job.run(&send).await {
            let _ = send.send(Reply::Failed(error)); // nobody listens any more
        }
    });
    let answer = deliver(&receive, options, out);
    drop(receive);
    counters.stop.store(true, Ordering::Relaxed);
    // A thread that is inside a long step ends after it; nobody waits for that.
    runtime.shutdown_background();
    let (rows, partial) = answer?;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Ok(Stats {
        rows,
        partial,
        files: count(&counters.files),
        files_read: count(&counters.files_read),
        groups: count(&counters.groups),
        groups_read: count(&counters.groups_read),
        rows_read: count(&counters.rows_read),
        bytes_read: count(&counters.bytes_read),
        tail_rows: count(&counters.tail_rows),
    })
}

enum Reply {
    Columns(SchemaRef),
    Rows(RecordBatch),
    Failed(SqlError),
    Done,
}

/// Hands out rows until there are no more or a bound is reached.
fn deliver(
    receive: &Receiver<Reply>,
    options: &SqlOptions<'_>,
    out: &mut dyn FnMut(&RecordBatch) -> ControlFlow<()>,
) -> Result<(u64, Option<Partial>), SqlError> {
    let (mut rows, mut columns) = (0u64, None);
    while !(options.is_over)() {
        match receive.recv_timeout(TICK) {
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(SqlError::World(anyhow!("a thread of the query failed; this is a bug of weir")));
            }
            Ok(Reply::Columns(schema)) => columns = Some(schema),
            Ok(Reply::Rows(batch)) => {
                let room = usize::try_from(options.rows_max - rows).unwrap_or(usize::MAX);
                let is_more = batch.num_rows() > room;
                let batch = if is_more { batch.slice(0, room) } else { batch };
                rows += batch.num_rows() as u64;
                // The names of the columns go out even where no row may.
                if (batch.num_rows() > 0 || columns.is_some()) && out(&batch).is_break() {
                    return Ok((rows, Some(Partial::Receiver)));
                }
                columns = None;
                if is_more {
                    return Ok((rows, Some(Partial::Rows)));
                }
            }
            Ok(Reply::Failed(error)) => return Err(error),
            Ok(Reply::Done) => {
                let empty = columns.map(RecordBatch::new_empty);
                let is_gone = empty.is_some_and(|empty| out(&empty).is_break());
                return Ok((rows, is_gone.then_some(Partial::Receiver)));
            }
        }
    }
    Ok((rows, Some(Partial::Time)))
}

/// What the threads of a query work on.
struct Job {
    sql: String,
    catalog: Catalog,
    memory_bytes_max: u64,
    now: UnixNanos,
}

impl Job {
    async fn run(&self, send: &SyncSender<Reply>) -> Result<(), SqlError> {
        let statement = parse(&self.sql)?;
        let explained = |error| explain(error, &self.sql, self.memory_bytes_max);
        let state = self.state(PARTITIONS).map_err(explained)?;
        let plan = state.statement_to_plan(statement).await.map_err(explained)?;
        let reads = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        reads.verify_plan(&plan).map_err(explained)?;
        let shape = Shape::of(&plan).map_err(explained)?;
        if shape.repeats {
            let help = "give the column of the outer one another name";
            let message = "two SELECTs inside one another compute the same column of the same name";
            return Err(SqlError::Mistake(Mistake::new(&self.sql, None, message, help)));
        }
        if let Some(function) = shape.gathers {
            let help = "group by it instead, without OVER";
            return Err(SqlError::Mistake(Mistake::new(&self.sql, None, format!("{function} over a window is not possible here"), help)));
        }
        self.catalog.counters.hold.store(shape.holds, Ordering::Relaxed);
        // One part gives rows in the order in which they lie.
        let state = if shape.reorders { state } else { self.state(1).map_err(explained)? };
        let plan = state.create_physical_plan(&plan).await.map_err(explained)?;
        let mut rows = execute_stream(plan, state.task_ctx()).map_err(explained)?;
        let gone = |_| SqlError::World(anyhow!("nobody listens any more"));
        send.send(Reply::Columns(rows.schema())).map_err(gone)?;
        while let Some(batch) = rows.next().await {
            let batch = batch.map_err(explained)?;
            if batch.num_rows() > 0 {
                send.send(Reply::Rows(batch)).map_err(gone)?;
            }
        }
        send.send(Reply::Done).map_err(gone)
    }

    /// Everything that a query can reach: our tables, functions from a list, memory; no disk, no other table.
    fn state(&self, partitions: usize) -> PlanResult<SessionState> {
        let mut config = SessionConfig::new()
            .with_target_partitions(partitions)
            .with_information_schema(true)
            .with_default_catalog_and_schema(CATALOG, SCHEMA)
            .with_create_default_catalog_and_schema(false);
        config.options_mut().sql_parser.collect_spans = true;
        config.options_mut().execution.enable_recursive_ctes = false; // they need not end
        let memory = usize::try_from(self.memory_bytes_max).unwrap_or(usize::MAX);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(GreedyMemoryPool::new(memory)))
            .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
            .build_arc()?;
        let now = chrono::DateTime::from_timestamp_nanos(self.now.0);
        Ok(SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(runtime)
            .with_catalog_list(Arc::new(self.catalog.clone()))
            .with_execution_props(ExecutionProps::new().with_query_execution_start_time(now))
            .with_expr_planners(functions::planners())
            .with_scalar_functions(functions::scalar_functions())
            .with_aggregate_functions(SessionStateDefaults::default_aggregate_functions())
            .with_window_functions(SessionStateDefaults::default_window_functions())
            .build())
    }
}

/// What matters of a plan before it runs.
#[derive(Default)]
struct Shape {
    /// Rows are sorted, grouped or joined: their order is not that of files.
    reorders: bool,
    /// Windows hold all their rows and count none of them.
    holds: bool,
    /// A function that would gather all rows of a window for each of its rows.
    gathers: Option<String>,
    /// `SELECT a + 1 AS a FROM (SELECT a + 1 AS a ...)`: the optimizer of DataFusion 55 takes the outer one for the inner one again and
    /// leaves it out, so the answer would be wrong (mended by apache/datafusion#24686; to be removed with the release that has it).
    repeats: bool,
}

impl Shape {
    fn of(plan: &LogicalPlan) -> Result<Shape, DataFusionError> {
        let mut shape = Shape::default();
        plan.apply_with_subqueries(|node| {
            match node {
                LogicalPlan::Window(window) => {
                    (shape.reorders, shape.holds) = (true, true);
                    for expr in &window.window_expr {
                        expr.apply(|expr| {
                            if let Expr::WindowFunction(call) = expr
                                && matches!(call.fun.name(), "array_agg" | "string_agg")
                            {
                                shape.gathers = Some(call.fun.name().to_owned());
                            }
                            Ok(TreeNodeRecursion::Continue)
                        })?;
                    }
                }
                LogicalPlan::Projection(projection) => shape.repeats |= repeats(projection),
                LogicalPlan::Aggregate(_) | LogicalPlan::Join(_) | LogicalPlan::Sort(_) | LogicalPlan::Distinct(_) => shape.reorders = true,
                _ => {}
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(shape)
    }
}

/// Whether the next projection below, past what the optimizer may move away, computes the same.
fn repeats(outer: &Projection) -> bool {
    let mut below = outer.input.as_ref();
    while matches!(below, LogicalPlan::Filter(_) | LogicalPlan::Sort(_) | LogicalPlan::Limit(_) | LogicalPlan::SubqueryAlias(_)) {
        let [input] = below.inputs()[..] else { return false };
        below = input;
    }
    let computes = |expr: &Expr| !matches!(expr, Expr::Column(_));
    matches!(below, LogicalPlan::Projection(inner) if inner.expr == outer.expr && outer.expr.iter().any(computes))
}
