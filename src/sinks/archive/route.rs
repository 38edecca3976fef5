//! Rows to files: which file each row of a frame belongs to, and its place in that file's buffer.
//!
//! In: frames. Out: rows in buffers; sealed files where one would grow too large. Everything that can fail is done before
//! the first row is taken: `stage` touches no disk. Memory: the buffers, bounded by `write_out`; names of at most
//! [`FILES_MAX`] files and [`KEYS_MAX`] values seen.

use super::template::Value;
use super::{ActiveFile, ActivePath, Archive, FLUSH_BYTES, NO_PATH, is_own, rotate_limit};
use anyhow::{Context, bail};
use hub::disk::Disk;
use hub::frame::{Frame, Rows};
use std::io;
use std::path::Path;

/// 300 bytes each make 10 MiB.
const FILES_MAX: usize = 32_768;
/// Values seen -> file. Forgotten as a whole when full; at most 4 MiB.
const KEYS_MAX: usize = 16_384;
/// Longer values are not remembered: they are rendered each time.
const KEY_BYTES_MAX: usize = 256;

impl Archive {
    /// Finds the file of each row that will be taken. Everything that can fail before a row is taken is here.
    pub(super) fn route(&mut self, frame: &Frame) -> anyhow::Result<()> {
        let rows = &frame.rows;
        self.routes.clear();
        self.routes.resize(rows.len(), NO_PATH);
        self.last_path = NO_PATH;
        self.tenant_routes.clear();
        self.tenant_routes.resize(if self.columns.is_empty() { frame.tenants.len() } else { 0 }, NO_PATH);
        for part in &frame.parts {
            if self.has(part.stream, part.to) {
                continue;
            }
            let (start, end) = (part.rows.start as usize, part.rows.end as usize);
            if start > end || end > rows.len() {
                bail!("frame {} is no frame: a part's rows are {start}..{end} of {}", frame.seq, rows.len());
            }
            for i in start..end {
                let number = rows.tenant.get(i).map_or(usize::MAX, |t| *t as usize);
                if let Some(known) = self.tenant_routes.get(number).filter(|known| **known != NO_PATH) {
                    self.routes[i] = *known;
                    continue;
                }
                let Some(tenant) = frame.tenants.get(number) else { bail!("frame {} is no frame: row {i} has no tenant", frame.seq) };
                self.routes[i] = self.route_row(tenant, rows, i)?;
                if let Some(known) = self.tenant_routes.get_mut(number) {
                    *known = self.routes[i];
                }
            }
        }
        Ok(())
    }

    fn route_row(&mut self, tenant: &[u8], rows: &Rows, i: usize) -> anyhow::Result<u32> {
        self.key.clear();
        push_key(&mut self.key, Some(tenant));
        for column in &self.columns {
            push_key(&mut self.key, value_of(rows, *column, i));
        }
        if self.last_path != NO_PATH && self.key == self.last_key {
            return Ok(self.last_path);
        }
        let known = self.by_key.get(&self.key[..]).copied();
        let path = match known {
            Some(path) if !self.paths[path as usize].files.is_empty() => path,
            _ => self.path_of(tenant, rows, i)?,
        };
        if known.is_none() && self.key.len() <= KEY_BYTES_MAX {
            if self.by_key.len() >= KEYS_MAX {
                self.by_key.clear();
            }
            self.by_key.insert(self.key.as_slice().into(), path);
        }
        std::mem::swap(&mut self.key, &mut self.last_key);
        self.last_path = path;
        Ok(path)
    }

    /// Renders the name of a row's file and begins to follow it.
    fn path_of(&mut self, tenant: &[u8], rows: &Rows, i: usize) -> anyhow::Result<u32> {
        let texts: Vec<Option<Vec<u8>>> = self.columns.iter().map(|c| value_of(rows, *c, i).map(unescape)).collect();
        let mut values: Vec<Value> = texts.iter().map(|t| t.as_deref().map_or(Value::Missing, Value::Bytes)).collect();
        let mut name = self.name_of(tenant, &values);
        if self.paths.len() >= FILES_MAX && !self.by_name.contains_key(&name) {
            values.fill(Value::Overflow);
            name = self.name_of(tenant, &values);
        }
        let path = match self.by_name.get(&name) {
            Some(path) => *path,
            None => self.add_path(name),
        };
        if self.paths[path as usize].files.is_empty() {
            self.adopt(path)?;
        }
        Ok(path)
    }

    fn name_of(&self, tenant: &[u8], values: &[Value]) -> String {
        self.settings.path.path(tenant, values, |name| is_own(&self.settings, name))
    }

    pub(super) fn add_path(&mut self, name: String) -> u32 {
        let index = self.paths.len() as u32;
        self.by_name.insert(name.clone(), index);
        self.paths.push(ActivePath {
            name,
            files: Vec::new(),
            handle: None,
            used: 0,
            is_dirty: false,
            is_ripe: false,
            is_first: true,
            rotate_at: rotate_limit(&self.settings),
            back_off: 1,
            like: None,
        });
        index
    }

    /// Looks at what stands under a name of ours before the first row goes there.
    pub(super) fn adopt(&mut self, path: u32) -> anyhow::Result<()> {
        let name = self.paths[path as usize].name.clone();
        let full = self.settings.dir.join(&name);
        self.refuse_way_out(&full)?;
        self.survey(path)?;
        let base = self.len_of(&full)?;
        let mut file = self.new_file();
        file.base = base;
        file.on_disk = base.unwrap_or(0);
        file.exists = base.is_some();
        file.newest_ns = i64::MIN;
        if file.on_disk > 0 {
            let last = self.disk.read_at(&full, file.on_disk - 1, 1).with_context(|| format!("cannot read {}", full.display()))?;
            // Behind half a line ours would become the end of it: begin a new file.
            file.is_sealed = last != b"\n";
        }
        let needs_next = file.is_sealed;
        let next = needs_next.then(|| self.new_file());
        let active = &mut self.paths[path as usize];
        active.is_first = base.is_some_and(|len| len > 0);
        active.rotate_at = rotate_limit(&self.settings);
        active.files = std::iter::once(file).chain(next).collect();
        Ok(())
    }

    pub(super) fn new_file(&mut self) -> ActiveFile {
        self.generations += 1;
        ActiveFile {
            generation: self.generations,
            base: None,
            on_disk: 0,
            exists: false,
            is_synced: true,
            is_torn: false,
            is_announced: false,
            newest_ns: i64::MIN,
            begun_ns: i64::MIN,
            due_ns: i64::MAX,
            buffer: Vec::new(),
            is_sealed: false,
            backup: None,
            is_rotate_announced: false,
        }
    }

    /// Follows no symlink that leads out of the archive's folder.
    pub(super) fn refuse_way_out(&self, full: &Path) -> anyhow::Result<()> {
        if !matches!(self.disk, Disk::Real) {
            return Ok(());
        }
        let root = std::fs::canonicalize(&self.settings.dir).with_context(|| format!("cannot resolve {}", self.settings.dir.display()))?;
        let mut at = self.settings.dir.clone();
        let below = full.strip_prefix(&self.settings.dir).unwrap_or(full);
        for component in below.components() {
            at.push(component);
            match std::fs::symlink_metadata(&at) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(e) => return Err(e).with_context(|| format!("cannot look at {}", at.display())),
                Ok(found) if found.is_symlink() => match std::fs::canonicalize(&at) {
                    Ok(target) if target.starts_with(&root) => {}
                    _ => bail!("{} is a symlink out of {}; remove it, or set dir to where it leads", at.display(), root.display()),
                },
                Ok(_) => {}
            }
        }
        Ok(())
    }

    /// Copies rows into the buffers of their files. Touches no disk and cannot fail: a part is taken whole.
    pub(super) fn stage(&mut self, frame: &Frame, rows: std::ops::Range<usize>) {
        for i in rows {
            let route = self.routes[i];
            let row = frame.rows.row(i);
            let mut time = frame.rows.time.get(i).copied().unwrap_or(0);
            if frame.received.0 > 0 {
                time = time.min(frame.received.0); // a clock in the future must not age everybody's backups
            }
            self.clock_ns = self.clock_ns.max(time);
            let need = row.len() as u64 + 1;
            if self.paths[route as usize].is_full(need, self.now_ns) {
                self.seal(route);
            }
            let path = &mut self.paths[route as usize];
            path.is_first = false;
            if !path.is_dirty {
                path.is_dirty = true;
                self.dirty.push(route);
            }
            let is_head = path.files.len() == 1;
            self.has_sealed |= !is_head;
            let file = path.files.last_mut().expect("route adopted the path");
            file.newest_ns = file.newest_ns.max(time);
            if file.begun_ns == i64::MIN {
                file.begun_ns = self.now_ns;
                file.due_ns = self.settings.calendar.due(self.now_ns);
            }
            if file.buffer.capacity() == 0
                && let Some(spare) = self.spare.pop()
            {
                self.spare_bytes -= spare.capacity();
                file.buffer = spare;
            }
            file.buffer.extend_from_slice(row);
            file.buffer.push(b'\n');
            self.buffered += row.len() + 1;
            if is_head && !path.is_ripe && file.buffer.len() >= FLUSH_BYTES {
                path.is_ripe = true;
                self.ripe.push(route);
            }
        }
    }

    /// The last file of a path is to be rotated; what follows goes into another one.
    fn seal(&mut self, path: u32) {
        let next = self.new_file();
        let path = &mut self.paths[path as usize];
        path.files.last_mut().expect("a path that is written to has a file").is_sealed = true;
        path.files.push(next);
    }

    /// Rotates every file that holds something and that `is_due`, whether rows come or not.
    pub(super) fn rotate_where(&mut self, is_due: impl Fn(&ActiveFile) -> bool) -> anyhow::Result<()> {
        for path in 0..self.paths.len() as u32 {
            let active = &self.paths[path as usize];
            if active.files.last().is_none_or(|file| file.size() == 0 || !is_due(file)) {
                continue;
            }
            if !active.is_dirty {
                self.paths[path as usize].is_dirty = true;
                self.dirty.push(path);
            }
            self.seal(path);
            self.has_sealed = true;
        }
        self.commit()
    }
}

impl ActivePath {
    /// Must a row of this many bytes begin a new file? A file found at start is full a byte earlier, as in
    /// lumberjack; a row larger than the limit gets a file to itself.
    #[inline(always)]
    fn is_full(&self, need: u64, now_ns: i64) -> bool {
        let Some(file) = self.files.last() else { return false };
        let size = file.size();
        let total = size.saturating_add(need);
        size > 0 && (total > self.rotate_at || (self.is_first && total == self.rotate_at) || now_ns >= file.due_ns)
    }
}

fn value_of(rows: &Rows, column: usize, i: usize) -> Option<&[u8]> {
    let (start, len) = *rows.columns.get(column)?.get(i)?;
    let start = start as usize;
    rows.row(i).get(start..start.checked_add(len as usize)?)
}

/// A field's value as text; the span holds what stands between the quotes.
fn unescape(raw: &[u8]) -> Vec<u8> {
    if !raw.contains(&b'\\') {
        return raw.to_vec();
    }
    let quoted = [b"\"", raw, b"\""].concat();
    // An object or array as a value may hold a backslash too: it stays as it is.
    serde_json::from_slice::<String>(&quoted).map_or_else(|_| raw.to_vec(), String::into_bytes)
}

fn push_key(key: &mut Vec<u8>, value: Option<&[u8]>) {
    let len = value.map_or(u32::MAX, |v| v.len() as u32);
    key.extend_from_slice(&len.to_le_bytes());
    key.extend_from_slice(value.unwrap_or_default());
}
