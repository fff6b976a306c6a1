//! nginx: how fast files of this machine can go out over TLS.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lxd_tests::wire::free_port;

use crate::server::Server;

/// nginx on a directory of files, with the certificate of a daemon.
pub(crate) struct Nginx {
    process: Child,
    pub(crate) port: u16,
    _home: tempfile::TempDir,
}

impl Nginx {
    /// Serves these files at the root.
    pub(crate) fn start(server: &Server, files: &[(&str, &[u8])]) -> Result<Self> {
        let program = ["/usr/sbin/nginx", "/usr/bin/nginx"]
            .into_iter()
            .find(|path| std::path::Path::new(path).is_file())
            .context("no nginx: apt-get install --no-install-recommends nginx-light")?;
        let home = tempfile::Builder::new().prefix("nginx-").tempdir_in(server.dir())?;
        let (dir, port) = (home.path().display(), free_port());
        let keys = server.dir();
        for (name, bytes) in files {
            std::fs::write(home.path().join(name), bytes)?;
        }
        let configuration = format!(
            "daemon off; master_process off; pid {dir}/pid; error_log {dir}/error;\n\
             events {{ worker_connections 512; }}\n\
             http {{ access_log off; sendfile on; default_type application/octet-stream;\n\
             client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f;\n\
             uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;\n\
             server {{ listen 127.0.0.1:{port} ssl; root {dir}; ssl_certificate {0}/server.crt;\n\
             ssl_certificate_key {0}/server.key; ssl_protocols TLSv1.2 TLSv1.3; }} }}\n",
            keys.display()
        );
        // Two processes use both processors, as our daemon does.
        let configuration = configuration
            .replace("master_process off", "master_process on; worker_processes 2; user root");
        let file = home.path().join("nginx.conf");
        std::fs::write(&file, configuration)?;
        let mut command = Command::new(program);
        command.arg("-c").arg(&file).arg("-p").arg(home.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().context("cannot start nginx")?;
        let nginx = Self { process, port, _home: home };
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            ensure!(Instant::now() < deadline, "nginx does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(nginx)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The master ends its workers on SIGTERM; SIGKILL would leave them.
        let pid = rustix::process::Pid::from_child(&self.process);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.process.wait();
    }
}
