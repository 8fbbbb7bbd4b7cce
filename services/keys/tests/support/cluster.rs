//! A cluster of PostgreSQL in a temporary folder, made with the programs that Debian's package
//! `postgresql` installs. `initdb` refuses to run as root, so root runs it as another user.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sqlx::Connection as _;
use tempfile::TempDir;

/// The user that runs the programs if root runs the test.
const USER: &str = "daemon";

/// A running cluster, which is stopped when dropped.
pub(crate) struct Cluster {
    folder: TempDir,
    programs: PathBuf,
}

/// Returns the folder of the programs of the newest version.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let folders = versions.map(|version| version.path().join("bin"));
    let newest = folders.filter(|folder| folder.join("initdb").exists()).max();
    newest.expect("there is no initdb; `cargo xtask test keys --install` installs PostgreSQL")
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let cluster = Self { folder: tempfile::tempdir().unwrap(), programs: programs() };
        let folder = cluster.folder.path();
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
        let data = folder.join("data");
        fs::create_dir(&data).unwrap();
        if is_root() {
            let output = Command::new("chown").args([USER]).arg(folder).arg(&data).output();
            assert!(output.unwrap().status.success());
        }
        cluster.run("initdb", &["--username=keytally", "--auth=trust", "--no-sync"]);
        cluster.control("start");
        cluster
    }

    /// Runs a program of PostgreSQL on the cluster.
    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let path = self.programs.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            command.args([&format!("--reuid={USER}"), "--clear-groups"]).arg(path);
            command
        } else {
            Command::new(path)
        };
        command.arg("--pgdata").arg(self.folder.path().join("data")).args(arguments);
        let output = command.current_dir(self.folder.path()).output().unwrap();
        assert!(output.status.success(), "{command:?}: {output:?}");
        output
    }

    pub(crate) fn control(&self, action: &str) {
        let folder = self.folder.path().display();
        let options =
            format!("-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off");
        let log = self.folder.path().join("log.txt");
        let (log, options) = (format!("--log={}", log.display()), format!("--options={options}"));
        self.run("pg_ctl", &[action, "--wait", "--mode=immediate", &log, &options]);
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://keytally@localhost/{database}?host={}", self.folder.path().display())
    }

    /// Makes a database, empty or as a copy of one that has no connections, and removes one of the
    /// same name before. Returns its URL.
    pub(crate) async fn database(&self, name: &str, copied: Option<&str>) -> String {
        sqlx::any::install_default_drivers();
        let mut connection = sqlx::AnyConnection::connect(&self.url("postgres")).await.unwrap();
        let template = copied.unwrap_or("template1");
        for command in [
            format!("drop database if exists {name} with (force)"),
            format!("create database {name} template {template}"),
        ] {
            sqlx::raw_sql(sqlx::AssertSqlSafe(command)).execute(&mut connection).await.unwrap();
        }
        connection.close().await.unwrap();
        self.url(name)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.folder.path().join("data/postmaster.pid").exists() {
            self.control("stop");
        }
    }
}

fn is_root() -> bool {
    Path::new("/proc/self").metadata().unwrap().uid() == 0
}
