//! `cargo xtask install`: libkeytally, its headers, and what pkg-config and CMake find them with, under a prefix.
//!
//! `cargo cinstall` of cargo-c puts the same files in the same places, from the metadata in `ffi-c/Cargo.toml`.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::command::{self, cargo};
use crate::targets::{list, metadata, text};

/// Where things go.
#[derive(Debug)]
pub(crate) struct Places<'a> {
    /// The folder that they will be used from, such as `/usr/local`.
    pub(crate) prefix: &'a Path,
    /// A folder that stands before the prefix while they are put there, for makers of packages.
    pub(crate) destdir: Option<&'a Path>,
    /// The libraries' folder under the prefix.
    pub(crate) libdir: &'a Path,
}

impl Places<'_> {
    /// Where a file that will be used from `path` is put now.
    fn now(&self, path: &Path) -> PathBuf {
        match self.destdir {
            // Joining an absolute path would forget the first.
            Some(destdir) => destdir.join(path.strip_prefix("/").unwrap_or(path)),
            None => path.to_owned(),
        }
    }

    /// Fails unless this user may put files into every folder. It is asked before the build, which
    /// takes minutes.
    fn check(&self) -> Result<()> {
        let lib = self.prefix.join(self.libdir);
        let [headers, cmake] = ["include", CMAKE].map(|folder| self.prefix.join(folder));
        for folder in [lib.join("pkgconfig"), lib, headers, cmake] {
            let folder = self.now(&folder);
            let existing = nearest_that_exists(&folder);
            tempfile::tempfile_in(existing).with_context(|| {
                format!(
                    "cannot write into {}: run this as a user who may, or choose another folder by --prefix",
                    existing.display()
                )
            })?;
        }
        Ok(())
    }
}

/// The folder, or that of those around it which is there and will hold it.
fn nearest_that_exists(folder: &Path) -> &Path {
    folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("."))
}

/// Where CMake looks under a prefix.
const CMAKE: &str = "share/cmake/keytally";

/// Builds the libraries and puts everything there. Each file is told.
pub(crate) fn run(places: &Places<'_>, tell: impl Fn(&str)) -> Result<()> {
    ensure!(places.prefix.is_absolute(), "--prefix {} is not an absolute path", places.prefix.display());
    places.check()?;
    let version = version()?;
    let soname = soname(&version)?;
    let built = Built::new(&soname)?;

    let lib = places.prefix.join(places.libdir);
    let whole = format!("libkeytally.so.{version}");
    let put = |path: PathBuf, content: &[u8], mode: u32| {
        let path = places.now(&path);
        put(&path, content, mode)?;
        tell(&path.display().to_string());
        Ok::<(), anyhow::Error>(())
    };
    let link = |name: &str| {
        let path = places.now(&lib.join(name));
        link(&path, &whole)?;
        tell(&format!("{} -> {whole}", path.display()));
        Ok::<(), anyhow::Error>(())
    };
    put(lib.join(&whole), &built.shared, 0o755)?;
    link(&soname)?;
    link("libkeytally.so")?;
    put(lib.join("libkeytally.a"), &built.archive, 0o644)?;
    put(lib.join("pkgconfig/keytally.pc"), pc(places, &version, &built.libraries).as_bytes(), 0o644)?;
    for header in ["keytally.h", "keytally.hpp"] {
        put(places.prefix.join("include").join(header), &read(&Path::new("include").join(header))?, 0o644)?;
    }
    for file in ["keytallyConfig.cmake", "keytallyConfigVersion.cmake"] {
        let content = read(&Path::new("ffi-c/cmake").join(file))?;
        put(places.prefix.join(CMAKE).join(file), &content, 0o644)?;
    }
    Ok(())
}

/// The libraries, built.
struct Built {
    shared: Vec<u8>,
    archive: Vec<u8>,
    /// What a program that takes the archive is linked with besides.
    libraries: String,
}

impl Built {
    fn new(soname: &str) -> Result<Self> {
        let target = Path::new("target/install");
        let build = |kind: &str, arguments: &[&str]| {
            let mut rustc = cargo();
            rustc.args(["rustc", "--release", "--package", "keytally-ffi", "--lib", "--crate-type", kind]);
            rustc.arg("--target-dir").arg(target).arg("--").args(arguments);
            command::run(rustc)
        };
        let output = build("staticlib", &["--print", "native-static-libs"])?;
        let libraries = output
            .lines()
            .find_map(|line| line.split_once("native-static-libs: "))
            .context("rustc doesn't say what a static library needs")?;
        build("cdylib", &["-C", &format!("link-arg=-Wl,-soname,{soname}")])?;
        let built = target.join("release");
        Ok(Self {
            archive: archive_of_own_names(&built)?,
            shared: read(&built.join("libkeytally_ffi.so"))?,
            libraries: without_shared_unwinder(libraries.1),
        })
    }
}

/// What rustc says that an archive needs, without `libgcc_s`. Compilers link an unwinder by
/// themselves, and with `-static` there is no `libgcc_s`.
fn without_shared_unwinder(libraries: &str) -> String {
    libraries.split_whitespace().filter(|library| *library != "-lgcc_s").collect::<Vec<_>>().join(" ")
}

/// The archive in `folder`, in one piece that defines no names but those for C.
///
/// Rust's own library is in every static library that Rust makes. Two in one program would define
/// its names twice.
fn archive_of_own_names(folder: &Path) -> Result<Vec<u8>> {
    let [all, whole, own] =
        ["libkeytally_ffi.a", "keytally.o", "libkeytally.a"].map(|name| folder.join(name));
    let mut nm = Command::new("nm");
    nm.arg("--defined-only").arg(&all);
    let names = command::run(nm)?;
    // Groups of sections are named by names that are not ours alone.
    let mut ld = Command::new("ld");
    ld.args(["--relocatable", "--force-group-allocation"]);
    ld.args(exported(&names).map(|name| format!("--undefined={name}"))).arg(&all).arg("-o").arg(&whole);
    command::run(ld)?;
    let mut objcopy = Command::new("objcopy");
    objcopy.args(["--wildcard", "--keep-global-symbol=kt_*"]);
    // The compiler's notes to itself: joined, they are invalid, and tools that look into them stop.
    objcopy.args(["--remove-section=.llvmbc", "--remove-section=.llvmcmd"]).arg(&whole);
    command::run(objcopy)?;
    let _ = fs::remove_file(&own);
    let mut ar = Command::new("ar");
    ar.arg("rcs").arg(&own).arg(&whole);
    command::run(ar)?;
    read(&own)
}

/// The functions for C, from what `nm` prints.
pub(crate) fn exported(names: &str) -> impl Iterator<Item = &str> {
    names
        .lines()
        .filter_map(|line| line.split_once(" T "))
        .map(|(_, name)| name)
        .filter(|name| name.starts_with("kt_"))
}

/// The version of the library.
fn version() -> Result<String> {
    let metadata = metadata()?;
    let package = list(&metadata, "packages")?.iter().find(|package| package["name"] == "keytally-ffi");
    Ok(text(package.context("there is no package keytally-ffi")?, "version")?.to_owned())
}

/// What programs ask the loader for: until 1.0 every minor version is another library.
fn soname(version: &str) -> Result<String> {
    let mut parts = version.split('.');
    let mut part = || parts.next().context("a version has three parts");
    Ok(match (part()?, part()?) {
        ("0", minor) => format!("libkeytally.so.0.{minor}"),
        (major, _) => format!("libkeytally.so.{major}"),
    })
}

/// What pkg-config reads.
fn pc(places: &Places<'_>, version: &str, libraries: &str) -> String {
    format!(
        "prefix={}\n\
         exec_prefix=${{prefix}}\n\
         libdir=${{exec_prefix}}/{}\n\
         includedir=${{prefix}}/include\n\
         \n\
         Name: keytally\n\
         Description: API-key checks and rate limits in the server's own process\n\
         Version: {version}\n\
         Libs: -L${{libdir}} -lkeytally\n\
         Libs.private: {libraries}\n\
         Cflags: -I${{includedir}}\n",
        places.prefix.display(),
        places.libdir.display()
    )
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Writes a file beside its place and renames it, so that a program which runs the old one goes on.
fn put(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let fresh = beside(path)?;
    fs::write(&fresh, content).with_context(|| format!("cannot write {}", fresh.display()))?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(mode))?;
    fs::rename(&fresh, path).with_context(|| format!("cannot replace {}", path.display()))
}

fn link(path: &Path, target: &str) -> Result<()> {
    let fresh = beside(path)?;
    symlink(target, &fresh).with_context(|| format!("cannot make {}", fresh.display()))?;
    fs::rename(&fresh, path).with_context(|| format!("cannot replace {}", path.display()))
}

/// A name in the same folder, which is made, that nothing has.
fn beside(path: &Path) -> Result<PathBuf> {
    let folder = path.parent().context("a file without a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut name = path.file_name().context("a file without a name")?.to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let fresh = path.with_file_name(name);
    let _ = fs::remove_file(&fresh);
    Ok(fresh)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_for_the_loader_changes_when_programs_must() {
        assert_eq!(soname("0.1.7").unwrap(), "libkeytally.so.0.1");
        assert_eq!(soname("2.3.4").unwrap(), "libkeytally.so.2");
    }

    #[test]
    fn prefix_below_a_file_is_refused_before_the_build() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let prefix = file.path().join("prefix");
        let places = Places { prefix: &prefix, destdir: None, libdir: Path::new("lib") };
        let error = run(&places, |_| ()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot write into {}", file.path().display())), "{error}");
    }

    #[test]
    fn folders_are_made_in_the_nearest_that_exists() {
        for (folder, nearest) in
            [("/proc/self/no/such", "/proc/self"), ("src/no/such", "src"), ("no/such", ".")]
        {
            assert_eq!(nearest_that_exists(Path::new(folder)), Path::new(nearest));
        }
    }

    #[test]
    fn folders_are_not_made_before_the_build() {
        let folder = tempfile::tempdir().unwrap();
        let prefix = folder.path().join("prefix");
        Places { prefix: &prefix, destdir: None, libdir: Path::new("lib") }.check().unwrap();
        assert!(!prefix.exists());
    }

    #[test]
    fn shared_unwinder_is_not_asked_for() {
        assert_eq!(without_shared_unwinder(" -lgcc_s -lutil -lc"), "-lutil -lc");
    }

    #[test]
    fn functions_for_c_are_told_from_others() {
        let names =
            "a.o:\n0000000000000000 T kt_version\n0000000000000010 T memcpy\n                 U kt_other\n";
        assert_eq!(exported(names).collect::<Vec<_>>(), ["kt_version"]);
    }

    #[test]
    fn a_destdir_stands_before_the_prefix() {
        let (prefix, libdir) = (Path::new("/usr"), Path::new("lib"));
        let places = Places { prefix, destdir: Some(Path::new("/tmp/d")), libdir };
        assert_eq!(places.now(&prefix.join("include/a.h")), Path::new("/tmp/d/usr/include/a.h"));
        assert!(pc(&places, "0.1.0", "-lc").starts_with("prefix=/usr\n"));
        assert_eq!(Places { destdir: None, ..places }.now(prefix), prefix);
    }
}
