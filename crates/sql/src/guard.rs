//! Which statements there are: those that read rows, and nothing else.
//!
//! In: the text of a query; out: its one statement, or a mistake with its place. Bounds: [`QUERY_BYTES_MAX`] of text, [`TOKENS_MAX`]
//! words and signs, [`DEPTH_MAX`] levels of brackets and subqueries; beyond them the query is refused before anything is planned. So
//! the trees that the planner walks are never deeper than its stack. What is allowed is named; all else is refused.

use crate::error::{Mistake, SqlError, explain, syntax, too_long};
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

pub const QUERY_BYTES_MAX: usize = 64 << 10;
/// Words, numbers and signs of a query.
pub const TOKENS_MAX: usize = 4096;
/// Brackets and subqueries inside one another.
pub const DEPTH_MAX: usize = 50;
/// Signs and words between two values, as `+`, `=`, `AND`: a chain of them is a tree as deep, and planning takes time that grows with the
/// square of its depth, some 3 s of a slow core at this bound.
const OPERATORS_MAX: usize = 512;
/// `||` in a query: each may double a text.
const CONCATS_MAX: usize = 64;

const ALLOWED: &str = "SELECT, WITH, VALUES, EXPLAIN, SHOW TABLES and DESCRIBE are possible: a lake is written by pipelines only";

/// The statement of a query.
pub(crate) fn parse(sql: &str) -> Result<Statement, SqlError> {
    if sql.len() > QUERY_BYTES_MAX {
        return Err(SqlError::Mistake(too_long(sql)));
    }
    let mistake = |place, message: &str, help: &str| SqlError::Mistake(Mistake::new(sql, place, message, help));
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location();
    let tokens = tokens.map_err(|error| SqlError::Mistake(syntax(&ParserError::TokenizerError(error.to_string()), sql)))?;
    check_tokens(&tokens).map_err(|(place, message, help)| mistake(place, message, &help))?;
    let verb = first_word(&tokens);
    let parser = DFParserBuilder::new(tokens).with_dialect(&GenericDialect {}).with_recursion_limit(DEPTH_MAX).build();
    let mut statements = parser.and_then(|mut parser| parser.parse_statements()).map_err(|error| explain(error, sql, 0))?;
    let Some(statement) = statements.pop_front() else {
        return Err(mistake(None, "the query is empty", ALLOWED));
    };
    if !statements.is_empty() {
        return Err(mistake(None, "there is more than one statement", "ask one thing at a time"));
    }
    if !is_allowed(&statement) {
        return Err(mistake(Some((1, 1)), &format!("{verb} is not possible here"), ALLOWED));
    }
    Ok(statement)
}

fn is_operator(word: Keyword) -> bool {
    matches!(word, Keyword::AND | Keyword::OR | Keyword::NOT | Keyword::LIKE | Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT)
}

/// The verb of a statement, in capitals; one that may read is not to blame.
fn first_word(tokens: &[TokenWithSpan]) -> String {
    let word = tokens.iter().find_map(|token| match &token.token {
        Token::Word(word) => Some(word.value.to_uppercase()),
        _ => None,
    });
    word.filter(|word| !["SELECT", "WITH", "EXPLAIN", "SHOW"].contains(&word.as_str())).unwrap_or_else(|| "this statement".to_owned())
}

type Refusal = (Option<(usize, usize)>, &'static str, String);

fn check_tokens(tokens: &[TokenWithSpan]) -> Result<(), Refusal> {
    let (mut count, mut depth, mut concats, mut operators) = (0, 0usize, 0, 0);
    for token in tokens {
        let place = Some((token.span.start.line as usize, token.span.start.column as usize));
        match token.token {
            Token::Whitespace(_) => continue,
            Token::LParen | Token::LBracket | Token::LBrace => depth += 1,
            Token::RParen | Token::RBracket | Token::RBrace => depth = depth.saturating_sub(1),
            Token::StringConcat => concats += 1,
            Token::Plus | Token::Minus | Token::Mul | Token::Div | Token::Mod => operators += 1,
            Token::Eq | Token::Neq | Token::Lt | Token::Gt | Token::LtEq | Token::GtEq | Token::Tilde => operators += 1,
            Token::Word(ref word) if is_operator(word.keyword) => operators += 1,
            _ => {}
        }
        count += 1;
        if count > TOKENS_MAX {
            return Err((place, "the query has too many words", format!("a query has at most {TOKENS_MAX} words, numbers and signs")));
        }
        if depth > DEPTH_MAX {
            return Err((place, "the query is nested too deep", format!("brackets and subqueries go {DEPTH_MAX} levels deep at most")));
        }
        if operators > OPERATORS_MAX {
            let help = format!("a query has at most {OPERATORS_MAX} of them; a list of values is IN (...)");
            return Err((place, "the query has too many operators", help));
        }
        if concats > CONCATS_MAX {
            return Err((place, "the query puts too many texts together", format!("a query has at most {CONCATS_MAX} of ||")));
        }
    }
    Ok(())
}

fn is_allowed(statement: &Statement) -> bool {
    match statement {
        Statement::Statement(statement) => match statement.as_ref() {
            ast::Statement::Query(query) => reads_only(query),
            ast::Statement::ExplainTable { .. } | ast::Statement::ShowTables { .. } => true,
            ast::Statement::Explain { statement, .. } => matches!(statement.as_ref(), ast::Statement::Query(query) if reads_only(query)),
            _ => false,
        },
        Statement::Explain(explained) => {
            matches!(explained.statement.as_ref(), Statement::Statement(inner) if matches!(inner.as_ref(), ast::Statement::Query(query) if reads_only(query)))
        }
        _ => false,
    }
}

/// A query's body may be a statement that writes, and a SELECT may make a table. (What hides deeper is refused by the check of the
/// plan.)
fn reads_only(query: &ast::Query) -> bool {
    let inner = query.with.iter().flat_map(|with| &with.cte_tables).all(|table| reads_only(&table.query));
    inner && query.locks.is_empty() && body_reads_only(&query.body)
}

fn body_reads_only(body: &ast::SetExpr) -> bool {
    match body {
        ast::SetExpr::Select(select) => select.into.is_none(),
        ast::SetExpr::Query(query) => reads_only(query),
        ast::SetExpr::SetOperation { left, right, .. } => body_reads_only(left) && body_reads_only(right),
        ast::SetExpr::Values(_) => true,
        _ => false,
    }
}
