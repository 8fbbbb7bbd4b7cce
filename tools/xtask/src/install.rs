//! `cargo xtask install`: installs libkeytally, its headers, and its files for pkg-config and CMake
//! under a prefix.
//!
//! `cargo cinstall` of cargo-c installs the same files, from the metadata in `ffi-c/Cargo.toml`.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::command::{self, cargo};

/// The folders of an installation.
#[derive(Debug)]
pub(crate) struct Destination<'a> {
    /// The folder from which the files will be used, such as `/usr/local`.
    pub(crate) prefix: &'a Path,
    /// A folder to install into in place of `/`, for package builds.
    pub(crate) destdir: Option<&'a Path>,
    /// The libraries' folder, relative to the prefix.
    pub(crate) libdir: &'a Path,
}

impl Destination<'_> {
    /// Returns the path to which a file is written that will be used from `path`.
    fn staged(&self, path: &Path) -> PathBuf {
        match self.destdir {
            // Joining an absolute path would discard `destdir`.
            Some(destdir) => destdir.join(path.strip_prefix("/").unwrap_or(path)),
            None => path.to_owned(),
        }
    }

    /// Checks that this user may write to all folders, before the build, which takes minutes.
    fn check(&self) -> Result<()> {
        let lib = self.prefix.join(self.libdir);
        let [headers, cmake] = ["include", CMAKE].map(|folder| self.prefix.join(folder));
        for folder in [lib.join("pkgconfig"), lib, headers, cmake] {
            let folder = self.staged(&folder);
            let existing = nearest_existing(&folder);
            tempfile::tempfile_in(existing).with_context(|| {
                format!(
                    "cannot write to {}: run this as a user with permission, or choose another folder by --prefix",
                    existing.display()
                )
            })?;
        }
        Ok(())
    }
}

/// Returns the folder, or its nearest ancestor that exists.
fn nearest_existing(folder: &Path) -> &Path {
    folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("."))
}

/// The folder in which CMake looks, relative to a prefix.
const CMAKE: &str = "share/cmake/keytally";

/// Builds the libraries and installs all files. Calls `report` with the path of each.
pub(crate) fn run(destination: &Destination<'_>, report: impl Fn(&str)) -> Result<()> {
    ensure!(
        destination.prefix.is_absolute(),
        "--prefix {} is not an absolute path",
        destination.prefix.display()
    );
    destination.check()?;
    let version = version();
    let soname = soname(&version)?;
    let built = Built::new(&soname)?;

    let lib = destination.prefix.join(destination.libdir);
    let whole = format!("libkeytally.so.{version}");
    let install = |path: PathBuf, content: &[u8], mode: u32| {
        let path = destination.staged(&path);
        replace(&path, content, mode)?;
        report(&path.display().to_string());
        Ok::<(), anyhow::Error>(())
    };
    let link = |name: &str| {
        let path = destination.staged(&lib.join(name));
        link(&path, &whole)?;
        report(&format!("{} -> {whole}", path.display()));
        Ok::<(), anyhow::Error>(())
    };
    install(lib.join(&whole), &built.shared, 0o755)?;
    link(&soname)?;
    link("libkeytally.so")?;
    install(lib.join("libkeytally.a"), &built.archive, 0o644)?;
    install(
        lib.join("pkgconfig/keytally.pc"),
        pc(destination, &version, &built.libraries).as_bytes(),
        0o644,
    )?;
    for header in ["keytally.h", "keytally.hpp"] {
        install(
            destination.prefix.join("include").join(header),
            &read(&Path::new("include").join(header))?,
            0o644,
        )?;
    }
    for file in ["keytallyConfig.cmake", "keytallyConfigVersion.cmake"] {
        let content = read(&Path::new("ffi-c/cmake").join(file))?;
        install(destination.prefix.join(CMAKE).join(file), &content, 0o644)?;
    }
    Ok(())
}

/// The built libraries.
struct Built {
    shared: Vec<u8>,
    archive: Vec<u8>,
    /// The libraries that a program with the archive must link, too.
    libraries: String,
}

impl Built {
    fn new(soname: &str) -> Result<Self> {
        let target = Path::new("target/install");
        let build = |kind: &str, arguments: &[&str]| {
            let mut rustc = cargo();
            rustc.args([
                "rustc",
                "--release",
                "--package",
                "keytally-ffi",
                "--lib",
                "--crate-type",
                kind,
            ]);
            rustc.arg("--target-dir").arg(target).arg("--").args(arguments);
            command::run(rustc)
        };
        let output = build("staticlib", &["--print", "native-static-libs"])?;
        let libraries = output
            .lines()
            .find_map(|line| line.split_once("native-static-libs: "))
            .context("rustc did not print native-static-libs")?;
        build("cdylib", &["-C", &format!("link-arg=-Wl,-soname,{soname}")])?;
        let built = target.join("release");
        Ok(Self {
            archive: archive_of_own_names(&built)?,
            shared: read(&built.join("libkeytally_ffi.so"))?,
            libraries: without_shared_unwinder(libraries.1),
        })
    }
}

/// Removes `libgcc_s` from the libraries that an archive needs. C compilers link an unwinder by
/// themselves, and with `-static` there is no `libgcc_s`.
fn without_shared_unwinder(libraries: &str) -> String {
    libraries
        .split_whitespace()
        .filter(|library| *library != "-lgcc_s")
        .collect::<Vec<_>>()
        .join(" ")
}

/// Returns the archive in `folder` as one object, which defines only the names for C.
///
/// Each static library of Rust contains Rust's standard library. Two in one program would define
/// its names twice.
fn archive_of_own_names(folder: &Path) -> Result<Vec<u8>> {
    let [all, whole, own] =
        ["libkeytally_ffi.a", "keytally.o", "libkeytally.a"].map(|name| folder.join(name));
    let mut nm = Command::new("nm");
    nm.arg("--defined-only").arg(&all);
    let names = command::run(nm)?;
    // Resolves the section groups, since other archives have groups of the same names.
    let mut ld = Command::new("ld");
    ld.args(["--relocatable", "--force-group-allocation"]);
    ld.args(exported(&names).map(|name| format!("--undefined={name}")))
        .arg(&all)
        .arg("-o")
        .arg(&whole);
    command::run(ld)?;
    let mut objcopy = Command::new("objcopy");
    objcopy.args(["--wildcard", "--keep-global-symbol=kt_*"]);
    // These sections are for the compiler only. Joined, they are invalid, and tools fail on them.
    objcopy.args(["--remove-section=.llvmbc", "--remove-section=.llvmcmd"]).arg(&whole);
    command::run(objcopy)?;
    let _ = fs::remove_file(&own);
    let mut ar = Command::new("ar");
    ar.arg("rcs").arg(&own).arg(&whole);
    command::run(ar)?;
    read(&own)
}

/// Returns the functions for C in the output of `nm`.
pub(crate) fn exported(names: &str) -> impl Iterator<Item = &str> {
    names
        .lines()
        .filter_map(|line| line.split_once(" T "))
        .map(|(_, name)| name)
        .filter(|name| name.starts_with("kt_"))
}

/// Returns the version of the library.
fn version() -> String {
    // All packages of the workspace have one version.
    env!("CARGO_PKG_VERSION").to_owned()
}

/// Returns the soname, by which the loader finds the library. Before 1.0 each minor version has
/// another.
fn soname(version: &str) -> Result<String> {
    let mut parts = version.split('.');
    let mut part = || parts.next().context("a version has three parts");
    Ok(match (part()?, part()?) {
        ("0", minor) => format!("libkeytally.so.0.{minor}"),
        (major, _) => format!("libkeytally.so.{major}"),
    })
}

/// Returns the content of the file for pkg-config.
fn pc(destination: &Destination<'_>, version: &str, libraries: &str) -> String {
    format!(
        "prefix={}\n\
         exec_prefix=${{prefix}}\n\
         libdir=${{exec_prefix}}/{}\n\
         includedir=${{prefix}}/include\n\
         \n\
         Name: keytally\n\
         Description: Embedded API-key checks and rate limits\n\
         Version: {version}\n\
         Libs: -L${{libdir}} -lkeytally\n\
         Libs.private: {libraries}\n\
         Cflags: -I${{includedir}}\n",
        destination.prefix.display(),
        destination.libdir.display()
    )
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Replaces a file by a rename, so that programs that use the old one keep it.
fn replace(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let fresh = temporary(path)?;
    fs::write(&fresh, content).with_context(|| format!("cannot write {}", fresh.display()))?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(mode))?;
    fs::rename(&fresh, path).with_context(|| format!("cannot replace {}", path.display()))
}

fn link(path: &Path, target: &str) -> Result<()> {
    let fresh = temporary(path)?;
    symlink(target, &fresh).with_context(|| format!("cannot create {}", fresh.display()))?;
    fs::rename(&fresh, path).with_context(|| format!("cannot replace {}", path.display()))
}

/// Returns an unused path in the folder of `path`, and creates this folder.
fn temporary(path: &Path) -> Result<PathBuf> {
    let folder = path.parent().context("a file without a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
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
    fn soname_changes_with_incompatible_versions() {
        assert_eq!(soname("0.1.7").unwrap(), "libkeytally.so.0.1");
        assert_eq!(soname("2.3.4").unwrap(), "libkeytally.so.2");
    }

    #[test]
    fn prefix_below_a_file_is_an_error_before_the_build() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let prefix = file.path().join("prefix");
        let destination = Destination { prefix: &prefix, destdir: None, libdir: Path::new("lib") };
        let error = run(&destination, |_| ()).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("cannot write to {}", file.path().display())),
            "{error}"
        );
    }

    #[test]
    fn nearest_existing_ancestor_is_found() {
        for (folder, nearest) in
            [("/proc/self/no/such", "/proc/self"), ("src/no/such", "src"), ("no/such", ".")]
        {
            assert_eq!(nearest_existing(Path::new(folder)), Path::new(nearest));
        }
    }

    #[test]
    fn check_creates_no_folders() {
        let folder = tempfile::tempdir().unwrap();
        let prefix = folder.path().join("prefix");
        Destination { prefix: &prefix, destdir: None, libdir: Path::new("lib") }.check().unwrap();
        assert!(!prefix.exists());
    }

    #[test]
    fn shared_unwinder_is_removed() {
        assert_eq!(without_shared_unwinder(" -lgcc_s -lutil -lc"), "-lutil -lc");
    }

    #[test]
    fn only_functions_for_c_are_exported() {
        let names = "a.o:\n0000000000000000 T kt_version\n0000000000000010 T memcpy\n                 U kt_other\n";
        assert_eq!(exported(names).collect::<Vec<_>>(), ["kt_version"]);
    }

    #[test]
    fn destdir_is_prepended_to_the_prefix() {
        let (prefix, libdir) = (Path::new("/usr"), Path::new("lib"));
        let destination = Destination { prefix, destdir: Some(Path::new("/tmp/d")), libdir };
        assert_eq!(
            destination.staged(&prefix.join("include/a.h")),
            Path::new("/tmp/d/usr/include/a.h")
        );
        assert!(pc(&destination, "0.1.0", "-lc").starts_with("prefix=/usr\n"));
        assert_eq!(Destination { destdir: None, ..destination }.staged(prefix), prefix);
    }
}
