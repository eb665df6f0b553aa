//! A disk that forgets: pages not synced survive a power cut or not, each for itself, torn at 512 bytes; a file's size may
//! survive without its bytes; names not synced go from the last one back. A file that was carried from directory to directory is in one
//! of those it came through, and a directory whose name was not synced is there or not. It counts every call, stops or fails at any of
//! them, and lets other programs work in between.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::store::disk::{Disk, Holder, How, LockKind, Reach, Stat};
use crate::store::locks::{lock_and_give, unlock_by_number};

const PAGE: usize = 4096;
const SECTOR: usize = 512;

/// Another program, asked before every call whether it wants to do something now.
pub type Actor = Box<dyn FnMut(&mut World, &str) + Send>;

/// Passed before every call, by its name, with the disk left to others: may wait for them.
pub type Gate = Arc<dyn Fn(&str) + Send + Sync>;

#[derive(Clone, Default)]
pub struct SimFile {
    pub data: Vec<u8>,
    durable: Vec<u8>,
    /// Sizes the file had since its last sync.
    sizes: Vec<usize>,
    /// Pages that a sync failed to write: nobody will write them any more, unless they are written to again.
    forgotten: BTreeSet<usize>,
    pub mtime: i64,
    pub ctime: i64,
    pub atime: i64,
    pub uid: u32,
    pub mode: u32,
}

impl SimFile {
    fn sync(&mut self) {
        let mut durable = self.data.clone();
        for &page in &self.forgotten {
            let (from, to) = ((page * PAGE).min(durable.len()), ((page + 1) * PAGE).min(durable.len()));
            for (at, byte) in durable[from..to].iter_mut().enumerate() {
                *byte = self.durable.get(from + at).copied().unwrap_or(0);
            }
        }
        self.durable = durable;
        self.sizes.clear();
    }

    /// A sync that fails: the pages count as written from now on, and are not.
    fn forget(&mut self) {
        let page_of = |bytes: &[u8], page: usize| bytes.chunks(PAGE).nth(page).map(<[u8]>::to_vec);
        for page in 0..self.data.len().div_ceil(PAGE) {
            if page_of(&self.data, page) != page_of(&self.durable, page) {
                self.forgotten.insert(page);
            }
        }
    }

    fn put(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        if end > self.data.len() {
            self.data.resize(end, 0);
            self.sizes.push(end);
        }
        self.data[offset..end].copy_from_slice(bytes);
        for page in offset / PAGE..end.div_ceil(PAGE) {
            self.forgotten.remove(&page);
        }
    }
}

/// Who has a file's name now, and which one he had before.
type Successor = (u64, OsString);

/// A name taken away, a name given.
type Renaming = (Option<OsString>, Option<(OsString, u64)>);

#[derive(Default)]
struct SimDir {
    names: BTreeMap<OsString, u64>,
    durable: BTreeMap<OsString, u64>,
    /// What happened to names since the last sync: taken away, given.
    pending: Vec<Renaming>,
    mode: u32,
    inode: u64,
    dev: u64,
    /// Neither it nor the directory above was synced since it was made.
    is_new: bool,
}

/// A name carried from one directory to another: on disk it is here or there, never in both or in neither, whatever else is lost. Kept
/// until both were synced.
struct Carried {
    from: PathBuf,
    to: PathBuf,
    inode: u64,
    synced: Vec<PathBuf>,
}

pub struct World {
    files: HashMap<u64, SimFile>,
    dirs: BTreeMap<PathBuf, SimDir>,
    carried: Vec<Carried>,
    /// Files whose last name was given to another one, and the directory where that was.
    ended: Vec<(PathBuf, u64, Successor)>,
    /// Who holds which lock: the open file's number.
    locks: HashMap<(u64, u8), u64>,
    next: u64,
    pub random: u64,
    epoch: u64,
    pub now: i64,
    pub calls: u64,
    /// The process ends before this call.
    pub stop_at: Option<u64>,
    /// This call fails, once.
    pub fail_at: Option<(u64, io::ErrorKind)>,
    pub stopped: bool,
    /// An append was cut short by that.
    pub torn: bool,
    /// Nothing is in memory for those who cannot wait.
    pub cold: bool,
    /// Writing needs space that is not there.
    pub full: bool,
    /// We are uid 7, and may look at what lies in /spool, no more: a hand does the rest, and writes down what it did.
    pub hand: Option<Vec<&'static str>>,
    /// With a hand: we may also make files in /spool, and remove those that are ours.
    pub sticky: bool,
    /// What is said to be free.
    pub free: u64,
    /// Bytes read from each file.
    pub read: HashMap<u64, u64>,
    /// Syncs done.
    pub syncs: u64,
    /// Writes and cuts done.
    pub writes: u64,
    pub actor: Option<Actor>,
    pub gate: Option<Gate>,
    pub trace: Vec<String>,
}

impl World {
    pub fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        (self.random() >> 20) % bound
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn inode(&self, path: &Path) -> Option<u64> {
        self.dirs.get(path.parent()?)?.names.get(path.file_name()?).copied()
    }

    /// The file at `path`, for other programs and for looking.
    pub fn file(&mut self, path: &Path) -> Option<&mut SimFile> {
        let inode = self.inode(path)?;
        self.files.get_mut(&inode)
    }

    pub fn bytes(&self, path: &Path) -> Vec<u8> {
        self.inode(path).map(|inode| self.files[&inode].data.clone()).unwrap_or_default()
    }

    /// Whether a power cut would leave the name.
    pub fn is_name_durable(&self, path: &Path) -> bool {
        self.dirs[path.parent().unwrap()].durable.contains_key(path.file_name().unwrap())
    }

    pub fn inode_of(&self, path: &Path) -> u64 {
        self.inode(path).unwrap_or(0)
    }

    /// The names of the directories in one.
    fn below_it(&self, path: &Path) -> Vec<OsString> {
        let below = self.dirs.keys().filter(|below| below.parent() == Some(path));
        below.filter_map(|below| below.file_name().map(Into::into)).collect()
    }

    /// All paths there are.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.dirs.iter().flat_map(|(path, dir)| dir.names.keys().map(|name| path.join(name))).collect()
    }

    pub fn names(&self, dir: &Path) -> Vec<String> {
        self.dirs[dir].names.keys().map(|name| name.to_string_lossy().into_owned()).collect()
    }

    /// Another program writes a whole file anew, in place or under a new inode, and syncs.
    pub fn put(&mut self, path: &Path, bytes: &[u8], new_inode: bool) {
        let now = self.now;
        let inode = match self.inode(path) {
            Some(inode) if !new_inode => inode,
            _ => {
                let inode = self.number();
                self.files.insert(inode, SimFile { mode: 0o600, ..SimFile::default() });
                let dir = self.dirs.get_mut(path.parent().unwrap()).unwrap();
                let name = path.file_name().unwrap().to_owned();
                dir.names.insert(name.clone(), inode);
                dir.durable = dir.names.clone();
                dir.pending.clear();
                inode
            }
        };
        let file = self.files.get_mut(&inode).unwrap();
        let old = std::mem::replace(&mut file.data, bytes.to_vec());
        file.forgotten.retain(|&page| old.chunks(PAGE).nth(page) == bytes.chunks(PAGE).nth(page));
        (file.mtime, file.ctime) = (now, now);
        file.sync();
    }

    /// Moves a directory to another volume.
    pub fn set_volume(&mut self, dir: &Path, dev: u64) {
        self.dirs.get_mut(dir).unwrap().dev = dev;
    }

    /// Whether a directory lets anybody write to it.
    pub fn set_mode(&mut self, dir: &Path, mode: u32) {
        self.dirs.get_mut(dir).unwrap().mode = mode;
    }

    pub fn take_away(&mut self, path: &Path) {
        let dir = self.dirs.get_mut(path.parent().unwrap()).unwrap();
        dir.names.remove(path.file_name().unwrap());
        dir.durable = dir.names.clone();
        dir.pending.clear();
    }

    /// Another program appends and syncs.
    pub fn append(&mut self, path: &Path, bytes: &[u8]) {
        let all = [self.bytes(path), bytes.to_vec()].concat();
        self.put(path, &all, false);
    }

    /// Whether a program that knows dotlocks and `fcntl` would get at the drop now.
    pub fn is_locked(&self, path: &Path) -> bool {
        let mut lock = path.file_name().unwrap().to_owned();
        lock.push(".lock");
        let inode = self.inode(path).unwrap_or(0);
        self.inode(&path.with_file_name(lock)).is_some() || self.locks.contains_key(&(inode, LockKind::Fcntl as u8))
    }

    fn carry(&mut self, (from_dir, from): (&Path, &Path), (to_dir, to): (&Path, &Path), inode: u64) {
        let source = self.dirs.get_mut(from_dir).unwrap();
        source.names.remove(from.as_os_str());
        source.pending.push((Some(from.into()), None));
        let target = self.dirs.get_mut(to_dir).unwrap();
        target.names.insert(to.into(), inode);
        target.pending.push((None, Some((to.into(), inode))));
        self.carried.push(Carried { from: from_dir.join(from), to: to_dir.join(to), inode, synced: Vec::new() });
    }

    /// Each file that was carried lies somewhere on its way, and only there.
    fn settle_carried(&mut self) {
        let mut ways: BTreeMap<u64, Vec<PathBuf>> = BTreeMap::new();
        for Carried { from, to, inode, .. } in std::mem::take(&mut self.carried) {
            let way = ways.entry(inode).or_insert_with(|| vec![from.clone()]);
            // It may have got another name in the directory that it came to.
            for path in [from, to] {
                if way.last() != Some(&path) {
                    way.push(path);
                }
            }
        }
        for (inode, way) in ways {
            let mut places: Vec<&PathBuf> =
                way.iter().filter(|path| self.dirs.contains_key(path.parent().unwrap())).collect();
            places.dedup();
            let found = places.iter().filter(|path| self.inode(path) == Some(inode)).count();
            if found == 1 || places.is_empty() {
                continue;
            }
            // Of one step it is known where it began.
            let at = if way.len() > 2 { self.below(places.len() as u64) as usize } else { 0 };
            let place = places[at].clone();
            for path in places.into_iter().cloned().collect::<Vec<_>>() {
                let dir = self.dirs.get_mut(path.parent().unwrap()).unwrap();
                dir.names.retain(|name, there| *name != path.file_name().unwrap() || *there != inode);
                if path == place {
                    dir.names.insert(path.file_name().unwrap().to_owned(), inode);
                }
                dir.durable = dir.names.clone();
            }
        }
        // What took a file's name, and has it still, did so before it was carried on.
        for (_, old, new) in std::mem::take(&mut self.ended).into_iter().rev() {
            let (new, before) = new;
            let names = |dir: &SimDir| dir.names.iter().any(|(name, inode)| *inode == new && *name != before);
            if self.dirs.values().any(names) {
                self.purge(old);
            }
        }
    }

    /// A file has no name any more, on disk.
    fn purge(&mut self, inode: u64) {
        for dir in self.dirs.values_mut() {
            for names in [&mut dir.names, &mut dir.durable] {
                names.retain(|_, there| *there != inode);
            }
            dir.pending.iter_mut().for_each(|(_, given)| drop(given.take_if(|(_, there)| *there == inode)));
        }
        self.carried.retain(|carried| carried.inode != inode);
    }

    /// The process is gone, its locks with it; what it wrote is there.
    pub fn kill(&mut self) {
        self.epoch += 1;
        self.locks.clear();
        (self.stop_at, self.fail_at, self.stopped, self.torn) = (None, None, false, false);
        self.actor = None;
        // A new process takes a little while to come.
        self.now += 1_000_000_000;
    }

    /// The power is gone, and with it what was not synced.
    pub fn cut_power(&mut self) {
        self.kill();
        self.now += 600_000_000_000;
        let paths: Vec<PathBuf> = self.dirs.keys().cloned().collect();
        for path in paths {
            let pending = std::mem::take(&mut self.dirs.get_mut(&path).unwrap().pending);
            let kept = self.below(pending.len() as u64 + 1) as usize;
            let dir = self.dirs.get_mut(&path).unwrap();
            for (gone, given) in pending.into_iter().take(kept) {
                if let Some(name) = gone {
                    dir.durable.remove(&name);
                }
                if let Some((name, inode)) = given {
                    dir.durable.insert(name, inode);
                }
            }
            dir.names = dir.durable.clone();
        }
        let new: Vec<PathBuf> = self.dirs.iter().filter(|(_, dir)| dir.is_new).map(|(path, _)| path.clone()).collect();
        for path in new {
            if self.below(2) == 0 {
                self.dirs.remove(&path);
            } else {
                self.dirs.get_mut(&path).unwrap().is_new = false;
            }
        }
        self.settle_carried();
        let mut inodes: Vec<u64> = self.files.keys().copied().collect();
        inodes.sort_unstable();
        for inode in inodes {
            let file = self.files[&inode].clone();
            let mut sizes = file.sizes.clone();
            sizes.push(file.durable.len());
            sizes.push(file.data.len());
            let size = sizes[self.below(sizes.len() as u64) as usize];
            let mut data = vec![0; size];
            for page in (0..size).step_by(PAGE) {
                // Behind the end of a file that was cut nothing is written; in the block where it was cut, zeros may be.
                let way = if page >= file.data.len() { 0 } else { self.below(3) };
                for sector in (page..size.min(page + PAGE)).step_by(SECTOR) {
                    let new = match way {
                        0 => false,
                        1 => true,
                        _ => self.below(2) == 0,
                    };
                    let source = if new { &file.data } else { &file.durable };
                    let end = size.min(sector + SECTOR);
                    let there = source.len().clamp(sector, end);
                    data[sector..there].copy_from_slice(&source[sector.min(source.len())..there.min(source.len())]);
                }
            }
            let kept = self.files.get_mut(&inode).unwrap();
            kept.data = data;
            kept.forgotten.clear();
            kept.sync();
        }
    }
}

/// The disk, shared by all who hold it.
#[derive(Clone)]
pub struct SimDisk {
    world: Arc<Mutex<World>>,
    epoch: u64,
}

pub struct SimHandle {
    disk: SimDisk,
    inode: u64,
    number: u64,
    writable: bool,
}

pub struct SimDirHandle(PathBuf);

impl Drop for SimHandle {
    fn drop(&mut self) {
        let mut world = self.disk.world();
        world.locks.retain(|_, holder| *holder != self.number);
    }
}

impl SimDisk {
    /// With these directories, private, and nothing in them.
    pub fn new(seed: u64, dirs: &[&str]) -> SimDisk {
        let mut world = World {
            files: HashMap::new(),
            dirs: BTreeMap::new(),
            carried: Vec::new(),
            ended: Vec::new(),
            locks: HashMap::new(),
            next: 0,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            epoch: 0,
            now: 1_700_000_000_000_000_000,
            calls: 0,
            stop_at: None,
            fail_at: None,
            stopped: false,
            torn: false,
            cold: false,
            full: false,
            hand: None,
            sticky: false,
            free: u64::MAX,
            read: HashMap::new(),
            syncs: 0,
            writes: 0,
            actor: None,
            gate: None,
            trace: Vec::new(),
        };
        for dir in dirs {
            let inode = world.number();
            world.dirs.insert(PathBuf::from(dir), SimDir { mode: 0o755, inode, dev: 1, ..SimDir::default() });
        }
        world.random();
        SimDisk { world: Arc::new(Mutex::new(world)), epoch: 0 }
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The disk as a new process finds it.
    pub fn again(&self) -> SimDisk {
        let epoch = self.world().epoch;
        SimDisk { world: Arc::clone(&self.world), epoch }
    }

    /// One call: lets the others act, stops, fails, or goes ahead.
    fn call(&self, what: &str) -> io::Result<MutexGuard<'_, World>> {
        let gate = self.world().gate.clone();
        if let Some(gate) = gate {
            gate(what);
        }
        let mut world = self.world();
        if world.stopped || self.epoch != world.epoch {
            return Err(io::Error::other("this process has ended"));
        }
        if let Some(mut actor) = world.actor.take() {
            actor(&mut world, what);
            world.actor.get_or_insert(actor);
        }
        world.calls += 1;
        world.trace.push(what.to_owned());
        if world.stop_at == Some(world.calls) {
            world.stopped = true;
            return Err(io::Error::other("this process has just ended"));
        }
        if let Some((at, kind)) = world.fail_at
            && at == world.calls
        {
            return Err(kind.into());
        }
        Ok(world)
    }

    fn handle(&self, world: &mut World, inode: u64, writable: bool) -> SimHandle {
        SimHandle { disk: self.clone(), inode, number: world.number(), writable }
    }
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

fn stat_of(world: &World, inode: u64) -> Stat {
    let file = &world.files[&inode];
    let links = world.dirs.values().flat_map(|dir| dir.names.values()).filter(|&&named| named == inode).count();
    Stat {
        dev: 1,
        inode,
        size: file.data.len() as u64,
        mtime: file.mtime,
        ctime: file.ctime,
        atime: file.atime,
        links: links as u32,
        uid: file.uid,
        mode: 0o100_000 | file.mode,
    }
}

impl SimDisk {
    /// Fails where uid 7 has no rights to the file, or may make none of that name.
    fn allowed(&self, dir: &SimDirHandle, name: &Path) -> io::Result<()> {
        let world = self.world();
        let ours = match world.inode(&dir.0.join(name)) {
            Some(inode) => world.files[&inode].uid == 7,
            None => world.sticky,
        };
        let denied = world.hand.is_some() && dir.0 == Path::new("/spool") && !ours;
        if denied { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
    }

    /// Fails where uid 7 may not take this name away.
    fn removable(&self, dir: &SimDirHandle, name: &Path) -> io::Result<()> {
        if self.world().sticky { self.allowed(dir, name) } else { self.allowed(dir, Path::new("")) }
    }

    /// Does as root what was asked of the hand.
    fn handed<T>(&self, what: &'static str, work: impl FnOnce(&SimDisk) -> io::Result<T>) -> io::Result<T> {
        let Some(mut done) = self.world().hand.take() else { return Err(io::ErrorKind::PermissionDenied.into()) };
        let result = work(self);
        done.push(what);
        self.world().hand = Some(done);
        result
    }
}

impl Disk for SimDisk {
    type Dir = SimDirHandle;
    type File = SimHandle;

    fn open_dir(&self, path: &Path) -> io::Result<SimDirHandle> {
        let world = self.call("open_dir")?;
        if world.dirs.contains_key(path) { Ok(SimDirHandle(path.to_owned())) } else { Err(not_found()) }
    }

    fn make_dirs(&self, path: &Path) -> io::Result<()> {
        let mut world = self.call("make_dirs")?;
        let inode = world.number();
        let dir = SimDir { mode: 0o700, inode, dev: 1, is_new: true, ..SimDir::default() };
        world.dirs.entry(path.to_owned()).or_insert(dir);
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut world = self.call("remove_dir")?;
        let dir = world.dirs.get(path).ok_or_else(not_found)?;
        if !dir.names.is_empty() || !world.below_it(path).is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        world.dirs.remove(path);
        Ok(())
    }

    fn stat_dir(&self, dir: &SimDirHandle) -> io::Result<Stat> {
        let world = self.call("stat_dir")?;
        let dir = &world.dirs[&dir.0];
        Ok(Stat { dev: dir.dev, inode: dir.inode, mode: 0o040_000 | dir.mode, links: 2, ..Stat::default() })
    }

    fn open(&self, dir: &SimDirHandle, name: &Path, how: How) -> io::Result<SimHandle> {
        self.allowed(dir, name)?;
        let mut world = self.call(&format!("open {how:?} {}", name.display()))?;
        let path = dir.0.join(name);
        let found = world.inode(&path);
        let inode = match (found, how) {
            (Some(_), How::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(inode), _) => inode,
            (None, How::Read | How::Write) => return Err(not_found()),
            (None, How::Create | How::CreateNew) => {
                let inode = world.number();
                let now = world.now;
                let uid = if world.hand.is_some() { 7 } else { 0 };
                let file = SimFile { mode: 0o600, uid, mtime: now, ctime: now, ..SimFile::default() };
                world.files.insert(inode, file);
                let dir = world.dirs.get_mut(&dir.0).unwrap();
                dir.names.insert(name.into(), inode);
                dir.pending.push((None, Some((name.into(), inode))));
                inode
            }
        };
        Ok(self.handle(&mut world, inode, how != How::Read))
    }

    fn look(&self, dir: &SimDirHandle, name: &Path) -> io::Result<Stat> {
        let world = self.call(&format!("look {}", name.display()))?;
        if let Some(found) = world.dirs.get(&dir.0.join(name)) {
            return Ok(Stat { dev: found.dev, inode: found.inode, mode: 0o040_000 | found.mode, ..Stat::default() });
        }
        let inode = world.inode(&dir.0.join(name)).ok_or_else(not_found)?;
        Ok(stat_of(&world, inode))
    }

    fn stat(&self, file: &SimHandle) -> io::Result<Stat> {
        let world = self.call("stat")?;
        Ok(stat_of(&world, file.inode))
    }

    fn read(&self, file: &SimHandle, buffer: &mut [u8], offset: u64, reach: Reach) -> io::Result<usize> {
        let mut world = self.call("read")?;
        if world.cold && reach == Reach::Now {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let data = &world.files[&file.inode].data;
        let from = data.len().min(offset as usize);
        // Sometimes less than was asked for, never nothing.
        let most = buffer.len().min(data.len() - from);
        buffer[..most].copy_from_slice(&data[from..from + most]);
        let some = if most > 1 && reach == Reach::Now && world.below(4) == 0 { 1 + most / 2 } else { most };
        *world.read.entry(file.inode).or_default() += some as u64;
        Ok(some)
    }

    fn write(&self, file: &SimHandle, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut world = self.call("write")?;
        assert!(file.writable, "written through a handle that only reads");
        if world.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let now = world.now;
        world.writes += 1;
        let kept = world.files.get_mut(&file.inode).unwrap();
        kept.put(bytes, offset as usize);
        (kept.mtime, kept.ctime) = (now, now);
        Ok(())
    }

    fn append(&self, file: &SimHandle, bytes: &[u8]) -> io::Result<(u64, usize)> {
        let result = self.call("append").map(drop);
        let mut world = self.world();
        let now = world.now;
        // Whoever is killed in a write, or has no space for it, has written some whole pages of it.
        let torn =
            result.is_err() && self.epoch == world.epoch && world.trace.last().is_some_and(|what| what == "append");
        let limit = if torn && !world.torn { Some(world.below(4)).filter(|&pages| pages < 3) } else { None };
        world.torn |= torn;
        let full = world.full;
        let kept = world.files.get_mut(&file.inode).unwrap();
        let offset = kept.data.len();
        let length = match (&result, limit) {
            (Ok(()), _) if !full => bytes.len(),
            (Ok(()), _) => bytes.len().min(offset.next_multiple_of(PAGE) - offset),
            (Err(_), Some(pages)) => {
                bytes.len().min((offset + 1 + pages as usize * PAGE).next_multiple_of(PAGE) - offset)
            }
            (Err(_), None) => 0,
        };
        if length > 0 {
            kept.put(&bytes[..length], offset);
            (kept.mtime, kept.ctime) = (now, now);
            world.writes += 1;
        }
        if let (Some((at, kind)), true) = (world.fail_at, length > 0 && result.is_err() && !world.stopped) {
            // Whoever has written something says so first, and fails the next time.
            world.fail_at = Some((at + 1, kind));
            return Ok((offset as u64, length));
        }
        result?;
        if length == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok((offset as u64, length)) }
    }

    fn give(&self, file: &SimHandle, uid: Option<u32>, _: &SimDirHandle) -> io::Result<()> {
        let mut world = self.call("give")?;
        if world.hand.is_some() && uid.is_some_and(|uid| uid != 7) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let kept = world.files.get_mut(&file.inode).unwrap();
        kept.uid = uid.unwrap_or(kept.uid);
        Ok(())
    }

    fn cut(&self, file: &SimHandle, size: u64) -> io::Result<()> {
        let mut world = self.call("cut")?;
        let now = world.now;
        world.writes += 1;
        let kept = world.files.get_mut(&file.inode).unwrap();
        kept.data.resize(size as usize, 0);
        kept.sizes.push(size as usize);
        kept.forgotten.retain(|page| page * PAGE < size as usize);
        (kept.mtime, kept.ctime) = (now, now);
        Ok(())
    }

    fn sync(&self, file: &SimHandle) -> io::Result<()> {
        let mut world = match self.call("sync") {
            Ok(world) => world,
            Err(error) => {
                let mut world = self.world();
                if !world.stopped && self.epoch == world.epoch {
                    world.files.get_mut(&file.inode).unwrap().forget();
                }
                return Err(error);
            }
        };
        world.syncs += 1;
        world.files.get_mut(&file.inode).unwrap().sync();
        Ok(())
    }

    fn sync_dir(&self, dir: &SimDirHandle) -> io::Result<()> {
        let mut world = self.call("sync_dir")?;
        world.syncs += 1;
        world.carried.retain_mut(|carried| {
            let ends = [&carried.from, &carried.to].map(|path| path.parent().unwrap().to_owned());
            if ends.contains(&dir.0) && !carried.synced.contains(&dir.0) {
                carried.synced.push(dir.0.clone());
            }
            !ends.iter().all(|end| carried.synced.contains(end))
        });
        // What it went through before is behind it.
        let ended: Vec<u64> = world.ended.iter().filter(|(path, ..)| *path == dir.0).map(|(_, old, _)| *old).collect();
        ended.into_iter().for_each(|old| world.purge(old));
        world.ended.retain(|(path, ..)| *path != dir.0);
        world
            .dirs
            .iter_mut()
            .filter(|(path, _)| **path == dir.0 || path.parent() == Some(&dir.0))
            .for_each(|(_, dir)| dir.is_new = false);
        let dir = world.dirs.get_mut(&dir.0).unwrap();
        dir.durable = dir.names.clone();
        dir.pending.clear();
        Ok(())
    }

    fn carry(&self, from_dir: &SimDirHandle, from: &Path, to_dir: &SimDirHandle, to: &Path) -> io::Result<()> {
        self.removable(from_dir, from)?;
        let mut world = self.call(&format!("carry {} {}", from.display(), to.display()))?;
        let (Some(source), Some(target)) = (world.dirs.get(&from_dir.0), world.dirs.get(&to_dir.0)) else {
            return Err(not_found());
        };
        if source.dev != target.dev {
            return Err(io::ErrorKind::CrossesDevices.into());
        }
        if world.dirs[&to_dir.0].names.contains_key(to.as_os_str()) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let source = world.dirs.get_mut(&from_dir.0).unwrap();
        let inode = source.names.remove(from.as_os_str()).ok_or_else(not_found)?;
        if from_dir.0 == to_dir.0 {
            source.names.insert(to.into(), inode);
            source.pending.push((Some(from.into()), Some((to.into(), inode))));
            return Ok(());
        }
        world.carry((&from_dir.0, from), (&to_dir.0, to), inode);
        Ok(())
    }

    fn names(&self, dir: &SimDirHandle, each: &mut dyn FnMut(OsString) -> bool) -> io::Result<()> {
        let world = self.call("names")?;
        let found = world.dirs.get(&dir.0).ok_or_else(not_found)?;
        let names: Vec<OsString> = found.names.keys().cloned().chain(world.below_it(&dir.0)).collect();
        drop(world);
        // The first that is wanted no more ends it.
        let _ = names.into_iter().all(each);
        Ok(())
    }

    fn rename(&self, dir: &SimDirHandle, from: &Path, to: &Path) -> io::Result<()> {
        self.removable(dir, from)?;
        let mut world = self.call(&format!("rename {} {}", from.display(), to.display()))?;
        let path = dir.0.clone();
        let dir = world.dirs.get_mut(&dir.0).unwrap();
        let inode = dir.names.remove(from.as_os_str()).ok_or_else(not_found)?;
        let old = dir.names.insert(to.into(), inode);
        dir.pending.push((Some(from.into()), Some((to.into(), inode))));
        let is_named = |inode: u64| world.dirs.values().any(|dir| dir.names.values().any(|&named| named == inode));
        if let Some(old) = old.filter(|&old| !is_named(old)) {
            world.ended.push((path, old, (inode, from.into())));
        }
        Ok(())
    }

    fn link_across(&self, from_dir: &SimDirHandle, from: &Path, dir: &SimDirHandle, to: &Path) -> io::Result<()> {
        if !self.world().sticky {
            self.removable(dir, to)?;
        }
        let mut world = self.call(&format!("link {} {}", from.display(), to.display()))?;
        if world.dirs[&from_dir.0].dev != world.dirs[&dir.0].dev {
            return Err(io::ErrorKind::CrossesDevices.into());
        }
        let inode = *world.dirs[&from_dir.0].names.get(from.as_os_str()).ok_or_else(not_found)?;
        let dir = world.dirs.get_mut(&dir.0).unwrap();
        if dir.names.contains_key(to.as_os_str()) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        dir.names.insert(to.into(), inode);
        dir.pending.push((None, Some((to.into(), inode))));
        Ok(())
    }

    fn move_to(&self, from: &SimDirHandle, name: &Path, to: &SimDirHandle) -> io::Result<()> {
        let mut world = self.call(&format!("move {}", name.display()))?;
        let inode = *world.dirs[&from.0].names.get(name.as_os_str()).ok_or_else(not_found)?;
        world.carry((&from.0, name), (&to.0, name), inode);
        Ok(())
    }

    fn free_bytes(&self, _: &SimDirHandle) -> io::Result<u64> {
        Ok(self.call("free_bytes")?.free)
    }

    fn remove(&self, dir: &SimDirHandle, name: &Path) -> io::Result<()> {
        // What is not there may be looked for by anybody.
        if self.world().inode(&dir.0.join(name)).is_some() {
            self.removable(dir, name)?;
        }
        let mut world = self.call(&format!("remove {}", name.display()))?;
        let dir = world.dirs.get_mut(&dir.0).unwrap();
        if dir.mode & 0o200 == 0 {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        dir.names.remove(name.as_os_str()).ok_or_else(not_found)?;
        dir.pending.push((Some(name.into()), None));
        Ok(())
    }

    fn try_lock(&self, file: &SimHandle, kind: LockKind) -> io::Result<bool> {
        let mut world = self.call(&format!("try_lock {kind:?}"))?;
        let holder = *world.locks.entry((file.inode, kind as u8)).or_insert(file.number);
        Ok(holder == file.number)
    }

    fn unlock(&self, file: &SimHandle, kind: LockKind) -> io::Result<()> {
        let mut world = self.call(&format!("unlock {kind:?}"))?;
        if world.locks.get(&(file.inode, kind as u8)) == Some(&file.number) {
            world.locks.remove(&(file.inode, kind as u8));
        }
        Ok(())
    }

    fn set_times(&self, file: &SimHandle, atime: i64, mtime: i64) -> io::Result<()> {
        let mut world = self.call("set_times")?;
        let now = world.now;
        let kept = world.files.get_mut(&file.inode).unwrap();
        (kept.atime, kept.mtime, kept.ctime) = (atime, mtime, now);
        Ok(())
    }

    fn now(&self) -> i64 {
        self.world().now
    }

    fn random(&self) -> u64 {
        self.world().random()
    }

    fn boot(&self) -> u64 {
        // Every process is a boot: what was not synced may be gone.
        self.epoch + 1
    }

    fn uid(&self) -> u32 {
        if self.world().hand.is_some() { 7 } else { 0 }
    }

    fn open_for(&self, path: &Path, owner: u32, how: How) -> io::Result<SimHandle> {
        self.handed("open", |disk| {
            let is_new = disk.world().inode(path).is_none();
            let file =
                disk.open(&SimDirHandle(path.parent().unwrap().to_owned()), Path::new(path.file_name().unwrap()), how)?;
            if is_new {
                disk.world().files.get_mut(&file.inode).unwrap().uid = owner;
            }
            if disk.stat(&file)?.uid != owner {
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, "not that user's own"));
            }
            Ok(file)
        })
    }

    fn lock_for(&self, path: &Path, _owner: u32, line: &[u8]) -> io::Result<SimHandle> {
        self.handed("lock", |disk| {
            let dir = SimDirHandle(path.parent().unwrap().to_owned());
            lock_and_give(disk, &dir, path, line, &|file| {
                disk.world().files.get_mut(&file.inode).unwrap().uid = 7;
                Ok(())
            })
        })
    }

    fn unlock_for(&self, path: &Path, _owner: u32, inode: u64) -> io::Result<()> {
        self.handed("unlock", |disk| {
            let dir = SimDirHandle(path.parent().unwrap().to_owned());
            match unlock_by_number(disk, &dir, path, inode)? {
                true => Ok(()),
                false => Err(io::ErrorKind::PermissionDenied.into()),
            }
        })
    }

    fn holder(&self) -> Holder {
        Holder { world: "sim".to_owned(), pid: self.epoch as u32, started: self.epoch }
    }

    fn is_alive(&self, holder: &Holder) -> bool {
        holder.started == self.world().epoch
    }
}
