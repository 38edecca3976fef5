//! The index beside a log file: for a word or a field's value, the rows that may hold it.
//!
//! One tantivy segment in the file's row order, written without threads and packed into one file: a header
//! (names, places and checksums of the segment's files), then their bytes. Postings only: no positions, no
//! field norms, no stored documents. It proposes rows and never decides, so a lost or damaged one costs time
//! and no answer: every block read is checked, and an error sends the caller to the scan.
//! Memory to build: the arena of tantivy, which grows with the distinct words of one file; to read: the term
//! dictionary and the postings that the query names. Values above [`TERM_BYTES_MAX`] are not indexed: their
//! rows are marked and always proposed.

mod decide;

use crate::Fields;
use crate::matcher::{Check, glob_matches};
use crate::words::{TERM_BYTES_MAX, WordTokenizer, words};
use anyhow::{Context, bail};
use flow::event::Severity;
use hub::disk::Disk;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tantivy::directory::error::{DeleteError, OpenReadError, OpenWriteError};
use tantivy::directory::{FileHandle, OwnedBytes, RamDirectory, WatchCallback, WatchHandle, WritePtr};
use tantivy::schema::{Field, IndexRecordOption, Schema, TextFieldIndexing, TextOptions};
use tantivy::tokenizer::{RawTokenizer, TextAnalyzer, TokenizerManager};
use tantivy::{
    Directory, DocSet, HasLen, Index, IndexSettings, SegmentReader, SingleSegmentIndexWriter, TERMINATED, TantivyDocument, Term,
};

const MAGIC: &[u8; 8] = b"weiridx1";
/// Most bytes of a header that are believed: a file has a few names and 4 bytes per block.
const HEADER_BYTES_MAX: usize = 16 << 20;
/// Bytes under one checksum: small enough that a point lookup reads little.
const BLOCK_BYTES: usize = 32 << 10;
/// Arena of tantivy: its least; it sizes the first hash table, and the arena grows from there.
const ARENA_BYTES: usize = 15_000_000;
const META: &str = "meta.json";
/// tantivy draws a random name for each segment; this one takes its place, so that equal rows give equal files.
const SEGMENT: &str = "00000000000000000000000000000000";
const SEGMENT_HYPHENS: &str = "00000000-0000-0000-0000-000000000000";

/// What the index holds of a row: the values of its columns, and its severity.
pub(crate) struct Builder {
    writer: SingleSegmentIndexWriter,
    /// Where the writer puts its files.
    folder: RamDirectory,
    names: Names,
    schema: IndexFields,
    /// For each keyword, and each text field: its place among the row's values.
    keyword_at: Vec<usize>,
    text_at: Vec<usize>,
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
    files: Vec<Packed>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Packed {
    name: String,
    /// From the end of the header.
    offset: u64,
    len: u64,
    /// Of each block of [`BLOCK_BYTES`].
    crc32: Vec<u32>,
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
        let names = Names { keywords, text: fields.text.clone(), ids: fields.ids.clone() };
        let (schema, fields) = build_schema(names.keywords.len());
        let tokenizers = TokenizerManager::new();
        tokenizers.register("raw", TextAnalyzer::builder(RawTokenizer::default()).build());
        tokenizers.register("words", TextAnalyzer::builder(WordTokenizer::default()).build());
        let settings = IndexSettings { docstore_compress_dedicated_thread: false, ..IndexSettings::default() };
        let builder = Index::builder().schema(schema).settings(settings).tokenizers(tokenizers);
        let folder = RamDirectory::create();
        let writer = builder.single_segment_index_writer(folder.clone(), ARENA_BYTES)?;
        let places = |list: &[String]| -> anyhow::Result<Vec<usize>> {
            list.iter().map(|name| columns.iter().position(|c| c == name).context("an indexed field is no column")).collect()
        };
        let (keyword_at, text_at) = (places(&names.keywords)?, places(&names.text)?);
        Ok(Builder { writer, folder, names, schema: fields, keyword_at, text_at })
    }

    /// Adds the next row. `values`: its columns as text; `line`: the row as text where it is no JSON.
    pub(crate) fn add(&mut self, values: &[Option<Cow<'_, str>>], line: Option<&str>, severity: Severity) -> anyhow::Result<()> {
        let mut document = TantivyDocument::new();
        for (i, at) in self.keyword_at.iter().enumerate() {
            match values[*at].as_deref() {
                Some(text) if text.len() <= TERM_BYTES_MAX => document.add_text(self.schema.keywords[i], text),
                Some(_) => document.add_text(self.schema.long, long_term(i)),
                None => {}
            }
        }
        for text in self.text_at.iter().filter_map(|at| values[*at].as_deref()).chain(line) {
            document.add_text(self.schema.text, text);
            if text.len() > TERM_BYTES_MAX && words(text).any(|word| word.len() > TERM_BYTES_MAX) {
                document.add_text(self.schema.long, LONG_TEXT);
            }
        }
        if severity > 0 {
            document.add_text(self.schema.severity, class_term(severity));
        }
        self.writer.add_document(document)?;
        Ok(())
    }

    /// The index as one file.
    pub(crate) fn finish(self) -> anyhow::Result<Vec<u8>> {
        let index = self.writer.finalize()?;
        let metas = index.load_metas()?;
        let [meta] = metas.segments.as_slice() else { bail!("the index has {} segments, not one", metas.segments.len()) };
        let id = meta.id().uuid_string();
        let hyphens = format!("{}-{}-{}-{}-{}", &id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]);
        let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for path in metas.list_segment_files() {
            let name = path.to_str().context("a segment's file has an odd name")?;
            match self.folder.atomic_read(&path) {
                Ok(bytes) => files.insert(name.replace(&id, SEGMENT), bytes),
                Err(OpenReadError::FileDoesNotExist(_)) => continue, // not every component has a file
                Err(error) => return Err(error.into()),
            };
        }
        let text = String::from_utf8(self.folder.atomic_read(Path::new(META))?)?;
        files.insert(META.into(), text.replace(&id, SEGMENT).replace(&hyphens, SEGMENT_HYPHENS).into_bytes());
        pack(self.names, meta.max_doc(), &files)
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
fn pack(names: Names, rows: u32, files: &BTreeMap<String, Vec<u8>>) -> anyhow::Result<Vec<u8>> {
    let mut header = Header { names, rows, files: Vec::new() };
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
        let index = Index::open(folder)?;
        let (schema, fields) = build_schema(header.names.keywords.len());
        if index.schema() != schema {
            bail!("{} has another shape than this program writes", path.display());
        }
        let segments = index.searchable_segments()?;
        let [segment] = segments.as_slice() else { bail!("{} has {} segments, not one", path.display(), segments.len()) };
        let segment = SegmentReader::open(segment)?;
        Ok(Proposer { names: header.names, rows: header.rows as usize, fields, segment, memory_bytes, bytes_read })
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

    /// Rows with a term that starts with `prefix` and passes `test`.
    fn terms(&self, field: Field, prefix: &str, test: impl Fn(&str) -> bool) -> anyhow::Result<Bits> {
        let mut bits = Bits::none(self.rows);
        let inverted = self.segment.inverted_index(field)?;
        let mut stream = inverted.terms().range().ge(prefix.as_bytes()).into_stream()?;
        while let Some((key, info)) = stream.next() {
            if !key.starts_with(prefix.as_bytes()) {
                break;
            }
            if std::str::from_utf8(key).is_ok_and(&test) {
                collect(&mut inverted.read_postings_from_terminfo(info, IndexRecordOption::Basic)?, &mut bits);
            }
        }
        Ok(bits)
    }

    fn keyword(&self, name: &str) -> Option<usize> {
        self.names.keywords.iter().position(|n| n == name)
    }

    /// Rows whose value of a keyword field passes `find`, and those whose value is too long to tell.
    fn keyword_rows(&self, at: usize, find: impl Fn(Field) -> anyhow::Result<Bits>) -> anyhow::Result<Bits> {
        let mut bits = find(self.fields.keywords[at])?;
        bits.or(&self.term(self.fields.long, &long_term(at))?);
        Ok(bits)
    }

    fn equal(&self, at: usize, text: &str) -> anyhow::Result<Bits> {
        self.keyword_rows(at, |field| if text.len() > TERM_BYTES_MAX { Ok(Bits::none(self.rows)) } else { self.term(field, text) })
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

/// One query over one index.
struct Asking<'a> {
    proposer: &'a Proposer,
    names: &'a [String],
    /// The index knows every field that a bare word is looked for in.
    bare: bool,
    /// Texts that are surely in no id field: the dictionaries of ids are large.
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
            Check::Bare { words, whole } if self.bare && !words.is_empty() => {
                let mut bits = index.all_words(words)?;
                if self.absent.contains(&whole.as_str()) {
                    return Ok(Some(bits));
                }
                for at in index.names.ids.iter().filter_map(|name| index.keyword(name)) {
                    bits.or(&index.equal(at, whole)?);
                }
                Some(bits)
            }
            Check::BareGlob(parts) if self.bare => {
                let lowered: Vec<String> = parts.iter().map(|p| p.chars().flat_map(char::to_lowercase).collect()).collect();
                let mut bits = self.text_glob(&lowered)?;
                for at in index.names.ids.iter().filter_map(|name| index.keyword(name)) {
                    bits.or(&self.keyword_glob(at, parts)?);
                }
                Some(bits)
            }
            Check::TextWords { field, words } | Check::TextPhrase { field, words } if is_text(*field) => Some(index.all_words(words)?),
            Check::TextGlob { field, parts } if is_text(*field) => Some(self.text_glob(parts)?),
            Check::Equals { field, text } => keyword(*field).map(|at| index.equal(at, text)).transpose()?,
            Check::Glob { field, parts } => keyword(*field).map(|at| self.keyword_glob(at, parts)).transpose()?,
            Check::Level { text, class } => index.keyword("level").map(|at| self.level(at, text, *class)).transpose()?,
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

    fn text_glob(&self, parts: &[String]) -> anyhow::Result<Bits> {
        let index = self.proposer;
        let mut bits = index.terms(index.fields.text, &parts[0], |term| glob_matches(parts, term))?;
        bits.or(&index.term(index.fields.long, LONG_TEXT)?);
        Ok(bits)
    }

    fn keyword_glob(&self, at: usize, parts: &[String]) -> anyhow::Result<Bits> {
        let index = self.proposer;
        index.keyword_rows(at, |field| index.terms(field, &parts[0], |term| glob_matches(parts, term)))
    }

    fn level(&self, at: usize, text: &str, class: Option<(Severity, Severity)>) -> anyhow::Result<Bits> {
        let index = self.proposer;
        let want: String = text.chars().flat_map(char::to_lowercase).collect();
        let same = |term: &str| term.chars().flat_map(char::to_lowercase).eq(want.chars());
        let mut bits = index.keyword_rows(at, |field| index.terms(field, "", same))?;
        if let Some((first, _)) = class {
            bits.or(&index.term(index.fields.severity, class_term(first))?);
        }
        Ok(bits)
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

/// The files inside a packed index, read block by block, each block checked.
#[derive(Clone)]
struct PackedFolder {
    disk: Disk,
    path: Arc<Path>,
    base: u64,
    files: Arc<[Packed]>,
    read: Arc<AtomicU64>,
}

struct PackedFile {
    folder: PackedFolder,
    at: usize,
}

impl fmt::Debug for PackedFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackedFolder({})", self.path.display())
    }
}

impl fmt::Debug for PackedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackedFile({}, {})", self.folder.path.display(), self.at)
    }
}

impl HasLen for PackedFile {
    fn len(&self) -> usize {
        self.folder.files[self.at].len as usize
    }
}

impl PackedFile {
    fn read(&self, range: Range<usize>) -> io::Result<Vec<u8>> {
        let file = &self.folder.files[self.at];
        if range.start > range.end || range.end > file.len as usize {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "outside of the index file"));
        }
        let (first, last) = (range.start / BLOCK_BYTES, range.end.div_ceil(BLOCK_BYTES));
        let start = first * BLOCK_BYTES;
        let end = (last * BLOCK_BYTES).min(file.len as usize);
        let mut bytes = self.folder.disk.read_at(&self.folder.path, self.folder.base + file.offset + start as u64, end - start)?;
        self.folder.read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let sums = file.crc32.get(first..last).unwrap_or_default();
        if bytes.len() != end - start || !bytes.chunks(BLOCK_BYTES).map(crc32fast::hash).eq(sums.iter().copied()) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} is damaged", self.folder.path.display())));
        }
        bytes.truncate(range.end - start);
        bytes.drain(..range.start - start);
        Ok(bytes)
    }
}

impl FileHandle for PackedFile {
    fn read_bytes(&self, range: Range<usize>) -> io::Result<OwnedBytes> {
        Ok(OwnedBytes::new(self.read(range)?))
    }
}

fn read_only() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "a packed index is never written to")
}

impl PackedFolder {
    fn find(&self, path: &Path) -> Option<usize> {
        self.files.iter().position(|f| Path::new(&f.name) == path)
    }
}

impl Directory for PackedFolder {
    fn get_file_handle(&self, path: &Path) -> Result<Arc<dyn FileHandle>, OpenReadError> {
        match self.find(path) {
            Some(at) => Ok(Arc::new(PackedFile { folder: self.clone(), at })),
            None => Err(OpenReadError::FileDoesNotExist(path.into())),
        }
    }

    fn exists(&self, path: &Path) -> Result<bool, OpenReadError> {
        Ok(self.find(path).is_some())
    }

    fn atomic_read(&self, path: &Path) -> Result<Vec<u8>, OpenReadError> {
        let at = self.find(path).ok_or_else(|| OpenReadError::FileDoesNotExist(path.into()))?;
        let file = PackedFile { folder: self.clone(), at };
        file.read(0..file.len()).map_err(|error| OpenReadError::wrap_io_error(error, path.into()))
    }

    fn delete(&self, path: &Path) -> Result<(), DeleteError> {
        Err(DeleteError::IoError { io_error: Arc::new(read_only()), filepath: path.into() })
    }

    fn open_write(&self, path: &Path) -> Result<WritePtr, OpenWriteError> {
        Err(OpenWriteError::wrap_io_error(read_only(), path.into()))
    }

    fn atomic_write(&self, _: &Path, _: &[u8]) -> io::Result<()> {
        Err(read_only())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }

    fn watch(&self, _: WatchCallback) -> tantivy::Result<WatchHandle> {
        Ok(WatchHandle::empty())
    }
}
