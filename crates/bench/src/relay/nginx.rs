//! nginx as a relay: `proxy_pass` with connections that are kept.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Worker processes. One and two were tried on two cores.
const WORKERS: usize = 2;

/// The binary, if it is installed. It may be where only root's PATH leads.
pub(super) fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(usual)
        .map(|directory| directory.join("nginx"))
        .find(|file| file.is_file())
}

/// A configuration that does nothing but relay: no log, no files, connections that are kept.
pub(super) fn config(listen: SocketAddr, to: SocketAddr, directory: &Path) -> String {
    let directory = directory.display();
    format!(
        "daemon off;
worker_processes {WORKERS};
pid {directory}/nginx.pid;
error_log {directory}/error.log crit;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    client_max_body_size 64m;
    client_body_buffer_size 2m;
    keepalive_requests 1000000000;
    tcp_nodelay on;
    upstream sink {{
        server {to};
        keepalive 64;
        keepalive_requests 1000000000;
    }}
    server {{
        listen {listen};
        location / {{
            proxy_pass http://sink;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
        }}
    }}
}}
"
    )
}
