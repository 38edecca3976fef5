//! Which functions a query may call: those whose values are not much longer than what they are given, and the same each time.
//!
//! In: DataFusion's functions; out: the ones on the lists. A function that makes long texts out of short ones (`repeat`, `lpad`,
//! `replace`) would use memory that nobody counts; `random` and `uuid` would make two answers differ. Texts are put together, by
//! `concat`, `concat_ws` and `||`, up to [`TEXT_BYTES_MAX`] a batch.

use datafusion::arrow::array::{Array, AsArray, StringArray};
use datafusion::arrow::compute::{cast, kernels::concat_elements::concat_elements_utf8};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SessionStateDefaults;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use datafusion::sql::sqlparser::ast::BinaryOperator;
use std::sync::Arc;

/// Bytes of all texts that one step puts together for one batch.
const TEXT_BYTES_MAX: usize = 64 << 20;

const NUMBERS: &[&str] = &[
    "abs", "cbrt", "ceil", "exp", "floor", "gcd", "isnan", "iszero", "lcm", "ln", "log", "log10", "log2", "nanvl", "pi", "power", "round",
    "signum", "sqrt", "trunc",
];
const TEXTS: &[&str] = &[
    "ascii",
    "bit_length",
    "btrim",
    "character_length",
    "chr",
    "contains",
    "ends_with",
    "find_in_set",
    "initcap",
    "left",
    "levenshtein",
    "lower",
    "ltrim",
    "octet_length",
    "regexp_count",
    "regexp_instr",
    "regexp_like",
    "regexp_match",
    "reverse",
    "right",
    "rtrim",
    "split_part",
    "starts_with",
    "strpos",
    "substr",
    "substring_index",
    "to_hex",
    "upper",
];
const TIMES: &[&str] = &[
    "current_date",
    "current_time",
    "date_bin",
    "date_part",
    "date_trunc",
    "from_unixtime",
    "make_date",
    "now",
    "to_char",
    "to_date",
    "to_local_time",
    "to_timestamp",
    "to_timestamp_micros",
    "to_timestamp_millis",
    "to_timestamp_nanos",
    "to_timestamp_seconds",
    "to_unixtime",
];
const OTHERS: &[&str] = &["arrow_cast", "arrow_typeof", "coalesce", "get_field", "greatest", "least", "nullif", "nvl", "nvl2"];

/// The functions on the lists, and those that put texts together.
pub(crate) fn scalar_functions() -> Vec<Arc<ScalarUDF>> {
    let is_allowed = |name: &str| [NUMBERS, TEXTS, TIMES, OTHERS].iter().any(|list| list.contains(&name));
    let mut functions = SessionStateDefaults::default_scalar_functions();
    functions.retain(|function| is_allowed(function.name()));
    functions.extend([Concat::udf("concat"), Concat::udf("concat_ws")]);
    functions
}

pub(crate) fn planners() -> Vec<Arc<dyn ExprPlanner>> {
    let mut planners: Vec<Arc<dyn ExprPlanner>> = vec![Arc::new(Join)];
    planners.extend(SessionStateDefaults::default_expr_planners());
    planners
}

/// Plans `a || b` as a function with a bound.
#[derive(Debug)]
struct Join;

impl ExprPlanner for Join {
    fn plan_binary_op(&self, expr: RawBinaryExpr, _: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        if !matches!(expr.op, BinaryOperator::StringConcat) {
            return Ok(PlannerResult::Original(expr));
        }
        let call = ScalarFunction::new_udf(Concat::udf("||"), vec![expr.left, expr.right]);
        Ok(PlannerResult::Planned(Expr::ScalarFunction(call)))
    }
}

/// `||`: missing where one side is; `concat`: a missing text is an empty one; `concat_ws`: the first text between the others.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Concat {
    name: &'static str,
    signature: Signature,
}

impl Concat {
    fn udf(name: &'static str) -> Arc<ScalarUDF> {
        Arc::new(ScalarUDF::new_from_impl(Concat { name, signature: Signature::variadic_any(Volatility::Immutable) }))
    }

    fn join(&self, arrays: &[StringArray], rows: usize) -> Result<StringArray> {
        if self.name == "||" {
            return match arrays {
                [a, b] => Ok(concat_elements_utf8(a, b)?),
                _ => Err(DataFusionError::Execution("|| puts two texts together".into())),
            };
        }
        let (between, texts) = match arrays {
            [first, rest @ ..] if self.name == "concat_ws" => (Some(first), rest),
            all => (None, all),
        };
        let row = |row: usize| {
            let present = texts.iter().filter(|array| array.is_valid(row)).map(|array| array.value(row));
            match between {
                None => Some(present.collect::<String>()),
                Some(between) if between.is_valid(row) => Some(present.collect::<Vec<_>>().join(between.value(row))),
                Some(_) => None,
            }
        };
        Ok((0..rows).map(row).collect())
    }
}

impl ScalarUDFImpl for Concat {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        // Constants are put together once, and not for each row.
        let constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let mut arrays = Vec::with_capacity(args.args.len());
        let mut bytes = 0usize;
        for arg in &args.args {
            let array = cast(&arg.to_array(rows)?, &DataType::Utf8)?;
            let texts = array.as_string::<i32>();
            let offsets = texts.value_offsets();
            bytes += usize::try_from(offsets[offsets.len() - 1] - offsets[0]).unwrap_or(usize::MAX);
            // concat_ws repeats its first text once for each of the others.
            let times = if self.name == "concat_ws" && arrays.is_empty() { args.args.len() } else { 1 };
            if bytes.saturating_mul(times) > TEXT_BYTES_MAX {
                return Err(DataFusionError::ResourcesExhausted(format!("{} makes texts that are too long", self.name)));
            }
            arrays.push(texts.clone());
        }
        let joined = Arc::new(self.join(&arrays, rows)?);
        match constant {
            true => Ok(ColumnarValue::Scalar(datafusion::common::ScalarValue::try_from_array(joined.as_ref(), 0)?)),
            false => Ok(ColumnarValue::Array(joined)),
        }
    }
}
