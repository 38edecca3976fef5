//! What other programs find in the columns of a log file, and that no line needs them to.

use super::*;
use crate::{logs, table};
use arrow_array::{Array, BinaryArray, Float64Array, RecordBatch, StringArray};
use parquet::file::reader::FileReader;
use parquet::file::serialized_reader::SerializedFileReader;

/// The one log file of a new lake with these lines, and what it counts as incomplete.
fn stored(options: Options, lines: &[Line]) -> (RecordBatch, BTreeMap<String, u64>, Vec<Vec<u8>>) {
    let folder = tempfile::tempdir().unwrap();
    let mut lake = Lake::open(Disk::Real, folder.path(), options).unwrap();
    lake.seal(&[frame(1, 1, 0, lines)]).unwrap();
    let is_log = |p: &PathBuf| p.starts_with("logs") && p.extension().is_some_and(|e| e == "parquet");
    let path = folder.path().join(files_of(folder.path()).into_keys().find(is_log).unwrap());
    let file = SerializedFileReader::new(std::fs::File::open(&path).unwrap()).unwrap();
    let incomplete = logs::Notes::of(file.metadata().file_metadata()).unwrap().incomplete;
    let batch = table::read_all(&Disk::Real, &path, None).unwrap().next().unwrap().unwrap();
    let mut raws: Vec<Vec<u8>> = find_all(&Disk::Real, folder.path(), &[], "").into_iter().map(|hit| hit.raw).collect();
    raws.sort();
    (batch, incomplete, raws)
}

fn sorted(lines: &[Line]) -> Vec<Vec<u8>> {
    let mut raws: Vec<Vec<u8>> = lines.iter().map(|l| l.raw.clone()).collect();
    raws.sort();
    raws
}

#[test]
fn a_number_is_in_its_column_and_all_else_stays_in_the_line() {
    let values = [
        ("7", Some(7.0)),
        ("-0.25", Some(-0.25)),
        ("1.50", Some(1.5)),
        ("1e3", Some(1000.0)),
        ("9007199254740993", None),
        ("1e400", None),
        ("\"12\"", None),
        ("true", None),
        ("{\"a\":1}", None),
    ];
    let mut lines: Vec<Line> = Vec::new();
    for (i, (text, _)) in values.iter().enumerate() {
        lines.push(line("t", START + i as i64, &format!("{{\"latency_ms\":{text},\"service\":\"s\"}}")));
    }
    lines.push(line("t", START + 100, r#"{"latency_ms":null,"service":"s"}"#));
    lines.push(line("t", START + 101, r#"{"service":"s"}"#));
    let (batch, incomplete, raws) = stored(options(0), &lines);
    let column: &Float64Array = table::column(&batch, "latency_ms").unwrap();
    let want: Vec<Option<f64>> = values.iter().map(|v| v.1).chain([None, None]).collect();
    assert_eq!(column.iter().collect::<Vec<_>>(), want);
    assert_eq!(incomplete, BTreeMap::from([("latency_ms".to_owned(), 5)]), "a missing value and null are no loss");
    assert_eq!(raws, sorted(&lines));
    assert_eq!(stored(options(0), &lines[..3]).1, BTreeMap::new());
}

#[test]
fn what_columns_hold_is_not_stored_again_and_every_line_comes_back() {
    let good = [
        r#"{"ts":"2026-11-23T00:00:00.000000005Z","service":"a\"b","msg":"x é \n y","trace_id":"00ff","latency_ms":2.5}"#,
        r#"{ "service" : "" , "msg":"\u00e9\/","model":{"a":[1,2]},"service":"twice"}"#,
        r#"{"service":null,"user":{"id":"u"},"model":"m","latency_ms":1.0}"#,
        r#"{"ts":"2026-11-23T00:00:00.5Z","msg":"another time"}"#,
        "{}",
    ];
    let bad = [&b"{\"msg\":\"\xff\xfe\"}"[..], b"plain \xff\x00 text", b"{\"msg\":\"cut", b"", b"\xfd\x09"];
    let mut lines: Vec<Line> = good.iter().map(|raw| line("t", START + 5, raw)).collect();
    lines.extend(bad.iter().map(|raw| Line { tenant: b"t".to_vec(), time: START + 6, severity: 0, raw: raw.to_vec() }));
    let (batch, _, raws) = stored(options(0), &lines);
    assert_eq!(raws, sorted(&lines));
    let (rest, raw): (&BinaryArray, &BinaryArray) = (table::column(&batch, "rest").unwrap(), table::column(&batch, "raw").unwrap());
    assert_eq!((rest.null_count(), raw.null_count()), (bad.len(), good.len()), "each line is stored once");
    let cut = rest.iter().flatten().map(|r| String::from_utf8_lossy(r).into_owned()).find(|r| r.contains("latency_ms") && r.contains("ts"));
    let marks = "{\"ts\":\"\u{fffd}\u{9}\",\"service\":\"\u{fffd}\u{0}\",\"msg\":\"\u{fffd}\u{3}\",\"trace_id\":\"\u{fffd}\u{5}\",\"latency_ms\":\u{fffd}\u{7}}";
    assert_eq!(cut.unwrap(), marks);
    let service: &StringArray = table::column(&batch, "service").unwrap();
    assert!(service.iter().flatten().any(|s| s == "a\"b"), "a column has the text, not its escapes");
}

#[test]
fn a_file_from_before_the_rest_is_read() {
    let mut old = crate::logs::tests::old_batch(&[b"{\"msg\":\"x\"}", b"\xff"]);
    let mut buffer = Vec::new();
    let lines = logs::Lines::of(&old).unwrap();
    assert_eq!(lines.line(0, &mut buffer).unwrap(), b"{\"msg\":\"x\"}");
    assert_eq!(lines.line(1, &mut buffer).unwrap(), b"\xff");
    drop(lines);
    let places: Vec<usize> = (0..old.num_columns() - 1).collect();
    old = old.project(&places).unwrap();
    assert!(logs::Lines::of(&old).err().unwrap().to_string().contains("no column \"raw\""));
    let fields: Fields = serde_json::from_str(r#"{"index":["a"],"text":[],"ids":[]}"#).unwrap();
    assert_eq!((fields.index.len(), fields.numbers.len()), (1, 0), "as old commits have it");
}

#[test]
fn a_field_may_be_a_number_and_an_id_or_text() {
    let numbers = ["request_id", "message"].map(String::from).to_vec();
    let lines =
        [line("t", START, r#"{"request_id":17,"message":"seventeen"}"#), line("t", START + 1, r#"{"request_id":"x9","message":5}"#)];
    let (batch, incomplete, raws) = stored(Options { numbers, ..options(0) }, &lines);
    assert_eq!(raws, sorted(&lines));
    let ids: &Float64Array = table::column(&batch, "request_id").unwrap();
    assert_eq!(ids.iter().collect::<Vec<_>>(), [Some(17.0), None]);
    assert_eq!(incomplete, BTreeMap::from([("request_id".to_owned(), 1), ("message".to_owned(), 1)]));
}
