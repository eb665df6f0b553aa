//! crypt(3), from the system's libcrypt.
//!
//! The library is loaded when somebody first hashes, not linked: only an authenticator process ever maps it, the server
//! never does. libxcrypt's `crypt_rn` is taken where there is one, glibc's old `crypt_r` otherwise; salts come from
//! `crypt_gensalt_rn`, or are made here (`$6$`) where the library has none.

use std::ffi::{CStr, CString, c_char, c_int, c_ulong, c_void};
use std::io;

use ring::rand::{SecureRandom, SystemRandom};

/// Where the library is looked for. Both carry the same functions; distributions differ in the number.
const LIBRARIES: [&CStr; 2] = [c"libcrypt.so.1", c"libcrypt.so.2"];
/// libxcrypt's `struct crypt_data` is 32,768 bytes, by its ABI.
const SCRATCH_XCRYPT: usize = 32_768;
/// glibc's is 131,232 bytes on 64 bits; twice that is ample everywhere.
const SCRATCH_GLIBC: usize = 262_144;
/// Longest salt libxcrypt writes is 191 characters (`CRYPT_GENSALT_OUTPUT_SIZE` is 192).
const SALT_MOST: usize = 192;
/// What a new password is hashed with: the first of these that the library offers.
const STRONGEST: [&CStr; 2] = [c"$y$", c"$6$"];

type CryptRn = unsafe extern "C" fn(*const c_char, *const c_char, *mut c_void, c_int) -> *mut c_char;
type CryptR = unsafe extern "C" fn(*const c_char, *const c_char, *mut c_void) -> *mut c_char;
type GensaltRn = unsafe extern "C" fn(*const c_char, c_ulong, *const c_char, c_int, *mut c_char, c_int) -> *mut c_char;

/// The loaded library. It is never unloaded: the functions below would dangle.
pub struct Crypt {
    entry: Entry,
    gensalt: Option<GensaltRn>,
    /// Working memory of one call, as large as `entry` needs; zero between calls. Words, for the alignment.
    scratch: Vec<u64>,
    calls: u64,
}

#[derive(Clone, Copy)]
enum Entry {
    Bounded(CryptRn),
    Plain(CryptR),
}

impl Crypt {
    /// Loads the library. Refuses, in one sentence, where there is none.
    pub fn load() -> io::Result<Crypt> {
        let library = LIBRARIES.iter().find_map(|name| dlopen(name)).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, "neither libcrypt.so.1 nor libcrypt.so.2 is installed")
        })?;
        let entry = match (dlsym(library, c"crypt_rn"), dlsym(library, c"crypt_r")) {
            // SAFETY: crypt_rn has had this signature since Openwall's crypt_blowfish introduced it.
            (Some(found), _) => Entry::Bounded(unsafe { std::mem::transmute::<*mut c_void, CryptRn>(found.0) }),
            // SAFETY: crypt_r has had this signature since glibc 2.0; `struct crypt_data *` is passed as `void *`.
            (None, Some(found)) => Entry::Plain(unsafe { std::mem::transmute::<*mut c_void, CryptR>(found.0) }),
            (None, None) => return Err(io::Error::other("libcrypt has no crypt_r")),
        };
        // SAFETY: crypt_gensalt_rn has had this signature since Openwall's crypt_blowfish introduced it.
        let gensalt = dlsym(library, c"crypt_gensalt_rn")
            .map(|found| unsafe { std::mem::transmute::<*mut c_void, GensaltRn>(found.0) });
        let bytes = if matches!(entry, Entry::Bounded(_)) { SCRATCH_XCRYPT } else { SCRATCH_GLIBC };
        Ok(Crypt { entry, gensalt, scratch: vec![0; bytes / 8], calls: 0 })
    }

    /// The hash of `password` made the way `setting` (a salt, or a whole stored hash) says. `None` when the library
    /// refuses, by NULL or by its failure tokens, and for a password that a C string cannot carry.
    pub fn hash(&mut self, password: &[u8], setting: &[u8]) -> Option<Vec<u8>> {
        self.calls += 1;
        let setting = CString::new(setting).ok()?;
        // Sized before it is filled, so that no copy of the password is left behind by growing.
        let mut phrase = Vec::with_capacity(password.len() + 1);
        phrase.extend_from_slice(password);
        phrase.push(0);
        let made = CStr::from_bytes_with_nul(&phrase).ok().and_then(|phrase| self.crypt(phrase, &setting));
        wipe(&mut phrase);
        wipe(&mut self.scratch);
        made.filter(|hash| !hash.is_empty() && hash[0] != b'*')
    }

    /// A fresh salt of the strongest kind the library offers.
    pub fn salt(&self) -> io::Result<Vec<u8>> {
        if let Some(salt) = STRONGEST.iter().find_map(|prefix| self.salt_of(prefix, 0)) {
            return Ok(salt);
        }
        let mut random = [0; 16];
        fill_random(&mut random)?;
        const LETTERS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        Ok([&b"$6$"[..], &random.map(|byte| LETTERS[usize::from(byte & 63)])].concat())
    }

    /// A fresh salt of the kind that `prefix` names, at `cost` (0: the library's default). `None` where the library does
    /// not offer that kind.
    pub fn salt_of(&self, prefix: &CStr, cost: u32) -> Option<Vec<u8>> {
        let gensalt = self.gensalt?;
        let mut random = [0u8; 64];
        fill_random(&mut random).ok()?;
        let mut salt = [0u8; SALT_MOST];
        // SAFETY: `prefix` ends with NUL; `random` and `salt` are as long as they are said to be, and `gensalt` writes a
        // NUL-ended string into `salt` or returns NULL.
        let made = unsafe {
            gensalt(
                prefix.as_ptr(),
                c_ulong::from(cost),
                random.as_ptr().cast(),
                random.len() as c_int,
                salt.as_mut_ptr().cast(),
                salt.len() as c_int,
            )
        };
        if made.is_null() || salt[0] == b'*' {
            return None;
        }
        CStr::from_bytes_until_nul(&salt).ok().map(|salt| salt.to_bytes().to_vec())
    }

    /// How many hashes were computed: what a check costs, for the test that an unknown user costs the same.
    pub fn calls(&self) -> u64 {
        self.calls
    }

    fn crypt(&mut self, phrase: &CStr, setting: &CStr) -> Option<Vec<u8>> {
        let data = self.scratch.as_mut_ptr().cast::<c_void>();
        let made = match self.entry {
            // SAFETY: both strings end with NUL; `data` points to as many zeroed, aligned bytes as are announced.
            Entry::Bounded(crypt) => unsafe { crypt(phrase.as_ptr(), setting.as_ptr(), data, SCRATCH_XCRYPT as c_int) },
            // SAFETY: both strings end with NUL; `data` is zeroed, aligned and larger than any `struct crypt_data`.
            Entry::Plain(crypt) => unsafe { crypt(phrase.as_ptr(), setting.as_ptr(), data) },
        };
        if made.is_null() {
            return None;
        }
        // SAFETY: not NULL, so a NUL-ended string inside `data`, which lives and is not written until we return.
        Some(unsafe { CStr::from_ptr(made) }.to_bytes().to_vec())
    }
}

/// What dlopen and dlsym give; never NULL.
#[derive(Clone, Copy)]
struct Found(*mut c_void);

fn dlopen(name: &CStr) -> Option<Found> {
    // SAFETY: `name` ends with NUL. The library is one that every system keeps for exactly this; its constructors run.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    (!handle.is_null()).then_some(Found(handle))
}

fn dlsym(library: Found, name: &CStr) -> Option<Found> {
    // SAFETY: `library` came from dlopen and is never closed; `name` ends with NUL.
    let symbol = unsafe { libc::dlsym(library.0, name.as_ptr()) };
    (!symbol.is_null()).then_some(Found(symbol))
}

/// Overwrites what is no longer needed, in a way the compiler does not take for useless.
fn wipe<T: Copy + Default>(values: &mut [T]) {
    values.fill(T::default());
    std::hint::black_box(values);
}

fn fill_random(bytes: &mut [u8]) -> io::Result<()> {
    SystemRandom::new().fill(bytes).map_err(|_| io::Error::other("the system gives no random numbers"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_hashes_come_out_as_published() {
        let mut crypt = Crypt::load().unwrap();
        for (password, stored) in [
            ("rasmuslerdorf", "rl.3StKT.4T8M"),
            ("rasmuslerdorf", "_J9..rasmBYk8r9AiWNc"),
            ("rasmuslerdorf", "$1$rasmusle$rISCgZzpwk3UhDidwXvin0"),
            ("rasmuslerdorf", "$2a$07$usesomesillystringfore2uDLvp1Ii2e./U9C8sBjqp8I90dH6hi"),
            ("rasmuslerdorf", "$5$rounds=5000$usesomesillystri$KqJWpanXZHKq2BOB43TSaYhEWsQ1Lr5QNyPCDH/Tp.6"),
        ] {
            let made = crypt.hash(password.as_bytes(), stored.as_bytes()).unwrap();
            assert!(made == stored.as_bytes(), "{stored}");
        }
        assert_eq!(crypt.calls(), 5);
    }

    #[test]
    fn what_crypt_refuses_is_no_hash() {
        let mut crypt = Crypt::load().unwrap();
        for setting in ["", "*0", "*1", "x", "!", "$99$salt$", "$y$", "$2a$99$usesomesillystringfore"] {
            assert!(crypt.hash(b"x", setting.as_bytes()).is_none(), "{setting:?}");
        }
        assert!(crypt.hash(b"nul\0inside", b"$1$salt$").is_none());
        assert!(crypt.hash(b"x", b"$1$sa\0lt$").is_none());
        assert!(crypt.hash(&[b'x'; 5000], b"$6$salt$").is_none());
    }

    #[test]
    fn a_fresh_salt_is_strong_and_never_the_same() {
        let crypt = Crypt::load().unwrap();
        let (one, other) = (crypt.salt().unwrap(), crypt.salt().unwrap());
        assert!(one.starts_with(b"$y$") || one.starts_with(b"$6$"));
        assert_ne!(one, other);
    }
}
