//! `cargo xtask install` installs libkeytally under a prefix: its headers, its files for pkg-config
//! and CMake, and the completions and manual pages of the program. `cargo xtask archive` packs the
//! library.
//!
//! `cargo cinstall` of cargo-c installs the library, too, by the metadata in `ffi-c/Cargo.toml`. It
//! takes minutes to build, and its archive defines all names of Rust's standard library.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::command::{cargo, run};
use crate::targets::target_folder;

/// Copies a tree. An existing file is removed first, so that programs that use it keep it.
const COPY: &str = r#"umask 022; mkdir -p "$1"; cp -dR --remove-destination --verbose "$0/." "$1""#;

/// The folders below the prefix in which files are installed, except that of the libraries.
const FOLDERS: [&str; 6] = [
    "include",
    "share/cmake/keytally",
    "share/bash-completion/completions",
    "share/zsh/site-functions",
    "share/fish/vendor_completions.d",
    "share/man/man1",
];

/// A copy of the sources.
pub(crate) struct Sources<'a> {
    pub(crate) folder: &'a Path,
    /// cargo's folder for the libraries.
    pub(crate) target: &'a Path,
    /// Runs a command in the folder of the sources.
    pub(crate) run: &'a dyn Fn(Command) -> Result<String>,
}

/// Calls `action` with the sources of this program.
fn with_own_sources<T>(action: impl FnOnce(&Sources<'_>) -> Result<T>) -> Result<T> {
    let (folder, target) = (std::env::current_dir()?, target_folder()?.join("install"));
    action(&Sources { folder: &folder, target: &target, run: &|command| run(command) })
}

/// Builds the libraries and installs all files. Returns their paths, one per line.
pub(crate) fn install(prefix: &Path, destdir: Option<&Path>, libdir: &Path) -> Result<String> {
    ensure!(prefix.is_absolute(), "--prefix {} is not an absolute path", prefix.display());
    // Joining an absolute path would discard `destdir`.
    let relative = prefix.strip_prefix("/").unwrap_or(prefix);
    let root = destdir.map_or_else(|| prefix.to_owned(), |destdir| destdir.join(relative));
    check_writable(&FOLDERS.map(|folder| root.join(folder)))?;
    check_writable(&[root.join(libdir)])?;
    let staged = tempfile::tempdir()?;
    stage(staged.path(), libdir)?;
    let mut pages = cargo();
    pages.args(["run", "--quiet", "--package", "keytally-cli", "--example", "pages", "--"]);
    run(pages.arg(staged.path().join("share")))?;
    let copied = run(Command::new("sh").args(["-ec", COPY]).arg(staged.path()).arg(&root))?;
    let paths = copied.lines().filter_map(|line| Some(line.split_once("' -> '")?.1));
    let files = paths.map(|path| path.trim_end_matches('\'').replace("/./", "/"));
    Ok(files.filter(|file| !Path::new(file).is_dir()).map(|file| file + "\n").collect())
}

/// Checks that this user may write to these folders, before the build, which takes minutes.
fn check_writable(folders: &[PathBuf]) -> Result<()> {
    for folder in folders {
        let exists = |folder: &&Path| folder.exists();
        let existing = folder.ancestors().find(exists).unwrap_or(Path::new("."));
        tempfile::tempfile_in(existing).with_context(|| {
            format!(
                "cannot write to {}: run this as a user with permission, or choose another folder by --prefix",
                existing.display()
            )
        })?;
    }
    Ok(())
}

/// Packs the library of these sources in a folder, as [`pack`] does.
pub(crate) fn archive(folder: Option<&Path>) -> Result<String> {
    let folder = match folder {
        Some(folder) => folder.to_owned(),
        None => target_folder()?.join("dist"),
    };
    fs::create_dir_all(&folder)?;
    with_own_sources(|sources| pack(sources, &folder))
}

/// Packs the library in a folder, as an archive and as a package for Debian. Returns their paths.
/// The same sources and tools give the same bytes.
pub(crate) fn pack(sources: &Sources<'_>, folder: &Path) -> Result<String> {
    let staged = tempfile::tempdir()?;
    stage_from(sources, staged.path(), Path::new("lib"))?;
    let mut pack = Command::new("sh");
    pack.arg("ffi-c/packaging/pack.sh").arg(staged.path()).arg(folder);
    pack.arg(env!("CARGO_PKG_VERSION"));
    (sources.run)(pack)
}

/// Builds the libraries, and writes the files of the library to the folder `root`. All paths in
/// them are relative, so the folder may be moved.
pub(crate) fn stage(root: &Path, libdir: &Path) -> Result<()> {
    with_own_sources(|sources| stage_from(sources, root, libdir))
}

/// Does the work of [`stage`] for a copy of the sources.
fn stage_from(sources: &Sources<'_>, root: &Path, libdir: &Path) -> Result<()> {
    let soname = soname(env!("CARGO_PKG_VERSION"));
    build("cdylib", sources, &["-C", &format!("link-arg=-Wl,-soname,{soname}")])?;
    let output = build("staticlib", sources, &["--print", "native-static-libs"])?;
    let libraries = output.lines().find_map(|line| line.split_once("native-static-libs: "));
    let libraries = libraries.context("rustc did not print native-static-libs")?.1;
    let [shared, all, own] = ["libkeytally_ffi.so", "libkeytally_ffi.a", "libkeytally.a"]
        .map(|name| sources.target.join("release").join(name));
    let mut own_names = Command::new("sh");
    own_names.arg("ffi-c/packaging/own_names.sh").args([&all, &own]);
    (sources.run)(own_names)?;

    let lib = root.join(libdir);
    let whole = concat!("libkeytally.so.", env!("CARGO_PKG_VERSION"));
    let copy = |from: &Path, to: &Path, mode: u32| -> Result<()> {
        fs::create_dir_all(to.parent().unwrap_or(root))?;
        fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
        Ok(fs::set_permissions(to, fs::Permissions::from_mode(mode))?)
    };
    copy(&shared, &lib.join(whole), 0o755)?;
    copy(&own, &lib.join("libkeytally.a"), 0o644)?;
    for (from, to, file) in [
        ("include", "include", "keytally.h"),
        ("include", "include", "keytally.hpp"),
        ("ffi-c/cmake", "share/cmake/keytally", "keytallyConfig.cmake"),
        ("ffi-c/cmake", "share/cmake/keytally", "keytallyConfigVersion.cmake"),
    ] {
        copy(&sources.folder.join(from).join(file), &root.join(to).join(file), 0o644)?;
    }
    symlink(whole, lib.join(soname))?;
    symlink(whole, lib.join("libkeytally.so"))?;
    let template = fs::read_to_string(sources.folder.join("ffi-c/packaging/keytally.pc.in"))?;
    fs::create_dir(lib.join("pkgconfig"))?;
    let pc = template
        .replace("@UP@", &"/..".repeat(libdir.components().count() + 1))
        .replace("@LIBDIR@", &libdir.display().to_string())
        .replace("@VERSION@", env!("CARGO_PKG_VERSION"))
        // C compilers link an unwinder by themselves, and with `-static` there is no `libgcc_s`.
        .replace("@LIBRARIES@", libraries.replace("-lgcc_s", "").trim());
    Ok(fs::write(lib.join("pkgconfig/keytally.pc"), pc)?)
}

/// Builds a kind of the library, without the paths of this machine in it.
fn build(kind: &str, sources: &Sources<'_>, arguments: &[&str]) -> Result<String> {
    let flags = without_paths(sources.folder)?;
    let mut rustc = cargo();
    // In color, the list of libraries would contain escape codes.
    rustc.args(["--color", "never", "--config", &format!("build.rustflags={flags:?}")]);
    rustc.args(["rustc", "--release", "--package", "keytally-ffi", "--lib", "--crate-type", kind]);
    rustc.arg("--target-dir").arg(sources.target).arg("--").args(arguments);
    (sources.run)(rustc)
}

/// Returns the flags of rustc that replace the folders of the sources and of cargo in its output.
pub(crate) fn without_paths(sources: &Path) -> Result<[String; 2]> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(std::env::home_dir()?.join(".cargo"))).context("no home")?;
    Ok([(sources, "/keytally"), (&home, "/cargo")]
        .map(|(path, name)| format!("--remap-path-prefix={}={name}", path.display())))
}

/// Returns the soname, by which the loader finds the library. Before 1.0 each minor version has
/// another.
fn soname(version: &str) -> String {
    let parts = if version.starts_with("0.") { 2 } else { 1 };
    let version = version.split('.').take(parts).collect::<Vec<_>>();
    format!("libkeytally.so.{}", version.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soname_changes_with_incompatible_versions() {
        assert_eq!(soname("0.1.7"), "libkeytally.so.0.1");
        assert_eq!(soname("2.3.4"), "libkeytally.so.2");
    }

    #[test]
    fn prefix_below_a_file_is_an_error_before_the_build() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = install(&file.path().join("prefix"), None, Path::new("lib")).unwrap_err();
        let expected = format!("cannot write to {}", file.path().display());
        assert!(error.to_string().starts_with(&expected), "{error}");
    }

    #[test]
    fn folder_that_is_a_file_is_an_error_before_the_build() {
        for folder in FOLDERS {
            let prefix = tempfile::tempdir().unwrap();
            let file = prefix.path().join(folder);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, "").unwrap();
            let error = install(prefix.path(), None, Path::new("lib")).unwrap_err();
            let expected = format!("cannot write to {}", file.display());
            assert!(error.to_string().starts_with(&expected), "{folder}: {error}");
        }
    }
}
