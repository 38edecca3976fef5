//! The index beside a log file: for a word or a field's value, the rows that may hold it.
//!
//! One tantivy segment in the file's row order, written without documents or threads (`terms`) and packed into one file: a
//! header (names, places and checksums), then the segment's files and the table of ids (`ids`). Postings only: no
//! positions, no field norms, no stored documents. It proposes rows and never decides, so a lost or damaged one costs time
//! and no answer: every block read is checked, and an error sends the caller to the scan.
//! Memory to build: each distinct word once, 1 to 4 bytes for each word of a row, 8 for each id; to read: the term
//! dictionary and the postings that the query names. Values above [`TERM_BYTES_MAX`] are not indexed: their
//! rows are marked and always proposed.

mod decide;
mod ids;
mod packed;
mod terms;
#[cfg(test)]
mod tests;

use crate::Fields;
use crate::matcher::{Check, Limit};
use crate::query::{Glob, Pattern};
use crate::words::{TERM_BYTES_MAX, each_word, words};
use anyhow::{Context, bail};
use flow::event::Severity;
use hub::disk::Disk;
use ids::{Alphabet, IdRows, IdTable};
use packed::{BLOCK_BYTES, Packed, PackedFile, PackedFolder};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tantivy::columnar::ColumnarWriter;
use tantivy::directory::error::OpenReadError;
use tantivy::directory::{RamDirectory, TerminatingWrite};
use tantivy::fieldnorm::FieldNormsSerializer;
use tantivy::index::{SegmentComponent, SegmentId};
use tantivy::postings::InvertedIndexSerializer;
use tantivy::schema::{Field, IndexRecordOption, Schema, TextFieldIndexing, TextOptions};
use tantivy::store::{Compressor, StoreWriter};
use tantivy::{Directory, DocSet, Index, IndexMeta, IndexSettings, SegmentReader, TERMINATED, Term};
use terms::Terms;

const MAGIC: &[u8; 8] = b"weiridx1";
/// Most bytes of a header that are believed: a file has a few names and 4 bytes per block.
const HEADER_BYTES_MAX: usize = 16 << 20;
/// Bytes that a check of a whole index holds.
const CHECK_BYTES: usize = 32 * BLOCK_BYTES;
const META: &str = "meta.json";
/// What a segment's files hold.
const COMPONENTS: [SegmentComponent; 6] = [
    SegmentComponent::Terms,
    SegmentComponent::Postings,
    SegmentComponent::Positions,
    SegmentComponent::FastFields,
    SegmentComponent::FieldNorms,
    SegmentComponent::Store,
];
/// Name of the table of ids among the packed files.
const IDS: &str = "ids";
/// Name of every segment, so that equal rows give equal files.
const SEGMENT: &str = "00000000000000000000000000000000";

/// Gathers what the index holds of each row.
pub(crate) struct Builder {
    names: Names,
    rows: u32,
    /// By keyword; of those that are found by their hash it stays empty.
    keywords: Vec<Terms>,
    text: Terms,
    severity: Terms,
    long: Terms,
    ids: IdRows,
    hashed: Vec<Hashed>,
    /// For each keyword, and each text field: its place among the row's values.
    keyword_at: Vec<usize>,
    text_at: Vec<usize>,
    /// A word in lower case.
    word: Vec<u8>,
}

/// A keyword that is in the table of ids and in no dictionary.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Hashed {
    keyword: usize,
    bytes: Alphabet,
}

/// Which columns the index knows, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Names {
    keywords: Vec<String>,
    text: Vec<String>,
    ids: Vec<String>,
}

struct IndexFields {
    keywords: Vec<Field>,
    text: Field,
    /// Keyword: names of the severity class.
    severity: Field,
    /// Keyword: "k0", "k1" or "text" where the row has a value too long to be indexed.
    long: Field,
}

#[derive(Serialize, Deserialize)]
struct Header {
    names: Names,
    rows: u32,
    #[serde(default)]
    hashed: Vec<Hashed>,
    #[serde(default)]
    ids: IdTable,
    files: Vec<Packed>,
}

fn build_schema(keywords: usize) -> (Schema, IndexFields) {
    let mut schema = Schema::builder();
    let keyword = |tokenizer: &str| {
        let indexing =
            TextFieldIndexing::default().set_tokenizer(tokenizer).set_index_option(IndexRecordOption::Basic).set_fieldnorms(false);
        TextOptions::default().set_indexing_options(indexing)
    };
    let keywords = (0..keywords).map(|i| schema.add_text_field(&format!("k{i}"), keyword("raw"))).collect();
    let text = schema.add_text_field("text", keyword("words"));
    let severity = schema.add_text_field("severity", keyword("raw"));
    let long = schema.add_text_field("long", keyword("raw"));
    (schema.build(), IndexFields { keywords, text, severity, long })
}

impl Builder {
    /// `columns`: the fields whose values `add` is given, in order.
    pub(crate) fn new(fields: &Fields, columns: &[&str]) -> anyhow::Result<Builder> {
        let mut keywords: Vec<String> = Vec::new();
        for name in fields.index.iter().chain(&fields.ids) {
            if !keywords.contains(name) {
                keywords.push(name.clone());
            }
        }
        let only_id = |name: &String| !fields.index.contains(name);
        let hashed = (0..keywords.len()).filter(|i| only_id(&keywords[*i]));
        let hashed = hashed.map(|keyword| Hashed { keyword, bytes: Alphabet::default() }).collect();
        let places = |list: &[String]| -> anyhow::Result<Vec<usize>> {
            list.iter().map(|name| columns.iter().position(|c| c == name).context("an indexed field is no column")).collect()
        };
        let (keyword_at, text_at) = (places(&keywords)?, places(&fields.text)?);
        Ok(Builder {
            rows: 0,
            keywords: keywords.iter().map(|_| Terms::default()).collect(),
            text: Terms::default(),
            severity: Terms::default(),
            long: Terms::default(),
            ids: IdRows::default(),
            hashed,
            keyword_at,
            text_at,
            word: Vec::new(),
            names: Names { keywords, text: fields.text.clone(), ids: fields.ids.clone() },
        })
    }

    /// Adds the next row. `values`: its columns as UTF-8; `line`: the row as text where it is no JSON.
    pub(crate) fn add(&mut self, values: &[Option<Cow<'_, [u8]>>], line: Option<&str>, severity: Severity) -> anyhow::Result<()> {
        let mut hashed = self.hashed.iter_mut().peekable();
        for (i, (at, terms)) in self.keyword_at.iter().zip(&mut self.keywords).enumerate() {
            let ours = hashed.next_if(|h| h.keyword == i);
            match (values[*at].as_deref(), ours) {
                (None, _) => {}
                (Some(text), Some(hashed)) => {
                    hashed.bytes.add(text);
                    self.ids.add(text, self.rows);
                }
                (Some(text), None) if text.len() <= TERM_BYTES_MAX => terms.add(text)?,
                (Some(_), None) => self.long.add(long_term(i).as_bytes())?,
            }
        }
        for text in self.text_at.iter().filter_map(|at| values[*at].as_deref()).chain(line.map(str::as_bytes)) {
            let (terms, long) = (&mut self.text, &mut self.long);
            each_word(text, &mut self.word, |word| match word.len() <= TERM_BYTES_MAX {
                true => terms.add(word),
                false => long.add(LONG_TEXT.as_bytes()),
            })?;
        }
        if severity > 0 {
            self.severity.add(class_term(severity).as_bytes())?;
        }
        for terms in self.keywords.iter_mut().chain([&mut self.text, &mut self.severity, &mut self.long]) {
            terms.end_row();
        }
        self.rows = self.rows.checked_add(1).context("a log file has more than 2^32 rows")?;
        Ok(())
    }

    /// The index as one file.
    pub(crate) fn finish(self) -> anyhow::Result<Vec<u8>> {
        let (schema, fields) = build_schema(self.names.keywords.len());
        let folder = RamDirectory::create();
        let index = Index::create(folder.clone(), schema.clone(), IndexSettings::default())?;
        let segment = index.segment(index.new_segment_meta(SegmentId::from_uuid_string(SEGMENT)?, self.rows));
        let mut out = InvertedIndexSerializer::open(&segment)?;
        for (terms, field) in self.keywords.into_iter().zip(fields.keywords) {
            terms.write(field, &mut out)?;
        }
        for (terms, field) in [(self.text, fields.text), (self.severity, fields.severity), (self.long, fields.long)] {
            terms.write(field, &mut out)?;
        }
        out.close()?;
        // A segment without these is none; all three are empty.
        FieldNormsSerializer::from_write(segment.open_write(SegmentComponent::FieldNorms)?)?.close()?;
        let mut columns = segment.open_write(SegmentComponent::FastFields)?;
        ColumnarWriter::default().serialize(self.rows, None, &mut columns)?;
        columns.terminate()?;
        StoreWriter::new(segment.open_write(SegmentComponent::Store)?, Compressor::None, BLOCK_BYTES, false)?.close()?;
        let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for component in COMPONENTS {
            let path = segment.relative_path(component);
            match folder.atomic_read(&path) {
                Ok(bytes) => files.insert(path.to_str().context("a segment's file has an odd name")?.to_owned(), bytes),
                Err(OpenReadError::FileDoesNotExist(_)) => continue, // not every component has a file
                Err(error) => return Err(error.into()),
            };
        }
        let meta = IndexMeta {
            index_settings: index.settings().clone(),
            persisted_custom_extensions: Vec::new(),
            segments: vec![segment.meta().clone()],
            schema,
            opstamp: 0,
            payload: None,
        };
        files.insert(META.into(), serde_json::to_vec(&meta)?);
        let (ids, bytes) = self.ids.finish(self.rows);
        files.insert(IDS.into(), bytes);
        pack(Header { names: self.names, rows: self.rows, hashed: self.hashed, ids, files: Vec::new() }, &files)
    }
}

fn class_term(severity: Severity) -> &'static str {
    flow::severity::class_name(severity)
}

fn long_term(keyword: usize) -> String {
    format!("k{keyword}")
}

const LONG_TEXT: &str = "text";

/// Magic, header length, header checksum, header, then the files one after the other.
fn pack(mut header: Header, files: &BTreeMap<String, Vec<u8>>) -> anyhow::Result<Vec<u8>> {
    let mut offset = 0;
    for (name, bytes) in files {
        let crc32 = bytes.chunks(BLOCK_BYTES).map(crc32fast::hash).collect();
        header.files.push(Packed { name: name.clone(), offset, len: bytes.len() as u64, crc32 });
        offset += bytes.len() as u64;
    }
    let header = serde_json::to_vec(&header)?;
    let mut out = Vec::with_capacity(16 + header.len() + offset as usize);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&u32::try_from(header.len())?.to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(&header).to_le_bytes());
    out.extend_from_slice(&header);
    for bytes in files.values() {
        out.extend_from_slice(bytes);
    }
    Ok(out)
}

/// An opened index.
pub(crate) struct Proposer {
    names: Names,
    rows: usize,
    fields: IndexFields,
    segment: SegmentReader,
    hashed: Vec<Hashed>,
    ids: IdTable,
    folder: PackedFolder,
    /// What it holds once every dictionary was asked.
    memory_bytes: usize,
    /// What was read of it so far.
    bytes_read: Arc<AtomicU64>,
}

/// One bit per row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bits {
    words: Vec<u64>,
    rows: usize,
}

impl Bits {
    pub(crate) fn none(rows: usize) -> Bits {
        Bits { words: vec![0; rows.div_ceil(64)], rows }
    }

    pub(crate) fn all(rows: usize) -> Bits {
        let mut bits = Bits { words: vec![u64::MAX; rows.div_ceil(64)], rows };
        if let Some(last) = bits.words.last_mut().filter(|_| !rows.is_multiple_of(64)) {
            *last = (1 << (rows % 64)) - 1;
        }
        bits
    }

    fn set(&mut self, row: usize) {
        if row < self.rows {
            self.words[row / 64] |= 1 << (row % 64);
        }
    }

    fn or(&mut self, other: &Bits) {
        self.words.iter_mut().zip(&other.words).for_each(|(a, b)| *a |= b);
    }

    fn and(&mut self, other: &Bits) {
        self.words.iter_mut().zip(&other.words).for_each(|(a, b)| *a &= b);
    }

    pub(crate) fn count(&self) -> usize {
        self.words.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// The rows that are set, as ascending ranges.
    pub(crate) fn ranges(&self) -> Vec<Range<usize>> {
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for (i, word) in self.words.iter().enumerate() {
            let mut rest = *word;
            while rest != 0 {
                let row = i * 64 + rest.trailing_zeros() as usize;
                rest &= rest - 1;
                match ranges.last_mut() {
                    Some(last) if last.end == row => last.end += 1,
                    _ => ranges.push(row..row + 1),
                }
            }
        }
        ranges
    }
}

impl Proposer {
    /// Opens the index at `path`, of a file with `rows` rows.
    pub(crate) fn open(disk: &Disk, path: &Path, rows: u64) -> anyhow::Result<Proposer> {
        let (header, base) = read_header(disk, path)?;
        if u64::from(header.rows) != rows {
            bail!("{} is about {} rows, its file has {rows}", path.display(), header.rows);
        }
        let dictionaries = header.files.iter().filter(|f| f.name.ends_with(".term")).map(|f| f.len as usize).sum::<usize>();
        let memory_bytes = dictionaries + base as usize;
        let bytes_read = Arc::new(AtomicU64::new(base));
        let read = Arc::clone(&bytes_read);
        let folder = PackedFolder { disk: disk.clone(), path: path.into(), base, files: header.files.into(), read };
        let index = Index::open(folder.clone())?;
        let (schema, fields) = build_schema(header.names.keywords.len());
        if index.schema() != schema {
            bail!("{} has another shape than this program writes", path.display());
        }
        let segments = index.searchable_segments()?;
        let [segment] = segments.as_slice() else { bail!("{} has {} segments, not one", path.display(), segments.len()) };
        let table = folder.find(Path::new(IDS)).map_or(0, |at| folder.files[at].len);
        if !header.hashed.is_empty() && !header.ids.fits(table as usize) {
            bail!("the table of ids of {} has another size than its header says", path.display());
        }
        let segment = SegmentReader::open(segment)?;
        let (names, rows) = (header.names, header.rows as usize);
        Ok(Proposer { names, rows, fields, segment, hashed: header.hashed, ids: header.ids, folder, memory_bytes, bytes_read })
    }

    /// At most, however it is asked.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// Since it was opened, by everybody.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    fn term(&self, field: Field, text: &str) -> anyhow::Result<Bits> {
        let mut bits = Bits::none(self.rows);
        let inverted = self.segment.inverted_index(field)?;
        if let Some(mut postings) = inverted.read_postings(&Term::from_field_text(field, text), IndexRecordOption::Basic)? {
            collect(&mut postings, &mut bits);
        }
        Ok(bits)
    }

    /// The bytes of a keyword's ids, if it is found by their hashes.
    fn hashed(&self, field: Field) -> Option<&Hashed> {
        self.hashed.iter().find(|hashed| self.fields.keywords.get(hashed.keyword) == Some(&field))
    }

    /// Rows that may have this value in a field that is found by hashes.
    fn id(&self, text: &str) -> anyhow::Result<Bits> {
        let mut bits = Bits::none(self.rows);
        let at = self.folder.find(Path::new(IDS)).context("the index has no table of ids")?;
        let file = PackedFile { folder: self.folder.clone(), at };
        self.ids.find(text, |range| Ok(file.read(range)?), |row| bits.set(row))?;
        Ok(bits)
    }

    /// Rows with a term that starts with `prefix` and passes `test`; `None`: any row may have one, or more than `terms_max` terms would
    /// have to be looked at.
    fn terms(&self, field: Field, prefix: &str, terms_max: usize, test: &dyn Fn(&str) -> bool) -> anyhow::Result<Option<Bits>> {
        if let Some(hashed) = self.hashed(field) {
            // There is no dictionary: the bytes of the ids are all that is known.
            return Ok(if hashed.bytes.spells(prefix) { None } else { Some(Bits::none(self.rows)) });
        }
        let mut bits = Bits::none(self.rows);
        let inverted = self.segment.inverted_index(field)?;
        let mut stream = inverted.terms().range().ge(prefix.as_bytes()).into_stream()?;
        let mut looked_at = 0;
        while let Some((key, info)) = stream.next() {
            if !key.starts_with(prefix.as_bytes()) {
                break;
            }
            looked_at += 1;
            if looked_at > terms_max {
                return Ok(None);
            }
            if std::str::from_utf8(key).is_ok_and(test) {
                collect(&mut inverted.read_postings_from_terminfo(info, IndexRecordOption::Basic)?, &mut bits);
            }
        }
        Ok(Some(bits))
    }

    fn keyword(&self, name: &str) -> Option<usize> {
        self.names.keywords.iter().position(|n| n == name)
    }

    fn equal(&self, at: usize, text: &str) -> anyhow::Result<Bits> {
        if self.hashed(self.fields.keywords[at]).is_some() {
            return self.id(text);
        }
        let is_long = text.len() > TERM_BYTES_MAX;
        let mut bits = if is_long { Bits::none(self.rows) } else { self.term(self.fields.keywords[at], text)? };
        bits.or(&self.term(self.fields.long, &long_term(at))?);
        Ok(bits)
    }

    /// Rows that hold every word in some text field, and those with a word too long to tell.
    fn all_words(&self, words: &[String]) -> anyhow::Result<Bits> {
        let mut bits: Option<Bits> = None;
        for word in words {
            let rows = if word.len() > TERM_BYTES_MAX { Bits::none(self.rows) } else { self.term(self.fields.text, word)? };
            match &mut bits {
                Some(bits) => bits.and(&rows),
                None => bits = Some(rows),
            }
        }
        let mut bits = bits.unwrap_or_else(|| Bits::none(self.rows));
        bits.or(&self.term(self.fields.long, LONG_TEXT)?);
        Ok(bits)
    }
}

fn collect(postings: &mut impl DocSet, bits: &mut Bits) {
    let mut row = postings.doc();
    while row != TERMINATED {
        bits.set(row as usize);
        row = postings.advance();
    }
}

/// Reads all of the index at `path`, of a file with `rows` rows: `Err` where a search could not use every byte of it.
pub(crate) fn check(disk: &Disk, path: &Path, rows: u64) -> anyhow::Result<()> {
    Proposer::open(disk, path, rows)?;
    let (header, base) = read_header(disk, path)?;
    let end = header.files.iter().map(|file| file.offset.saturating_add(file.len)).max().unwrap_or(0);
    if disk.len(path)? != base.saturating_add(end) {
        bail!("{} is cut off or too long", path.display());
    }
    let folder = PackedFolder { disk: disk.clone(), path: path.into(), base, files: header.files.into(), read: Arc::default() };
    for at in 0..folder.files.len() {
        let (file, len) = (PackedFile { folder: folder.clone(), at }, folder.files[at].len as usize);
        for start in (0..len).step_by(CHECK_BYTES) {
            file.read(start..len.min(start + CHECK_BYTES))?;
        }
    }
    Ok(())
}

/// Most terms of a dictionary that a range or a regex is tried on.
const TERMS_MAX: usize = 100_000; // some 10 ms
/// A shorter part of a word is in too many words.
const PART_BYTES_MIN: usize = 3;

/// One query over one index.
struct Asking<'a> {
    proposer: &'a Proposer,
    names: &'a [String],
    /// The index knows every field that a bare word is looked for in.
    bare: bool,
    /// Texts that are surely in no id field.
    absent: &'a [&'a str],
}

impl Asking<'_> {
    fn rows(&self, check: &Check) -> anyhow::Result<Option<Bits>> {
        let index = self.proposer;
        let keyword = |field: usize| index.keyword(&self.names[field]);
        let is_text = |field: usize| index.names.text.contains(&self.names[field]);
        Ok(match check {
            Check::And(checks) => self.all(checks)?,
            Check::Or(checks) => self.any(checks)?,
            Check::Bare { phrase, whole } if self.bare && !phrase.words.is_empty() => {
                let mut bits = index.all_words(&phrase.words)?;
                if self.absent.contains(&whole.as_str()) {
                    return Ok(Some(bits));
                }
                for at in index.names.ids.iter().filter_map(|name| index.keyword(name)) {
                    bits.or(&index.equal(at, whole)?);
                }
                Some(bits)
            }
            Check::BareGlob { glob, lowered } if self.bare => {
                let Some(mut bits) = self.text_glob(lowered)? else { return Ok(None) };
                for at in index.names.ids.iter().filter_map(|name| index.keyword(name)) {
                    match self.keyword_glob(at, glob)? {
                        Some(more) => bits.or(&more),
                        None => return Ok(None),
                    }
                }
                Some(bits)
            }
            Check::BareRegex(pattern) if self.bare => self.text_regex(pattern)?,
            Check::TextWords { field, words } if is_text(*field) => Some(index.all_words(words)?),
            Check::TextPhrase { field, phrase } if is_text(*field) => Some(index.all_words(&phrase.words)?),
            Check::TextGlob { field, glob } if is_text(*field) => self.text_glob(glob)?,
            Check::Regex { field, pattern } if keyword(*field).is_none() && is_text(*field) => self.text_regex(pattern)?,
            Check::Regex { field, pattern } => keyword(*field).map(|at| self.keyword_regex(at, pattern)).transpose()?.flatten(),
            Check::Range { field, limits } => keyword(*field).map(|at| self.keyword_range(at, limits)).transpose()?.flatten(),
            Check::Equals { field, text } => keyword(*field).map(|at| index.equal(at, text)).transpose()?,
            Check::Glob { field, glob } => keyword(*field).map(|at| self.keyword_glob(at, glob)).transpose()?.flatten(),
            Check::Level { text, class } => index.keyword("level").map(|at| self.level(at, text, *class)).transpose()?.flatten(),
            _ => None,
        })
    }

    fn all(&self, checks: &[Check]) -> anyhow::Result<Option<Bits>> {
        let mut all: Option<Bits> = None;
        for check in checks {
            match (&mut all, self.rows(check)?) {
                (_, None) => {}
                (Some(all), Some(bits)) => all.and(&bits),
                (None, some) => all = some,
            }
        }
        Ok(all)
    }

    fn any(&self, checks: &[Check]) -> anyhow::Result<Option<Bits>> {
        let mut any = Bits::none(self.proposer.rows);
        for check in checks {
            match self.rows(check)? {
                Some(bits) => any.or(&bits),
                None => return Ok(None),
            }
        }
        Ok(Some(any))
    }

    fn text_glob(&self, glob: &Glob) -> anyhow::Result<Option<Bits>> {
        let index = self.proposer;
        let Some(mut bits) = index.terms(index.fields.text, glob.prefix(), usize::MAX, &|term| glob.matches(term))? else {
            return Ok(None);
        };
        bits.or(&index.term(index.fields.long, LONG_TEXT)?);
        Ok(Some(bits))
    }

    fn keyword_glob(&self, at: usize, glob: &Glob) -> anyhow::Result<Option<Bits>> {
        self.keyword_values(at, &[glob.prefix().to_owned()], usize::MAX, &|term| glob.matches(term))
    }

    /// Rows whose value passes, over the field's dictionary, and those whose value is too long to tell.
    fn keyword_values(
        &self,
        at: usize,
        prefixes: &[String],
        terms_max: usize,
        test: &dyn Fn(&str) -> bool,
    ) -> anyhow::Result<Option<Bits>> {
        let index = self.proposer;
        let mut bits = index.term(index.fields.long, &long_term(at))?;
        for prefix in prefixes {
            match index.terms(index.fields.keywords[at], prefix, terms_max, test)? {
                Some(more) => bits.or(&more),
                None => return Ok(None),
            }
        }
        Ok(Some(bits))
    }

    fn keyword_regex(&self, at: usize, pattern: &Pattern) -> anyhow::Result<Option<Bits>> {
        let mut prefixes = pattern.prefixes();
        if prefixes.is_empty() {
            prefixes.push(String::new());
        }
        self.keyword_values(at, &prefixes, TERMS_MAX, &|term| pattern.matches(term))
    }

    fn keyword_range(&self, at: usize, limits: &[Limit]) -> anyhow::Result<Option<Bits>> {
        self.keyword_values(at, &[String::new()], TERMS_MAX, &|term| limits.iter().all(|limit| limit.holds(term)))
    }

    /// Rows with the words of a literal that every match has in it; nothing is proposed without one.
    fn text_regex(&self, pattern: &Pattern) -> anyhow::Result<Option<Bits>> {
        let index = self.proposer;
        let literals = pattern.required();
        if literals.is_empty() {
            return Ok(None);
        }
        let mut bits = index.term(index.fields.long, LONG_TEXT)?;
        for literal in &literals {
            match self.literal_rows(literal)? {
                Some(rows) => bits.or(&rows),
                None => return Ok(None),
            }
        }
        Ok(Some(bits))
    }

    /// Rows that may hold the literal: its inner words are words of the text, its outer ones may be parts of some.
    fn literal_rows(&self, literal: &str) -> anyhow::Result<Option<Bits>> {
        let index = self.proposer;
        let is_sign = |c: Option<char>| c.is_some_and(|c| !c.is_alphanumeric());
        let mut inner: Vec<String> = words(literal).map(Cow::into_owned).collect();
        let mut outer = Vec::new();
        if !is_sign(literal.chars().next_back()) {
            outer.extend(inner.pop());
        }
        if !is_sign(literal.chars().next()) && !inner.is_empty() {
            outer.push(inner.remove(0));
        }
        if !inner.is_empty() {
            return index.all_words(&inner).map(Some);
        }
        let Some(part) = outer.iter().max_by_key(|part| part.len()).filter(|part| part.len() >= PART_BYTES_MIN) else { return Ok(None) };
        index.terms(index.fields.text, "", TERMS_MAX, &|term| term.contains(part.as_str()))
    }

    fn level(&self, at: usize, text: &str, class: Option<(Severity, Severity)>) -> anyhow::Result<Option<Bits>> {
        let index = self.proposer;
        let want: String = text.chars().flat_map(char::to_lowercase).collect();
        let same = |term: &str| term.chars().flat_map(char::to_lowercase).eq(want.chars());
        let Some(mut bits) = self.keyword_values(at, &[String::new()], usize::MAX, &same)? else { return Ok(None) };
        if let Some((first, _)) = class {
            bits.or(&index.term(index.fields.severity, class_term(first))?);
        }
        Ok(Some(bits))
    }
}

fn read_header(disk: &Disk, path: &Path) -> anyhow::Result<(Header, u64)> {
    let fixed = disk.read_at(path, 0, 16)?;
    let (Some(magic), Some(len), Some(crc32)) = (fixed.get(..8), read_u32(&fixed, 8), read_u32(&fixed, 12)) else {
        bail!("{} is cut off", path.display());
    };
    let len = len as usize;
    if magic != MAGIC || len > HEADER_BYTES_MAX {
        bail!("{} is no index", path.display());
    }
    let bytes = disk.read_at(path, 16, len)?;
    if bytes.len() != len || crc32fast::hash(&bytes) != crc32 {
        bail!("the header of {} is damaged", path.display());
    }
    Ok((serde_json::from_slice(&bytes)?, 16 + len as u64))
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
